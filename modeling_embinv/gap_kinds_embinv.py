"""Kinds of hidden words: what a tag such as <PERSON> says of them, and the tokens that may stand there."""

import calendar
import re
import unicodedata
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

# the tags of Presidio and spaCy, and everyday ones, by the kind of what they hide; other tags hide anything
KINDS = {
    "name": ("PERSON", "NAME", "FIRST_NAME", "LAST_NAME"),
    "place": ("LOCATION", "PLACE", "GPE", "LOC", "CITY", "COUNTRY"),
    "number": ("NUMBER", "CARDINAL", "PHONE_NUMBER", "PHONE", "CREDIT_CARD", "US_SSN", "ID"),
    "date": ("DATE", "DATE_TIME", "TIME"),
    "money": ("MONEY", "AMOUNT"),
    "e-mail": ("EMAIL_ADDRESS", "EMAIL"),
}
KIND_OF_TAG = {tag: kind for kind, tags in KINDS.items() for tag in tags}
CALENDAR = "|".join(filter(None, (*calendar.month_name, *calendar.month_abbr, *calendar.day_name, *calendar.day_abbr)))
# what the tokens of each kind look like, without the tokenizer's own marks
PATTERNS = {
    "name": r"[^\W\d_]+|['.-]",
    "place": r"[^\W\d_]+|['.-]",
    "number": r"[\d.,:+/-]*\d[\d.,:+/-]*|[.,:+/-]",
    "date": rf"\d+(st|nd|rd|th)?|st|nd|rd|th|[.,:/-]|{CALENDAR}",
    "money": r"[\d.,]*\d[\d.,]*|[.,]",
    "e-mail": r"[\w.+-]*@?[\w.+-]*",
}


def allowed_tokens(tokenizer: Any, kind: str, forbidden: Tensor) -> Tensor:
    """(V,) bool: the tokens that may fill a gap of a kind; `forbidden` (V,) bool ones never do."""
    if kind == "free" or tokenizer is None:
        return ~forbidden
    ids, allowed = _tokens_of_kind(tokenizer, kind), torch.zeros_like(forbidden)
    allowed[ids[ids < len(allowed)]] = True
    return allowed & ~forbidden


@lru_cache(maxsize=8)  # a tenth of a second for 30,000 tokens, and each batch of texts asks for them
def _tokens_of_kind(tokenizer: Any, kind: str) -> Tensor:
    """(n,) int64: the ids of a tokenizer's tokens that are of a kind."""
    pattern, found = re.compile(PATTERNS[kind], re.IGNORECASE), []
    for token, index in tokenizer.get_vocab().items():
        bare = token.removeprefix("##").lstrip("▁Ġ")
        is_symbol = kind == "money" and len(bare) == 1 and unicodedata.category(bare) == "Sc"
        if bare and (is_symbol or pattern.fullmatch(bare)):
            found.append(index)
    return torch.tensor(found, dtype=torch.long)
