"""`embinv invert`: vectors from a file or the command line."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.flags import Commands
from ..errors_embinv import EmbInvError
from .checks import stored_config
from .options import (
    add_encoder,
    add_model,
    checked_settings,
    feedback_of,
    load_model,
    messages_on_stderr,
    report_skipped,
)
from .outcome import on_interrupt

if TYPE_CHECKING:
    from ..stores.vectors import VectorSource


def add_invert(commands: Commands) -> None:
    """Adds the command `invert` and its flags."""
    parser = commands.add_parser("invert", help="invert vectors from a file or the command line")
    kinds = "npy, npz, safetensors, parquet, Arrow, jsonl, csv or json file of vectors"
    parser.add_argument("source", help=f"{kinds}, a folder that datasets saved, or one vector as JSON")
    parser.add_argument("--out", help="jsonl or parquet file of the texts; without it they are printed")
    parser.add_argument(
        "--column", help="column of the vectors, or its path (vector.default); without it the usual names are tried"
    )
    parser.add_argument("--id_column", help="column of their ids; without it what the format calls id")
    parser.add_argument("--strict", action="store_true", help="stop at the first row without a usable vector")
    add_model(parser)
    add_encoder(parser)
    parser.set_defaults(run=_invert)


def _invert(options: argparse.Namespace) -> None:
    settings = checked_settings(options)
    from ..data.typed_vector import is_typed_vector

    with on_interrupt(lambda: _saved(options.out)):
        (_invert_typed if is_typed_vector(options.source) else _invert_file)(options, settings)


def _invert_typed(options: argparse.Namespace, settings: dict[str, Any]) -> None:
    from ..data.typed_vector import parse_vector

    if options.out:
        raise EmbInvError("--out is for a file of vectors; the text of a single vector is printed.")
    vector = parse_vector(options.source, stored_config(options.model).get("embedding_dim"))
    model, tokenizer = load_model(options)
    from rich.console import Console

    from ..inversion.rows import invert_vectors
    from ..inversion.terminal import print_inversions

    feedback = feedback_of(options.feedback, model, options)
    rows = invert_vectors(model, tokenizer, vector, options.batch_size, settings, options.seed, feedback=feedback)
    print_inversions(rows, tokenizer, Console())


def _invert_file(options: argparse.Namespace, settings: dict[str, Any]) -> None:
    source = _open(options)
    model, tokenizer = load_model(options)
    from ..inversion.dumps import invert_file
    from ..runtime import process_state

    feedback = feedback_of(options.feedback, model, options)
    with messages_on_stderr():
        stats = invert_file(
            model, tokenizer, source, options.out, options.batch_size, settings, options.seed, feedback=feedback
        )
    if process_state().is_main_process:
        report_skipped(options.source, stats["skipped"])
        print(_summary(stats, options.out), file=sys.stderr)


def _open(options: argparse.Namespace) -> "VectorSource":
    """The file of vectors, opened before the weights are loaded, so that a mistake is found at once.

    Raises:
        EmbInvError: an output of another kind, no such file or column, or vectors of another width.
    """
    from ..inversion.parts import check_out
    from ..stores.vectors import open_vectors

    if options.out:
        check_out(Path(options.out))
    config = stored_config(options.model)
    with messages_on_stderr():
        return open_vectors(
            options.source, options.column, options.id_column, dim=config.get("embedding_dim"), strict=options.strict,
            encoder=config.get("encoder_id"),
        )  # fmt: skip


def _summary(stats: dict[str, Any], out: str | None) -> str:
    count, rate = stats["vectors"], stats["vectors_per_second"]
    texts = f"{count:,} {'text' if count == 1 else 'texts'}"
    speed = f"{rate:,.0f} vectors/s" if rate >= 1 else f"{1 / rate:,.0f} s a vector" if rate else "no new vector"
    resumed = f"; {stats['resumed']:,} of them by an earlier run" if stats["resumed"] else ""
    return f"embinv: wrote {texts} to {out} ({speed}){resumed}." if out else f"embinv: {texts} ({speed})."


def _saved(out: str | None) -> str:
    """What an interrupted job leaves: the texts of its finished parts."""
    if not out:
        return ""
    folder = Path(out).with_name(Path(out).name + ".parts")
    count = 0
    for part in folder.glob("*.jsonl"):
        with part.open("rb") as lines:
            count += sum(1 for _ in lines)
    texts = f"{count:,} {'text is' if count == 1 else 'texts are'}"
    return f"{texts} saved in {folder}; run the same command to resume." if count else ""
