"""A training run's parts: the model, the data, and which loop they go into."""

import dataclasses
import hashlib
import json
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..causal_embinv import check_prefix
from ..data.batches import Batches, ChunkBatches, PairBatches, SpanBatches, held_out_pairs
from ..data.chunks import FEWEST, MOST, ChunkSampler
from ..data.encoder_config import EncoderConfig, packaged_folder, same_setting
from ..data.encoders import Encoder, load_encoder
from ..data.files import one_line
from ..data.pairs import load_pairs, read_manifest
from ..data.sources import read_texts, texts_digest
from ..data.spans import SpanSampler, TokenizedCorpus
from ..errors_embinv import EmbInvError
from ..fingerprint_embinv import Fingerprint
from ..generation_config_embinv import KINDS
from ..loading import load_inverter
from ..modeling_embinv import EmbInvForMaskedDiffusion
from ..runtime import prepare_process
from ..vocabulary_embinv import WordVocabulary
from .backbone import new_inverter, prepare_tokenizer
from .bag_of_words import warm_up_on_words
from .checkpoints import checkpoints, remove_unfinished, step_of
from .config import TrainingConfig, read_sizes
from .distillation import Distillation, start_from_table
from .fine_tuning import adopt_encoder, drop_stale, grow_prefix, set_corrector
from .loop import Run
from .machine import attention_of, precision_of
from .optimizers import new_optimizers
from .trackers import JSONLinesTracker
from .validation import ValidationSet
from .words import WordTraining, start_from_counts


def train(config: TrainingConfig) -> Path:
    """Train, validate, save and export; returns the folder of the last exported model.

    Raises:
        EmbInvError: for settings or data that do not fit together, or a loss that is not finite.
        OSError: for a checkpoint that cannot be read or written.
    """
    with prepare_process(training=True):
        set_seed(config.seed)
        lines = JSONLinesTracker(Path(config.output_dir) / "log.jsonl")
        return _in_group(config, _accelerator(config, lines), lines)


def _accelerator(config: TrainingConfig, lines: JSONLinesTracker) -> Accelerator:
    """The processes and the trackers of the run.

    Raises:
        EmbInvError: for a tracker that accelerate does not know, or an impossible setting of `accelerate launch`.
    """
    trackers = [lines if name == "jsonl" else name for name in config.trackers]
    steps = config.gradient_accumulation_steps
    AcceleratorState._reset_state()  # somebody else in this process may have had another precision
    try:
        accelerator = Accelerator(
            mixed_precision=precision_of(config.mixed_precision),
            gradient_accumulation_steps=steps,
            log_with=trackers,
            project_dir=config.output_dir,
        )
    except ValueError as error:
        raise EmbInvError(f"accelerate cannot start with trackers {config.trackers}: {one_line(error)}") from error
    accelerator.print(f"mixed precision: {accelerator.mixed_precision} (mixed_precision is {config.mixed_precision})")
    return accelerator


def _in_group(config: TrainingConfig, accelerator: Accelerator, lines: JSONLinesTracker) -> Path:
    """The run of `train`, which leaves its group of processes cleanly."""
    accelerator.init_trackers("embinv", config=_plain(config) | {"mixed_precision": accelerator.mixed_precision})
    try:
        return _run(config, accelerator, lines)
    except BaseException as error:
        if accelerator.num_processes > 1:
            traceback.clear_frames(error.__traceback__)  # they hold the wrapped model
        raise
    finally:
        # the model's wrapper must be gone before the group of processes: freed last, at exit, it holds Python's lock
        # and waits for a thread of gloo that wants this lock
        accelerator.free_memory()
        accelerator.end_training()
        AcceleratorState._reset_state()  # whoever trains next in this process may want another precision


def _run(config: TrainingConfig, accelerator: Accelerator, lines: JSONLinesTracker) -> Path:
    """The run of `train` in one process."""
    output_dir = Path(config.output_dir)
    encoder = load_encoder(EncoderConfig.from_yaml(config.encoder), device=accelerator.device)
    model, tokenizer = build_model(config, encoder)
    batches, held_out = build_data(config, encoder, model)
    if not config.word_head_size:  # its texts are of other lengths than the inverter's
        model.config.encoder_fingerprint = fingerprint_of(held_out.embedding, model.config.encoder_fingerprint)
    newest = _newest(config, accelerator, output_dir)
    lines.rewind(step_of(newest) if newest else -1)
    if config.bag_of_words_steps and not newest:
        warm_up_on_words(model, batches, config.word_warm_up(), accelerator)
    if config.surrogate_rank and not newest:
        start_from_table(model, batches, config.batch_size, encoder.weights, tokenizer.cls_token_id)
    if config.word_head_size and not newest:
        start_from_counts(model, batches, config.batch_size, WordVocabulary.of(tokenizer))
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()  # type: ignore[no-untyped-call]  # transformers left it without types
    if config.compile:
        model.trunk.compile(dynamic=False)

    rates = config.rates()
    model, *optimizers = accelerator.prepare(model, *new_optimizers(model, rates))
    stage = Distillation if config.surrogate_rank else WordTraining if config.word_head_size else Run
    run = stage(
        config,
        accelerator=accelerator,
        model=model,
        tokenizer=tokenizer,
        encoder=encoder,
        optimizers=optimizers,
        schedulers=[torch.optim.lr_scheduler.LambdaLR(optimizer, rates.factor) for optimizer in optimizers],
        batches=batches,
        held_out=held_out,
    )
    return run.loop()


def fingerprint_of(vectors: Tensor, inherited: str | None) -> str | None:
    """The inherited fingerprint where vectors (N, D) fit it, as it may be of more of them; else their own."""
    if inherited is not None and Fingerprint.from_text(inherited).mismatch(vectors) is None:
        return inherited
    own = Fingerprint.of(vectors)
    return None if own is None else own.to_text()


def _newest(config: TrainingConfig, accelerator: Accelerator, folder: Path) -> Path | None:
    """The checkpoint that the run goes on from, after what a kill has left was removed."""
    if accelerator.is_main_process:
        remove_unfinished(folder)
    accelerator.wait_for_everyone()
    finished = checkpoints(folder) if config.resume else []
    return finished[-1] if finished else None


def build_model(config: TrainingConfig, encoder: Encoder) -> tuple[EmbInvForMaskedDiffusion, PreTrainedTokenizerBase]:
    """The inverter that a run starts from, and its tokenizer."""
    if config.max_sequence_length > encoder.config.max_length:
        raise EmbInvError(
            f"{encoder.config.id} is set to read {encoder.config.max_length} tokens (max_length in its YAML), "
            f"the canvas has {config.max_sequence_length}."
        )
    if config.correction_share and not encoder.can_encode:
        raise EmbInvError(
            "correction_share needs an encoder that embeds hypotheses: "
            f"{encoder.config.id} is known by its vectors alone."
        )
    if config.init_from is not None:
        model, tokenizer, has_changed = _trained_model(config.init_from, config, encoder)
    else:
        (model, tokenizer), has_changed = _new_model(config, encoder), False
    if config.causal_share:
        check_prefix(model.config)
    if config.is_part:
        _only_part(model, config, tokenizer, encoder).requires_grad_(True)
        return model.train(), tokenizer
    if config.freeze_backbone:
        model.freeze_backbone()
    if config.embedding_rate == 0:
        model.get_input_embeddings().requires_grad_(False)
    # the surrogate reads with the trunk's layers and token embeddings
    shared = any(weight.requires_grad for weight in model.trunk.parameters())
    words = has_changed or model.get_input_embeddings().weight.requires_grad
    _drop_stale(model, has_changed or shared, words, [kind for kind in KINDS if words or kind != "words"])
    for part in (model.surrogate, model.word_head):
        if part is not None:
            part.requires_grad_(False)
    return model.train(), tokenizer


def _only_part(
    model: EmbInvForMaskedDiffusion, config: TrainingConfig, tokenizer: PreTrainedTokenizerBase, encoder: Encoder
) -> torch.nn.Module:
    """The part of a last stage, new where the model has none; nothing of the model trains."""
    _drop_stale(model, False, False, ["surrogate" if config.surrogate_rank else "words"])
    if config.surrogate_rank:
        first = tokenizer.cls_token_id
        table, longest = config.surrogate_table, encoder.longest
        model.add_surrogate(config.surrogate_rank, first, encoder.weights, has_table=table, length=longest)
    else:
        model.add_word_head(config.word_head_size)
    model.requires_grad_(False)
    part = model.surrogate if config.surrogate_rank else model.word_head
    assert part is not None  # it was added just now
    return part


def _trained_model(
    name: str, config: TrainingConfig, encoder: Encoder
) -> tuple[EmbInvForMaskedDiffusion, PreTrainedTokenizerBase, bool]:
    """The trained inverter of that name, its tokenizer, and whether it was another encoder's."""
    changes: dict[str, Any] = {}
    if not config.word_head_size:
        changes["max_sequence_length"] = config.max_sequence_length
    if not config.is_part:  # such a stage leaves the inverter as it is
        changes |= {"canvas_lengths": config.canvas_lengths, "causal_share": config.causal_share}
    model, tokenizer = load_inverter(name, attn_implementation=attention_of(config.attn_implementation), **changes)
    inverted = f"{model.config.embedding_dim} numbers by {model.config.encoder_id}"
    has_changed = adopt_encoder(model, tokenizer, encoder)
    if config.is_part and has_changed:
        part = "surrogate" if config.surrogate_rank else "word head"
        raise EmbInvError(
            f"the stage of the {part} leaves the inverter as it is: {name} inverts vectors of "
            f"{inverted}, these have {encoder.embedding_dim} by {encoder.config.id}. Fine-tune it for them first."
        )
    if not config.is_part:
        grow_prefix(model, config.num_condition_tokens)
        set_corrector(model, config.correction_share)
    return model, tokenizer, has_changed


def _new_model(config: TrainingConfig, encoder: Encoder) -> tuple[EmbInvForMaskedDiffusion, PreTrainedTokenizerBase]:
    """An untrained inverter and its tokenizer."""
    tokenizer = prepare_tokenizer(encoder.tokenizer)
    model = new_inverter(
        tokenizer,
        _trunk(config, encoder),
        config.num_hidden_layers,
        embedding_dim=encoder.embedding_dim,
        max_sequence_length=config.max_sequence_length,
        canvas_lengths=config.canvas_lengths,
        num_condition_tokens=config.num_condition_tokens,
        causal_share=config.causal_share,
        correction_share=config.correction_share,
        noise_schedule=config.noise_schedule,
        noise_lambda=config.noise_lambda,
        encoder_id=encoder.config.id,
        encoder_revision=encoder.config.revision,
        encoder_prompt=encoder.config.prompt,
        attn_implementation=attention_of(config.attn_implementation),
    )
    return model, tokenizer


def _trunk(config: TrainingConfig, encoder: Encoder) -> str | dict[str, Any]:
    """Where the trunk's weights are, or the sizes of one that starts at random."""
    if config.backbone_config is not None:
        return read_sizes(config.backbone_config)
    backbone = config.backbone or ""
    if backbone != "encoder":
        return packaged_folder(backbone) or backbone
    if encoder.path is None:
        raise EmbInvError(
            f"{encoder.config.id} is known by its vectors alone and has no layers: set another backbone."
        )
    return encoder.path


def _drop_stale(model: EmbInvForMaskedDiffusion, surrogate: bool, words: bool, calibrations: Sequence[str]) -> None:
    if dropped := drop_stale(model, surrogate, words, calibrations):
        get_logger(__name__).warning(
            "%s of the checkpoint dropped: this training changes what was measured for it. Make it anew afterwards "
            "(--surrogate-rank, --word-head-size, embinv calibrate).",
            " and ".join(dropped),
        )


def build_data(
    config: TrainingConfig, encoder: Encoder, model: EmbInvForMaskedDiffusion
) -> tuple[Batches, ValidationSet]:
    """Training batches and the validation set: from prepared pairs, or spans that are embedded as training goes."""
    batches: Batches
    if config.pairs is not None:
        _check_manifest(read_manifest(config.pairs), config, encoder)
        batches = PairBatches(load_pairs(config.pairs, "train"), model.config.eos_token_id, config.seed)
        ids, embedding = held_out_pairs(config.pairs, config.max_sequence_length, config.validation_size)
    else:
        batches = _spans(config, encoder, "train")
        ids, embedding = _spans(config, encoder, "validation").batch(0, config.validation_size)
    return batches, ValidationSet(ids, embedding, config.generation_size, config.noise_of(model).schedule)


def _spans(config: TrainingConfig, encoder: Encoder, split: str) -> SpanBatches:
    """Spans of the texts of a split; for the word head, whole chunks of them."""
    texts, column = config.texts or [], config.text_column
    # other texts, or changed ones, have a folder of their own in the cache
    cache = None if config.token_cache is None else Path(config.token_cache) / texts_digest(texts, column)
    corpus = TokenizedCorpus.build(read_texts(texts, column=column), encoder.vocabulary, cache, split)
    if config.word_head_size:
        return _chunks(config, encoder, corpus, split)
    sampler = SpanSampler(corpus, config.max_sequence_length, config.seed, whole_share=config.whole_share)
    return SpanBatches(sampler, encoder)


def _chunks(config: TrainingConfig, encoder: Encoder, corpus: TokenizedCorpus, split: str) -> SpanBatches:
    """Chunks of a corpus: a pool of them for training, and any for validation."""
    most = min(MOST, encoder.read_whole_texts())
    sampler = ChunkSampler(corpus, FEWEST, most, config.seed)
    if split != "train":
        return SpanBatches(sampler, encoder)
    texts = texts_digest(config.texts or [], config.text_column)
    name = hashlib.blake2b(repr((texts, encoder.config, most, config.seed)).encode(), digest_size=8).hexdigest()
    return ChunkBatches(sampler, encoder, config.word_texts, Path(config.output_dir) / f"vectors-{name}")


def _check_manifest(manifest: dict[str, Any], config: TrainingConfig, encoder: Encoder) -> None:
    length = manifest["length"]
    if length < config.max_sequence_length:
        raise EmbInvError(
            f"{config.pairs} was prepared with length {length}, this run wants {config.max_sequence_length}."
        )
    wanted = {f"encoder_{key}": getattr(encoder.config, key) for key in ("id", "revision", "prompt", "task")}
    for name, value in wanted.items():
        if not same_setting(name, manifest[name], value):
            raise EmbInvError(f"{config.pairs} was prepared with {name} {manifest[name]}, this run wants {value}.")


def _plain(config: TrainingConfig) -> dict[str, Any]:
    """Settings as values that every tracker takes."""
    values = dataclasses.asdict(config)
    values = {key: json.dumps(value) if isinstance(value, list) else value for key, value in values.items()}
    return {key: value for key, value in values.items() if value is not None}
