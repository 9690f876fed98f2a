"""Spreadsheets: decimal commas and encodings of other countries."""

import numpy as np
import pytest

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.stores.vectors import open_vectors

GERMAN = [f"{number:.6f}".replace(".", ",") for number in np.linspace(-0.2, 0.2, 16)]


@pytest.mark.parametrize(
    "name, content",
    [
        ("with a header", f"id;text;{';'.join(map(str, range(16)))}\n1;Hallo;{';'.join(GERMAN)}\n"),
        ("a column a number", ";".join(GERMAN) + "\n"),
        ("tabs", "\t".join(GERMAN) + "\n"),
        ("a list in a cell", f"id;embedding\n1;{' '.join(GERMAN)}\n"),
        ("quoted", ",".join(f'"{number}"' for number in GERMAN) + "\n"),
    ],
)
def test_decimal_commas_are_named(tmp_path, name, content):
    """Catches a German spreadsheet whose numbers are split at their commas, or taken for 384 columns of vectors."""
    path = tmp_path / "v.csv"
    path.write_text(content)
    with pytest.raises(
        EmbInvError, match=r"v.csv: has decimal commas, as in -0,200000; write its numbers with points"
    ):
        open_vectors(path, dim=16)


def test_thousands_are_no_decimals(tmp_path):
    """Catches columns of counts such as 1,234 beside the vectors that are taken for a vector."""
    counts = ",".join(['"1,234"'] * 9)
    path = tmp_path / "v.csv"
    path.write_text(f'{",".join(f"count_{n}" for n in range(9))},embedding\n{counts},"{[0.25] * 16}"\n')
    (batch,) = open_vectors(path, dim=16).batches(8)
    assert batch.vectors.tolist() == [[0.25] * 16]


def test_a_text_may_have_decimal_commas(tmp_path):
    """Catches a price list among the texts that is taken for a vector, or a comma between short lists."""
    path = tmp_path / "v.csv"
    prices = "Preise: " + " ".join(GERMAN)
    path.write_text(f"text;embedding\n{prices};[{', '.join(['0.25'] * 16)}]\n")
    source = open_vectors(path, dim=16, text_column="text")
    (batch,) = source.batches(8)
    assert batch.texts == [prices]
    assert batch.vectors.tolist() == [[0.25] * 16]


@pytest.mark.parametrize("encoding, advice", [("latin-1", "iconv -f WINDOWS-1252"), ("utf-16", "iconv -f UTF-16")])
def test_other_encodings_are_named_in_words(tmp_path, encoding, advice):
    """Catches a spreadsheet's text that ends in the words of a codec: what is it, and what to do?"""
    path = tmp_path / "v.csv"
    path.write_text('text,embedding\nStraße,"[0.5, 0.25]"\n', encoding=encoding)
    with pytest.raises(EmbInvError, match=f"v.csv: corrupt, truncated or no text in UTF-8; .*`{advice} -t UTF-8`"):
        open_vectors(path)
