"""Images to splits and folds: whole parts, seeded by content, the classes' shares kept as near as parts allow."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edgecnn.data.items import Dataset, Item, part_of

FRACTIONS = {"train": 0.65, "val": 0.15, "test": 0.20}
_REST = {"train": 0.8125, "val": 0.1875}
"""Of what a fold leaves: the same proportion."""
_STEPS = 300
"""Moves that are tried to get every class into every split."""


def split_by_part(items: Sequence[Item], fractions: Mapping[str, float], seed: int) -> dict[str, tuple[Item, ...]]:
    """Every item in one split, all items of a part in the same. Copies of an image count once.

    Parts of several images are placed one by one, large ones first, where they disturb the classes' shares least
    (squared excess over the wanted number, relative to it); images that are a part of their own fill what is left, each
    class in the order of seeded hashes. A class with at least as many parts as there are splits is in each of them;
    where parts of mixed classes make that impossible, in as many as were found.
    """
    parts = _parts_of(items, seed)
    plan = _Plan(parts, fractions)
    for part in sorted(
        (part for part in parts if part.size > 1), key=lambda part: (-part.size.bit_length(), part.order)
    ):
        plan.place(part)
    single: dict[int, list[_Part]] = defaultdict(list)
    for part in sorted((part for part in parts if part.size == 1), key=lambda part: part.order):
        single[next(iter(part.counts))].append(part)
    for label, alone in sorted(single.items()):
        plan.fill(label, alone)
    plan.mend()
    splits: dict[str, list[Item]] = {name: [] for name in fractions}
    names = list(fractions)
    where = {part.key: names[split] for part, split in plan.where.items()}
    for item in items:
        splits[where[part_of(item)]].append(item)
    return {name: tuple(sorted(found, key=lambda item: item.name)) for name, found in splits.items()}


def folds(data: Dataset, count: int, seed: int) -> Iterator[Dataset]:
    """The dataset `count` times, each image in the test split of one of them, a part never in two splits."""
    every = (*data.train, *data.val, *data.test)
    held = fold_numbers(every, count, seed)
    for fold in range(count):
        carved = split_by_part([item for item, number in zip(every, held, strict=True) if number != fold], _REST, seed)
        test = [item for item, number in zip(every, held, strict=True) if number == fold]
        tested = tuple(sorted(test, key=lambda item: item.name))
        yield replace(data, train=carved["train"], val=carved["val"], test=tested)


def fold_numbers(items: Sequence[Item], count: int, seed: int = 0) -> NDArray[np.int64]:
    """int64 (n,): which of `count` folds each item is held out in; a part in one, the classes spread over all."""
    held = split_by_part(items, {str(fold): 1 / count for fold in range(count)}, seed)
    fold_of = {part_of(item): int(fold) for fold, found in held.items() for item in found}
    return np.array([fold_of[part_of(item)] for item in items], np.int64)


@dataclass(frozen=True, eq=False)
class _Part:
    """Images that stay together."""

    key: str
    counts: Mapping[int, int]
    """Label to number of distinct contents."""
    size: int
    order: bytes
    """Seeded hash of its least content: names change nothing."""


def _parts_of(items: Sequence[Item], seed: int) -> list[_Part]:
    contents: dict[str, dict[str, int]] = defaultdict(dict)
    for item in items:
        contents[part_of(item)][item.sha256] = item.label
    return [
        _Part(key, Counter(labels.values()), len(labels), hashlib.sha256(f"{seed}:{min(labels)}".encode()).digest())
        for key, labels in contents.items()
    ]


@dataclass
class _Plan:
    """Which part goes where, as it grows."""

    parts: Sequence[_Part]
    fractions: Mapping[str, float]
    where: dict[_Part, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        contents, parts = Counter[int](), Counter[int]()
        for part in sorted(self.parts, key=lambda part: part.order):
            contents.update(part.counts)
            parts.update(part.counts.keys())
        ends = np.cumsum(list(self.fractions.values()))
        self.wanted: dict[int, NDArray[np.int64]] = {
            label: np.diff([round(float(end) * count) for end in (0.0, *ends)]) for label, count in contents.items()
        }
        self.have = {label: np.zeros(len(ends), np.int64) for label in contents}
        self.parts_in = {label: np.zeros(len(ends), np.int64) for label in contents}
        self.left = parts
        """Parts of each class that are not placed yet."""

    def place(self, part: _Part) -> None:
        """Where it fits best; where the last parts of a class are needed, there."""
        allowed = np.ones(len(self.fractions), bool)
        for label in sorted(part.counts, key=lambda label: self.left[label]):
            lacking = self.parts_in[label] == 0
            if 0 < lacking.sum() >= self.left[label] and (allowed & lacking).any():
                allowed &= lacking
        cost = np.where(allowed, self._cost(part), np.inf)
        self._put(part, int(cost.argmin()))

    def fill(self, label: int, alone: Sequence[_Part]) -> None:
        """Spread a class's single images, in their order, over what its splits still want."""
        shares = _shares(self.wanted[label] - self.have[label], self.parts_in[label] == 0, len(alone))
        ends = np.cumsum(shares)
        for place, part in enumerate(alone):
            self._put(part, int(np.searchsorted(ends, place, side="right")))

    def mend(self) -> None:
        """Move parts until each class is in every split, or no more is found: the best of a seeded search.

        Each step puts a part of a class into a split that lacks it, one that uncovers least where it was.
        """
        draw = random.Random(0)  # noqa: S311 - not a secret
        best, where = len(self._lacking()), dict(self.where)
        for _ in range(_STEPS):
            if not best:
                break
            label, split = draw.choice(self._lacking())
            movable = [part for part, at in self.where.items() if label in part.counts and at != split]
            by_chance = {part: draw.random() for part in movable}
            part = min(movable, key=lambda part: (self._uncovered_by(part, split), by_chance[part]))
            self._move(part, split)
            if len(self._lacking()) < best:
                best, where = len(self._lacking()), dict(self.where)
        for part, split in where.items():
            self._move(part, split)

    def _lacking(self) -> list[tuple[int, int]]:
        """(class, split) without an image where there could be one."""
        return [
            (label, int(split))
            for label, parts in self.parts_in.items()
            if parts.sum() >= len(parts) and not parts.all()
            for split in np.flatnonzero(parts == 0)
        ]

    def _uncovered_by(self, part: _Part, split: int) -> int:
        """By how many (class, split) a move to `split` leaves fewer or more without an image."""
        here = self.where[part]
        lost = sum(self.parts_in[label][here] == 1 for label in part.counts)
        return int(lost - sum(self.parts_in[label][split] == 0 for label in part.counts))

    def _move(self, part: _Part, split: int) -> None:
        if self.where[part] != split:
            self._take(part)
            self._put(part, split)

    def _cost(self, part: _Part) -> NDArray[np.float64]:
        """By which the squared relative excess would grow, for each split."""
        cost = np.zeros(len(self.fractions))
        for label, count in part.counts.items():
            excess = self.have[label] - self.wanted[label]
            cost += count * (2 * excess + count) / np.maximum(self.wanted[label], 0.5)
        return cost

    def _put(self, part: _Part, split: int) -> None:
        self.where[part] = split
        for label, count in part.counts.items():
            self.have[label][split] += count
            self.parts_in[label][split] += 1
            self.left[label] -= 1

    def _take(self, part: _Part) -> None:
        split = self.where.pop(part)
        for label, count in part.counts.items():
            self.have[label][split] -= count
            self.parts_in[label][split] -= 1
            self.left[label] += 1


def _shares(wanted: NDArray[np.int64], lacking: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """`count` split in proportion to what is still wanted, one at least where nothing is, if there are enough."""
    least = lacking.astype(np.int64) if lacking.sum() <= count else np.zeros_like(wanted)
    shares = np.maximum(np.maximum(wanted, 0), least)
    while shares.sum() > count:  # parts of several images have overfilled a split
        shares[int(np.argmax(np.where(shares > least, shares, -1)))] -= 1
    return shares
