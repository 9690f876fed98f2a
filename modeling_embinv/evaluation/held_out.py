"""Held-out evaluation: what came back, measured text by text, and floors that do not invert the right vector."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..data.canvas import encode_canvas
from ..data.encoders import Encoder
from ..errors_embinv import EmbInvError
from ..modeling_embinv import EmbInvForMaskedDiffusion
from ..progress.bar import RowBar
from ..runtime import generator_for
from ..settings_embinv import SearchSettings, feedback_by_name
from ..texts_embinv import decode_rows, text_lengths
from . import metrics
from .intervals import share_interval
from .other_rows import other_rows

# of the bootstrap of BLEU and the cosine
RESAMPLES = 1000
# measures of a text from 0 to 100 %
SHARES = ("token accuracy", "token F1", "ROUGE-L", "exact")
# the interval of one text: resamples of it have no spread
_ALL_VALUES = {"cosine": (-1.0, 1.0), "BLEU": (0.0, 100.0)}


@dataclass
class Score:
    """A mean and its 95 % interval over texts.

    Of shares see `share_interval`. Of BLEU and the cosine it is a bootstrap, too narrow for few texts; of one text it
    is all values that there are.
    """

    mean: float
    low: float
    high: float

    def shown(self, digits: int) -> str:
        """The mean with its interval in brackets."""
        return f"{self.mean:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


@dataclass
class Recovered:
    """N texts that a method brought back.

    ids: (N, L) int64. texts: N. confidence: (N, L), None where the method has none. num_forward_passes: at most, for
    one text. seconds: for all of them. feedback_calls, surrogate_calls: texts that the encoder and the surrogate
    embedded, for one text on average.
    """

    ids: Tensor
    texts: list[str]
    confidence: Tensor | None = None
    num_forward_passes: int = 0
    seconds: float = 0.0
    feedback_calls: float = 0.0
    surrogate_calls: float = 0.0


@dataclass
class Measures:
    """What was measured of N texts: (N,) values by name, in percent but for the cosine, and BLEU's counts (N, 10).

    Where no original has four words, there is no BLEU.
    """

    by_text: dict[str, np.ndarray]
    bleu_counts: np.ndarray | None = None

    def scores(self, rows: np.ndarray | None = None, seed: int = 0) -> dict[str, Score]:
        """Means and intervals over `rows` (indexes or a mask; all by default)."""
        chosen = slice(None) if rows is None else rows
        picked = {name: values[chosen] for name, values in self.by_text.items()}
        size = len(next(iter(picked.values())))
        picks = np.random.default_rng(seed).integers(size, size=(RESAMPLES, size))
        scores = {
            name: _share(values, seed) if name in SHARES else _score(values.mean(), values[picks].mean(axis=1))
            for name, values in picked.items()
        }
        if self.bleu_counts is not None and metrics.has_four_words(counts := self.bleu_counts[chosen]):
            # corpus BLEU is no mean of texts: each resample sums its texts' counts
            resampled = [metrics.bleu_of_counts(counts[pick].sum(axis=0)) for pick in picks]
            scores["BLEU"] = _score(metrics.bleu_of_counts(counts.sum(axis=0)), resampled)
        if size == 1:
            scores |= {name: Score(scores[name].mean, *_ALL_VALUES[name]) for name in scores.keys() & _ALL_VALUES}
        return scores

    def means(self) -> dict[str, float]:
        """Means alone."""
        means = {name: float(values.mean()) for name, values in self.by_text.items()}
        if self.bleu_counts is None or not metrics.has_four_words(self.bleu_counts):
            return means
        return means | {"BLEU": metrics.bleu_of_counts(self.bleu_counts.sum(axis=0))}


def _share(percent: np.ndarray, seed: int) -> Score:
    low, high = share_interval(percent / 100, np.ones(len(percent)), seed)
    return Score(float(percent.mean()), 100 * low, 100 * high)


def _score(mean: float, resampled: np.ndarray | Sequence[float]) -> Score:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Score(float(mean), float(low), float(high))


class HeldOut:
    """Held-out texts with their vectors, and the methods that are tried on them.

    Args:
        input_ids: (N, L). embeddings: (N, D). texts: N, as `input_ids` decodes.
    """

    def __init__(
        self,
        model: EmbInvForMaskedDiffusion,
        tokenizer: PreTrainedTokenizerBase,
        encoder: Encoder,
        input_ids: Tensor,
        embeddings: Tensor,
        texts: list[str],
    ) -> None:
        self.model, self.tokenizer, self.encoder = model, tokenizer, encoder
        self.input_ids, self.embeddings, self.texts = input_ids, embeddings, texts
        self.end = model.config.eos_token_id

    @classmethod
    def of_texts(
        cls,
        model: EmbInvForMaskedDiffusion,
        tokenizer: PreTrainedTokenizerBase,
        encoder: Encoder,
        texts: list[str],
    ) -> tuple["HeldOut", list[int]]:
        """Embed texts, cut to the model's canvas; also returns which of them are left (`encode_canvas` drops some).

        Raises:
            EmbInvError: when none is left.
        """
        canvas = encode_canvas(encoder.vocabulary, texts, model.config.max_sequence_length)
        if not canvas.texts:
            raise EmbInvError(
                "there is no text to evaluate on: the encoder's tokenizer can give none of these texts back from its "
                "tokens, as where it does not know a character."
            )
        embeddings = encoder.encode(canvas.texts)
        return cls(model, tokenizer, encoder, canvas.input_ids, embeddings, canvas.texts), canvas.kept

    @property
    def lengths(self) -> np.ndarray:
        """(N,) tokens of each text."""
        return text_lengths(self.input_ids, self.end).numpy()

    def invert(
        self, vectors: Tensor | None = None, batch_size: int = 64, progress: str | None = None, **settings: Any
    ) -> Recovered:
        """What `generate` makes of the texts' vectors, or of `vectors` (N, D) in their place.

        Args:
            progress: the name of a bar; None = no bar.
            settings: of `generate`; `feedback` is "encoder", "surrogate" or "none".
        """
        feedback = feedback_by_name(settings.pop("feedback", None), lambda: self.encoder.encode)
        settings |= {"feedback": feedback, "tokenizer": self.tokenizer}
        vectors = self.embeddings if vectors is None else vectors
        generator, start = generator_for(0), time.perf_counter()
        outputs = []
        with RowBar(len(vectors), progress is not None, leave=False, name=progress or "") as bar:
            for part in vectors.split(batch_size):
                on_round = partial(bar.show_round, batch=len(part))
                outputs.append(self.model.generate(part, generator=generator, on_round=on_round, **settings))
                bar.reach(bar.reached + len(part))
        seconds = time.perf_counter() - start
        length = self.input_ids.shape[1]
        ids = torch.cat([_full_width(output.sequences.cpu(), length, self.end) for output in outputs])
        confidence = torch.cat([_full_width(output.confidence.cpu(), length, 0) for output in outputs])
        passes = max(output.num_forward_passes for output in outputs)
        count = max(len(vectors), 1)
        calls, surrogate_calls = (
            sum(getattr(output, name) or 0 for output in outputs) / count
            for name in ("num_feedback_calls", "num_surrogate_calls")
        )
        return Recovered(ids, self._decode(ids), confidence, passes, seconds, calls, surrogate_calls)

    def check(self, **settings: Any) -> None:
        """Finds settings that `invert` refuses, without inverting anything.

        Raises:
            EmbInvError: they are impossible, do not fit the model, or need an encoder that cannot be called.
        """
        if settings.get("feedback") == "encoder":
            self.encoder.encode(self.texts[:1])
        self.invert(self.embeddings[:0], **settings)  # `generate` checks its arguments for no vectors, too

    def other_text(self, **settings: Any) -> Recovered | None:
        """Floor: the model reads the vector of the text before, copies passed over; None where all are alike."""
        others = other_rows([tuple(row) for row in self.input_ids.tolist()], step=-1)
        return self.invert(self.embeddings[others], **settings) if others else None

    def no_vector(self, **settings: Any) -> Recovered:
        """Floor: the model reads no vector: fluent, but blind. It does not search: a judge would know the vector."""
        dropped = {*SearchSettings.table(), "search", "feedback", "guidance_scale"}
        plain = {name: value for name, value in settings.items() if name not in dropped}
        return self.invert(**plain, search=SearchSettings(), guidance_scale=0.0)

    def random_tokens(self) -> Recovered:
        """Floor: uniform tokens in texts of the right lengths, so that it even knows when to stop."""
        draws = torch.randint(self.model.config.vocab_size, self.input_ids.shape, generator=generator_for(1))
        ids = torch.where(self.input_ids == self.end, self.input_ids, draws)
        return Recovered(ids, self._decode(ids))

    def nearest_training_text(self, pairs: Any, chunk_size: int = 16384) -> Recovered:
        """Floor: the training text whose vector is nearest by cosine.

        A method that does not beat it has memorised, not inverted. The text may be longer than the canvas of the
        held-out texts; only its ids, which token accuracy compares, are cut.

        Args:
            pairs: training pairs, see `data.load_pairs`.
        """
        start = time.perf_counter()
        best = torch.full((len(self.texts),), -torch.inf)
        index = torch.zeros(len(self.texts), dtype=torch.int64)
        columns = pairs.select_columns(["embedding"]).with_format("numpy")
        for first in range(0, len(pairs), chunk_size):
            known = torch.from_numpy(np.asarray(columns[first : first + chunk_size]["embedding"], dtype=np.float32))
            similarity, column = (self.embeddings @ known.T).max(dim=1)
            index = torch.where(similarity > best, first + column, index)
            best = torch.maximum(best, similarity)
        ids = torch.tensor(np.asarray(pairs.with_format("numpy")[index.tolist()]["input_ids"], dtype=np.int64))
        texts = self._decode(ids)
        ids = _full_width(ids, self.input_ids.shape[1], self.end)
        return Recovered(ids, texts, seconds=time.perf_counter() - start)

    def measure(self, recovered: Recovered) -> Measures:
        """Every measure of every text; the encoder, if it can be called, gives the cosine."""
        ours, theirs = recovered.texts, self.texts
        by_text = {
            "token accuracy": 100 * metrics.token_accuracy(recovered.ids, self.input_ids, self.end).numpy(),
            "token F1": 100 * np.array(metrics.token_f1(ours, theirs)),
            "ROUGE-L": 100 * np.array(metrics.rouge_l(ours, theirs)),
            "exact": 100 * np.array(metrics.exact_match(ours, theirs)),
        }
        if self.encoder.can_encode:
            by_text["cosine"] = metrics.cosine(self.encoder.encode(ours), self.embeddings).cpu().numpy()
        return Measures(by_text, metrics.bleu_counts(ours, theirs))

    def _decode(self, ids: Tensor) -> list[str]:
        return decode_rows(self.tokenizer, ids, self.end)


def _full_width(rows: Tensor, length: int, value: int) -> Tensor:
    """Rows of `length`: cut, or filled with `value`."""
    return torch.nn.functional.pad(rows[:, :length], (0, max(length - rows.shape[1], 0)), value=value)
