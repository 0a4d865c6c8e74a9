"""The order of a network's classes: which it may be, which it is by its answers, and how to say so in one line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgecnn.data.names import natural

_ALL_NAMED = 12
"""Orders of up to so many classes are said whole."""


def usual_orders(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The orders that programs give to these names, without the one that they have: how it is sorted to the names."""
    sortings = {
        "sorted by number": sorted(names, key=natural),
        "sorted as text": sorted(names),
        "sorted without regard to case": sorted(names, key=str.casefold),
        "the other way round": list(names)[::-1],
        "a place later": [names[-1], *names[:-1]],
        "a place earlier": [*names[1:], names[0]],
    }
    found: dict[str, tuple[str, ...]] = {}
    for words, order in sortings.items():
        if tuple(order) != tuple(names) and tuple(order) not in found.values():
            found[words] = tuple(order)
    return found


def order_words(assumed: Sequence[str], found: Sequence[str]) -> str:
    """In one line, how the found order differs from the assumed one, however many classes there are."""
    usual = next((words for words, order in usual_orders(assumed).items() if order == tuple(found)), None)
    if len(found) <= _ALL_NAMED:
        return f"{', '.join(found)}{f' ({usual})' if usual else ''}"
    if usual:
        return f"{', '.join(found[:3])}, … ({usual})"
    apart = [place for place, name in enumerate(found) if name != assumed[place]]
    such = ", ".join(f"output {place} is {found[place]!r}, not {assumed[place]!r}" for place in apart[:2])
    return f"{len(apart):,} of {len(found):,} classes stand elsewhere (such as: {such})"


def closest_order(distance: NDArray[np.float64]) -> tuple[int, ...]:
    """The row of each column in a (classes, classes) table: the closest pairs first, each taken once."""
    left = distance.astype(np.float64)
    order = np.full(len(left), -1)
    while (order < 0).any():
        # Pairs of which each is the other's closest are taken together: none of them can be in another's way.
        rows = left.argmin(0)
        columns = np.flatnonzero((order < 0) & (left.argmin(1)[rows] == np.arange(len(left))))
        order[columns] = rows[columns]
        left[rows[columns], :] = left[:, columns] = np.inf
    return tuple(int(row) for row in order)
