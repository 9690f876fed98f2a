"""`embinv evaluate` and `embinv calibrate`."""

import argparse
import sys
from pathlib import Path

from .cli_options import add_encoder, add_model, add_model_folder, encoder_of, load_model, sampler_settings


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

    from .data import load_pairs
    from .evaluation import HeldOut
    from .report import evaluate, markdown, sweep

    if bool(options.texts) == bool(options.pairs):
        raise ValueError("give either text files or --pairs.")
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

    from .batches import held_out_pairs
    from .canvas import decode_rows
    from .evaluation import HeldOut

    canvas, end = model.config.max_sequence_length, model.config.eos_token_id
    length = min(canvas, options.max_tokens + 1) if options.max_tokens else canvas
    found = [held_out_pairs(path, end, length, options.limit, options.split) for path in options.pairs]
    ids = torch.cat([ids for ids, _ in found])
    ids = torch.nn.functional.pad(ids, (0, canvas - ids.shape[1]), value=end)
    texts = decode_rows(tokenizer, ids, end)
    held_out = HeldOut(model, tokenizer, encoder, ids, torch.cat([vectors for _, vectors in found]), texts)
    return held_out, [Path(path).name for path, (ids, _) in zip(options.pairs, found, strict=True) for _ in ids]


def _plot(report, folder: str):
    try:
        from .plots import save_plots
    except ImportError as error:
        raise ValueError(f"--plots needs matplotlib: pip install 'embinv[plots]' ({error})") from error
    print("plots:", *save_plots(report, folder))


def _held_out(path: str, options, tokenizer) -> list[str]:
    from .canvas import tokenize
    from .sources import read_texts

    texts = [document.text for document in read_texts(path)]
    if options.max_tokens is not None:
        lengths = map(len, tokenize(tokenizer, texts))
        texts = [text for text, length in zip(texts, lengths, strict=True) if length <= options.max_tokens]
    if not texts:
        raise ValueError(f"{path} holds no text of at most {options.max_tokens} tokens.")
    return texts[: options.limit]


def add_calibrate(commands: argparse._SubParsersAction):
    parser = commands.add_parser("calibrate", help="fit the confidence to how often tokens are right, and save it")
    parser.add_argument("pairs", help="folder of `embinv prepare`, whose validation split is inverted")
    parser.add_argument("--limit", type=int, default=1000, help="texts at most")
    add_model_folder(parser)
    parser.set_defaults(run=_calibrate)


def _calibrate(options):
    from .batches import held_out_pairs
    from .calibration import expected_calibration_error, fit_calibration, judged_tokens
    from .sampler_embinv import calibrated

    if not Path(options.model).is_dir():
        raise ValueError(f"{options.model} is no folder; the fitted temperature is saved in the model's own folder.")
    model, _ = load_model(options)
    config = model.config
    pairs = held_out_pairs(options.pairs, config.eos_token_id, config.max_sequence_length, options.limit)
    confidence, correct = judged_tokens(model, *pairs, options.batch_size)
    temperature, bias = (round(value, 3) for value in fit_calibration(confidence, correct))
    model.generation_config.confidence_temperature, model.generation_config.confidence_bias = temperature, bias
    model.generation_config.save_pretrained(options.model)
    before, after = (
        100 * expected_calibration_error(values, correct)
        for values in (confidence, calibrated(confidence, temperature, bias))
    )
    print(
        f"{options.model}: confidence_temperature {temperature}, confidence_bias {bias}; expected calibration error "
        f"of {len(confidence)} tokens of {len(pairs[0])} validation texts: {before:.1f} % → {after:.1f} %"
    )
