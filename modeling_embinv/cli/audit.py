"""`embinv audit`: what a vector store leaks."""

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.flags import LARGEST_BATCH, Commands, number
from ..errors_embinv import EmbInvError
from .checks import check_model, check_seed, stored_config
from .options import (
    MODEL,
    VECTOR_KINDS,
    add_encoder,
    count,
    encoder_of,
    load_model,
    messages_on_stderr,
    report_skipped,
)
from .outcome import on_interrupt

if TYPE_CHECKING:
    from ..audit.fingerprint import Origin
    from ..audit.sample import Sample
    from ..data.encoders import Encoder
    from ..stores.vectors import VectorSource

OVER = 3
_EXAMPLES = """examples:
  embinv audit dump.parquet --out report/
  embinv audit dump.parquet --column embedding --text-column body --out report/ --fail-over words=0.3,names=0.1

exit status: 0 within the thresholds of --fail-over, 3 over one of them, 2 a mistake in the command or its input
"""
FIGURES = ("words", "f1", "exact")
# rows below which figures say little about a store
FEW = 50
_WORK = ".unfinished"


def add_audit(commands: Commands) -> None:
    """Adds the command `audit` and its flags."""
    parser = commands.add_parser("audit", help="measure what a vector store leaks, and write a report")
    parser.epilog = _EXAMPLES
    parser.add_argument("source", help=f"{VECTOR_KINDS}, or a folder that datasets saved")
    parser.add_argument("--out", required=True, help="folder of the report")
    parser.add_argument("--column", help="column of the vectors, or its path; without it the usual names are tried")
    parser.add_argument("--id_column", help="column of their ids; without it what the format calls id")
    parser.add_argument("--text_column", help="column of their texts; without it the usual names are tried")
    parser.add_argument("--strict", action="store_true", help="stop at the first row without a usable vector")
    parser.add_argument("--limit", type=count, default=200, help="rows that are looked at, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and of every draw")
    parser.add_argument(
        "--fail_over", action="append", default=[], metavar="FIGURE=SHARE",
        help="end with status 3 where a figure is above a share, as words=0.3; again, or with commas, for more",
    )  # fmt: skip
    parser.add_argument("--reveal", action="store_true", help="show recovered words in the report's files")
    parser.add_argument("--force", action="store_true", help="go on with vectors that look like another encoder's")
    parser.add_argument(
        "--model", action="append", help=f"folder or Hub id of an inverter; of several, the one that fits ({MODEL})"
    )
    add_encoder(parser)
    parser.add_argument("--device", help="cpu, cuda, mps (default: this process's accelerator, else cpu)")
    parser.add_argument(
        "--batch_size", type=number(int, 1, LARGEST_BATCH), default=16, help="vectors in one forward pass, at most 16"
    )
    parser.add_argument("--int8", action="store_true", help="matrix products in int8, about twice as fast on a CPU")
    parser.set_defaults(run=_audit)


def _audit(options: argparse.Namespace) -> int:
    from ..audit.severity import parse_limits

    limits = parse_limits(options.fail_over, FIGURES)
    check_seed(options.seed)
    out, work = Path(options.out), Path(options.out) / _WORK
    if out.exists() and not out.is_dir():
        raise EmbInvError(f"--out {out} is a file; give the folder of the report.")
    for model in options.model or [MODEL]:
        check_model(model)
    source = _open(options)
    from ..audit.sample import draw

    with messages_on_stderr():
        sample = draw(source, options.limit, options.seed)
    report_skipped(options.source, source.skipped)
    found = _origin(options, sample)
    options.model = found.model
    with on_interrupt(
        lambda: f"What is done lies in {work}; run the same command to resume." if work.exists() else ""
    ):
        return _run(options, source, sample, found, limits, work)


def _open(options: argparse.Namespace) -> "VectorSource":
    """The store, with its texts where it has any."""
    from ..stores.columns import NoTextsError
    from ..stores.vectors import open_vectors

    def opened(texts: str | bool) -> "VectorSource":
        return open_vectors(options.source, options.column, options.id_column, texts, strict=options.strict)

    with messages_on_stderr():
        try:
            return opened(options.text_column or True)
        except NoTextsError:
            return opened(False)


def _origin(options: argparse.Namespace, sample: "Sample") -> "Origin":
    """Which checkpoint's vectors these are; a line where none fits.

    Raises:
        EmbInvError: none fits, and `--force` was not given; or of another width, which nothing can force.
    """
    from ..audit.fingerprint import best, origin
    from ..configuration_embinv import EmbInvConfig

    origins = []
    for name in options.model or [MODEL]:
        path, _, revision = (name, "", "") if Path(name).exists() else name.partition("@")
        config = EmbInvConfig.from_pretrained(path, **({"revision": revision} if revision else {}))
        origins.append((config, origin(name, config, sample.vectors)))
    found = best([one for _, one in origins])
    config = next(config for config, one in origins if one is found)
    if found.looks_like is not None:
        if config.embedding_dim != sample.vectors.shape[1]:
            raise EmbInvError(f"{found}. Another encoder needs another checkpoint (--model).")
        if not options.force:
            raise EmbInvError(f"{found}. Name the right checkpoint with --model, or go on with --force.")
    return found


def _run(
    options: argparse.Namespace, source: "VectorSource", sample: "Sample", found: "Origin",
    limits: dict[str, float], work: Path,
) -> int:  # fmt: skip
    model, tokenizer = load_model(options)
    encoder = _encoder(options, model)
    from ..audit.attack import ENCODER, VECTORS, Attacker
    from ..audit.report import Report
    from ..audit.terminal import lines
    from ..audit.tiers import run_tier
    from ..data.files import write_json

    work.mkdir(parents=True, exist_ok=True)
    encode = None if encoder is None else encoder.encode
    attacker = Attacker(model, tokenizer, work, encode, options.batch_size, options.seed)
    tiers = [VECTORS] + [ENCODER] * (encode is not None)
    results = [run_tier(attacker, sample, tier) for tier in tiers]
    report = Report(
        {"name": options.source, "column": source.column, "id_column": source.id_column,
         "text_column": source.text_column, "digest": sample.digest,
         "skipped": {"count": source.skipped.count, "examples": source.skipped.examples}},
        {"name": options.model, "encoder": model.config.encoder_id, "checksums": model.config.checksums},
        found, sample, options.seed, results, limits, [*found.notes], options.reveal,
    )  # fmt: skip
    write_json(work.parent / "report.json", report.as_dict())
    shutil.rmtree(work)
    for line in lines(report):
        print(line)
    over = report.over()
    for name in filter(over.get, over):
        print(
            f"embinv: over the threshold: {name} {report.figures[name].value:.3f} > {limits[name]:g}", file=sys.stderr
        )
    return OVER if any(over.values()) else 0


def _encoder(options: argparse.Namespace, model: Any) -> "Encoder | None":
    """The encoder, where it is at hand: it need not be installed."""
    try:
        encoder = encoder_of(model, options)
    except (EmbInvError, OSError) as error:
        if options.encoder:
            raise
        print(f"embinv: the encoder is not at hand, so that its tier is left out: {error}", file=sys.stderr)
        return None
    return encoder if encoder.can_encode else None
