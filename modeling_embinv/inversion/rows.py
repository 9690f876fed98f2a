"""Invert vectors, a few at a time."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..data.content_words import masked
from ..data.flags import LARGEST_BATCH
from ..errors_embinv import EmbInvError, warn
from ..hypotheses_embinv import SearchRound
from ..inputs_embinv import check_embeddings
from ..modeling_embinv import EmbInvForMaskedDiffusion
from ..runtime import generator_for
from ..texts_embinv import WrittenText, written_texts
from ..verdicts_embinv import TEXT_VERDICTS, verdict_of


class Inversion(NamedTuple):
    """One vector's text.

    Attributes:
        row: the vector's number in its source, from 0.
        id: what its source calls it, or None.
        text: what was recovered from it.
        confidence: arithmetic mean of `token_confidence`: the share of tokens that the model expects to be right.
        cosine: of the text's vector with the given one by what checks it (`feedback`); None without that.
        verdict: what the cosine says, a key of `TEXT_VERDICTS`, and verdict_in_words: its sentence; None without one.
        tokens: the text's tokens, as its tokenizer's vocabulary spells them.
        token_confidence: the model's probability of each token when it was written.
    """

    row: int
    id: str | None
    text: str
    confidence: float
    cosine: float | None
    verdict: str | None
    verdict_in_words: str | None
    tokens: list[str]
    token_confidence: list[float]

    def redacted(self) -> "Inversion":
        """The same with its content words masked, and without its tokens, which would tell them."""
        return self._replace(text=masked(self.text), tokens=[], token_confidence=[])


def invert_vectors(
    model: EmbInvForMaskedDiffusion,
    tokenizer: PreTrainedTokenizerBase,
    vectors: NDArray[np.floating[Any]] | Tensor,
    batch_size: int = 64,
    settings: dict[str, Any] | None = None,
    seed: int = 0,
    first_row: int = 0,
    feedback: Callable[..., Any] | str | None = None,
    on_round: Callable[[SearchRound, int], None] | None = None,
) -> Iterator[Inversion]:
    """Inverts vectors, batch by batch as the iterator advances.

    Sampling depends on the seed, `first_row` and a vector's position, not on the batch size; another batch size can
    still tip a near-tie between two tokens by rounding, and does so more often in int8.

    Args:
        vectors: (N, D) floating-point numbers; all are checked before the first one is inverted.
        batch_size: vectors in one forward pass, at most `LARGEST_BATCH`.
        settings: arguments of `EmbInvGenerationConfig` that differ from the model's own.
        seed: of sampling.
        first_row: the number of `vectors[0]` in its source.
        feedback: "surrogate", or an encoder, N texts → (N, D); it checks candidates and corrections, see `generate`.
        on_round: called with each round of a search, and with the number of vectors in its batch.

    Raises:
        EmbInvError: wrong width, NaN, infinity or zeros (the message names the row), or impossible settings.
    """
    if not 1 <= batch_size <= LARGEST_BATCH:
        raise EmbInvError(f"batch_size must be from 1 to {LARGEST_BATCH:,}, got {batch_size}")
    checked = check_embeddings(vectors, model.config.embedding_dim, first_row)
    if mismatch := model._mismatch_by_length(vectors, checked):
        warn(mismatch)
    generator = generator_for(seed, first_row)
    settings = {**(settings or {}), "feedback": feedback, "tokenizer": tokenizer}
    judge = "surrogate" if isinstance(feedback, str) else "encoder"
    for start in range(0, len(checked), batch_size):
        batch = checked[start : start + batch_size]
        report = None if on_round is None else partial(_report, on_round, len(batch))
        output = model.generate(batch, generator=generator, on_round=report, **settings)
        ids, confidence = output["sequences"], output["confidence"]
        texts = written_texts(tokenizer, ids, confidence, model.config.eos_token_id)
        cosines = [None] * len(batch) if output.cosine is None else output.cosine.tolist()
        for row, (text, cosine) in enumerate(zip(texts, cosines, strict=True), first_row + start):
            yield _inversion(row, text, cosine, judge)


def _report(on_round: Callable[[SearchRound, int], None], size: int, one: SearchRound) -> None:
    on_round(one, size)


def _inversion(row: int, text: WrittenText, cosine: float | None, judge: str) -> Inversion:
    verdict = None if cosine is None else verdict_of(cosine, judge)
    return Inversion(
        row=row,
        id=None,
        text=text.text,
        confidence=round(text.confidence, 4),
        cosine=None if cosine is None else round(cosine, 4),
        verdict=verdict,
        verdict_in_words=None if verdict is None else TEXT_VERDICTS[verdict],
        tokens=text.tokens,
        token_confidence=[round(value, 4) for value in text.token_confidence],
    )
