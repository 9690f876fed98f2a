"""Counts and rates in words."""


def counted(count: int, noun: str, many: str = "") -> str:
    """A number and what it is of: "1 row", "2,000 rows"; `many` is the plural where it does not end so."""
    return f"{count:,} {noun if count == 1 else many or f'{noun}s'}"


def texts(count: int) -> str:
    """1 text, 2 texts."""
    return counted(count, "text")


def vectors(count: int) -> str:
    """1 vector, 2 vectors."""
    return counted(count, "vector")


def speed(rows_per_second: float, row: str = "vector") -> str:
    """12 vectors/s, or 14 s a vector where that is less than one.

    Args:
        row: what is counted, one of them.
    """
    if rows_per_second >= 1:
        return f"{rows_per_second:,.0f} {row if f'{rows_per_second:.0f}' == '1' else f'{row}s'}/s"
    if rows_per_second <= 0:
        return f"no new {row}"
    seconds = 1 / rows_per_second
    return f"{seconds:,.0f} s a {row}" if seconds >= 10 else f"{seconds:.1f} s a {row}"
