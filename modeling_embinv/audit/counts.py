"""Counts in words."""


def counted(count: int, noun: str) -> str:
    """A number and what it is of: "1 row", "2,000 rows"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
