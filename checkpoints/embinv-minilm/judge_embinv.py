"""What ranks the texts of a search: the encoder, or the model's surrogate of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .hypotheses_embinv import repeated

# texts whose vectors are kept, 200 MB of 384 numbers each
MOST_KNOWN = 2**17


@dataclass
class Judge:
    """What embeds the texts of a search and so ranks them; a text that comes again is not embedded again.

    embed: ids (N, L) → vectors (N, D). likelihood_weight: λ of the score; above 0 it keeps the search from texts that
    are none and deceive a surrogate. kind: "encoder" or "surrogate". stop_cosine: a vector whose text has this cosine
    leaves the search; none by default. num_calls: texts embedded so far. known: the vector (D,) of each, by the bytes
    of its ids.
    """

    embed: Callable[[Tensor], Tensor]
    likelihood_weight: float
    kind: str = "encoder"
    stop_cosine: float = math.inf
    num_calls: int = 0
    known: dict[bytes, Tensor] = field(default_factory=dict, repr=False)

    def vectors(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(A, K, D) of texts (A, K, L), and (A, K) bool, which of them stand further left, too."""
        unique, index = ids.flatten(0, 1).unique(dim=0, return_inverse=True)  # edits are often the same
        index = index.view(ids.shape[:2])
        return self._embedded(unique)[index], repeated(index[..., None])

    def _embedded(self, ids: Tensor) -> Tensor:
        """(N, D) of different texts (N, L): a fifth of a search's edits were there in an earlier round."""
        texts = [row.tobytes() for row in ids.cpu().numpy()]
        new = [number for number, text in enumerate(texts) if text not in self.known]
        if new:
            vectors = self.embed(ids[new]).to(ids.device, torch.float32)
            self.num_calls += len(new)
            if len(self.known) > MOST_KNOWN:  # memory has an end
                self.known = {text: self.known[text] for text in texts if text in self.known}
            self.known.update(zip([texts[number] for number in new], vectors, strict=True))
        return torch.stack([self.known[text] for text in texts])

    def cosine(self, ids: Tensor, embeddings: Tensor) -> Tensor:
        """(B,) cosine of the vectors of texts (B, L) with e (B, D)."""
        if not len(ids):
            return embeddings.new_zeros(0)
        vectors, _ = self.vectors(ids[:, None])
        return torch.nn.functional.cosine_similarity(vectors[:, 0], embeddings, dim=-1)


def stop_cosine(judge: Judge | None) -> float:
    """The cosine of a text that has reached its vector; without a judge no cosine is known, and none has."""
    return math.inf if judge is None else judge.stop_cosine
