"""Which words are in a text, by its vector alone: a probability for each word of the vocabulary."""

from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_embinv import EmbInvConfig
from .errors_embinv import EmbInvError
from .errors_embinv import is_whole
from .errors_embinv import shown
from .errors_embinv import warn
from .generation_config_embinv import evidence
from .generation_config_embinv import exact
from .inputs_embinv import check_embeddings
from .integrity_embinv import check_tokenizer
from .linear_embinv import linear
from .vocabulary_embinv import WordVocabulary

# vectors whose words are looked up at a time: each takes four bytes for every token of the vocabulary
ROWS = 256


class WordHead(nn.Module):
    """e → a logit for each token of the vocabulary: E · MLP(e) + b.

    E (V, H) is the trunk's table of token embeddings, which stays as it is. So words that are alike share what is
    learned, and the head is small. It needs no canvas, so texts may be as long as the encoder reads.
    """

    def __init__(self, config: EmbInvConfig) -> None:
        super().__init__()
        self.scale = config.embedding_dim**0.5  # entries of a unit vector then have a variance of about 1
        self.dense_in = nn.Linear(config.embedding_dim, config.word_head_size)
        self.dense_out = nn.Linear(config.word_head_size, config.hidden_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def initialize(self, std: float) -> None:
        """The first layer keeps the variance of e's entries."""
        init.normal_(self.dense_in.weight, std=self.dense_in.in_features**-0.5)
        init.zeros_(self.bias)

    def forward(self, embedding: Tensor, table: Tensor) -> Tensor:
        """Vectors (B, D) and the table (V, H) → logits (B, V)."""
        hidden = nn.functional.gelu(self.dense_in(self.scale * embedding.to(self.dense_in.weight.dtype)))
        return linear(self.dense_out(hidden), table.detach(), self.bias)


class WordsMixin:
    """Gives a model `words`."""

    config: Any
    device: Any
    dtype: Any
    generation_config: Any
    get_input_embeddings: Any
    word_head: WordHead | None
    _init_weights: Any
    _mismatch: Callable[[Any, torch.Size], str | None]

    def add_word_head(self, size: int) -> None:
        """Give the model a word head, untrained; one of that size stays as it is."""
        if self.config.word_head_size != size:
            self.config.word_head_size = size
            self.word_head = WordHead(self.config).to(self.device, self.dtype)
            self.word_head.apply(self._init_weights)

    def drop_word_head(self) -> None:
        """Take the word head away, as when the table of tokens has changed, or the encoder."""
        self.config.word_head_size, self.word_head = 0, None

    def word_logits(self, embedding: Tensor) -> Tensor:
        """Logits (B, V) of the tokens that are words of the texts, by unit vectors (B, D), which are not checked.

        It is differentiable: training calls it.

        Raises:
            EmbInvError: for a model without a word head.
        """
        if self.word_head is None:
            raise EmbInvError("this model has no word head; train one with word_head_size (configs/*_words.yaml).")
        return self.word_head(embedding, self.get_input_embeddings().weight)

    @torch.no_grad()
    def word_probabilities(self, embedding: Any, is_calibrated: bool = True) -> Tensor:
        """Probabilities (B, V) float32 that each token is a word of the text, on the model's device, without gradient.

        The calibration also weighs how many words are expected in the text. Within a text it keeps their order.
        `word_logits` is what gradients flow through.

        Args:
            embedding: vectors (B, D), or one (D,), as in `generate`.

        Raises:
            EmbInvError: for a model without a word head, and for vectors of another width, NaN, infinite or all-zero
                ones.
        """
        return self._word_probabilities(check_embeddings(embedding, self.config.embedding_dim), is_calibrated)

    def _word_probabilities(self, vectors: Tensor, is_calibrated: bool = True) -> Tensor:
        """The same of checked vectors (B, D)."""
        p = self.word_logits(vectors.to(self.device)).float().sigmoid()
        calibration = self.generation_config.calibration_of("words")
        if not is_calibrated or calibration.is_neutral:
            return p
        return calibration.weigh(word_evidence(p)).to(p.device)

    @torch.no_grad()
    def words(
        self, embeddings: Any, tokenizer: Any, threshold: float = 0.5, most: int | None = None
    ) -> list[list[tuple[str, float]]]:
        """The words that are in the texts of vectors, with a probability each.

        Of the words with a probability near 0.8, about eight in ten are in the text, where the checkpoint was
        calibrated for it. A word of several tokens is not in the vocabulary, so it is never named.

        Args:
            embeddings: vectors (B, D), or one (D,), as in `generate`.
            tokenizer: the model's.
            threshold: the least probability.
            most: of so many words at most; None for all.

        Returns:
            For each vector its words and their probabilities, the most probable first.

        Raises:
            EmbInvError: for a model without a word head, vectors or a tokenizer that are not its own, and a threshold
                or number out of range.
        """
        _check_bounds(threshold, most)
        check_tokenizer(self.config, tokenizer)
        vectors = check_embeddings(embeddings, self.config.embedding_dim)
        if mismatch := self._mismatch(embeddings, vectors.shape):
            warn(mismatch)
        vocabulary = WordVocabulary.of(tokenizer)
        is_word, found = vocabulary.masks[0], []
        for part in vectors.split(ROWS):
            p = self._word_probabilities(part).cpu().masked_fill(~is_word, -1.0)
            for row in p:
                index = (row >= threshold).nonzero().squeeze(1)
                best = index[row[index].argsort(descending=True, stable=True)][:most]
                words = [vocabulary.words[token] for token in best.tolist()]
                found.append(list(zip(words, row[best].tolist(), strict=True)))
        return found


def word_evidence(p: Tensor) -> Tensor:
    """What the calibration of words weighs, (B, V, 4), of probabilities (B, V): see `evidence`.

    The text's size is the number of words that are expected in it, at least one; no cosine is known.
    """
    p = exact(p)
    size = p.sum(dim=1, keepdim=True).clamp_min(1)
    p = p.clamp(1e-9, 1 - 1e-9)
    return evidence(p, size.expand_as(p), torch.zeros_like(p))


def _check_bounds(threshold: Any, most: Any) -> None:
    if isinstance(threshold, bool) or not isinstance(threshold, Real) or not 0 <= float(threshold) <= 1:
        raise EmbInvError(f"threshold must be a probability from 0 to 1, got {shown(threshold)}.")
    if most is not None and not is_whole(most, 1):
        raise EmbInvError(f"most must be a whole number of at least 1, or None for all words, got {shown(most)}.")
