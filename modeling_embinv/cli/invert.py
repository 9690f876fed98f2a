"""`embinv invert`: vectors from a file or the command line."""

import sys

from .options import (
    add_encoder,
    add_model,
    feedback_of,
    load_model,
    messages_on_stderr,
    report_skipped,
    sampler_settings,
)


def add_invert(commands):
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

    from ..inversion.dumps import invert_file
    from ..inversion.rows import invert_vectors, parse_vector
    from ..inversion.terminal import print_inversions
    from ..runtime import process_state

    model, tokenizer = load_model(options)
    settings = sampler_settings(options)
    feedback = feedback_of(options.feedback, model, options)
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
