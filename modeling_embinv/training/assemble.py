"""A training run: its processes, its model and data, and which loop they go into."""

import dataclasses
import json
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import Tensor

from ..configuration_embinv import EmbInvConfig
from ..data.encoder_config import EncoderConfig
from ..data.encoders import load_encoder
from ..data.files import one_line
from ..data.parts import locked
from ..errors_embinv import EmbInvError
from ..fingerprint_embinv import Fingerprint
from ..repository import load_config
from ..runtime import computes_on_cpu, prepare_process
from ..vocabulary_embinv import WordVocabulary
from .bag_of_words import warm_up_on_words
from .checkpoints import checkpoints, in_all, remove_unfinished, step_of
from .config import TrainingConfig
from .distillation import Distillation, start_from_table
from .kept_surrogate import kept_surrogate
from .loop import Run
from .machine import check_processes, precision_of
from .optimizers import new_optimizers
from .run_data import build_data
from .run_model import build_model
from .trackers import JSONLinesTracker
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
        EmbInvError: for a tracker that accelerate does not know or that is not installed, an impossible setting of
            `accelerate launch`, or processes that do not know of each other.
    """
    trackers = [lines, *(name for name in config.trackers if name != "jsonl")]  # the log is always written
    steps = config.gradient_accumulation_steps
    AcceleratorState._reset_state()  # somebody else in this process may have had another precision
    try:
        accelerator = Accelerator(
            cpu=computes_on_cpu(),  # or each of several processes on CPUs takes itself for the only one
            mixed_precision=precision_of(config.mixed_precision),
            gradient_accumulation_steps=steps,
            log_with=trackers,
            project_dir=config.output_dir,
        )
    except ValueError as error:
        raise EmbInvError(f"accelerate cannot start with trackers {config.trackers}: {one_line(error)}") from error
    kept = {"all", "jsonl", *map(str, accelerator.log_with)}
    if missing := [name for name in config.trackers if name not in kept]:  # accelerate leaves them out in silence
        raise EmbInvError(f"trackers: {', '.join(missing)} not installed; pip install it, or leave it out.")
    check_processes(accelerator.num_processes)
    accelerator.print(f"mixed precision: {accelerator.mixed_precision} (mixed_precision is {config.mixed_precision})")
    return accelerator


def _in_group(config: TrainingConfig, accelerator: Accelerator, lines: JSONLinesTracker) -> Path:
    """The run of `train`, alone in its folder, which leaves its group of processes cleanly."""
    try:
        with ExitStack() as held:
            folder, is_main = Path(config.output_dir), accelerator.is_main_process
            in_all(accelerator, lambda: held.enter_context(locked(folder)) if is_main else None)
            settings = _plain(config) | {"mixed_precision": accelerator.mixed_precision}
            accelerator.init_trackers("embinv", config=settings, init_kwargs=_from_step(config))
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
    if config.init_from is not None:
        config = config.with_canvas_of(load_config(config.init_from))
    read = EncoderConfig.from_yaml(config.encoder)
    # as `prepare` does: the encoder reads what the canvas holds
    read = dataclasses.replace(read, max_length=max(read.max_length, config.length))
    encoder = load_encoder(read, device=accelerator.device)
    model, tokenizer = build_model(config, encoder)
    config = config.with_shares_of(model.config)
    batches, held_out = build_data(config, encoder, model)
    if not config.word_head_size:  # its texts are of other lengths than the inverter's
        _tell_foreign_vectors(model.config, held_out.embedding)
        model.config.encoder_fingerprint = fingerprint_of(held_out.embedding, model.config.encoder_fingerprint)
    newest = _newest(config, accelerator, output_dir)
    if newest:
        lines.take_back(newest)
    elif replaced := checkpoints(output_dir):
        lines.put_aside(replaced[-1])
    lines.rewind(step_of(newest) if newest else -1)
    if not newest:
        accelerator.print(_plan(config, accelerator.num_processes))
    _tell_slow_warm_up(config)
    if config.bag_of_words_steps and not newest:
        warm_up_on_words(model, batches, config.word_warm_up(), accelerator)
    if config.surrogate_rank and not newest:
        start_from_table(model, batches, config.batch_size, encoder.weights, tokenizer.cls_token_id)
    if config.word_head_size and not newest:
        start_from_counts(model, batches, config.batch_size, WordVocabulary.of(tokenizer))
    if config.gradient_checkpointing and not config.is_part:  # a part has other weights when layers are recomputed
        model.gradient_checkpointing_enable()  # type: ignore[no-untyped-call]  # transformers left it without types
    if config.compile:
        model.trunk.compile(dynamic=False)

    kept, rates = kept_surrogate(model), config.rates()  # before an accelerator shards the weights
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
        kept=kept,
    )
    return run.loop()


def _plan(config: TrainingConfig, processes: int) -> str:
    """What a new run is going to do, in a line; what is lost with a Ctrl-C is a part of it."""
    texts = config.batch_size * config.gradient_accumulation_steps * processes
    by = f" by {processes} processes" if processes > 1 else ""
    updates = f"{config.max_steps:,} updates of {texts:,} texts{by}, saved every {config.save_steps:,}"
    if not config.bag_of_words_steps:
        return f"this run: {updates}"
    warm_up = f"{config.bag_of_words_steps:,} updates of {config.bag_of_words_batch_size:,} texts"
    return f"this run: a warm-up on words of {warm_up}, which an interruption loses; then {updates}"


def _tell_slow_warm_up(config: TrainingConfig) -> None:
    """A line where the run ends before its learning rate has risen."""
    if config.warmup_steps > config.max_steps:
        get_logger(__name__).warning(
            "warmup_steps %s are more than max_steps %s: the learning rate never comes beyond %.2g of %g. Set "
            "fewer warmup_steps.",
            f"{config.warmup_steps:,}",
            f"{config.max_steps:,}",
            config.learning_rate * config.max_steps / config.warmup_steps,
            config.learning_rate,
        )


def fingerprint_of(vectors: Tensor, inherited: str | None) -> str | None:
    """The inherited fingerprint where vectors (N, D) fit it, as it may be of more of them; else their own."""
    if inherited is not None and Fingerprint.from_text(inherited).mismatch(vectors) is None:
        return inherited
    own = Fingerprint.of(vectors)
    return None if own is None else own.to_text()


def _tell_foreign_vectors(config: EmbInvConfig, vectors: Tensor) -> None:
    """A line where the run's encoder is the checkpoint's by name, and the fingerprint does not fit vectors (N, D)."""
    known = config.encoder_fingerprint
    if known is not None and (looks := Fingerprint.from_text(known).mismatch(vectors)):
        get_logger(__name__).warning(
            "these are no vectors of %s as the checkpoint knows them, but look like %s. If another encoder made them, "
            "name it: `embinv prepare --encoder` and `train.py --encoder` take a YAML of its id, tokenizer and "
            "embedding_dim.",
            config.encoder_id,
            looks,
        )


def _from_step(config: TrainingConfig) -> dict[str, Any]:
    """What tensorboard is told: a run that goes on logs the updates behind its checkpoint a second time."""
    found = checkpoints(Path(config.output_dir)) if config.resume else []
    return {"tensorboard": {"purge_step": step_of(found[-1]) + 1 if found else 0}}


def _newest(config: TrainingConfig, accelerator: Accelerator, folder: Path) -> Path | None:
    """The checkpoint that the run goes on from, after what a kill has left was removed."""
    if accelerator.is_main_process:
        remove_unfinished(folder)
    accelerator.wait_for_everyone()
    finished = checkpoints(folder) if config.resume else []
    return finished[-1] if finished else None


def _plain(config: TrainingConfig) -> dict[str, Any]:
    """Settings as values that every tracker takes."""
    values = dataclasses.asdict(config)
    values = {key: json.dumps(value) if isinstance(value, list) else value for key, value in values.items()}
    return {key: value for key, value in values.items() if value is not None}
