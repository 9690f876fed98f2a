"""Whose vectors these are: the fingerprint of an encoder's vectors, and whether others look like it."""

import base64
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors_embinv import EmbInvError
from .errors_embinv import shown
from .inputs_embinv import as_rows
from .inputs_embinv import check_embeddings
from .vectors_embinv import are_whole
from .vectors_embinv import has_unit_length
from .vectors_embinv import unit_rows


# fewer vectors say too little about a variance
FEWEST = 100
# of all-MiniLM-L6-v2, texts of any kind and language have a spread below 1.2; random vectors have 1.9 on average, one
# in seven of them less than 1.35; those of multilingual-e5-small have 2.5
LARGEST_SPREAD = 1.35
# part of the mean variance that is added to each: a little noise in a dimension that is always 0 proves nothing
FLOOR = 0.01


@dataclass
class Fingerprint:
    """Mean (D,) and variance (D,) of an encoder's unit vectors, one number for each dimension.

    The mean vector alone does not do: it depends on the kind of text (manuals and other languages have a quarter of
    it), while the variances, and the dimensions that an encoder never uses, hardly do.
    """

    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, vectors: Tensor) -> "Fingerprint | None":
        """The fingerprint of unit vectors (N, D), or None for fewer than 100."""
        if len(vectors) < FEWEST:
            return None
        variance, mean = torch.var_mean(vectors.detach().float().cpu(), dim=0)
        return cls(mean, variance)

    @classmethod
    def from_text(cls, text: str) -> "Fingerprint":
        """The inverse of `to_text`.

        Raises:
            EmbInvError: for a text that holds no fingerprint.
        """
        try:
            halves = bytearray(base64.b64decode(text, validate=True))
            values = torch.frombuffer(halves, dtype=torch.float16).float()
        except (TypeError, ValueError):  # of base64, and of torch for no bytes or an odd number of them
            values = torch.empty(0)
        if not len(values) or len(values) % 2 or not values.isfinite().all():
            raise EmbInvError(
                f"encoder_fingerprint must be Base64 of `Fingerprint.to_text`, or null, got {shown(text)}."
            )
        mean, deviation = values.chunk(2)
        return cls(mean, deviation.square())

    def to_text(self) -> str:
        """Base64 of mean and standard deviation in float16: one short line of a configuration file."""
        values = torch.cat([self.mean, self.variance.sqrt()]).half()
        return base64.b64encode(values.numpy().tobytes()).decode("ascii")

    def spread(self, vectors: Tensor) -> float:
        """The mean of `spreads` of vectors (N, D)."""
        return float(self.spreads(vectors).mean())

    def spreads(self, vectors: Tensor) -> Tensor:
        """(N,): the mean over dimensions of (e − mean)² / variance, e (N, D): about 1 for the encoder's own."""
        variance = self.variance + FLOOR * self.variance.mean()
        return ((vectors - self.mean).square() / variance).mean(dim=1)

    def mismatch(self, vectors: Tensor) -> str | None:
        """What vectors (N, D), as they came, look like when they are not this encoder's; None when they fit.

        Raises:
            EmbInvError: for vectors of another width than the fingerprint's.
        """
        if vectors.shape[1] != len(self.mean):
            own, width = len(self.mean), vectors.shape[1]
            raise EmbInvError(f"encoder_fingerprint is of vectors of {own} numbers, these have {width}.")
        rows = vectors.detach().cpu().double().numpy()  # not every device has float64
        unit, lengths = unit_rows(rows)
        if self.spread(torch.from_numpy(unit)) > LARGEST_SPREAD:
            return "random numbers, vectors of another encoder, or ones that were rotated or strongly noised"
        length = np.median(lengths, keepdims=True)
        if has_unit_length(length).all():
            return None
        if are_whole(rows):
            return "whole numbers, as int8 quantisation leaves them"
        return f"sums or differences of vectors, or scaled ones: their length is {length[0]:.3g}, not 1"


class FingerprintMixin:
    """Gives a model `mismatch`."""

    config: Any

    def mismatch(self, embeddings: Any) -> str | None:
        """One line when vectors (N, D) look like none of the encoder that this model inverts, else None.

        A first test, by the fingerprint in the configuration; without one, or for no vectors, it says nothing.

        Raises:
            EmbInvError: as `generate`, for vectors of another width, NaN, infinite or all-zero ones, and where the
                configuration's fingerprint is none of such vectors.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that they are normalised is for `generate` to say
            checked = check_embeddings(embeddings, self.config.embedding_dim)
        return self._mismatch(embeddings, checked.shape)

    def _mismatch(self, embeddings: Any, shape: torch.Size) -> str | None:
        """`mismatch` of vectors that were checked, (N, D) in `shape`, as they came: their lengths count."""
        if self.config.encoder_fingerprint is None or not shape[0]:
            return None
        vectors = as_rows(embeddings, "embeddings").reshape(shape)
        looks = Fingerprint.from_text(self.config.encoder_fingerprint).mismatch(vectors)
        encoder = self.config.encoder_id or "one encoder"
        return looks and f"this model inverts vectors of {encoder}; these look like {looks}."

    def _mismatch_by_length(self, embeddings: Any, unit: Tensor) -> str | None:
        """What only the lengths of vectors tell: `generate` and `fill` say the rest of `unit` (N, D), their rows."""
        return None if self._mismatch(unit, unit.shape) else self._mismatch(embeddings, unit.shape)
