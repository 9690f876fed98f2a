"""`embinv evaluate` and `embinv calibrate`."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from ..errors_embinv import EmbInvError
from ..settings_embinv import FEEDBACK
from .options import add_encoder, add_model, add_model_folder, encoder_of, feedback_of, load_model, sampler_settings


def add_evaluate(commands):
    parser = commands.add_parser("evaluate", help="score an inverter on held-out texts, with floors and intervals")
    parser.add_argument("texts", nargs="*", help="text files or folders; each file is a part of its own in the table")
    parser.add_argument("--pairs", nargs="+", default=[], help="folders of `embinv prepare` in place of texts")
    parser.add_argument("--split", default="validation", help="of --pairs")
    parser.add_argument("--limit", type=int, help="texts of each file at most")
    parser.add_argument("--max_tokens", type=int, help="only texts of at most so many tokens")
    parser.add_argument("--training_pairs", help="folder of `embinv prepare`: adds the nearest training text's floor")
    parser.add_argument("--no_floors", action="store_true", help="leave the floors out")
    parser.add_argument("--out", help="JSON file of all scores")
    parser.add_argument("--markdown", action="store_true", help="print the table as a README wants it")
    parser.add_argument("--plots", help="folder of plots (needs the `plots` extra)")
    add_model(parser, sweep=True)
    add_encoder(parser)
    parser.set_defaults(run=_evaluate)


def _evaluate(options):
    from rich.console import Console

    from ..data.pairs import load_pairs
    from ..evaluation.held_out import HeldOut
    from ..evaluation.report import evaluate, markdown, sweep

    if bool(options.texts) == bool(options.pairs):
        raise EmbInvError("give either text files or --pairs.")
    known = load_pairs(options.training_pairs, "train") if options.training_pairs else None
    model, tokenizer = load_model(options)
    encoder = encoder_of(model, options)
    if options.pairs:
        held_out, parts = _of_pairs(model, tokenizer, encoder, options)
    else:
        texts, parts = [], []
        for path in options.texts:
            found = _held_out(path, options, encoder.tokenizer)
            texts += found
            parts += [Path(path).stem] * len(found)
        held_out, kept = HeldOut.of_texts(model, tokenizer, encoder, texts)
        parts = [parts[place] for place in kept]
    combinations = sweep(**sampler_settings(options), feedback=options.feedback)
    report = evaluate(held_out, combinations, parts, not options.no_floors, known, options.batch_size)
    if options.out:
        report.save(options.out, options.model)
    if options.markdown:
        print(markdown(report.rows))
    else:
        Console(width=None if sys.stdout.isatty() else 180).print(report.table(options.model))
    error = 100 * report.calibration["expected_calibration_error"]
    print(f"expected calibration error of the confidence: {error:.1f} %")
    if options.plots:
        _plot(report, options.plots)


def _of_pairs(model, tokenizer, encoder, options):
    """What is held out in prepared pairs, and the folder that each pair is from."""
    import torch

    from ..data.batches import held_out_pairs
    from ..evaluation.held_out import HeldOut
    from ..texts_embinv import decode_rows

    canvas, end = model.config.max_sequence_length, model.config.eos_token_id
    length = min(canvas, options.max_tokens + 1) if options.max_tokens else canvas
    found = [held_out_pairs(path, length, options.limit, options.split) for path in options.pairs]
    ids = torch.cat([ids for ids, _ in found])
    ids = torch.nn.functional.pad(ids, (0, canvas - ids.shape[1]), value=end)
    texts = decode_rows(tokenizer, ids, end)
    held_out = HeldOut(model, tokenizer, encoder, ids, torch.cat([vectors for _, vectors in found]), texts)
    return held_out, [Path(path).name for path, (ids, _) in zip(options.pairs, found, strict=True) for _ in ids]


def _plot(report, folder: str):
    try:
        from ..evaluation.plots import save_plots
    except ImportError as error:
        raise EmbInvError(f"--plots needs matplotlib: pip install 'embinv[plots]' ({error})") from error
    print("plots:", *save_plots(report, folder))


def _held_out(path: str, options, tokenizer) -> list[str]:
    from ..data.sources import read_texts
    from ..data.tokens import tokenize

    texts = [document.text for document in read_texts(path)]
    if options.max_tokens is not None:
        lengths = map(len, tokenize(tokenizer, texts))
        texts = [text for text, length in zip(texts, lengths, strict=True) if length <= options.max_tokens]
    if not texts:
        raise EmbInvError(f"{path} holds no text of at most {options.max_tokens} tokens.")
    return texts[: options.limit]


def add_calibrate(commands: argparse._SubParsersAction):
    parser = commands.add_parser("calibrate", help="fit the confidence to how often tokens are right, and save it")
    parser.add_argument("pairs", nargs="+", help="folders of `embinv prepare`, whose validation split is inverted")
    parser.add_argument("--limit", type=int, default=1000, help="texts of each folder without a judge")
    parser.add_argument("--search_limit", type=int, default=200, help="texts of each folder for each judge")
    judges = "what judges the searches whose confidence is fitted as well; none by default, as they take long"
    parser.add_argument("--feedback", nargs="*", default=[], choices=FEEDBACK.choices[1:], help=judges)
    add_model_folder(parser)
    add_encoder(parser)
    parser.set_defaults(run=_calibrate)


def _calibrate(options):
    from ..evaluation.calibration import WrittenTokens, cross_fitted, fit_calibration

    if not Path(options.model).is_dir():
        raise EmbInvError(f"{options.model} is no folder; the fitted calibration is saved in the model's own folder.")
    model, tokenizer = load_model(options)
    settings = model.generation_config
    for kind, parts in _written_tokens(model, tokenizer, options):
        tokens = WrittenTokens.joined(parts)
        settings.calibration = {**(settings.calibration or {}), kind: asdict(fit_calibration(tokens))}
        settings.save_pretrained(options.model)  # what is fitted stays when a later judge is interrupted
        before, after = _errors(tokens.confidence, parts), _errors(cross_fitted(tokens), parts)
        print(f"{kind}:", ", ".join(f"{name} {value}" for name, value in settings.calibration[kind].items()))
        for path, part, old, new in zip(options.pairs, parts, before, after, strict=True):
            texts = len(part.text.unique())
            print(f"  {path}, {texts} texts: expected calibration error {old:.1f} % → {new:.1f} % on texts left out")


def _written_tokens(model, tokenizer, options):
    """(kind of confidence, tokens written for each folder of pairs), kind by kind."""
    from ..data.batches import held_out_pairs
    from ..evaluation.calibration import CANDIDATES, SEARCHES, written_tokens

    runs = [("open_loop", ({},), options.limit, None), ("candidates", (CANDIDATES,), options.limit, None)]
    for judge in options.feedback:
        runs.append((judge, SEARCHES, options.search_limit, feedback_of(judge, model, options)))
    for kind, settings, limit, feedback in runs:
        parts = []
        for path in options.pairs:
            pairs = held_out_pairs(path, model.config.max_sequence_length, limit)
            # the searches take turns by batches: each gets a share of few texts, too
            batch_size = min(options.batch_size, max(1, len(pairs[0]) // len(settings)))
            parts.append(written_tokens(model, *pairs, settings, feedback, tokenizer, batch_size))
        yield kind, parts


def _errors(confidence, parts) -> list[float]:
    """The expected calibration error of each part of the tokens, in percent."""
    from ..evaluation.calibration import expected_calibration_error

    sizes = [len(part.correct) for part in parts]
    pairs = zip(confidence.split(sizes), parts, strict=True)
    return [100 * expected_calibration_error(own, part.correct) for own, part in pairs]
