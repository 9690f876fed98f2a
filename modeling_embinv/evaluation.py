"""Held-out evaluation: scores with bootstrap intervals, and floors beside them."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from sacrebleu.metrics import BLEU
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from . import metrics
from .batches import generator_for
from .canvas import encode_canvas
from .encoders import SentenceEncoder
from .modeling_embinv import EmbInvForMaskedDiffusion

RESAMPLES = 1000


@dataclass
class Score:
    """A mean and its 95 % bootstrap interval over texts."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


def bootstrap(values: Iterable[float], seed: int = 0) -> Score:
    """Mean of `values` (N) with the percentile interval of its resampled means."""
    values = np.asarray(list(values), dtype=np.float64)
    picks = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    means = values[picks].mean(axis=1)
    return Score(float(values.mean()), *(float(bound) for bound in np.percentile(means, [2.5, 97.5])))


def score_texts(
    recovered_ids: Tensor, recovered: list[str], target_ids: Tensor, target: list[str], cosines: Tensor, end_id: int
) -> dict[str, Score]:
    """All measures of N recovered texts: in percent, but for BLEU (0–100) and the cosine (−1–1).

    Args:
        recovered_ids, target_ids: (N, L). recovered, target: N texts. cosines: (N,) of the re-embedded texts.
        end_id: the end token.
    """
    corpus_bleu = BLEU().corpus_score(recovered, [target], n_bootstrap=RESAMPLES)
    return {
        "token accuracy": bootstrap(100 * metrics.token_accuracy(recovered_ids, target_ids, end_id)),
        "token F1": bootstrap(100 * np.array(metrics.token_f1(recovered, target))),
        "exact": bootstrap(100 * np.array(metrics.exact_match(recovered, target))),
        "BLEU": Score(corpus_bleu.score, corpus_bleu._mean - corpus_bleu._ci, corpus_bleu._mean + corpus_bleu._ci),
        "cosine": bootstrap(cosines),
    }


def evaluate(
    model: EmbInvForMaskedDiffusion,
    tokenizer: PreTrainedTokenizerBase,
    encoder: SentenceEncoder,
    texts: list[str],
    batch_size: int = 64,
    floors: bool = True,
    show_progress: bool = True,
    **settings,
) -> dict[str, dict[str, Score]]:
    """Invert the embeddings of held-out texts and score what comes back.

    Args:
        texts: what is longer than the model's canvas is cut before it is embedded.
        floors: score three stand-ins too, none of which reads the right vector: random tokens, the model under its
            null condition, and the model given the vector of the next text.
        settings: for `generate`.

    Returns:
        Scores by row: "inversion", and the floors.

    Raises:
        ValueError: when no text is left.
    """
    canvas = encode_canvas(encoder.tokenizer, texts, model.config.max_sequence_length)
    if not len(canvas.texts):
        raise ValueError("there is no text to evaluate on.")
    embeddings = encoder.encode(canvas.texts)
    runs = {"inversion": (embeddings, {})}
    if floors:
        runs["floor: vector of another text"] = (embeddings.roll(1, dims=0), {})
        runs["floor: null condition"] = (embeddings, {"guidance_scale": 0.0})
    rows = {}
    for name, (vectors, overrides) in runs.items():
        ids = _generate(model, vectors, batch_size, show_progress and name, {**settings, **overrides})
        rows[name] = _score(model, tokenizer, encoder, ids, canvas, embeddings)
    if floors:
        ids = _random_tokens(canvas.input_ids, model.config.eos_token_id, model.config.vocab_size)
        rows["floor: random tokens"] = _score(model, tokenizer, encoder, ids, canvas, embeddings)
    return rows


def _generate(model, vectors: Tensor, batch_size: int, progress: str | bool, settings: dict) -> Tensor:
    generator = generator_for(0)
    parts = tqdm(vectors.split(batch_size), desc=progress or None, disable=None if progress else True)
    return torch.cat([model.generate(part, generator=generator, **settings).sequences.cpu() for part in parts])


def _score(model, tokenizer, encoder: SentenceEncoder, ids: Tensor, canvas, embeddings: Tensor) -> dict[str, Score]:
    recovered = tokenizer.batch_decode(ids, skip_special_tokens=True)
    cosines = metrics.cosine(encoder.encode(recovered), embeddings)
    return score_texts(ids, recovered, canvas.input_ids, canvas.texts, cosines, model.config.eos_token_id)


def _random_tokens(target_ids: Tensor, end_id: int, vocab_size: int) -> Tensor:
    """Uniform tokens in texts of the right lengths: a floor that even knows when to stop."""
    draws = torch.randint(vocab_size, target_ids.shape, generator=generator_for(1))
    return torch.where(target_ids == end_id, target_ids, draws)
