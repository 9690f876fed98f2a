"""Whose vectors are these?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..configuration_embinv import EmbInvConfig
from ..data.vector_checks import sample_warnings, width_message
from ..fingerprint_embinv import LARGEST_SPREAD, Fingerprint
from ..vectors_embinv import unit_rows

# of 200 vectors of all-MiniLM-L6-v2 the effective dimension is 0.4 of that of random ones; under
# noise of 0.1 on every number 0.95, but their variances still correlate with the encoder's (0.27; rotated ones: 0.0)
RANDOM, RELATED = 0.9, 0.15
# fewer vectors say too little about a mean
FEWEST = 100
# share of rows, each judged by itself, from which on another encoder's are noted: of 12,000 held-out texts in ten
# languages none is called a stranger, of rotated vectors four in five are
STRANGERS = 0.02
# a mean as short as chance makes that of centred vectors
CENTRED = 1.1


@dataclass(frozen=True)
class Origin:
    """Whether vectors are those of a checkpoint's encoder.

    Attributes:
        model: the checkpoint; None where vectors are compared with an encoder's own.
        encoder: whose vectors it inverts.
        looks_like: what the vectors look like instead; None where they fit.
        notes: what else is odd about them: their length, whole numbers, their mean.
        has_width: whether they have as many numbers as the encoder's.
    """

    model: str | None
    encoder: str
    looks_like: str | None
    notes: tuple[str, ...] = ()
    has_width: bool = True

    def __str__(self) -> str:
        if self.looks_like is None:
            return f"the vectors fit {self.encoder}"
        expected = "expected" if self.model is None else f"{self.model} inverts"
        if not self.has_width:
            return f"{expected} vectors of {self.encoder}; the store has {self.looks_like}"
        return f"{expected} vectors of {self.encoder}; these look like {self.looks_like}"


def origin(model: str, config: EmbInvConfig, vectors: np.ndarray) -> Origin:
    """Compares vectors (n, D) with the fingerprint of a checkpoint's encoder."""
    text = config.encoder_fingerprint
    fingerprint = None if text is None else Fingerprint.from_text(text)
    found = Origin(model, config.encoder_id or "an unnamed encoder", None)
    return _compared(found, fingerprint, config.embedding_dim, vectors)


def encoder_origin(encoder: str, own: np.ndarray, vectors: np.ndarray) -> Origin:
    """Compares vectors (n, D) with an encoder's own of other texts.

    Of all-MiniLM-L6-v2's vectors of 44 kinds of texts in ten languages none looked foreign, by 900 English sentences.

    Args:
        encoder: its id.
        own: (m, D), of at least 100 texts.
        vectors: of the store.
    """
    return _compared(Origin(None, encoder, None), Fingerprint.of(torch.from_numpy(own)), own.shape[1], vectors)


def _compared(found: Origin, fingerprint: Fingerprint | None, dim: int, vectors: np.ndarray) -> Origin:
    width = vectors.shape[1]
    if width != dim:
        return replace(found, looks_like=width_message(width, dim), has_width=False)
    notes = tuple(sample_warnings(vectors, found.encoder))
    if fingerprint is None:
        return replace(found, notes=(*notes, "the checkpoint has no fingerprint, so that any encoder fits"))
    unit = unit_rows(vectors)[0]
    cut = trailing_zeros(unit)
    if cut:
        notes += (f"the last {cut} of {width} numbers are 0 in every row: vectors cut to their first {width - cut}",)
    # a length other than 1 is a note, not another encoder
    if fingerprint.mismatch(torch.from_numpy(unit)) is not None:
        return replace(found, looks_like=resemblance(fingerprint, unit), notes=notes)
    strangers = float((fingerprint.spreads(torch.from_numpy(unit)) > LARGEST_SPREAD).float().mean())
    if strangers > STRANGERS:
        notes += (
            f"at least {100 * strangers:.0f} % of the rows do not look like vectors of {found.encoder}: they are of "
            "another encoder, or noised; the figures are of all rows",
        )
    if is_centred(unit):
        notes += ("the mean of the vectors is 0, as if they had been centred, which spoils what comes back",)
    return replace(found, notes=notes)


def resemblance(fingerprint: Fingerprint, unit: np.ndarray) -> str:
    """What unit vectors (n, D) look like that are not those of a fingerprint."""
    if len(np.unique(np.abs(unit).round(6))) == 1:
        return "signs, as binary quantisation leaves them"
    count, width = unit.shape
    foreign = f"vectors of another encoder of {width} numbers, or of this one, rotated or in another order of numbers"
    if np.ptp(unit, axis=0).max() < 1e-6:
        return foreign if count == 1 else "copies of one vector"
    # the participation ratio of the spectrum; that of n random vectors of D numbers is nD / (n + D)
    spectrum = np.linalg.svd(unit - unit.mean(axis=0), compute_uv=False) ** 2
    ratio = spectrum.sum() ** 2 / (spectrum**2).sum() * (count + width) / (count * width)
    if np.corrcoef(unit.var(axis=0), fingerprint.variance.numpy())[0, 1] > RELATED:
        return "vectors of this encoder under strong noise"
    if ratio > RANDOM:
        return "random numbers"
    return foreign


def trailing_zeros(unit: np.ndarray) -> int:
    """How many of the last numbers are 0 in every row of (n, D)."""
    used = np.flatnonzero(unit.any(axis=0))
    return int(unit.shape[1] - 1 - used[-1]) if len(used) else 0


def is_centred(unit: np.ndarray) -> bool:
    """Whether the mean of unit vectors (n, D) is as short as that of centred ones; False for fewer than 100."""
    expected = np.sqrt(unit.var(axis=0).sum() / len(unit))
    return len(unit) >= FEWEST and bool(np.linalg.norm(unit.mean(axis=0)) < CENTRED * expected)


def best(origins: Sequence[Origin]) -> Origin:
    """The first that fits, else the first of the right width, else the first."""
    ranked = sorted(origins, key=lambda one: (one.looks_like is not None, not one.has_width))
    return ranked[0]
