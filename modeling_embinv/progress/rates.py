"""Counts and rates in words."""


def texts(count: int) -> str:
    """1 text, 2 texts."""
    return f"{count:,} {'text' if count == 1 else 'texts'}"


def vectors(count: int) -> str:
    """1 vector, 2 vectors."""
    return f"{count:,} {'vector' if count == 1 else 'vectors'}"


def speed(vectors_per_second: float) -> str:
    """12 vectors/s, or 14 s a vector where that is less than one."""
    if vectors_per_second >= 1:
        return f"{vectors_per_second:,.0f} {'vector' if f'{vectors_per_second:.0f}' == '1' else 'vectors'}/s"
    if vectors_per_second <= 0:
        return "no new vector"
    seconds = 1 / vectors_per_second
    return f"{seconds:,.0f} s a vector" if seconds >= 10 else f"{seconds:.1f} s a vector"
