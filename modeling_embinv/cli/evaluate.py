"""`embinv evaluate`: scores on held-out texts."""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.flags import Commands
from ..data.sources import SPLITS
from ..errors_embinv import EmbInvError
from ..presets_embinv import choose
from ..progress.rates import texts as count_of_texts
from .checks import check_apart, check_folder, check_pairs_folder, check_writable
from .options import (
    add_encoder,
    add_model,
    checked_settings,
    count,
)
from .outcome import epilog, on_interrupt
from .resources import encoder_of, load_model, report_long

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..data.encoders import Encoder
    from ..evaluation.held_out import HeldOut
    from ..evaluation.report import Report, Row
    from ..modeling_embinv import EmbInvForMaskedDiffusion

_EXAMPLES = """
embinv evaluate held_out.txt --limit 100
embinv evaluate held_out.txt --limit 100 --preset standard --out scores.json
embinv evaluate --pairs data/mine --strategy confidence --num-steps 1 4 8 16
"""


def add_evaluate(commands: Commands) -> None:
    """Adds the command `evaluate` and its flags."""
    parser = commands.add_parser("evaluate", help="score an inverter on held-out texts, with floors and intervals")
    parser.epilog = epilog(_EXAMPLES)
    parser.add_argument("texts", nargs="*", help="text files or folders; each file is a part of its own in the table")
    parser.add_argument("--pairs", nargs="+", default=[], help="folders of `embinv prepare` instead of texts")
    parser.add_argument("--split", choices=SPLITS, help="which split of --pairs to score (default: validation)")
    parser.add_argument("--limit", type=count, help="use at most this many texts of each file")
    parser.add_argument("--max_tokens", type=count, help="leave out texts of more tokens")
    parser.add_argument("--training_pairs", help="folder of `embinv prepare`: adds the nearest training text's floor")
    parser.add_argument("--no_floors", action="store_true", help="leave the floors out")
    parser.add_argument("--out", "-o", help="JSON file to write all scores to")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--plots", help="folder to write plots to (needs the `plots` extra)")
    add_model(parser, sweep=True)
    add_encoder(parser)
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    settings = checked_settings(options, sweep=True)
    _check(options)
    from ..data.pairs import check_pairs, load_pairs
    from ..evaluation.report import FILES, evaluate, sweep

    known = load_pairs(options.training_pairs, "train") if options.training_pairs else None
    model, tokenizer = load_model(options)
    for folder in _folders(options):
        check_pairs(folder, model.config)
    encoder = encoder_of(model, options)
    if options.pairs:
        held_out, parts = _of_pairs(model, tokenizer, encoder, options)
    else:
        held_out, parts = _of_texts(model, tokenizer, encoder, options)
    combinations = sweep(**_several(options, model, settings))
    with _scored_above(len(combinations)) as show:
        report = evaluate(held_out, combinations, parts, not options.no_floors, known, options.batch_size, show)
    if options.out:
        try:
            report.save(options.out, options.model, _split(options) if options.pairs else FILES)
        except OSError:
            _show(report, options)
            raise
    with on_interrupt(lambda: f"The scores are in {options.out}." if options.out else ""):
        _show(report, options)
        if options.plots:
            from ..evaluation.plots import save_plots

            print("Plots:", *save_plots(report, options.plots))


@contextmanager
def _scored_above(count: int) -> Iterator[Callable[["Row"], None]]:
    """Prints the scores of each of several settings as soon as they are measured: Ctrl-C leaves at least these."""
    scored = 0

    def show(row: "Row") -> None:
        nonlocal scored
        scored += 1
        if count > 1:
            print(f"{scored}/{count} {_line(row)}", file=sys.stderr)

    def left() -> str:
        return f"Nothing was saved; {scored} of {count} settings are scored above." if count > 1 and scored else ""

    with on_interrupt(left):
        yield show


def _line(row: "Row") -> str:
    """A row of the table on one line: means and intervals."""
    from ..evaluation.report import COLUMNS, cells

    columns = [name for name in COLUMNS if name in row.scores]
    scores = zip(columns, cells(row.scores, columns), strict=True)
    return f"{row.name}: {', '.join(f'{name} {score}' for name, score in scores)}"


def _split(options: argparse.Namespace) -> str:
    """The split of `--pairs` that is scored."""
    return options.split or "validation"


def _folders(options: argparse.Namespace) -> list[str]:
    """All folders of pairs: those that are scored, and those of the training."""
    return [*options.pairs, *filter(None, [options.training_pairs])]


def _several(
    options: argparse.Namespace, model: "EmbInvForMaskedDiffusion", settings: dict[str, Any]
) -> dict[str, list[Any]]:
    """The values of each setting that are combined, those of `--preset` among them."""
    feedback = options.feedback
    if options.preset is not None:
        given = {} if feedback is None else {"feedback": feedback}
        chosen = choose(model, options.preset, {**settings, **given})
        settings, feedback = chosen.settings, chosen.feedback
    values = {**settings, "feedback": feedback}
    return {name: value if isinstance(value, list) else [value] for name, value in values.items() if value is not None}


def _check(options: argparse.Namespace) -> None:
    """Finds what cannot be scored, or not be written, before the model is loaded.

    Raises:
        EmbInvError: no texts or pairs, or both; `--split` of texts; one twice; no such file; `--out` or `--plots` that
            cannot be, and an `--out` that is one of the files.
    """
    if bool(options.texts) == bool(options.pairs):
        raise EmbInvError("give text files, or folders of `embinv prepare` with --pairs.")
    if options.texts and options.split is not None:
        raise EmbInvError("--split is of --pairs: files of texts have no splits.")
    given = options.texts or options.pairs
    places = _places(given)
    for path, place in zip(reversed(given), reversed(places), strict=True):
        if places.count(place) > 1:
            raise EmbInvError(f"{path} is given twice.")
    check_writable("--out", options.out)
    check_apart("--out", options.out, given)
    check_folder("--plots", options.plots)
    if options.plots and find_spec("matplotlib") is None:
        raise EmbInvError("--plots needs matplotlib: pip install 'embinv[plots]'.")
    if options.texts:
        from ..data.sources import read_texts

        read_texts(options.texts)  # opens none of them yet
    for path in options.pairs:
        check_pairs_folder("--pairs", path)
    if options.training_pairs:
        check_pairs_folder("--training-pairs", options.training_pairs)


def _show(report: "Report", options: argparse.Namespace) -> None:
    from rich.console import Console

    from ..evaluation.report import markdown

    if options.markdown:
        print(markdown(report.rows))
    else:
        console = Console(width=None if sys.stdout.isatty() else 180)
        console.print(report.table(options.model, console.width))
    error = 100 * report.calibration["expected_calibration_error"]
    print(f"Expected calibration error of the confidence: {error:.1f} %.")


def _of_texts(
    model: "EmbInvForMaskedDiffusion",
    tokenizer: "PreTrainedTokenizerBase",
    encoder: "Encoder",
    options: argparse.Namespace,
) -> tuple["HeldOut", list[str]]:
    """What is held out in files of texts, and the part that each text is from."""
    from ..evaluation.held_out import HeldOut

    found = [_held_out(path, options, encoder.tokenizer) for path in options.texts]
    texts = [text for part in found for text in part]
    files = [number for number, part in enumerate(found) for _ in part]
    held_out, kept = HeldOut.of_texts(model, tokenizer, encoder, texts)
    _report_changed(options.texts, texts, files, kept, model.config.max_sequence_length, encoder.tokenizer)
    names = _part_names(options.texts)
    return held_out, [names[files[index]] for index in kept]


def _report_changed(
    paths: list[str],
    texts: list[str],
    files: list[int],
    kept: list[int],
    canvas: int,
    tokenizer: "PreTrainedTokenizerBase",
) -> None:
    """Says on stderr how many texts of each file are cut to the canvas, and how many are left out, if any are.

    Args:
        files: for each text, the index of its path.
        kept: the indexes of the texts that are scored.
    """
    from ..data.tokens import tokenize

    lengths = map(len, tokenize(tokenizer, [texts[index] for index in kept]))
    cut = Counter(files[index] for index, length in zip(kept, lengths, strict=True) if length > canvas)
    given, scored = Counter(files), Counter(files[index] for index in kept)
    for number, path in enumerate(paths):
        of = f"of {count_of_texts(given[number])}"
        if cut[number]:
            to = f"to their first {canvas} tokens, as this model writes no more"
            hint = f"--max-tokens {canvas} leaves longer texts out"
            print(f"embinv: warning: {path}: cut {cut[number]:,} {of} {to}; {hint}.", file=sys.stderr)
        if left_out := given[number] - scored[number]:
            why = "the encoder's tokenizer cannot give them back from their tokens"
            where = "as where it does not know a character"
            print(f"embinv: warning: {path}: left out {left_out:,} {of}: {why}, {where}.", file=sys.stderr)


def _of_pairs(
    model: "EmbInvForMaskedDiffusion",
    tokenizer: "PreTrainedTokenizerBase",
    encoder: "Encoder",
    options: argparse.Namespace,
) -> tuple["HeldOut", list[str]]:
    """What is held out in prepared pairs, and the folder that each pair is from."""
    import torch

    from ..data.batches import held_out_pairs
    from ..evaluation.held_out import HeldOut
    from ..texts_embinv import decode_rows, text_lengths

    canvas, end, split = model.config.max_sequence_length, model.config.eos_token_id, _split(options)
    if split == "train":
        why = "scores on texts that the model may have learned say nothing of other texts"
        print(f"embinv: warning: --split train: {why}; the split test is for that.", file=sys.stderr)
    most = options.max_tokens or canvas
    rows, vectors, parts = [], [], []
    for path, part in zip(options.pairs, _part_names(options.pairs), strict=True):
        ids, embeddings = held_out_pairs(path, canvas, split=split)
        if most >= canvas:  # else the user leaves them out
            report_long(path, split, canvas)
        kept = (text_lengths(ids, end) <= most).nonzero().squeeze(1)[: options.limit]
        if not len(kept):
            raise EmbInvError(f"{path}: no text of the {split} split has at most {most} tokens.")
        rows.append(ids[kept])
        vectors.append(embeddings[kept])
        parts += [part] * len(kept)
    ids = torch.cat(rows)
    return HeldOut(model, tokenizer, encoder, ids, torch.cat(vectors), decode_rows(tokenizer, ids, end)), parts


def _part_names(paths: list[str]) -> list[str]:
    """A name for each file or folder, the first that no other has: `a`, `a.txt`, `en/a`, `en/a.txt` and so on."""
    pairs = [(_endings(_without_suffix(place)), _endings(place)) for place in _places(paths)]
    whole = Counter(name for _, names in pairs for name in names)
    every = Counter(name for short_names, names in pairs for name in {*short_names, *names})
    found = []
    for pair in pairs:
        tried = (
            one for short, name in zip(*pair, strict=True) for one in ((short, every[short]), (name, whole[name]))
        )
        found.append(next(name for name, count in tried if count == 1))
    return found


def _places(paths: list[str]) -> list[Path]:
    """Where files and folders lie, in one form for each; a link keeps its own name."""
    return [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100


def _without_suffix(place: Path) -> Path:
    return place if place.is_dir() else place.with_suffix("")  # v1.0 is the whole name of a folder


def _endings(place: Path) -> list[str]:
    """The last name of a path, the last two, and so on up to all of it."""
    return [Path(*place.parts[-count:]).as_posix() for count in range(1, len(place.parts) + 1)]


def _held_out(path: str, options: argparse.Namespace, tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    from ..data.sources import read_texts
    from ..data.tokens import tokenize

    texts = [document.text for document in read_texts(path)]
    if options.max_tokens is not None:
        lengths = map(len, tokenize(tokenizer, texts))
        texts = [text for text, length in zip(texts, lengths, strict=True) if length <= options.max_tokens]
    if not texts:
        raise EmbInvError(f"{path} has no text of at most {options.max_tokens} tokens.")
    return texts[: options.limit]
