"""Kinds of hidden words: what a tag such as <PERSON> says of them, and the tokens that are likely there."""

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
NUMERALS = (
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|"
    "eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|billion|half|dozen"
)
TIMES = (
    "today|tonight|yesterday|tomorrow|mornings?|noon|afternoons?|evenings?|nights?|midnight|minutes?|hours?|days?|"
    "weeks?|weekends?|months?|years?|decades?|century|centuries|spring|summer|autumn|winter|last|next|this|ago"
)
CURRENCIES = "dollars?|euros?|pounds?|cents?|yen|bucks?|francs?|rupees?"
# what the tokens of each kind look like, without the tokenizer's own marks
PATTERNS = {
    "name": r"[^\W\d_]+|['.-]",
    "place": r"[^\W\d_]+|['.-]",
    "number": rf"[\d.,:+/-]*\d[\d.,:+/-]*|[.,:+/-]|{NUMERALS}",
    "date": rf"\d+(st|nd|rd|th)?|st|nd|rd|th|[.,:/-]|{CALENDAR}|{NUMERALS}|{TIMES}",
    "money": rf"[\d.,]*\d[\d.,]*|[.,]|{NUMERALS}|{CURRENCIES}",
    "e-mail": r"[\w.+-]*@?[\w.+-]*",
}
# nats by which other tokens fall behind those of the kind
UNLIKE = -1.0


def log_prior(tokenizer: Any, kind: str, forbidden: Tensor) -> Tensor:
    """(V,) what a kind says of each token, to be added to log p: 0 for those of the kind, UNLIKE for others.

    A tag is a hint: <DATE_TIME> hides "the other day", too. `forbidden` (V,) bool tokens have −inf.
    """
    prior = torch.zeros(forbidden.shape)
    if kind != "free" and tokenizer is not None:
        ids = _tokens_of_kind(tokenizer, kind)
        prior += UNLIKE
        prior[ids[ids < len(prior)]] = 0.0
    return prior.masked_fill(forbidden, -torch.inf)


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
