"""Passwords, account numbers and dates by their surroundings, which the libraries do not look at."""

import re
from collections.abc import Iterator

_PASSWORD = re.compile(
    r"\b(?:password|passwd|passphrase|pwd|secret)\b[\"']?\s*[:=]+\s*[\"']?([^\s\"']{4,})", re.IGNORECASE
)
_ACCOUNT = re.compile(
    r"\b(?:account|acct|sort code|routing)\b(?:\s+(?:number|no|nr|is|ending|in))*[\s.:#]*(\d[\d -]{3,}\d)",
    re.IGNORECASE,
)
_YEARS = range(1900, 2100)


def surrounded(text: str) -> Iterator[tuple[str, int, int]]:
    """Passwords behind "password:", with a digit or a mark in them, and numbers of bank accounts behind that word."""
    for match in _PASSWORD.finditer(text):
        value = match.group(1).rstrip(".,;)")
        if not value.isalpha():
            yield "credentials", match.start(1), match.start(1) + len(value)
    for match in _ACCOUNT.finditer(text):
        yield "identifiers", *match.span(1)


def is_date(text: str) -> bool:
    """Whether what spaCy takes for a date can be one: it takes any number for a year."""
    if not re.fullmatch(r"[\W\d_]*", text):
        return True  # words say more than digits
    parts = [int(part) for part in re.findall(r"\d+", text)]
    if len(parts) <= 1:
        return any(part in _YEARS for part in parts)
    return all(part > 0 for part in parts) and any(part <= 12 for part in parts)
