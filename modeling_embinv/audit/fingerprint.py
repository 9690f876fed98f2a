"""Whose vectors are these?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..configuration_embinv import EmbInvConfig
from ..data.vector_checks import sample_warnings, width_message
from ..inputs_embinv import Fingerprint
from ..vectors_embinv import unit_rows


@dataclass(frozen=True)
class Origin:
    """Whether vectors are those of a checkpoint's encoder.

    Attributes:
        model: the checkpoint.
        encoder: whose vectors it inverts.
        looks_like: what the vectors look like instead; None where they fit.
        notes: what else is odd about them: their length, whole numbers.
        has_width: whether they have as many numbers as the encoder's.
    """

    model: str
    encoder: str
    looks_like: str | None
    notes: tuple[str, ...] = ()
    has_width: bool = True

    def __str__(self) -> str:
        if self.looks_like is None:
            return f"the vectors fit {self.encoder}"
        return f"{self.model} inverts vectors of {self.encoder}; these look like {self.looks_like}"


def origin(model: str, config: EmbInvConfig, vectors: np.ndarray) -> Origin:
    """Compares vectors (n, D) with the fingerprint of a checkpoint's encoder."""
    encoder = config.encoder_id or "an unnamed encoder"
    width = vectors.shape[1]
    if width != config.embedding_dim:
        return Origin(model, encoder, width_message(width, config.embedding_dim, config.encoder_id), has_width=False)
    notes = tuple(sample_warnings(vectors, config.encoder_id))
    if config.encoder_fingerprint is None:
        return Origin(model, encoder, None, (*notes, "the checkpoint has no fingerprint, so that any encoder fits"))
    fingerprint = Fingerprint.from_text(config.encoder_fingerprint)
    unit = torch.from_numpy(unit_rows(vectors)[0])
    looks_like = fingerprint.mismatch(unit)  # a length other than 1 is a note, not another encoder
    return Origin(model, encoder, looks_like, notes)


def best(origins: Sequence[Origin]) -> Origin:
    """The first that fits, else the first."""
    return next((one for one in origins if one.looks_like is None), origins[0])
