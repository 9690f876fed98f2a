"""The data of a training run: prepared pairs, or spans and chunks of texts that are embedded as training goes."""

import hashlib
from pathlib import Path
from typing import Any

from accelerate.logging import get_logger

from ..data.batches import Batches, ChunkBatches, PairBatches, SpanBatches, held_out_pairs
from ..data.chunks import FEWEST, MOST, ChunkSampler
from ..data.encoders import Encoder
from ..data.pairs import MORE_TEXTS, load_pairs, prepared_with
from ..data.sources import read_texts, texts_digest
from ..data.spans import SpanSampler, TokenizedCorpus
from ..errors_embinv import EmbInvError
from ..integrity_embinv import vocabulary_checksum
from ..modeling_embinv import EmbInvForMaskedDiffusion
from .config import TrainingConfig
from .validation import ValidationSet

# held-out texts of which fewer say little of others
FEW_TEXTS = 64


def build_data(
    config: TrainingConfig, encoder: Encoder, model: EmbInvForMaskedDiffusion
) -> tuple[Batches, ValidationSet]:
    """Training batches and the validation set: from prepared pairs, or spans that are embedded as training goes."""
    batches: Batches
    noise = config.noise_of(model)
    _tell_ignored(config)
    if config.pairs is not None:
        prepared = _checked_length(config.pairs, encoder, model.config.eos_token_id)
        # the word head learns pairs of all lengths, as no canvas holds its texts
        length = prepared if config.word_head_size else config.length
        if prepared < length:
            raise EmbInvError(
                f"{config.pairs} was prepared with length {prepared}, this run wants {length}: prepare pairs with "
                f"--length {length}, or set max_sequence_length to {prepared}."
            )
        batches = PairBatches(load_pairs(config.pairs, "train"), model.config.eos_token_id, config.seed)
        _tell_left_out(batches, length)
        ids, embedding = held_out_pairs(config.pairs, length, config.validation_size)
        if len(ids) < min(config.validation_size, FEW_TEXTS):
            _tell_few(f"has {len(ids)} texts", MORE_TEXTS)
    else:
        batches = _spans(config, encoder, "train")
        ids, embedding = _spans(config, encoder, "validation").batch(0, config.validation_size)
    has_whole = any(config.shares) or config.surrogate_rank > 0  # batches of which noise makes no further rows
    texts = config.batch_size if has_whole else noise.texts_of(config.batch_size)
    for canvas in [] if config.word_head_size else config.canvases:
        batches.ids(0, texts, canvas)  # one that few texts fit would end a later update
    if config.bag_of_words_steps:
        batches.ids(0, config.bag_of_words_batch_size, config.length)
    known = config.generation_size, noise.schedule, config.pairs is not None
    return batches, ValidationSet(ids, embedding.cpu(), *known)  # an encoder leaves them on its device


def encoder_settings(encoder: Encoder) -> dict[str, str | None]:
    """What decides which vectors an encoder makes of texts, by the names in a manifest of pairs."""
    return {f"encoder_{key}": getattr(encoder.config, key) for key in ("id", "revision", "prompt", "task")}


def _spans(config: TrainingConfig, encoder: Encoder, split: str) -> SpanBatches:
    """Spans of the texts of a split; for the word head, whole chunks of them."""
    texts, column = config.texts or [], config.text_column
    # other texts, or changed ones, have a folder of their own in the cache
    cache = None if config.token_cache is None else Path(config.token_cache) / texts_digest(texts, column)
    corpus = TokenizedCorpus.build(read_texts(texts, column=column), encoder.vocabulary, cache, split)
    if split == "validation" and len(corpus) < min(config.validation_size, FEW_TEXTS):
        drawn = f"draws {config.validation_size:,} texts from {len(corpus)} held-out ones"
        _tell_few(drawn, "give more texts, or --pairs with a larger --validation-share")
    if config.word_head_size:
        return _chunks(config, encoder, corpus, split)
    sampler = SpanSampler(corpus, config.length, config.seed, whole_share=config.whole_share)
    return SpanBatches(sampler, encoder)


def _chunks(config: TrainingConfig, encoder: Encoder, corpus: TokenizedCorpus, split: str) -> SpanBatches:
    """Chunks of a corpus: a pool of them for training, and any for validation."""
    most = min(MOST, encoder.read_whole_texts())
    sampler = ChunkSampler(corpus, FEWEST, most, config.seed)
    if split != "train":
        return SpanBatches(sampler, encoder)
    texts = texts_digest(config.texts or [], config.text_column)
    key = texts, encoder.config, most, config.seed, ChunkBatches.piece_of(config.word_texts)
    name = hashlib.blake2b(repr(key).encode(), digest_size=8).hexdigest()
    return ChunkBatches(sampler, encoder, config.word_texts, Path(config.output_dir) / f"vectors-{name}")


def _tell_few(held_out: str, remedy: str) -> None:
    """A line where so few texts are held out that chance chooses the best checkpoint."""
    get_logger(__name__).warning("validation %s, too few to choose the best checkpoint by: %s.", held_out, remedy)


def _tell_ignored(config: TrainingConfig) -> None:
    """A line for each setting that was given for a kind of data, or a stage, which this run has not."""
    reasons = dict.fromkeys(("text_column", "token_cache", "whole_share"), "it is for texts, and these are pairs")
    reasons = {} if config.pairs is None else reasons
    if not (config.word_head_size and config.texts):
        reasons["word_texts"] = "it is for texts of the word head's stage"
    for name, reason in reasons.items():
        if getattr(config, name) != getattr(TrainingConfig, name):
            get_logger(__name__).warning("%s is ignored: %s.", name, reason)


def _tell_left_out(pairs: PairBatches, length: int) -> None:
    """A line where the canvas is too short for some of the training pairs."""
    if left_out := int((pairs.needed > length).sum()):
        get_logger(__name__).warning(
            "%s of %s training pairs are left out: longer than the canvas of %d tokens (max_sequence_length).",
            f"{left_out:,}", f"{len(pairs.needed):,}", length,
        )  # fmt: skip


def _checked_length(folder: str, encoder: Encoder, end_token_id: int) -> int:
    """The length that pairs were prepared with; raises EmbInvError where encoder or tokenizer are others."""
    own: dict[str, Any] = {**encoder_settings(encoder)}
    own |= {"embedding_dim": encoder.embedding_dim, "end_token_id": end_token_id}
    own["vocabulary"] = vocabulary_checksum(encoder.tokenizer)
    return int(prepared_with(own, folder, "this run wants")["length"])
