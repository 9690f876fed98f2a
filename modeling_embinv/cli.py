"""`embinv prepare | train | evaluate | calibrate | invert | demo | push`."""

import argparse
import sys
import warnings

from .cli_evaluate import add_calibrate, add_evaluate
from .cli_options import (
    add_encoder,
    add_model,
    encoder_of,
    feedback_of,
    load_model,
    messages_on_stderr,
    report_skipped,
    sampler_settings,
)  # fmt: skip
from .cli_prepare import add_prepare
from .cli_push import add_push

DEMO_SENTENCES = (
    "The dog slept in front of the fire.",
    "She bought a red car in Paris last summer.",
    "My password is hidden under the keyboard.",
    "The patient was given two pills every morning.",
    "We will meet at the station on Friday evening.",
    "He sold his company to a bank for five million dollars.",
)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; errors of the user's making are one line on stderr and exit code 1."""
    parser = argparse.ArgumentParser(prog="embinv", description="Read the text back out of sentence embeddings.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for add in (_add_demo, _add_invert, add_prepare, add_evaluate, add_calibrate, add_push):
        add(commands)
    commands.add_parser("train", help="train an inverter: see `python train.py --help`", add_help=False)
    arguments = sys.argv[1:] if arguments is None else arguments
    warnings.showwarning = lambda message, *_, **__: print(f"embinv: warning: {message}", file=sys.stderr)
    try:
        if arguments[:1] == ["train"]:
            return _train(arguments[1:])
        options = parser.parse_args(arguments)
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"embinv {arguments[0]}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("embinv: interrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


def _add_demo(commands):
    parser = commands.add_parser("demo", help="embed a few sentences and invert their vectors")
    parser.add_argument("sentences", nargs="*", default=DEMO_SENTENCES, help="your own sentences")
    add_model(parser)
    add_encoder(parser)
    parser.set_defaults(run=_demo)


def _demo(options):
    import torch
    from rich.console import Console

    from . import metrics
    from .canvas import encode_canvas, text_lengths
    from .terminal import legend, tinted

    model, tokenizer = load_model(options)
    encoder = encoder_of(model, options)
    canvas = encode_canvas(encoder.tokenizer, list(options.sentences), model.config.max_sequence_length)
    embeddings = encoder.encode(canvas.texts)
    settings = sampler_settings(options)
    feedback = feedback_of(model, options, encoder)
    generator = torch.Generator().manual_seed(options.seed)
    output = model.generate(embeddings, generator=generator, feedback=feedback, tokenizer=tokenizer, **settings)
    sequences, end = output.sequences.cpu(), model.config.eos_token_id
    recovered = tokenizer.batch_decode(sequences, skip_special_tokens=True)
    cosines = metrics.cosine(encoder.encode(recovered), embeddings)
    accuracies = metrics.token_accuracy(sequences, canvas.input_ids, end)
    lengths = text_lengths(sequences, end)
    console = Console(highlight=False)
    for row, place in enumerate(canvas.kept):
        length = lengths[row]
        text = tinted(tokenizer, sequences[row, :length].tolist(), output.confidence[row, :length].tolist())
        console.print(f"original   {options.sentences[place]}", markup=False)
        console.print("recovered ", text)
        console.print(f"           cosine {cosines[row]:.3f}   token accuracy {100 * accuracies[row]:.0f} %\n")
    calls = f", {output.num_feedback_calls} encoder calls" if output.num_feedback_calls else ""
    calls += f", {output.num_surrogate_calls} surrogate calls" if output.num_surrogate_calls else ""
    console.print(f"{len(canvas.kept)} vectors in {output.num_forward_passes} forward passes{calls}.", legend())


def _add_invert(commands):
    parser = commands.add_parser("invert", help="invert vectors from a file or the command line")
    kinds = "npy, npz, safetensors, parquet, Arrow, jsonl, csv or json file of vectors"
    parser.add_argument("source", help=f"{kinds}, a folder that datasets saved, or one vector as JSON")
    parser.add_argument("--out", help="jsonl or parquet file; the terminal by default")
    parser.add_argument(
        "--column", help="column of the vectors, or its path (vector.default); the usual names are tried"
    )
    parser.add_argument("--id_column", "--id-column", help="column of their ids; what the format calls id by default")
    parser.add_argument("--strict", action="store_true", help="stop at the first row without a usable vector")
    add_model(parser)
    add_encoder(parser)
    parser.set_defaults(run=_invert)


def _invert(options):
    from rich.console import Console

    from .inversion import invert_file, invert_vectors, parse_vector, process_state
    from .terminal import print_inversions

    model, tokenizer = load_model(options)
    settings = sampler_settings(options)
    feedback = feedback_of(model, options)
    if options.source.lstrip().startswith("["):
        vector = parse_vector(options.source, model.config.embedding_dim)
        rows = invert_vectors(model, tokenizer, vector, options.batch_size, settings, options.seed, feedback=feedback)
        print_inversions(rows, tokenizer, Console())
        return
    with messages_on_stderr():
        stats = invert_file(
            model, tokenizer, options.source, options.out, options.column, options.batch_size, settings, options.seed,
            feedback=feedback, id_column=options.id_column, strict=options.strict,
        )  # fmt: skip
    if not process_state().is_main_process:
        return
    report_skipped(options.source, stats["skipped"])
    done = f"{stats['vectors']:,} vectors, {stats['resumed']:,} of them by an earlier run"
    print(f"embinv: {done}; {stats['vectors_per_second']:.0f} a second", file=sys.stderr)


def _train(arguments: list[str]) -> int:
    from .training import train
    from .training_config import parse_training_config

    train(parse_training_config(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
