"""`embinv audit`: what a vector store leaks."""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.files import one_line
from ..data.flags import Commands, hyphenated
from ..errors_embinv import EmbInvError
from .audit_plan import WORK, add_flags, checked, known_rows
from .audit_store import Target, all_rows, choose_target, open_collection
from .options import VECTOR_KINDS
from .outcome import epilog, on_interrupt
from .resources import (
    encoder_of,
    load_model,
    messages_on_stderr,
    report_skipped,
)

if TYPE_CHECKING:
    from ..audit.report import Report
    from ..audit.sample import Sample
    from ..data.encoders import Encoder

OVER = 3
# where a source has what; another choice is another audit
COLUMNS = ("collection", "column", "id_column", "text_column")
_EXAMPLES = """
embinv audit dump.parquet --out report/
embinv audit chroma:./store --collection support --out report/ --fail-over words=0.3,names=0.1
embinv audit dump.parquet --column embedding --text-column body --out report/ --candidates names.txt --defences all
"""


def add_audit(commands: Commands) -> None:
    """Adds the command `audit` and its flags."""
    parser = commands.add_parser("audit", help="measure what a vector store leaks, and write a report")
    parser.epilog = epilog(_EXAMPLES, "a figure is above its threshold of --fail-over")
    parser.add_argument("source", help=VECTOR_KINDS)
    parser.add_argument("--out", required=True, help="folder of the report; a report that lies there is replaced")
    add_flags(parser)
    parser.set_defaults(run=_audit)


def _audit(options: argparse.Namespace) -> int:
    limits, plan = checked(options)
    from ..audit.defences import STORED
    from ..audit.report import utc_now
    from ..audit.store import open_parts
    from ..data.parts import locked
    from ..progress.bar import stage

    date, sizes = utc_now(), [options.limit, STORED][: 2 if plan.families else 1]
    with stage("reading the store"), messages_on_stderr():
        parts, left_out = open_parts(lambda name: open_collection(options, name), sizes, options.seed)
    for part in parts:
        report_skipped(part.path if part.name is None else f"{part.path}, {one_line(part.name)}", part.skipped)
    target = choose_target(options, parts, plan)
    target = target._replace(match=target.match._replace(notes=[*left_out, *target.match.notes]))
    if target.encoder is not None:
        return _end(_written(_guesses_report(options, target, target.encoder, limits, date), options.out))
    target = target._replace(plan=replace(target.plan, pairs=known_rows(options)))
    options.model = target.match.origin.model
    work = Path(options.out) / WORK
    kept = f"What is done lies in {work}; run the same command to resume."
    with locked(Path(options.out)), on_interrupt(lambda: kept if work.exists() else ""):
        report = _written(_report(options, target, sizes, limits, date), options.out)
        shutil.rmtree(work)
    return _end(report)


def _guesses_report(
    options: argparse.Namespace, target: Target, encoder: "Encoder", limits: dict[str, float], date: str
) -> "Report":
    """Looks for guesses alone: there is no inverter."""
    from ..audit.notes import size_notes
    from ..audit.report import Report
    from ..audit.run import find_guesses
    from ..audit.store import describe, join_parts

    found = target.match
    (sample,) = join_parts(found.parts, [options.limit], options.seed)
    guesses = find_guesses(target.plan, encoder.encode, sample, all_rows(options, found.parts), options.seed)
    return Report(
        source=describe(found.parts, sample), checkpoint=None, encoder=encoder.config.id, origin=found.origin,
        sample=sample, seed=options.seed, date=date, limits=limits, warnings=[*found.notes, *size_notes(sample)],
        reveal=options.reveal, guesses=guesses,
    )  # fmt: skip


def _report(
    options: argparse.Namespace, target: Target, sizes: Sequence[int], limits: dict[str, float], date: str
) -> "Report":
    """Runs the audit; `sizes` are those of the samples of each collection."""
    from ..audit.store import describe, join_parts
    from ..progress.bar import stage

    found, plan, _ = target
    sample, *stored = join_parts(found.parts, sizes, options.seed)
    with stage("loading the checkpoint"):
        model, tokenizer = load_model(options)
    needs_encoder = "encoder" in plan.tiers or _needs_encoder(options, sample)
    encoder, left_out = _encoder(options, model) if needs_encoder else (None, None)
    encode = None if encoder is None else encoder.encode
    from ..audit.attack import Attacker
    from ..audit.notes import finder_or_note, sample_notes, step_notes
    from ..audit.report import Report
    from ..audit.run import run
    from ..audit.summary import gate_notes
    from ..data.encoder_config import full_id

    for flag in ("candidates", "pairs", "train_texts"):
        if getattr(options, flag) and encode is None:
            raise EmbInvError(f"{hyphenated(f'--{flag}')} needs the encoder, which is not at hand: see --encoder.")
    work = Path(options.out) / WORK
    own: Any = model.generation_config
    identity = {
        "--model": options.model, "checksums of the model": model.config.checksums, "--seed": options.seed,
        "--int8": options.int8, "settings of the model": own.changed(),
        "--encoder-limit": plan.encoder_rows, "--template": plan.template,
        "--pairs": None if plan.pairs is None else [plan.pairs.digest, plan.pairs.texts_digest],
        "--train-texts": plan.train_texts, "--train-steps": options.train_steps,
        "--encoder": options.encoder and full_id(options.encoder),
        **{f"--{name.replace('_', '-')}": [getattr(part, name) for part in found.parts] for name in COLUMNS},
    }  # fmt: skip
    _open_work(work, sample, identity)
    finder, missing = finder_or_note() if sample.texts is not None else (None, None)
    retrain = None if encoder is None else _retrain(options, model, encoder)
    steps = options.train_steps or 0
    attacker = Attacker(model, tokenizer, work, encode, retrain, steps, options.batch_size, options.seed)
    outcome = run(
        attacker, sample, next(iter(stored), None), plan, finder, all_rows(options, found.parts), found.origin
    )
    notes = [
        *found.notes,
        *([] if found.origin.looks_like is None else ["attackers without known pairs take these vectors as they are"]),
        *sample_notes(sample, tokenizer, model.config.max_sequence_length - 1, _languages(options.model)),
        *step_notes(outcome, plan),
        *filter(None, (left_out, missing)),
    ]
    found_by_steps = {name: value for name, value in vars(outcome).items() if name != "notes"}
    report = Report(
        source=describe(found.parts, sample),
        checkpoint={"name": options.model, "encoder": model.config.encoder_id, "checksums": model.config.checksums},
        encoder=None if encoder is None else encoder.config.id,
        sample=sample, seed=options.seed, date=date, limits=limits, reveal=options.reveal,
        **found_by_steps,
    )  # fmt: skip
    report.warnings = [*notes, *gate_notes(report)]
    return report


def _open_work(work: Path, sample: "Sample", identity: dict[str, Any]) -> None:
    """Opens the folder of unfinished work, and says on stderr what lay there."""
    from ..audit.run import open_work

    goes_on, differs = open_work(work, sample, identity)
    if goes_on:
        print(f"embinv: going on with the work in {work}", file=sys.stderr)
    elif differs:
        what = ", ".join(differs)
        print(f"embinv: {work} is of another audit (other: {what}) and is begun anew", file=sys.stderr)


def _needs_encoder(options: argparse.Namespace, sample: "Sample") -> bool:
    """Whether something besides the attacker with the encoder embeds texts."""
    return bool(options.candidates or options.pairs or options.train_texts) or sample.texts is None


def _encoder(options: argparse.Namespace, model: Any) -> "tuple[Encoder | None, str | None]":
    """The encoder, where it is at hand: it need not be installed; else why there is none, for the report."""
    try:
        encoder = encoder_of(model, options)
    except (EmbInvError, OSError) as error:
        if options.encoder or "encoder" in (options.tiers or ""):
            raise
        why = f"the encoder is not at hand, and what needs it is left out: {one_line(error, 300).rstrip('.')}"
        print(f"embinv: {why}", file=sys.stderr)
        return None, why
    if not encoder.can_encode:
        return None, f"{encoder.config.id} cannot be called here, and what needs it is left out"
    encoder.read_whole_texts()  # known texts and passages are longer than what the checkpoint writes
    return encoder, None


def _retrain(options: argparse.Namespace, model: Any, encoder: "Encoder") -> Callable[..., Any]:
    """What fine-tunes the checkpoint on texts and vectors; see `audit.attack.Retrain`."""

    def retrain(texts: list[str], vectors: Any, folder: Path, steps: int) -> Any:
        from ..training.known_pairs import fine_tune

        with redirect_stdout(StringIO()):  # its bar is on stderr; the rest is about a folder that nobody keeps
            tuned = fine_tune(options.model, model.config, encoder, texts, vectors, folder, steps, options.seed)
        return load_model(argparse.Namespace(**{**vars(options), "model": str(tuned)}))[0]

    return retrain


def _languages(model: str) -> list[str]:
    """The languages that a checkpoint's model card names, in its folder or on the Hub; none where there is no card."""
    from huggingface_hub import ModelCard

    folder = Path(model)
    try:
        languages = ModelCard.load(folder / "README.md" if folder.is_dir() else model.partition("@")[0]).data.language
    except Exception:  # no card, a damaged one, or a Hub that cannot be reached
        return []
    return [languages] if isinstance(languages, str) else list(languages or [])


def _written(report: "Report", out: str) -> "Report":
    """The report, whose files are written; where that fails, its figures are printed at least."""
    from ..audit.files import write_report

    try:
        write_report(report, Path(out))
    except OSError:
        _show(report)
        raise
    return report


def _show(report: "Report") -> None:
    """Prints the report in a dozen lines."""
    from ..audit.terminal import lines

    for line in lines(report):
        print(line)


def _end(report: "Report") -> int:
    """Prints the report in a dozen lines; the exit status: that of a threshold that is exceeded comes first.

    Raises:
        EmbInvError: no threshold is exceeded, and a figure of one was not measured, which would pass unseen.
    """
    _show(report)
    over = report.over()
    for name in filter(over.get, over):
        figure, limit = report.figures[name], report.limits[name]
        print(f"embinv: over the threshold: {name} {figure.value:.3f}, allowed {limit:g}", file=sys.stderr)
    missing = ", ".join(name for name, is_over in over.items() if is_over is None)
    message = f"--fail-over {missing}: not measured here; measured: {', '.join(report.figures) or 'nothing'}."
    if missing and not any(over.values()):
        raise EmbInvError(message)
    if missing:
        print(f"embinv: {message}", file=sys.stderr)
    return OVER if any(over.values()) else 0
