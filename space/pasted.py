"""The rows of a text that a visitor pastes: JSON, plain numbers, or what numpy, torch and Postgres print."""

import re
from typing import Any

from modeling_embinv.data.files import parse_json
from modeling_embinv.errors_embinv import EmbInvError

# what stands for numbers that a print leaves out
_LEFT_OUT = re.compile(r"\.{3}|…")
# behind the numbers of a print: dtype=float32, device='cuda:0', shape=(3, 384)
_OPTION = re.compile(r",\s{0,20}[a-z_]{1,20}=(?:\([^()]*\)|[^\s,()\[\]]*)")
# tensor(…), array(…), np.float32(…); names have a bound, as a pattern without one tries each letter as a beginning
_CALL = re.compile(r"\b[A-Za-z_][\w.]{0,30}\(([^()]*)\)")
# other brackets as those of lists; what a word processor makes of a minus
_PLAIN = str.maketrans("(){}\u2212", "[][]-", "\"'")


def pasted_rows(text: str, dim: int) -> Any:
    """What the text is as JSON, else its lines as JSON, else its numbers: see `_numbers`.

    Raises:
        EmbInvError: for what is no numbers, and for a print that leaves some out.
    """
    try:
        return parse_json(text)
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]
    try:
        rows = [parse_json(line) for line in lines]
        if not any(isinstance(row, str) for row in rows):
            return rows
    except ValueError:
        pass
    try:
        rows = _numbers(_LEFT_OUT.sub(" ", text), dim)
    except ValueError:
        raise EmbInvError(
            "This is not a vector: give numbers with commas between them, such as [0.01, -0.2, 0.03]."
        ) from None
    if _LEFT_OUT.search(text):
        raise EmbInvError(
            "Numbers are left out where “…” stands: paste what print(json.dumps(vectors.tolist())) shows."
        )
    return rows


def _numbers(text: str, dim: int) -> list[Any]:
    """A row for each innermost pair of brackets; without brackets one for each line, if each has `dim` numbers."""
    plain = _CALL.sub(r"\1", _OPTION.sub("", text)).translate(_PLAIN)
    has_brackets = "[" in plain or "]" in plain
    parts = re.split(r"[\[\]]", plain) if has_brackets else plain.splitlines()
    rows = [[float(number) for number in part.replace(",", " ").split()] for part in parts]
    rows = [row for row in rows if row]
    if not rows:
        raise ValueError("there are no numbers")
    is_one = len(rows) == 1 or not (has_brackets or all(len(row) == dim for row in rows))
    return [number for row in rows for number in row] if is_one else rows
