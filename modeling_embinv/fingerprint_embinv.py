"""Whose vectors are these? A first test against the mean and variance of the encoder's own vectors."""

import base64
from dataclasses import dataclass

import torch
from torch import Tensor

# fewer vectors say too little about a variance
FEWEST = 100
# of all-MiniLM-L6-v2, texts of any kind and language have a spread below 1.2; random vectors have 1.9 on average, one
# in seven of them less than 1.35; those of multilingual-e5-small have 2.5
LARGEST_SPREAD = 1.35
# part of the mean variance that is added to each: a little noise in a dimension that is always 0 proves nothing
FLOOR = 0.01
LENGTH_TOLERANCE = 0.02


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
            ValueError: for a text that holds no fingerprint.
        """
        values = torch.frombuffer(bytearray(base64.b64decode(text, validate=True)), dtype=torch.float16).float()
        mean, deviation = values.chunk(2)
        return cls(mean, deviation.square())

    def to_text(self) -> str:
        """Base64 of mean and standard deviation in float16: one short line of a configuration file."""
        values = torch.cat([self.mean, self.variance.sqrt()]).half()
        return base64.b64encode(values.numpy().tobytes()).decode("ascii")

    def spread(self, vectors: Tensor) -> float:
        """Mean over texts and dimensions of (e − mean)² / variance, e (N, D): about 1 for the encoder's own."""
        variance = self.variance + FLOOR * self.variance.mean()
        return float(((vectors - self.mean).square() / variance).mean())

    def mismatch(self, vectors: Tensor) -> str | None:
        """What vectors (N, D), as they came, look like when they are not this encoder's; None when they fit."""
        vectors = vectors.detach().double().cpu()
        lengths = vectors.norm(dim=1)
        if self.spread((vectors / lengths[:, None]).float()) > LARGEST_SPREAD:
            return "random numbers, vectors of another encoder, or ones that were rotated or strongly noised"
        length = float(lengths.median())
        if abs(length - 1) <= LENGTH_TOLERANCE:
            return None
        if bool((vectors == vectors.round()).all()):
            return "whole numbers, as int8 quantisation leaves them"
        return f"sums or differences of vectors, or scaled ones: their length is {length:.3g}, not 1"
