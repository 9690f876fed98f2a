"""A short fine-tuning of a finished inverter on known pairs of text and vector."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import yaml

from ..configuration_embinv import EmbInvConfig
from ..data.encoders import Encoder
from ..data.files import write_text
from ..data.pairs import load_pairs
from ..data.prepare import prepare
from ..data.sources import Document
from ..errors_embinv import EmbInvError
from .assemble import train
from .config import TrainingConfig

# share of the pairs that decide which weights are kept; of few pairs as many as this, or half, as chance splits them
VALIDATION_SHARE, FEWEST = 0.2, 8
BATCH = 64
# updates between checkpoints: what a kill loses at most
SAVE_STEPS = 25


def fine_tune(
    model: str, config: EmbInvConfig, encoder: Encoder, texts: Sequence[str], vectors: np.ndarray, folder: Path,
    steps: int, seed: int = 0,
) -> Path:  # fmt: skip
    """Trains all but the token embeddings on pairs; killed and called again, it goes on where it was.

    A surrogate stays the encoder that it is. The trunk trains if the surrogate can follow it (`can_be_kept`).

    Args:
        model: folder or Hub id of the inverter; `config` is its configuration.
        encoder: whose vectors it inverts.
        texts: m texts; those longer than the inverter writes are left out.
        vectors: (m, D) their vectors as the attacker holds them.
        folder: of the pairs, the checkpoints and the trained inverter.
        steps: updates, of 64 texts each, or of all there are.
        seed: of the training.

    Returns:
        The folder of the weights that were best on the pairs held out.

    Raises:
        EmbInvError: pairs that are too few, or of another width.
    """
    best, length = folder / "run" / "best", config.max_sequence_length
    if (folder / "run" / "last").exists():
        return best
    pairs = (Document(text, text, vector) for text, vector in zip(texts, vectors, strict=True))
    share = max(VALIDATION_SHARE, min(0.5, FEWEST / max(1, len(texts))))
    try:
        rows = prepare(pairs, encoder, folder / "pairs", length, validation_share=share, show_progress=False)["rows"]
    except EmbInvError as error:
        message = f"these texts cannot be learned, those of at most {length - 1} tokens can be: {error}"
        raise EmbInvError(message) from error
    if not (rows["train"] and rows["validation"]):
        raise EmbInvError(
            f"{sum(rows.values())} of these {len(texts)} texts can be learned, different ones of at most "
            f"{length - 1} tokens: too few to train on some and hold others out."
        )
    settings = {name: value for name, value in asdict(encoder.config).items() if value is not None}
    write_text(folder / "encoder.yaml", yaml.safe_dump(settings))
    batch_size = min(BATCH, len(load_pairs(folder / "pairs", "train")))
    is_low = 0 < config.surrogate_rank < config.hidden_size  # a surrogate that cannot follow
    with _without_advice():
        train(
            TrainingConfig(
                output_dir=str(folder / "run"), encoder=str(folder / "encoder.yaml"), pairs=str(folder / "pairs"),
                init_from=model, max_sequence_length=length, causal_share=config.causal_share, freeze_backbone=is_low,
                embedding_rate=0, max_steps=steps, batch_size=batch_size, learning_rate=1e-4,
                warmup_steps=min(20, steps // 2), ema_decay=0.98, loss_weight="none", full_mask_share=0.15,
                # no text is written: the log must show none
                validation_size=64, generation_size=0, eval_steps=SAVE_STEPS, save_steps=SAVE_STEPS,
                keep_checkpoints=1, seed=seed,
            )
        )  # fmt: skip
    return best


@contextmanager
def _without_advice() -> Iterator[None]:
    """Training's warnings are about a checkpoint that somebody keeps; nobody keeps this one."""
    log = logging.getLogger(__package__)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
