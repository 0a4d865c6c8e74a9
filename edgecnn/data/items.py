"""Labelled images and the splits that they are in: values, and what identifies them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecnn.artifact import Grouping
from edgecnn.documents import sha256_of

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Item:
    """A labelled image."""

    path: Path
    name: str
    """Relative to the data folder, with forward slashes."""
    label: int
    sha256: str
    """Of the encoded file."""
    part: str = ""
    """The physical part that it shows; empty where nobody looked: then each content is a part of its own."""


@dataclass(frozen=True)
class Problem:
    """An image that was left out, with the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Labelled images in three splits that share no image content, and no part unless `grouping` counts it."""

    root: Path
    """The data folder; of the test images too, unless `test_root` is another."""
    classes: tuple[str, ...]
    good_class: str | None
    """The class of parts without a defect; None where there is none."""
    train: tuple[Item, ...]
    val: tuple[Item, ...]
    test: tuple[Item, ...]
    problems: tuple[Problem, ...] = ()
    bits: int | None = None
    """For `Preprocess.bits`: how many bits of its 16-bit files count; None where it has no such file."""
    grouping: Grouping | None = None
    """How the images' parts were told; None where nobody looked."""
    remarks: tuple[str, ...] = ()
    """What the user should know of the data, a line each."""
    test_root: Path | None = None
    """The folder of test images that lie elsewhere."""

    def split(self, name: str) -> tuple[Item, ...]:
        """train, val or test."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    @property
    def lines(self) -> list[str]:
        """What was left out and why, then the remarks."""
        return [*(f"left out: {problem.name}: {problem.reason}" for problem in self.problems), *self.remarks]


def part_of(item: Item) -> str:
    """What tells its part from others: its name, else its content."""
    return item.part or item.sha256


def split_hash(items: Sequence[Item]) -> str:
    """Identifies a set of labelled images by content: sha256 over the sorted (sha256, label) pairs."""
    return sha256_of("\n".join(sorted(f"{item.sha256} {item.label}" for item in items)).encode())


def calibration_items(data: Dataset, images: int) -> tuple[Item, ...]:
    """At most `images` images of the train split, the classes in turn, so that rare ones are seen too."""
    queues: dict[int, list[Item]] = defaultdict(list)
    for item in sorted(data.train, key=lambda item: item.sha256, reverse=True):
        queues[item.label].append(item)
    chosen: list[Item] = []
    while len(chosen) < images and any(queues.values()):
        for label in sorted(queues):
            if queues[label] and len(chosen) < images:
                chosen.append(queues[label].pop())
    return tuple(chosen)
