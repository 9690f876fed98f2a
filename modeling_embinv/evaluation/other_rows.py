"""Rows that stand in for others as a floor: whose vector or text is surely another one's."""

from collections.abc import Hashable, Sequence


def other_rows(keys: Sequence[Hashable], step: int = 1) -> list[int]:
    """Of each row the nearest one, around the end, that has another key; [] where all have the same.

    Args:
        keys: n, equal for rows that hold the same text.
        step: 1 looks among the rows that follow, -1 among those before.
    """
    if len(set(keys)) < 2:
        return []
    others = [0] * len(keys)
    for row in (*range(len(keys))[::-step],) * 2:  # twice, as the search goes on around the end
        near = (row + step) % len(keys)
        others[row] = near if keys[near] != keys[row] else others[near]
    return others
