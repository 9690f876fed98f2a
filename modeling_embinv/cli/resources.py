"""What the flags name: vectors, a model and its encoder, each opened or loaded."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors_embinv import EmbInvError
from ..progress.rates import texts, vectors
from ..settings_embinv import feedback_by_name
from .checks import check_device, stored_config
from .launcher import speaks_for_all
from .standard_input import STANDARD, kept_input

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..data.encoders import Encoder
    from ..modeling_embinv import EmbInvForMaskedDiffusion
    from ..stores.rows import Skipped
    from ..stores.vectors import VectorSource


def open_source(options: argparse.Namespace, text_column: str | bool = False) -> "VectorSource":
    """The file of vectors, opened before the weights are loaded, so that a mistake is found at once.

    Args:
        options: with the flags of `add_vector_columns`, `source`, `strict` and `model`.
        text_column: as of `open_vectors`.

    Raises:
        EmbInvError: an output of another kind, no such file or column, or vectors of another width.
    """
    from ..inversion.parts import check_out
    from ..stores.vectors import open_vectors

    if options.out and options.out != STANDARD:
        check_out(Path(options.out))
    config = stored_config(options.model)
    with messages_on_stderr():
        source = open_vectors(
            kept_input() if options.source == STANDARD else options.source, options.column, options.id_column,
            text_column, config.get("embedding_dim"), options.strict, config.get("encoder_id"),
            options.collection, options.trust_source,
        )  # fmt: skip
    if options.source == STANDARD:
        source.identity = STANDARD  # not the temporary file: a run is resumed with another one
    return source


def refuse_overwriting(options: argparse.Namespace, source: "VectorSource") -> None:
    """Says what an output holds that exists already, once it is known which rows are read.

    Args:
        options: with the flags of `add_vector_columns`.
        source: with its selection of rows.

    Raises:
        EmbInvError: the output has no name, or it exists, and `--overwrite` was not given.
    """
    from ..inversion.parts import count_rows

    if options.out == "":
        raise EmbInvError("--out is empty: give the name of a .jsonl or .parquet file.")
    if not options.out or options.out == STANDARD or options.overwrite or not Path(options.out).exists():
        return
    held, rows = count_rows(Path(options.out)), source.count()
    of = f"{texts(held)} for {vectors(rows)}"
    note = " (a row that was left out has no text)" * (held < rows)
    raise EmbInvError(
        f"{options.out} exists already, with {of}{note}: give --overwrite to write it anew, or another --out."
    )


def load_model(options: argparse.Namespace) -> tuple["EmbInvForMaskedDiffusion", "PreTrainedTokenizerBase"]:
    """The model of `--model` on its device, and its tokenizer.

    Args:
        options: with the flags of `add_model_folder`, and `idle_cores`, which are looked at once.

    Raises:
        EmbInvError: for an impossible device, before anything is loaded.
        OSError: when there is no such model, or a damaged one.
    """
    from ..loading import load_inverter
    from ..runtime import prepare_process, process_state

    device = check_device(options.device) if options.device else process_state().device
    with prepare_process():
        model, tokenizer = load_inverter(options.model)
    if device.type == "cpu":
        _take_idle_cores(options)
    model = model.to(device).eval()  # type: ignore[arg-type]  # transformers' wrapper of `to` hides its `self`
    return model.to_int8() if options.int8 else model, tokenizer


def _take_idle_cores(options: argparse.Namespace) -> None:
    """Computes with no more threads than cores were idle until the first model was loaded, and says so."""
    import torch

    idle, options.idle_cores = options.idle_cores, None  # from now on this process is busy itself
    threads = torch.get_num_threads()
    if idle is None or "OMP_NUM_THREADS" in os.environ or (few := idle.threads(threads)) == threads:
        return
    torch.set_num_threads(few)
    print(
        f"embinv: other programs keep this machine busy: computing with {few} of {threads} threads; OMP_NUM_THREADS "
        "sets another number.",
        file=sys.stderr,
    )


@contextmanager
def messages_on_stderr() -> Iterator[None]:
    """Shows what the library says of its choices (which column it reads) on stderr, in a launcher's first process."""

    class Stderr(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            sys.stderr.write(f"embinv: {record.getMessage()}\n")

    log, handler = logging.getLogger("modeling_embinv"), Stderr()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO if speaks_for_all() else logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


def report_skipped(source: str | Path, skipped: "Skipped") -> None:
    """Says on stderr which rows of a file were left out, if any were."""
    if skipped.count:
        print(f"embinv: warning: {source}: skipped {skipped}", file=sys.stderr)


def report_long(folder: str, split: str, canvas: int) -> None:
    """Says on stderr how many pairs of a split are left out, as they are longer than a model's canvas, if any are."""
    from ..data.batches import PairBatches
    from ..data.pairs import load_pairs, read_manifest

    needed = PairBatches(load_pairs(folder, split), read_manifest(folder)["end_token_id"], seed=0).needed
    longer = int((needed > canvas).sum())
    if 0 < longer < len(needed):  # of all of them, another line says that none is left
        counts = f"{longer:,} of {len(needed):,} pairs of the {split} split"
        left_out = f"{counts} are longer than the canvas of {canvas} tokens, so they are left out."
        print(f"embinv: warning: {folder}: {left_out}", file=sys.stderr)


def encoder_of(model: "EmbInvForMaskedDiffusion", options: argparse.Namespace) -> "Encoder":
    """The encoder that the model names, or `--encoder`: it embeds texts and measures cosines, and never inverts."""
    from ..data.encoder_config import EncoderConfig
    from ..data.encoders import load_encoder
    from ..runtime import prepare_process

    with prepare_process():
        return load_encoder(options.encoder or EncoderConfig.of_inverter(model.config), device=model.device)


def feedback_of(
    name: str | None,
    model: "EmbInvForMaskedDiffusion",
    options: argparse.Namespace,
    encoder: "Encoder | None" = None,
) -> Callable[..., Any] | str | None:
    """`generate`'s feedback that a name stands for; the encoder, if it is not there yet, is loaded only for that."""
    return feedback_by_name(name, lambda: (encoder or encoder_of(model, options)).encode)
