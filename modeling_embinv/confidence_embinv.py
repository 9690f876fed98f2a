"""From the probability with which a token was written to the probability that it is right."""

import math
from dataclasses import dataclass
from dataclasses import fields

import torch
from torch import Tensor

from .diffusion_embinv import text_positions

# what a confidence rests on: the sampler alone, likelihoods of several candidates, or a search with a judge
KINDS = ("open_loop", "candidates", "surrogate", "encoder")
# cosines nearer to 1 than this differ by rounding
NEAREST = 1e-4


@dataclass(frozen=True)
class Calibration:
    """P(a token is right) = σ(probability · logit p + length · log n + nearness · d + bias) (Platt, 1999).

    p is the probability that the model gave the token, n the number of tokens of its text with the end token, and
    d = −log10(1 − cosine + 1e-4) says how near the text's vector came to e, where a search knows that. A right token
    stands at its own position, which is harder in longer texts. `embinv calibrate` fits the four numbers on held-out
    texts; by default p stays as it is. p = 0 (masked) and p = 1 (given by the user) always do.
    """

    probability: float = 1.0
    length: float = 0.0
    nearness: float = 0.0
    bias: float = 0.0

    def __post_init__(self):
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{name} of a calibration must be a finite number, got {value!r}.")
        if self.probability <= 0:
            raise ValueError(f"probability of a calibration must be above 0, got {self.probability}.")

    def __call__(self, confidence: Tensor, ids: Tensor, end_token_id: int, cosine: Tensor | None = None) -> Tensor:
        """Calibrated confidence (B, L) of p (B, L) for texts ids (B, L) whose vectors have `cosine` (B,) with e."""
        if self == Calibration():
            return confidence
        size = text_positions(ids, end_token_id).sum(dim=1, keepdim=True)
        cosine = torch.zeros(len(ids), device=ids.device) if cosine is None else cosine
        return self.weigh(evidence(confidence, size.expand_as(ids), cosine[:, None].expand_as(confidence)))

    def weigh(self, evidence: Tensor) -> Tensor:
        """Calibrated confidence (…) float32 of `evidence` (…, 4)."""
        weights = [self.probability, self.length, self.nearness, self.bias]
        return torch.sigmoid(evidence @ evidence.new_tensor(weights)).float()


def evidence(confidence: Tensor, size: Tensor, cosine: Tensor) -> Tensor:
    """What a calibration weighs, (…, 4) float64: logit p, log n, nearness d and 1; all arguments (…)."""
    nearness = -torch.log10((1 - cosine.double()).clamp_min(0) + NEAREST)
    columns = torch.logit(confidence.double()), size.double().log(), nearness, torch.ones_like(nearness)
    return torch.stack(columns, dim=-1)
