"""`embinv audit`: what a vector store leaks."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..audit.attackers import TIERS, parse_tiers
from ..data.flags import Commands
from ..errors_embinv import EmbInvError
from .checks import check_model, check_seed
from .options import (
    MODEL,
    VECTOR_KINDS,
    add_computation,
    add_encoder,
    add_source_columns,
    count,
    encoder_of,
    load_model,
    messages_on_stderr,
    report_skipped,
)
from .outcome import epilog, on_interrupt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..audit.report import Report
    from ..audit.run import Plan
    from ..audit.sample import Sample
    from ..audit.store import Match, Part
    from ..stores.vectors import VectorSource

OVER = 3
_EXAMPLES = """
embinv audit dump.parquet --out report/
embinv audit chroma:./store --collection support --out report/ --fail-over words=0.3,names=0.1
embinv audit dump.parquet --column embedding --text-column body --out report/ --candidates names.txt --defences all
"""
_WORK = ".unfinished"


def add_audit(commands: Commands) -> None:
    """Adds the command `audit` and its flags."""
    parser = commands.add_parser("audit", help="measure what a vector store leaks, and write a report")
    parser.epilog = epilog(_EXAMPLES, "a figure is above its threshold of --fail-over")
    parser.add_argument("source", help=VECTOR_KINDS)
    parser.add_argument("--out", required=True, help="folder of the report; a report that lies there is replaced")
    add_source_columns(parser)
    parser.add_argument("--text_column", help="column of their texts; without it the usual names are tried")
    parser.add_argument("--strict", action="store_true", help="stop at the first row without a usable vector")
    group = parser.add_argument_group("what is tried")
    group.add_argument(
        "--tiers",
        metavar="NAMES",
        help=f"the attackers, with commas: {', '.join(TIERS)} (default: all that can be tried)",
    )
    group.add_argument("--limit", type=count, default=200, help="rows that are attacked, drawn at random")
    group.add_argument(
        "--encoder_limit", type=count, default=50, help="of them, rows for the attacker with the encoder"
    )
    group.add_argument("--no_encoder", action="store_true", help="the same as --tiers with all but encoder")
    group.add_argument("--candidates", help="text file of a guess a line: which of them are in the store?")
    group.add_argument(
        "--template", help='the redacted text of every row, as "Dear <NAME>, you owe ▇▇▇."; without it texts of the '
        "store that hold such marks are filled",
    )  # fmt: skip
    group.add_argument(
        "--defences", help="all, or some of noise, int8, binary, dimensions, rotation, combinations, with commas"
    )
    group.add_argument("--seed", type=int, default=0, help="of the sample and of every draw")
    group = parser.add_argument_group("the report")
    group.add_argument(
        "--fail_over", action="append", default=[], metavar="FIGURE=SHARE",
        help="end with status 3 where a figure is above a share, as words=0.3; again, or with commas, for more",
    )  # fmt: skip
    group.add_argument("--reveal", action="store_true", help="show recovered words in the report's files")
    group = parser.add_argument_group("the checkpoint")
    group.add_argument(
        "--model", action="append", help=f"folder or Hub id of an inverter; of several, the one that fits ({MODEL})"
    )
    group.add_argument("--force", action="store_true", help="go on with vectors that look like another encoder's")
    add_encoder(parser)
    add_computation(parser, 16, "vectors in one forward pass, at most 16")
    parser.set_defaults(run=_audit)


def _audit(options: argparse.Namespace) -> int:
    limits, plan = _checked(options)
    from ..audit.store import open_parts

    with messages_on_stderr():
        parts = open_parts(lambda name: _open(options, name), options.limit, options.seed)
    for part in parts:
        report_skipped(f"{part.path}, {part.name}" if part.name else part.path, part.skipped)
    found = _match(options, parts)
    options.model = found.origin.model
    work = Path(options.out) / _WORK
    with on_interrupt(
        lambda: f"What is done lies in {work}; run the same command to resume." if work.exists() else ""
    ):
        report = _report(options, found, plan, limits)
    return _end(report)


def _checked(options: argparse.Namespace) -> tuple[dict[str, float], "Plan"]:
    """The thresholds and the plan, after all flags that can be checked before anything is loaded.

    Raises:
        EmbInvError: for the first impossible one.
    """
    from ..audit.defences import parse_families
    from ..audit.kinds import KINDS
    from ..audit.run import Plan
    from ..audit.severity import parse_limits
    from ..data.word_lists import word_list

    tiers = _tiers(options)
    limits = parse_limits(options.fail_over, ("words", "f1", "exact", *KINDS))
    check_seed(options.seed)
    if Path(options.out).exists() and not Path(options.out).is_dir():
        raise EmbInvError(f"--out {options.out} is a file; give the folder of the report.")
    for model in options.model or [MODEL]:
        check_model(model)
    if options.candidates and not Path(options.candidates).is_file():
        raise EmbInvError(f"--candidates {options.candidates}: no such file.")
    return limits, Plan(
        tiers,
        options.tiers is not None,
        options.encoder_limit,
        word_list(options.candidates) if options.candidates else (),
        options.template,
        parse_families(options.defences) if options.defences else (),
    )


def _tiers(options: argparse.Namespace) -> tuple[str, ...]:
    """The attackers that are tried.

    Raises:
        EmbInvError: one that is named and cannot be tried, or a flag of one that is not named.
    """
    if options.tiers is None:
        return tuple(name for name in TIERS if not (options.no_encoder and name == "encoder"))
    tiers = parse_tiers(options.tiers)
    if options.no_encoder and "encoder" in tiers:
        raise EmbInvError("--no-encoder contradicts --tiers, which names encoder.")
    if "guesses" in tiers and not options.candidates:
        raise EmbInvError("--tiers guesses needs --candidates.")
    for flag, name in (("candidates", "guesses"), ("template", "context")):
        if getattr(options, flag) and name not in tiers:
            raise EmbInvError(f"--{flag} is for the attacker {name}: name it in --tiers, or leave out --tiers.")
    return tiers


def _open(options: argparse.Namespace, collection: str | None) -> "VectorSource":
    """A collection of the store, with its texts where it has any."""
    from ..stores.columns import NoTextsError
    from ..stores.vectors import open_vectors

    def opened(texts: str | bool) -> "VectorSource":
        return open_vectors(
            options.source, options.column, options.id_column, texts, strict=options.strict,
            collection=collection or options.collection, trust=options.trust_source,
        )  # fmt: skip

    try:
        return opened(options.text_column or True)
    except NoTextsError as error:
        print(f"embinv: {error}; --text-column names another one", file=sys.stderr)
        return opened(False)


def _match(options: argparse.Namespace, parts: "Sequence[Part]") -> "Match":
    """Which checkpoint's vectors these are.

    Raises:
        EmbInvError: none fits, and `--force` was not given; or of another width, which nothing can force.
    """
    from ..audit.store import match
    from ..configuration_embinv import EmbInvConfig

    configs = {}
    for name in options.model or [MODEL]:
        path, _, revision = (name, "", "") if Path(name).exists() else name.partition("@")
        configs[name] = EmbInvConfig.from_pretrained(path, revision=revision or "main")
    return match(configs, parts, options.force)


def _report(options: argparse.Namespace, found: "Match", plan: "Plan", limits: dict[str, float]) -> "Report":
    """Runs the audit and writes its files."""
    from ..audit.store import describe, draw_parts, join_parts

    sample = join_parts(found.parts, options.limit, options.seed)
    model, tokenizer = load_model(options)
    encode = _encode(options, model) if "encoder" in plan.tiers or _needs_encoder(options, sample) else None
    import shutil

    from ..audit.attack import Attacker
    from ..audit.defences import STORED
    from ..audit.files import write_report
    from ..audit.report import Report
    from ..audit.run import finder_or_note, open_work, run, sample_notes, step_notes

    if plan.candidates and encode is None:
        raise EmbInvError("--candidates needs the encoder, which is not at hand: see --encoder.")
    work = Path(options.out) / _WORK
    identity = {
        "model": options.model, "checksums": model.config.checksums, "seed": options.seed, "int8": options.int8,
        "encoder_rows": plan.encoder_rows, "template": plan.template,
    }  # fmt: skip
    if open_work(work, sample, identity):
        print(f"embinv: going on with the work in {work}", file=sys.stderr)
    finder, missing = finder_or_note() if sample.texts is not None or encode is not None else (None, None)
    attacker = Attacker(model, tokenizer, work, encode, options.batch_size, options.seed)
    stored = None
    if plan.families:
        names = [part.name for part in found.parts]
        with messages_on_stderr():
            rows = draw_parts(lambda name: _open(options, name), names, STORED, options.seed)
        stored = join_parts(rows, STORED, options.seed)
    outcome = run(attacker, sample, stored, plan, finder)
    notes = [
        *found.notes,
        *sample_notes(sample, tokenizer, model.config.max_sequence_length - 1, _languages(options.model)),
        *step_notes(outcome, plan),
        *([missing] if missing else []),
    ]
    report = Report(
        source=describe(found.parts, sample),
        checkpoint={"name": options.model, "encoder": model.config.encoder_id, "checksums": model.config.checksums},
        origin=found.origin, sample=sample, seed=options.seed, limits=limits, warnings=notes, reveal=options.reveal,
        libraries={} if finder is None else finder.libraries, **vars(outcome),
    )  # fmt: skip
    write_report(report, Path(options.out))
    shutil.rmtree(work)
    return report


def _needs_encoder(options: argparse.Namespace, sample: "Sample") -> bool:
    """Whether something besides the attacker with the encoder embeds texts."""
    return bool(options.candidates) or sample.texts is None


def _encode(options: argparse.Namespace, model: Any) -> Any:
    """The encoder's function, where it is at hand: it need not be installed."""
    try:
        encoder = encoder_of(model, options)
    except (EmbInvError, OSError) as error:
        if options.encoder or "encoder" in (options.tiers or ""):
            raise
        print(f"embinv: the encoder is not at hand, its attacker is left out: {error}", file=sys.stderr)
        return None
    return encoder.encode if encoder.can_encode else None


def _languages(model: str) -> list[str]:
    """The languages that a checkpoint's model card names; none where there is no card in its folder."""
    from huggingface_hub import ModelCard

    card = Path(model) / "README.md"
    try:
        languages = ModelCard.load(card).data.language if card.is_file() else None
    except (OSError, ValueError):
        return []
    return [languages] if isinstance(languages, str) else list(languages or [])


def _end(report: "Report") -> int:
    """Prints the report in a dozen lines; the exit status."""
    from ..audit.terminal import lines

    for line in lines(report):
        print(line)
    over = report.over()
    for name in filter(over.get, over):
        figure, limit = report.figures[name], report.limits[name]
        print(f"embinv: over the threshold: {name} {figure.value:.3f}, allowed {limit:g}", file=sys.stderr)
    return OVER if any(over.values()) else 0
