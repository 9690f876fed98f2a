"""Counts in words."""


def counted(count: int, noun: str, many: str = "") -> str:
    """A number and what it is of: "1 row", "2,000 rows"; `many` is the plural where it does not end so."""
    return f"{count:,} {noun if count == 1 else many or f'{noun}s'}"
