"""What the labelled images are: how many of which class in which split, how large, grey or in colour."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Literal

from PIL import UnidentifiedImageError

from edgecnn.data import SPLITS, Dataset, calibration_items
from edgecnn.documents import Frozen
from edgecnn.errors import UserError
from edgecnn.imaging.opened import opened
from edgecnn.plan.sample import Sample

_HEADERS = 200
"""Files whose size is looked at."""


class ClassRow(Frozen):
    """Images of a class."""

    name: str
    train: int
    val: int
    test: int
    share: float
    """Of all images."""


class Described(Frozen):
    """The data, without judging it."""

    classes: tuple[ClassRow, ...]
    train: int
    val: int
    test: int
    left_out: int
    good_class: str | None
    smallest: str
    largest: str
    """By training images."""
    imbalance: float
    """Training images of the largest class to those of the smallest."""
    median_width: float
    median_height: float
    median_side: float
    """Of the longer sides. Pixels, from the headers of at most 200 training files."""
    least_side: int
    colour: Literal["grey", "grey stored as colour", "colour"]


def describe(data: Dataset, sample: Sample) -> Described:
    """Counts of every split; sizes and colour of training images alone. UserError where a file cannot be read."""
    counts = {name: Counter(item.label for item in data.split(name)) for name in SPLITS}
    total = sum(counter.total() for counter in counts.values())
    rows = tuple(
        _row(name, [counts[split][label] for split in SPLITS], total) for label, name in enumerate(data.classes)
    )
    smallest, largest = min(rows, key=lambda row: row.train), max(rows, key=lambda row: row.train)
    sizes, all_grey = _headers(data)
    return Described(
        classes=rows,
        train=len(data.train),
        val=len(data.val),
        test=len(data.test),
        left_out=len(data.problems),
        good_class=data.good_class,
        smallest=smallest.name,
        largest=largest.name,
        imbalance=largest.train / max(1, smallest.train),
        median_width=float(statistics.median(width for width, _ in sizes)),
        median_height=float(statistics.median(height for _, height in sizes)),
        median_side=float(statistics.median(max(size) for size in sizes)),
        least_side=min(min(size) for size in sizes),
        colour="grey" if all_grey else "grey stored as colour" if _equal_channels(sample) else "colour",
    )


def _row(name: str, counts: list[int], total: int) -> ClassRow:
    train, val, test = counts
    return ClassRow(name=name, train=train, val=val, test=test, share=sum(counts) / max(1, total))


def _headers(data: Dataset) -> tuple[list[tuple[int, int]], bool]:
    """(width, height) of some training files, and whether all are stored in grey."""
    sizes: list[tuple[int, int]] = []
    grey = True
    for item in calibration_items(data, _HEADERS):
        try:
            with opened(item.path) as image:
                sizes.append(image.size)
                grey = grey and image.mode in ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
        except (OSError, UnidentifiedImageError) as error:
            raise UserError(f"{item.path}: cannot be read ({error}): give the same data folder") from None
    return sizes, grey


def _equal_channels(sample: Sample) -> bool:
    """Within 2 levels: a JPEG's colour conversion rounds."""
    pixels = sample.pixels.astype("int16")
    return bool(abs(pixels[..., 0] - pixels[..., 1]).max() <= 2 and abs(pixels[..., 1] - pixels[..., 2]).max() <= 2)
