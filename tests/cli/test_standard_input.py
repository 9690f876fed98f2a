"""Vectors on standard input, before any model is loaded."""

import gzip
import io
import json
import lzma
from types import SimpleNamespace

import numpy as np
import pytest

from modeling_embinv.cli.standard_input import kept_input
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.stores.vectors import open_vectors

VECTORS = np.random.default_rng(0).normal(size=(3, 24)).astype(np.float32)
LINES = "".join(json.dumps({"id": str(row), "emb": v}) + "\n" for row, v in enumerate(VECTORS.tolist())).encode()
TABLE = b"id\temb\n" + b"".join(f"{row}\t{v}\n".encode() for row, v in enumerate(VECTORS.tolist()))


@pytest.fixture
def piped(monkeypatch):
    """Puts bytes on standard input, and opens what is kept of them."""

    def opened(data):
        stdin = SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False)
        monkeypatch.setattr("sys.stdin", stdin)
        return open_vectors(kept_input())

    return opened


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
@pytest.mark.parametrize("content", [LINES, b"\xef\xbb\xbf" + LINES, TABLE], ids=["lines", "mark", "table"])
def test_packed_text_on_standard_input(piped, pack, content):
    """`cat v.jsonl.gz | embinv invert -` said that it was no .tsv file in UTF-8."""
    (batch,) = piped(pack(content)).batches()
    assert np.allclose(batch.vectors, VECTORS) and batch.ids == ["0", "1", "2"]


def saved():
    file = io.BytesIO()
    np.save(file, VECTORS)
    return file.getvalue()


@pytest.mark.parametrize(
    "data, message",
    [
        (
            b"\x28\xb5\x2f\xfd" + b"x" * 99,
            r"is packed \(.zst\): unpack it first; text packed by gzip or xz is read",
        ),
        (b"BZh91AY&SY" + b"x" * 99, r"is packed \(.bz2\): unpack it first"),
        (gzip.compress(saved()), "holds packed data that is no text: unpack it first"),
        (gzip.compress(LINES)[:40], "corrupt, truncated or no .gz file"),
        (gzip.compress(b" \n"), "is empty"),
    ],
    ids=["zstd", "bzip2", "npy", "cut", "blank"],
)
def test_what_cannot_be_unpacked_on_standard_input(piped, data, message):
    """What else is packed was taken for a table of text, and the message named a temporary file."""
    with pytest.raises(EmbInvError, match=f"standard input.* {message}") as error:
        piped(data)
    assert "/input" not in str(error.value)
