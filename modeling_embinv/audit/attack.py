"""What an attacker reads out of vectors, by what the attacker holds besides them."""

import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..data.files import json_rows
from ..inversion.dumps import invert_file
from ..modeling_embinv import EmbInvForMaskedDiffusion
from ..presets_embinv import NARROW
from ..progress.bar import stage
from ..progress.rates import counted
from ..stores.vectors import open_vectors
from ..vectors_embinv import unit_rows
from .embedding import MANY, embedded
from .public import public_sentences
from .sample import Sample

# the closed loop that an audit runs: what its published figures were measured with
SEARCH: dict[str, Any] = dict(NARROW)
# rows of a part, which is what an interruption loses at most
PART_ROWS = 16
# (m texts, (m, D) vectors as the attacker holds them, a folder for the work, updates) → a checkpoint that learned them
Retrain = Callable[[Sequence[str], np.ndarray, Path, int], EmbInvForMaskedDiffusion]


@dataclass(frozen=True)
class Tier:
    """An attacker.

    Attributes:
        name: as the report calls it.
        holds: what the attacker has, for the report.
        feedback: what judges texts: "none", "surrogate" or "encoder".
        settings: of `generate`.
        limit: rows of the sample that are attacked, at most; None = all.
    """

    name: str
    holds: str
    feedback: str = "surrogate"
    settings: dict[str, Any] = field(default_factory=lambda: dict(SEARCH))
    limit: int | None = None


VECTORS = Tier("vectors", "a copy of the vectors and a public checkpoint")
ENCODER = Tier(
    "encoder",
    "a copy of the vectors, a public checkpoint, and the encoder, to embed texts of their own",
    "encoder",
    limit=50,
)


@dataclass(frozen=True)
class Recovered:
    """What came back from the rows of a sample.

    Attributes:
        texts: n texts.
        confidence: n shares of tokens that the checkpoint expects to be right.
        cosine: n cosines of each text's vector with the row's, as the judge saw it; None without a judge.
        seconds: for all rows; None where an earlier run did a part of them.
    """

    texts: list[str]
    confidence: list[float]
    cosine: list[float] | None
    seconds: float | None


@dataclass
class Attacker:
    """A checkpoint, and the folder where its unfinished work lies.

    Attributes:
        model, tokenizer: the inverter's.
        work: a folder.
        encode: N texts → (N, D), where the encoder is at hand.
        retrain: fine-tunes the checkpoint, see `Retrain`; None = no attacker can.
        train_steps: updates by which those who know pairs fine-tune it; 0 = they do not.
        batch_size: vectors in one forward pass, at most `PART_ROWS`.
        seed: of sampling.
        show_progress: whether to show bars.
        seen: text → (D,) its vector, of those that were embedded.
        is_trained: whether the checkpoint was fine-tuned for this attacker, which leaves its confidence uncalibrated.
    """

    model: EmbInvForMaskedDiffusion
    tokenizer: PreTrainedTokenizerBase
    work: Path
    encode: Callable[..., Any] | None = None
    retrain: Retrain | None = None
    train_steps: int = 0
    batch_size: int = PART_ROWS
    seed: int = 0
    show_progress: bool = True
    seen: dict[str, np.ndarray] = field(default_factory=dict)
    is_trained: bool = False

    @cached_property
    def public_vectors(self) -> np.ndarray | None:
        """(600, D) the vectors of the public sentences; None without the encoder."""
        return None if self.encode is None else self.embedded(public_sentences())

    def embedded(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) the encoder's vectors of texts; each is embedded once."""
        assert self.encode is not None, "this needs the encoder"
        if new := [text for text in dict.fromkeys(texts) if text not in self.seen]:
            with stage(f"embedding {counted(len(new), 'text')}", self.show_progress and len(new) >= MANY):
                self.seen.update(zip(new, embedded(self.encode, new, self.show_progress), strict=True))
        return np.stack([self.seen[text] for text in texts])

    @property
    def vectors_tier(self) -> Tier:
        """The attacker with the vectors alone; a checkpoint without a surrogate can check nothing."""
        has_judge = self.model.surrogate is not None
        return VECTORS if has_judge else replace(VECTORS, feedback="none", settings={})

    def is_calibrated(self, tier: Tier) -> bool:
        """Whether the checkpoint's confidence in what it recovers for an attacker was fitted to held-out texts."""
        settings: Any = self.model.generation_config  # transformers declares its own class, without these settings
        without = "candidates" if settings.search.is_search else "open_loop"
        kind = without if tier.feedback == "none" else tier.feedback
        return not self.is_trained and settings.is_calibrated(kind)

    def trained_on(self, texts: Sequence[str], vectors: np.ndarray, name: str, steps: int) -> "Attacker":
        """The attacker with a checkpoint that was fine-tuned on pairs; interrupted, the training goes on where it was.

        Args:
            texts: m texts. vectors: (m, D), as `invert` will be given them.
            name: of the inversion that the checkpoint is for; one that is finished needs no checkpoint any more.
            steps: updates.
        """
        assert self.retrain is not None, "nothing fine-tunes"
        if (self.work / f"{name}.jsonl").exists():
            return replace(self, is_trained=True)
        with stage(f"fine-tuning the checkpoint on {counted(len(texts), 'text')} ({name})", self.show_progress):
            model = self.retrain(texts, vectors, self._training(name), steps)
        return replace(self, model=model, is_trained=True)

    def invert(self, sample: Sample, name: str, tier: Tier) -> Recovered:
        """Inverts the vectors of a sample; interrupted and called again, it goes on where it was.

        Args:
            sample: the rows.
            name: of the files in `work`; each sample and tier needs its own.
            tier: how they are attacked; "encoder" needs `encode`.
        """
        vectors, out, seconds = self.work / f"{name}.parquet", self.work / f"{name}.jsonl", None
        if not out.exists():
            sample._replace(vectors=unit_rows(sample.vectors)[0]).save(vectors)
            source = open_vectors(vectors, "vector", dim=self.model.config.embedding_dim)
            with (
                stage(f"inverting {counted(len(sample.rows), 'vector')} ({name})", self.show_progress),
                warnings.catch_warnings(),
            ):
                # whose vectors these are was said before, and defended ones are meant to look strange
                warnings.filterwarnings("ignore", message="this model inverts vectors of")
                stats = invert_file(
                    self.model, self.tokenizer, source, out, min(self.batch_size, PART_ROWS), tier.settings,
                    self.seed, self.show_progress, PART_ROWS, self._feedback(tier),
                )  # fmt: skip
            seconds = None if stats["resumed"] else stats["seconds"]
        shutil.rmtree(self._training(name), ignore_errors=True)  # hundreds of megabytes for each defence
        rows = [row for _, row in json_rows(out)]
        cosines = [row["cosine"] for row in rows]
        return Recovered(
            [row["text"] for row in rows],
            [row["confidence"] for row in rows],
            None if None in cosines else cosines,
            seconds,
        )

    def _training(self, name: str) -> Path:
        return self.work / f"{name}-training"

    def _feedback(self, tier: Tier) -> Callable[..., Any] | str | None:
        if tier.feedback == "encoder":
            assert self.encode is not None, "the tier needs the encoder"
            return self.encode
        return None if tier.feedback == "none" else tier.feedback
