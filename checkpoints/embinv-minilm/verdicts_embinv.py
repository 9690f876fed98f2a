"""What the cosine of a recovered text with its vector says of it, in words."""

# what a verdict says, by its name; the names are those of `filled_embinv` where they mean the same
TEXT_VERDICTS = {
    "verified": "almost certainly the exact text",
    "likely": "probably the exact text",
    "close": "most content words are right",
    "gist": "the subject is right, and some of the words",
    "unrelated": "the vector is another encoder's, or of a text that this model cannot write",
}
# the least cosine of each verdict, by the judge, as experiments/verdicts.py found it
LEAST = {
    "encoder": {"verified": 0.9999, "close": 0.9, "gist": 0.5},
    "surrogate": {"likely": 0.997, "close": 0.9, "gist": 0.5},
}


def verdict_of(cosine: float, judge: str) -> str:
    """The name of the verdict on a text, a key of `TEXT_VERDICTS`.

    Args:
        judge: what gave the cosine, "encoder" or "surrogate", whose error leaves no text verified.
    """
    return next((name for name, least in LEAST[judge].items() if cosine >= least), "unrelated")
