"""`embinv fill`: the hidden words of redacted texts, given their vectors."""

import argparse
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..data.flags import Commands, number
from ..errors_embinv import EmbInvError
from ..settings_embinv import GAP_TOKENS, FillSettings
from .checks import check_encoder, check_model, check_rows, check_seed
from .options import (
    VECTOR_KINDS,
    add_encoder,
    add_force,
    add_model_folder,
    add_rows,
    add_table,
    add_vector_columns,
    given_settings,
)
from .outcome import epilog, incomplete, on_interrupt, saved_parts, summary
from .resources import (
    encoder_of,
    load_model,
    messages_on_stderr,
    open_source,
    refuse_overwriting,
)

if TYPE_CHECKING:
    from ..inversion.fillings import Redaction
    from ..modeling_embinv import EmbInvForMaskedDiffusion
    from ..stores.vectors import VectorSource

_EXAMPLES = """
embinv fill redacted.jsonl --text-column redacted --out filled.jsonl
embinv fill vectors.npy --template "Dear <NAME>, we meet on <DATE>." --choices NAME=first-names
embinv fill redacted.parquet --sample 200 --mark XXX --feedback encoder
"""
# the rows of a part of `fill_file`, whose module imports torch
_BATCH = 16


def add_fill(commands: Commands) -> None:
    """Adds the command `fill` and its flags."""
    parser = commands.add_parser("fill", help="find the hidden words of redacted texts, given their vectors")
    parser.epilog = epilog(_EXAMPLES, "rows that cannot be filled were left out")
    parser.add_argument(
        "source", help=f"{VECTOR_KINDS}, with the redacted texts beside the vectors; --template needs vectors alone"
    )
    parser.add_argument("--text_column", help="column of the redacted texts; without it the usual names are tried")
    parser.add_argument("--template", help='the redacted text of every vector, as "Dear <NAME>, your balance is ▇▇▇."')
    add_vector_columns(parser)
    add_rows(parser)
    parser.add_argument("--seed", type=int, default=0, help="of --sample")
    parser.add_argument("--strict", action="store_true", help="stop at the first row that cannot be filled")
    add_force(parser)
    group = parser.add_argument_group("the hidden words")
    group.add_argument(
        "--mark", action="append", metavar="MARK",
        help="what hides words, again for each further mark: bars (▇▇▇), brackets ([REDACTED]), stars (***), lines "
        "(___), tags (<PERSON>), or a mark as it stands in the texts (default: these five)",
    )  # fmt: skip
    group.add_argument(
        "--choices", action="append", type=_choice, metavar="TAG=LIST",
        help="the only words that the mark <TAG> or [TAG] hides: a text file, one word or phrase per line, or "
        "first-names, last-names, cities or countries; again for more words or other marks; =LIST for marks without "
        "a word",
    )  # fmt: skip
    group.add_argument(
        "--num_tokens",
        type=number(int, 1, GAP_TOKENS),
        help="tokens of each gap, where that is known (default: 1 to --max-gap-tokens)",
    )
    add_model_folder(parser, _BATCH, f"texts that are searched side by side, at most {_BATCH}")
    add_encoder(parser)
    group = parser.add_argument_group("search")
    group.add_argument(
        "--feedback", choices=("surrogate", "encoder"), default="surrogate",
        help="what judges filled texts: the model's surrogate, or the encoder that made the vectors",
    )  # fmt: skip
    add_table(group, FillSettings.table())
    parser.set_defaults(run=_fill)


def _choice(text: str) -> tuple[str, str]:
    tag, equals, source = text.partition("=")
    if not equals or not source:
        raise argparse.ArgumentTypeError(f"must be TAG=LIST, as NAME=first-names, got {text[:60]!r}")
    return tag.strip("<>[]"), source


def _fill(options: argparse.Namespace) -> int | None:
    check_model(options.model)
    check_rows(options)
    check_seed(options.seed)
    settings = given_settings(options, FillSettings.table())
    if options.template is not None and options.text_column:
        raise EmbInvError("give --template or --text-column, not both: a template is the text of every vector.")
    choices = _choices(options.choices or [])
    with on_interrupt(lambda: saved_parts(options.out)):
        return _fill_file(options, settings, choices)


def _choices(given: list[tuple[str, str]]) -> dict[str, list[str]]:
    """The words of each tag; those of several lists for one tag together."""
    from ..data.word_lists import word_list

    choices: dict[str, list[str]] = {}
    for tag, source in given:
        choices.setdefault(tag, []).extend(word_list(source))
    return choices


def _open(options: argparse.Namespace) -> "VectorSource":
    """The opened file; with its texts, unless there is a template."""
    from ..stores.columns import NoTextsError

    try:
        return open_source(options, options.template is None and (options.text_column or True))
    except NoTextsError as error:
        named = "name their column with --text-column, or " * bool(error.others)
        raise EmbInvError(f"{error}; {named}give the text of all vectors with --template.") from error


def _fill_file(options: argparse.Namespace, settings: dict[str, Any], choices: dict[str, list[str]]) -> int | None:
    began, source = time.time(), _open(options)
    source.select(options.limit, options.sample, options.seed)
    refuse_overwriting(options, source)
    with on_interrupt(lambda: saved_parts(options.out, source.count(), began)):
        return _fill_source(options, source, settings, choices)


def _fill_source(
    options: argparse.Namespace, source: "VectorSource", settings: dict[str, Any], choices: dict[str, list[str]]
) -> int | None:
    check_encoder(options, source)
    model, tokenizer = load_model(options)
    from ..gap_marks_embinv import tag_of
    from ..inversion.fillings import fill_file
    from ..runtime import process_state

    redaction = _redaction(options, settings, choices)
    feedback, longest = _judge(model, options)
    with messages_on_stderr():
        stats = fill_file(
            model, tokenizer, source, options.out, redaction, options.batch_size, feedback=feedback, longest=longest
        )
    if process_state().is_main_process:
        _report(source.path, stats)
        for tag in sorted(tag for tag in choices if tag_of(tag) not in stats["tags"]):
            print(f"embinv: warning: --choices {tag}: no mark of the texts has this word", file=sys.stderr)
        print(summary(stats, options.out, "those of other texts"), file=sys.stderr)
    return incomplete(stats["skipped"].count + stats["unfillable"].count)


def _redaction(options: argparse.Namespace, settings: dict[str, Any], choices: dict[str, list[str]]) -> "Redaction":
    from ..inversion.fillings import Redaction

    marks = {"marks": tuple(options.mark)} if options.mark else {}
    return Redaction(
        choices=choices, num_tokens=options.num_tokens, settings=settings, template=options.template, **marks
    )


def _judge(
    model: "EmbInvForMaskedDiffusion", options: argparse.Namespace
) -> tuple[Callable[..., Any] | str, int | None]:
    """The feedback, and the tokens of a text that the encoder reads where it is the judge."""
    if options.feedback == "surrogate":
        return "surrogate", None
    encoder = encoder_of(model, options)
    return encoder.encode, encoder.read_whole_texts()


def _report(source: str, stats: dict[str, Any]) -> None:
    """Says on stderr which rows were left out, a line for each of the first ones."""
    skipped, unfillable = stats["skipped"], stats["unfillable"]
    lines = [(row, f"row {row} {reason}") for row, reason in skipped.examples] + unfillable.examples
    for _, line in sorted(lines):
        print(f"embinv: warning: {source}: {line}", file=sys.stderr)
    count = skipped.count + unfillable.count
    if count:
        rows = f"{count:,} {'row was' if count == 1 else 'rows were'} left out"
        more = f", {count - len(lines):,} of them not listed" if count > len(lines) else ""
        print(f"embinv: warning: {source}: {rows}{more}", file=sys.stderr)
