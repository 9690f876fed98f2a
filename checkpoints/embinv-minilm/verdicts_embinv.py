"""What the cosine of a recovered text with its vector says of it, in words."""

# what a verdict says, by its name; the names are those of `filling_embinv` where they mean the same
TEXT_VERDICTS = {
    "verified": "the text has exactly this vector: almost certainly the exact text, but for capital letters",
    "close": "near the vector: most of its content words are right",
    "gist": "the gist: some of its content words are right",
    "unrelated": "the text does not fit: another encoder's vector, or one of a text that this model cannot write",
}
# the least cosine of each verdict, by the judge; see experiments/verdicts.py
LEAST = {
    "encoder": {"verified": 0.9999, "close": 0.9, "gist": 0.3},
    "surrogate": {"close": 0.9, "gist": 0.3},
}


def verdict_of(cosine: float, judge: str) -> str:
    """The name of the verdict on a text, a key of `TEXT_VERDICTS`.

    Args:
        judge: what gave the cosine, "encoder" or "surrogate", whose error leaves no text verified.
    """
    return next((name for name, least in LEAST[judge].items() if cosine >= least), "unrelated")
