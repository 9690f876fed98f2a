"""`embinv prepare`."""

import argparse
import json
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.flags import Commands, number
from ..errors_embinv import EmbInvError
from .checks import check_device, check_folder
from .options import count
from .outcome import epilog, on_interrupt
from .resources import messages_on_stderr, report_skipped

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..data.encoders import Encoder
    from ..data.sources import Document
    from ..stores.vectors import VectorSource

_EXAMPLES = """
embinv prepare my_texts.txt --out data/mine
embinv prepare my_texts.jsonl --text-column body --out data/mine --max-tokens 31
embinv prepare --vectors dump.parquet --out data/api --encoder api.yaml
"""
_share = number(float, 0, 1)


def add_prepare(commands: Commands) -> None:
    """Adds the command `prepare` and its flags."""
    parser = commands.add_parser("prepare", help="turn texts into (tokens, embedding) pairs for training")
    parser.epilog = epilog(_EXAMPLES)
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
        help="files or stores of vectors and their texts, as `embinv invert` takes them: a.parquet, chroma:FOLDER",
    )
    parser.add_argument("--text_column", help="column of the texts (default: text; with vectors the usual names)")
    # `--column` is what the other commands call it, and the messages of the readers
    parser.add_argument(
        "--vector_column", "--column", help="column of the vectors, or its path (default: the usual names)"
    )
    parser.add_argument(
        "--collection", "--table", metavar="NAME", help="collection or table of the store; without it the only one"
    )
    parser.add_argument(
        "--trust_source", action="store_true", help="load the pickles of a local Qdrant folder, which can run code"
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first row without a usable vector")
    parser.add_argument("--languages", nargs="*", help="read only these sub-folders of a text folder")
    parser.add_argument("--length", type=count, default=32, help="L, tokens of a text")
    parser.add_argument("--share", type=_share, default=1.0, help="share of the texts to use, chosen by hash")
    parser.add_argument("--limit", type=count, help="use at most this many texts")
    parser.add_argument("--max_tokens", type=count, help="leave out longer texts instead of cutting them")
    parser.add_argument(
        "--spans", choices=("first", "all"), default="first", help="which spans of a longer text to use"
    )
    parser.add_argument("--validation_share", type=_share, default=0.01, help="share of the documents for validation")
    parser.add_argument("--test_share", type=_share, default=0.0, help="share of the documents for tests")
    parser.add_argument(
        "--shard_size",
        type=count,
        default=50_000,
        help="pairs in a shard; after a kill the finished ones are kept, and a minute finishes one, too",
    )
    parser.add_argument("--batch_size", type=count, default=256, help="texts in one forward pass of the encoder")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps")
    parser.set_defaults(run=_prepare)


def _prepare(options: argparse.Namespace) -> None:
    _check(options)
    device = check_device(options.device)
    from dataclasses import replace

    from ..data.encoder_config import EncoderConfig
    from ..data.encoders import load_encoder
    from ..data.prepare import prepare
    from ..runtime import prepare_process

    config = EncoderConfig.from_yaml(options.encoder)
    with prepare_process():
        encoder = load_encoder(replace(config, max_length=max(config.max_length, options.length)), device=device)
    with messages_on_stderr():
        sources = _vector_sources(options, encoder)
    _check_vectors(sources, encoder)
    documents, left_out = _documents(options, sources), Counter[str]()
    if options.max_tokens is not None:
        documents = _short(documents, encoder.tokenizer, options.max_tokens, left_out)
    documents = islice(documents, options.limit)
    with on_interrupt(lambda: _finished(options.out)):
        manifest = prepare(
            documents, encoder, options.out, options.length, options.shard_size, options.validation_share,
            options.test_share, options.batch_size, options.spans,
        )  # fmt: skip
    for source in sources:
        report_skipped(source.path, source.skipped)
    _report(options.out, manifest, left_out)


def _check(options: argparse.Namespace) -> None:
    """Finds what cannot be read before the encoder is loaded.

    Raises:
        EmbInvError: no texts, vectors or data sets, a share of nothing, a missing file, `--languages` without a folder
            of texts, a malformed `--hub`, or an `--out` that cannot be made.
    """
    if not (options.texts or options.hub or options.vectors):
        raise EmbInvError("give texts (files or folders), data sets with --hub, or files of vectors with --vectors.")
    check_folder("--out", options.out)
    if options.share == 0:
        raise EmbInvError("--share must be above 0.")
    if options.validation_share + options.test_share > 1:
        raise EmbInvError("--validation-share and --test-share must be at most 1 together.")
    if options.languages is not None and options.texts == [path for path in options.texts if Path(path).is_file()]:
        raise EmbInvError("--languages names sub-folders of a folder of texts, and no folder is given.")
    from ..data.sources import parse_hub_spec, read_texts
    from ..stores.locations import locate

    for location in map(locate, options.vectors):
        if not location.scheme:
            _ = location.file
    for spec in options.hub:
        parse_hub_spec(spec)
    if options.texts:
        read_texts(options.texts, languages=options.languages)  # opens none of them yet


def _finished(folder: str) -> str:
    """What an interrupted job leaves: the shards that its manifest names."""
    try:
        documents = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))["documents"]
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    return f"The pairs of {documents:,} texts are saved in {folder}; run the same command to resume." * bool(documents)


def _report(folder: str, manifest: dict[str, Any], left_out: Counter[str]) -> None:
    """Prints how many pairs there are, and what became of the other texts."""
    rows = manifest["rows"]
    parts = ", ".join(f"{rows[split]:,} {split}" for split in rows)
    counts = {reason: number + left_out[reason] for reason, number in manifest["dropped"].items()}
    dropped = ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in counts.items())
    print(f"{folder}: {sum(rows.values()):,} pairs ({parts}). Dropped: {dropped}.")
    if not rows["validation"]:
        warning = "no pair is held out for validation, which training needs: raise --validation-share."
        print(f"embinv: warning: {warning}", file=sys.stderr)
    if not rows["train"]:
        warning = "no pair is left to train on: lower --validation-share and --test-share."
        print(f"embinv: warning: {warning}", file=sys.stderr)


def _vector_sources(options: argparse.Namespace, encoder: "Encoder") -> list["VectorSource"]:
    """The files of vectors, opened; which of their columns are read is logged."""
    from ..stores.columns import NoTextsError

    try:
        return [_vector_source(path, options, encoder) for path in options.vectors]
    except NoTextsError as error:
        raise EmbInvError(f"{error}; name theirs with --text-column" if error.others else str(error)) from error


def _vector_source(path: str, options: argparse.Namespace, encoder: "Encoder") -> "VectorSource":
    from ..stores.vectors import open_vectors

    return open_vectors(
        path,
        options.vector_column,
        text_column=options.text_column or True,
        dim=encoder.embedding_dim,
        strict=options.strict,
        encoder=encoder.config.id,
        collection=options.collection,
        trust=options.trust_source,
    )


def _documents(options: argparse.Namespace, sources: list["VectorSource"]) -> Iterator["Document"]:
    from ..data.sources import parse_hub_spec, read_hub, read_texts
    from ..stores.vectors import vector_documents

    column = options.text_column or "text"
    parts: list[Iterable[Document]] = []
    if options.texts:
        parts.append(read_texts(options.texts, column=column, languages=options.languages))
    for part in (part for spec in options.hub for part in parse_hub_spec(spec)):
        parts.append(read_hub(part.name, part.config, column=column, count=part.rows))
    parts += map(vector_documents, sources)
    documents = (document for part in parts for document in part)
    if options.share < 1:
        documents = (document for document in documents if _hashed_share(document.text) < options.share)
    return documents


def _check_vectors(sources: list["VectorSource"], encoder: "Encoder") -> None:
    """Compares the first vectors of each source with the encoder's own, where it can be called.

    Raises:
        EmbInvError: they are another encoder's.
    """
    from ..data.tokens import tokenize
    from ..data.vector_checks import COMPARED_TEXTS, check_encoder_of

    for source in sources if encoder.can_encode else []:
        batch = next(source.batches())
        lengths = map(len, tokenize(encoder.tokenizer, batch.texts or []))
        # a longer text would be cut, and one of no token has no vector of its own
        whole = [i for i, length in enumerate(lengths) if 0 < length <= encoder.config.max_length][:COMPARED_TEXTS]
        texts = [(batch.texts or [])[i] for i in whole]
        if warning := check_encoder_of(batch.vectors[whole], texts, encoder, source.path):
            print(f"embinv: warning: {warning}", file=sys.stderr)


def _short(
    documents: Iterator["Document"], tokenizer: "PreTrainedTokenizerBase", max_tokens: int, left_out: Counter[str]
) -> Iterator["Document"]:
    """The documents of at most `max_tokens` tokens; the others are counted in `left_out`.

    Raises:
        EmbInvError: behind the last one, where there is none.
    """
    from ..data.tokens import tokenize

    kept = 0
    while chunk := list(islice(documents, 4096)):
        lengths = map(len, tokenize(tokenizer, [document.text for document in chunk]))
        for document, length in zip(chunk, lengths, strict=True):
            if length <= max_tokens:
                kept += 1
                yield document
            else:
                left_out["too_long"] += 1
    if not kept and left_out:
        total = left_out.total()
        subject = f"all {total:,} texts have" if total > 1 else "the only text has"
        raise EmbInvError(f"{subject} more than {max_tokens} tokens; raise --max-tokens.")


def _hashed_share(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return zlib.crc32(text.encode("utf-8", "replace")) / 2**32
