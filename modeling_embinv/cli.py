"""`embinv prepare | train | evaluate | invert | demo`."""

import argparse
import json
import sys
import warnings
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

CHECKPOINT = Path(__file__).parent.parent / "checkpoints" / "embinv-minilm"

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
    for add in (_add_demo, _add_invert, _add_prepare, _add_evaluate):
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


def _add_model(parser: argparse.ArgumentParser):
    parser.add_argument("--model", default=str(CHECKPOINT), help="folder or Hub id of an inverter")
    parser.add_argument("--device", help="cpu, cuda, mps; this process's accelerator by default")
    generation = parser.add_argument_group("generation")
    generation.add_argument("--strategy", help="sequential, euler, euler_remask, confidence or two_stage")
    generation.add_argument("--num_steps", type=int, help="forward passes at most")
    generation.add_argument("--guidance_scale", type=float, help="1 is none")
    generation.add_argument("--temperature", type=float, help="0 takes the most likely token")
    generation.add_argument("--remask_ratio", type=float, help="share that euler_remask opens again")
    generation.add_argument("--max_length", type=int, help="tokens at most")
    generation.add_argument("--seed", type=int, default=0, help="of sampling")
    generation.add_argument("--batch_size", type=int, default=64, help="vectors at a time")


def _settings(options) -> dict:
    names = ("strategy", "num_steps", "guidance_scale", "temperature", "remask_ratio", "max_length")
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _load(options):
    from transformers.utils import logging

    from .allocator import keep_large_blocks
    from .backbone import load_inverter
    from .inversion import process_state

    keep_large_blocks()
    logging.disable_progress_bar()
    model, tokenizer = load_inverter(options.model)
    return model.to(options.device or process_state().device).eval(), tokenizer


def _load_encoder(model, options):
    """The encoder that the model names, or `--encoder`: it embeds texts and measures cosines, and never inverts."""
    from .encoders import EncoderConfig, load_encoder

    config = model.config
    if options.encoder is None and config.encoder_id is None:
        raise ValueError(f"{options.model} names no encoder; give its YAML with --encoder.")
    named = (config.encoder_id, config.encoder_revision, config.encoder_prompt, config.max_sequence_length)
    return load_encoder(options.encoder or EncoderConfig(*named), device=model.device)


def _add_encoder(parser: argparse.ArgumentParser):
    parser.add_argument("--encoder", help="YAML or folder of the encoder, when not the one that the model names")


def _add_demo(commands):
    parser = commands.add_parser("demo", help="embed a few sentences and invert their vectors")
    parser.add_argument("sentences", nargs="*", default=DEMO_SENTENCES, help="your own sentences")
    _add_model(parser)
    _add_encoder(parser)
    parser.set_defaults(run=_demo)


def _demo(options):
    import torch
    from rich.console import Console

    from . import metrics
    from .canvas import encode_canvas
    from .terminal import legend, tinted

    model, tokenizer = _load(options)
    encoder = _load_encoder(model, options)
    canvas = encode_canvas(encoder.tokenizer, list(options.sentences), model.config.max_sequence_length)
    embeddings = encoder.encode(canvas.texts)
    output = model.generate(embeddings, generator=torch.Generator().manual_seed(options.seed), **_settings(options))
    sequences, end = output.sequences.cpu(), model.config.eos_token_id
    recovered = tokenizer.batch_decode(sequences, skip_special_tokens=True)
    cosines = metrics.cosine(encoder.encode(recovered), embeddings)
    accuracies = metrics.token_accuracy(sequences, canvas.input_ids, end)
    lengths = metrics.text_lengths(sequences, end)
    console = Console(highlight=False)
    for row, place in enumerate(canvas.kept):
        length = lengths[row]
        text = tinted(tokenizer, sequences[row, :length].tolist(), output.confidence[row, :length].tolist())
        console.print(f"original   {options.sentences[place]}", markup=False)
        console.print("recovered ", text)
        console.print(f"           cosine {cosines[row]:.3f}   token accuracy {100 * accuracies[row]:.0f} %\n")
    console.print(f"{len(canvas.kept)} vectors in {output.num_forward_passes} forward passes.", legend())


def _add_invert(commands):
    parser = commands.add_parser("invert", help="invert vectors from a file or the command line")
    parser.add_argument("source", help="npy, parquet, Arrow or jsonl file of vectors, or one vector as JSON")
    parser.add_argument("--out", help="jsonl or parquet file; the terminal by default")
    parser.add_argument("--column", default="embedding", help="column of the vectors in a table")
    _add_model(parser)
    parser.set_defaults(run=_invert)


def _invert(options):
    from rich.console import Console

    from .inversion import invert_file, invert_vectors, parse_vector, process_state
    from .terminal import print_inversions

    model, tokenizer = _load(options)
    settings = _settings(options)
    if options.source.lstrip().startswith("["):
        vector = parse_vector(options.source, model.config.embedding_dim)
        rows = invert_vectors(model, tokenizer, vector, options.batch_size, settings, options.seed)
        print_inversions(rows, tokenizer, Console())
        return
    stats = invert_file(
        model, tokenizer, options.source, options.out, options.column, options.batch_size, settings, options.seed
    )
    if not process_state().is_main_process:
        return
    done = f"{stats['vectors']:,} vectors, {stats['resumed']:,} of them by an earlier run"
    print(f"embinv: {done}; {stats['vectors_per_second']:.0f} a second", file=sys.stderr)


def _add_prepare(commands):
    parser = commands.add_parser("prepare", help="turn texts into (tokens, embedding) pairs for training")
    parser.add_argument("texts", nargs="*", help="text files or folders: txt, jsonl (gz, xz), parquet")
    parser.add_argument("--out", required=True, help="folder of the pairs")
    parser.add_argument("--encoder", default="configs/encoders/minilm.yaml", help="YAML of the encoder")
    parser.add_argument("--hub", nargs="*", default=[], help="Hub data sets: allenai/c4:en=200000,de=100000")
    parser.add_argument("--vectors", nargs="*", default=[], help="parquet or npy files that hold texts and vectors")
    parser.add_argument("--text_column", default="text", help="column of the texts")
    parser.add_argument("--vector_column", default="embedding", help="column of the vectors")
    parser.add_argument("--languages", nargs="*", help="sub-folders of a text folder")
    parser.add_argument("--length", type=int, default=32, help="L, tokens of a text")
    parser.add_argument("--share", type=float, default=1.0, help="share of the texts that is taken, chosen by hash")
    parser.add_argument("--limit", type=int, help="texts at most")
    parser.add_argument("--max_tokens", type=int, help="leave longer texts out instead of cutting them")
    parser.add_argument("--spans", choices=("first", "all"), default="first", help="of a longer text")
    parser.add_argument("--validation_share", type=float, default=0.01, help="share of the documents")
    parser.add_argument("--test_share", type=float, default=0.0, help="share of the documents")
    parser.add_argument("--shard_size", type=int, default=50_000, help="pairs a shard; finished ones survive a kill")
    parser.add_argument("--batch_size", type=int, default=256, help="texts that the encoder sees at a time")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps")
    parser.set_defaults(run=_prepare)


def _prepare(options):
    from dataclasses import replace

    from .allocator import keep_large_blocks
    from .data import prepare
    from .encoders import EncoderConfig, load_encoder

    keep_large_blocks()
    documents = _documents(options)
    config = EncoderConfig.from_yaml(options.encoder)
    encoder = load_encoder(replace(config, max_length=max(config.max_length, options.length)), device=options.device)
    if options.max_tokens is not None:
        documents = _short(documents, encoder.tokenizer, options.max_tokens)
    documents = islice(documents, options.limit)
    manifest = prepare(
        documents, encoder, options.out, options.length, options.shard_size, options.validation_share,
        options.test_share, options.batch_size, options.spans,
    )  # fmt: skip
    print(f"{options.out}: {json.dumps(manifest['rows'])} pairs, dropped {json.dumps(manifest['dropped'])}")


def _documents(options) -> Iterator:
    from .sources import parse_hub_spec, read_hub, read_texts
    from .vectors import read_vector_documents

    if not (options.texts or options.hub or options.vectors):
        raise ValueError("give texts (files or folders), --hub data sets or --vectors files.")
    if not 0 < options.share <= 1:
        raise ValueError(f"--share must be in (0, 1], got {options.share}.")
    parts: list[Iterable] = []
    if options.texts:
        parts.append(read_texts(options.texts, column=options.text_column, languages=options.languages))
    for part in (part for spec in options.hub for part in parse_hub_spec(spec)):
        parts.append(read_hub(part.name, part.config, column=options.text_column, count=part.count))
    for path in options.vectors:
        parts.append(read_vector_documents(path, options.vector_column, options.text_column))
    documents = (document for part in parts for document in part)
    if options.share < 1:
        documents = (document for document in documents if _hashed_share(document.text) < options.share)
    return documents


def _short(documents: Iterator, tokenizer, max_tokens: int) -> Iterator:
    """The documents of at most `max_tokens` tokens."""
    from .canvas import tokenize

    while chunk := list(islice(documents, 4096)):
        lengths = map(len, tokenize(tokenizer, [document.text for document in chunk]))
        yield from (document for document, length in zip(chunk, lengths, strict=True) if length <= max_tokens)


def _hashed_share(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return zlib.crc32(text.encode("utf-8", "replace")) / 2**32


def _add_evaluate(commands):
    parser = commands.add_parser("evaluate", help="score an inverter on held-out texts, with floors and intervals")
    parser.add_argument("texts", nargs="+", help="text files or folders; each file is a part of its own in the table")
    parser.add_argument("--limit", type=int, help="texts of each file at most")
    parser.add_argument("--max_tokens", type=int, help="only texts of at most so many tokens")
    parser.add_argument("--no_floors", action="store_true", help="leave the floors out")
    parser.add_argument("--out", help="JSON file of all scores")
    _add_model(parser)
    _add_encoder(parser)
    parser.set_defaults(run=_evaluate)


def _evaluate(options):
    from rich.console import Console
    from rich.table import Table

    from .evaluation import evaluate

    model, tokenizer = _load(options)
    encoder = _load_encoder(model, options)
    parts = {path: _held_out(path, options, encoder.tokenizer) for path in options.texts}
    table, results = None, {}
    if len(parts) > 1:
        parts["all parts"] = [text for texts in parts.values() for text in texts]
    for name, texts in parts.items():
        floors = not options.no_floors and (len(parts) == 1 or name == "all parts")
        rows = evaluate(model, tokenizer, encoder, texts, options.batch_size, floors, **_settings(options))
        results[name] = {row: {key: vars(score) for key, score in scores.items()} for row, scores in rows.items()}
        for row, scores in rows.items():
            if table is None:
                table = Table("part", "texts", *scores, title=f"{options.model}, 95 % bootstrap intervals")
            label = Path(name).stem if row == "inversion" else row
            table.add_row(label, str(len(texts)), *(str(score) for score in scores.values()))
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    if options.out:
        Path(options.out).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


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


def _train(arguments: list[str]) -> int:
    from .training import train
    from .training_config import parse_training_config

    train(parse_training_config(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
