"""Vectors as people paste them: what notebooks print, and what a print leaves out."""

import re
import time

import numpy as np
import pytest
import torch
from vectors import parse_pasted

from modeling_embinv.errors_embinv import EmbInvError

DIM = 384
ROWS = np.random.default_rng(0).normal(size=(2, DIM)).astype("f4").round(3)


def printed(kind: str) -> str:
    """Two vectors as a notebook shows them."""
    values = ROWS.tolist()
    return {
        "numpy": str(ROWS),
        "a list of arrays": str(list(ROWS)),
        "a list of tensors": str(list(torch.tensor(ROWS))),
        "a list of numpy's numbers": re.sub(r"[\d.e-]+", r"np.float32(\g<0>)", str(values)),
        "tuples": str(tuple(map(tuple, values))),
        "arrays of Postgres": "\n".join("{" + ",".join(map(str, row)) + "}" for row in values),
        "pgvector in quotes": "\n".join(f'"{row}"' for row in values),
        "lists on several lines": "\n".join(str(row).replace(", ", ",\n ") for row in values),
        "a typographer's minus": "\n".join(str(row).replace("-", "\u2212") for row in values),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "numpy", "a list of arrays", "a list of tensors", "a list of numpy's numbers", "tuples", "arrays of Postgres",
        "pgvector in quotes", "lists on several lines", "a typographer's minus",
    ],
)  # fmt: skip
def test_two_vectors_are_read_as_they_are_printed(kind):
    """`print(model.encode([a, b]))` was one vector of 768 numbers; lists of arrays were "not a vector"."""
    given = parse_pasted(printed(kind), DIM, 10)
    assert given.total == 2 and given.rows == [0, 1] and np.allclose(given.vectors.numpy(), ROWS, atol=1e-3)


@pytest.mark.parametrize("show", [str, repr])
@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_a_print_that_leaves_numbers_out_is_told_so(show, kind):
    """Three vectors are printed with dots; the page said that they are not a vector, and not what to do."""
    with pytest.raises(EmbInvError, match=r"Numbers are left out where “…” stands: .*json\.dumps"):
        parse_pasted(show(kind(np.concatenate([ROWS, ROWS]))), DIM, 10)


@pytest.mark.parametrize("text", ["hello…", "...", "Anna (the nurse) said: [1, 2]", "f(x) = y", "id(5) and more"])
def test_words_are_no_vector(text):
    """What reads the prints must not read a sentence with a number in it as a vector."""
    with pytest.raises(EmbInvError, match="This is not a vector"):
        parse_pasted(text, DIM, 10)


@pytest.mark.parametrize("part", ["array", "array(", "a.", "(", "[", ", a=", ", a=(", "{1", "1, ...", ")"])
def test_odd_text_costs_no_time(part):
    """A pattern that tries each beginning anew needs hours for what one visitor may paste."""
    started = time.perf_counter()
    with pytest.raises(EmbInvError):
        parse_pasted((part * 400_000)[:400_000], DIM, 10)
    assert time.perf_counter() - started < 10
