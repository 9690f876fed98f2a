"""`embinv invert`: vectors from a file or the command line."""

import argparse
import sys
import time
from typing import Any

from ..data.flags import Commands, hyphenated
from ..errors_embinv import EmbInvError
from .checks import check_encoder, check_rows, stored_config
from .options import (
    VECTOR_KINDS,
    add_encoder,
    add_force,
    add_model,
    add_rows,
    add_vector_columns,
    checked_settings,
    chosen_settings,
)
from .outcome import epilog, incomplete, on_interrupt, saved_parts, summary
from .resources import (
    feedback_of,
    load_model,
    messages_on_stderr,
    open_source,
    refuse_overwriting,
    report_skipped,
)

_EXAMPLES = """
embinv invert vectors.npy --out texts.jsonl
embinv invert store.parquet --sample 200 --redact --preset thorough
embinv invert vectors.npy --out texts.parquet --preset quick --int8
"""
# flags that say which rows of a file are read, and how
_OF_FILES = ("overwrite", "column", "id_column", "collection", "trust_source", "limit", "sample", "strict")


def add_invert(commands: Commands) -> None:
    """Adds the command `invert` and its flags."""
    parser = commands.add_parser("invert", help="invert vectors from a file or the command line")
    parser.epilog = epilog(_EXAMPLES, "rows without a usable vector were left out")
    parser.add_argument("source", help=f"{VECTOR_KINDS}; or - for standard input, or one vector as JSON")
    add_vector_columns(parser)
    add_rows(parser)
    parser.add_argument("--strict", action="store_true", help="stop at the first row without a usable vector")
    add_force(parser)
    parser.add_argument(
        "--redact",
        action="store_true",
        help="show only the first letter of every word but short stop words, and no digit",
    )
    add_model(parser)
    add_encoder(parser)
    parser.set_defaults(run=_invert)


def _invert(options: argparse.Namespace) -> int | None:
    settings = checked_settings(options)
    check_rows(options)
    from ..data.typed_vector import is_typed_vector

    with on_interrupt(lambda: saved_parts(options.out)):
        return (_invert_typed if is_typed_vector(options.source) else _invert_file)(options, settings)


def _invert_typed(options: argparse.Namespace, settings: dict[str, Any]) -> None:
    from ..data.typed_vector import parse_vector

    if options.out:
        raise EmbInvError("--out is for a file of vectors; the text of a single vector is printed.")
    if idle := [hyphenated(f"--{name}") for name in _OF_FILES if getattr(options, name)]:
        raise EmbInvError(f"{', '.join(idle)} {'is' if len(idle) == 1 else 'are'} for a file of vectors, not for one.")
    vector = parse_vector(options.source, stored_config(options.model).get("embedding_dim"))
    model, tokenizer = load_model(options)
    from ..inversion.rows import invert_vectors
    from ..inversion.terminal import print_inversions, standard_output
    from ..progress.bar import RowBar

    settings, judge = chosen_settings(options, model, settings)
    feedback = feedback_of(judge, model, options)
    with RowBar(1, show=True, leave=False) as bar:
        rows = invert_vectors(
            model, tokenizer, vector, 1, settings, options.seed, feedback=feedback, on_round=bar.show_round
        )
        found = (row.redacted() if options.redact else row for row in rows)
        print_inversions(bar.cleared(found), tokenizer, standard_output())


def _invert_file(options: argparse.Namespace, settings: dict[str, Any]) -> int | None:
    began = time.time()
    source = open_source(options)
    source.select(options.limit, options.sample, options.seed)
    refuse_overwriting(options, source)
    with on_interrupt(lambda: saved_parts(options.out, source.count(), began)):
        check_encoder(options, source)
        model, tokenizer = load_model(options)
        from ..inversion.dumps import invert_file
        from ..runtime import process_state

        settings, judge = chosen_settings(options, model, settings)
        feedback = feedback_of(judge, model, options)
        with messages_on_stderr():
            stats = invert_file(
                model, tokenizer, source, options.out, options.batch_size, settings, options.seed,
                feedback=feedback, redact=options.redact,
            )  # fmt: skip
        if process_state().is_main_process:
            report_skipped(source.path, stats["skipped"])
            print(summary(stats, options.out, "texts that this model cannot write"), file=sys.stderr)
    return incomplete(stats["skipped"].count)
