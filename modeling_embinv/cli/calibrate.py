"""`embinv calibrate`: fits the confidence to how often tokens are right."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.flags import Commands
from ..errors_embinv import EmbInvError
from ..settings_embinv import FEEDBACK
from .checks import check_model, check_pairs_folder, stored_config
from .options import add_encoder, add_model_folder, count
from .outcome import epilog, on_interrupt
from .resources import feedback_of, load_model, report_long

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from ..evaluation.calibration import WrittenTokens
    from ..modeling_embinv import EmbInvForMaskedDiffusion

# texts of which fewer tell little of how often tokens are right in others
FEW_TEXTS = 100

_EXAMPLES = """
embinv calibrate data/mine --model runs/mine/best
embinv calibrate data/mine --model runs/mine/best --limit 200
embinv calibrate data/mine --model runs/mine/best --feedback surrogate encoder
"""


def add_calibrate(commands: Commands) -> None:
    """Adds the command `calibrate` and its flags."""
    parser = commands.add_parser("calibrate", help="fit the confidence to how often tokens are right, and save it")
    parser.epilog = epilog(_EXAMPLES)
    parser.add_argument("pairs", nargs="+", help="folders of `embinv prepare`, whose validation split is inverted")
    parser.add_argument("--limit", type=count, default=1000, help="texts of each folder without a judge")
    parser.add_argument("--search_limit", type=count, default=200, help="texts of each folder for each judge")
    judges = "also fit the confidence of searches with these judges, which takes long (default: none)"
    parser.add_argument("--feedback", nargs="*", default=[], choices=FEEDBACK.choices[1:], help=judges)
    add_model_folder(parser)
    add_encoder(parser)
    parser.set_defaults(run=_calibrate)


def _calibrate(options: argparse.Namespace) -> None:
    check_model(options.model)
    if not Path(options.model).is_dir():
        raise EmbInvError(f"{options.model}: no such folder; the calibration is saved in the folder of the model.")
    for path in options.pairs:
        check_pairs_folder("calibrate", path)
    config = stored_config(options.model)
    if "surrogate" in options.feedback and config and not config.get("surrogate_rank"):
        raise EmbInvError(
            f"{options.model} has no surrogate encoder: leave surrogate out of --feedback, or train one first "
            "(train.py --surrogate-rank)."
        )
    saved: list[str] = []
    with on_interrupt(lambda: f"Saved in {options.model}: the calibration of {', '.join(saved)}." if saved else ""):
        for kind in _fit_each(options):
            saved.append(kind)


def _fit_each(options: argparse.Namespace) -> Iterator[str]:
    """Fits, saves and prints the calibrations; yields the kind of each when it is saved."""
    from ..data.files import write_text
    from ..data.pairs import check_pairs
    from ..evaluation.calibration import WrittenTokens, cross_fitted, fit_calibration

    model, tokenizer = load_model(options)
    for path in options.pairs:
        check_pairs(path, model.config)
        report_long(path, "validation", model.config.max_sequence_length)
    _tell_few(options)
    settings: Any = model.generation_config  # transformers declares its own class, without a calibration
    for kind, parts in _written_tokens(model, tokenizer, options):
        tokens = WrittenTokens.joined(parts)
        fitted = asdict(fit_calibration(tokens))
        # before anything is saved: too few texts are found out here
        before, after = _errors(tokens.confidence, parts), _errors(cross_fitted(tokens), parts)
        settings.calibration = {**(settings.calibration or {}), kind: fitted}
        # what is fitted stays when a later judge is interrupted
        write_text(Path(options.model) / "generation_config.json", settings.to_json_string())
        yield kind
        print(f"{kind}:", ", ".join(f"{name} {value}" for name, value in settings.calibration[kind].items()))
        for path, part, old, new in zip(options.pairs, parts, before, after, strict=True):
            texts = len(part.text.unique())
            print(f"  {path}, {texts} texts: expected calibration error {old:.1f} % → {new:.1f} % on texts left out")


def _tell_few(options: argparse.Namespace) -> None:
    """A line where so few texts are inverted that another handful would give another calibration."""
    from ..data.pairs import MORE_TEXTS, read_manifest

    found = sum(min(read_manifest(path)["rows"].get("validation", 0), options.limit) for path in options.pairs)
    if found < FEW_TEXTS:
        what = f"a calibration on {found} texts says little of other texts"
        hint = "raise --limit" if options.limit < FEW_TEXTS else MORE_TEXTS
        print(f"embinv: warning: {what}: {hint}.", file=sys.stderr)


def _written_tokens(
    model: "EmbInvForMaskedDiffusion", tokenizer: "PreTrainedTokenizerBase", options: argparse.Namespace
) -> Iterator[tuple[str, list["WrittenTokens"]]]:
    """(kind of confidence, tokens written for each folder of pairs), kind by kind."""
    from ..data.batches import held_out_pairs
    from ..evaluation.calibration import CANDIDATES, OPEN_LOOP, SEARCHES, written_tokens

    runs: list[tuple[str, tuple[dict[str, Any], ...], int, Any]]
    runs = [("open_loop", (OPEN_LOOP,), options.limit, None), ("candidates", (CANDIDATES,), options.limit, None)]
    for judge in options.feedback:
        runs.append((judge, SEARCHES, options.search_limit, feedback_of(judge, model, options)))
    for kind, settings, limit, feedback in runs:
        parts = []
        for path in options.pairs:
            pairs = held_out_pairs(path, model.config.max_sequence_length, limit)
            # the searches take turns by batches: each gets a share of few texts, too
            batch_size = min(options.batch_size, max(1, len(pairs[0]) // len(settings)))
            name = f"{kind}, {path}"
            parts.append(written_tokens(model, *pairs, settings, feedback, tokenizer, batch_size, name))
        yield kind, parts


def _errors(confidence: "Tensor", parts: list["WrittenTokens"]) -> list[float]:
    """The expected calibration error of each part of the tokens, in percent."""
    from ..evaluation.calibration import expected_calibration_error

    sizes = [len(part.correct) for part in parts]
    pairs = zip(confidence.split(sizes), parts, strict=True)
    return [100 * expected_calibration_error(own, part.correct) for own, part in pairs]
