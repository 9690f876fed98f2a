"""`embinv prepare`."""

import json
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice

from ..errors_embinv import EmbInvError
from .options import check_device, messages_on_stderr, report_skipped


def add_prepare(commands):
    parser = commands.add_parser("prepare", help="turn texts into (tokens, embedding) pairs for training")
    parser.add_argument("texts", nargs="*", help="text files or folders: txt, jsonl (gz, xz), parquet")
    parser.add_argument("--out", required=True, help="folder of the pairs")
    parser.add_argument(
        "--encoder", default="minilm", help="YAML of the encoder, or the name of one that comes with EmbInv"
    )
    parser.add_argument("--hub", nargs="*", default=[], help="Hub data sets: allenai/c4:en=200000,de=100000")
    parser.add_argument(
        "--vectors",
        nargs="*",
        default=[],
        help="files that hold vectors and their texts: parquet, Arrow, jsonl, csv, json, npz, …",
    )
    parser.add_argument("--text_column", help="column of the texts; text by default, with vectors the usual names")
    parser.add_argument("--vector_column", help="column of the vectors, or its path; the usual names are tried")
    parser.add_argument("--strict", action="store_true", help="stop at the first row without a usable vector")
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

    from ..data.encoder_config import EncoderConfig
    from ..data.encoders import load_encoder
    from ..data.prepare import prepare
    from ..runtime import keep_large_blocks

    _check(options)
    device = check_device(options.device)
    keep_large_blocks()
    config = EncoderConfig.from_yaml(options.encoder)
    encoder = load_encoder(replace(config, max_length=max(config.max_length, options.length)), device=device)
    with messages_on_stderr():
        sources = _vector_sources(options, encoder)
    documents = _documents(options, sources)
    if options.max_tokens is not None:
        documents = _short(documents, encoder.tokenizer, options.max_tokens)
    documents = islice(documents, options.limit)
    manifest = prepare(
        documents, encoder, options.out, options.length, options.shard_size, options.validation_share,
        options.test_share, options.batch_size, options.spans,
    )  # fmt: skip
    for source in sources:
        report_skipped(source.path, source.skipped)
    print(f"{options.out}: {json.dumps(manifest['rows'])} pairs, dropped {json.dumps(manifest['dropped'])}")


def _check(options):
    if not (options.texts or options.hub or options.vectors):
        raise EmbInvError("give texts (files or folders), --hub data sets or --vectors files.")
    if not 0 < options.share <= 1:
        raise EmbInvError(f"--share must be in (0, 1], got {options.share}.")


def _vector_sources(options, encoder) -> list:
    """The files of vectors, opened; which of their columns are read is logged."""
    from ..stores.vectors import open_vectors

    return [
        open_vectors(
            path,
            options.vector_column,
            text_column=options.text_column or True,
            dim=encoder.embedding_dim,
            strict=options.strict,
            encoder=encoder.config.id,
        )  # fmt: skip
        for path in options.vectors
    ]


def _documents(options, sources: list) -> Iterator:
    from ..data.sources import parse_hub_spec, read_hub, read_texts
    from ..stores.vectors import vector_documents

    column = options.text_column or "text"
    parts: list[Iterable] = []
    if options.texts:
        parts.append(read_texts(options.texts, column=column, languages=options.languages))
    for part in (part for spec in options.hub for part in parse_hub_spec(spec)):
        parts.append(read_hub(part.name, part.config, column=column, count=part.rows))
    parts += map(vector_documents, sources)
    documents = (document for part in parts for document in part)
    if options.share < 1:
        documents = (document for document in documents if _hashed_share(document.text) < options.share)
    return documents


def _short(documents: Iterator, tokenizer, max_tokens: int) -> Iterator:
    """The documents of at most `max_tokens` tokens."""
    from ..data.tokens import tokenize

    while chunk := list(islice(documents, 4096)):
        lengths = map(len, tokenize(tokenizer, [document.text for document in chunk]))
        yield from (document for document, length in zip(chunk, lengths, strict=True) if length <= max_tokens)


def _hashed_share(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return zlib.crc32(text.encode("utf-8", "replace")) / 2**32
