"""The golden images: which encoded test images travel with a bundle, with what eager fp32 and each variant decide."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Golden, Preprocess
from edgecnn.data import Item
from edgecnn.documents import sha256_of
from edgecnn.imaging import prepare

PER_CLASS = 10
IN_ALL = 120


@dataclass(frozen=True)
class Chosen:
    """A test image that travels."""

    place: int
    """Among the test images."""
    path: Path
    """Where it is now."""
    golden: Golden


def choose(
    test: Sequence[Item], logits: NDArray[np.float32], classes: Sequence[str], spec: Preprocess
) -> tuple[Chosen, ...]:
    """At most PER_CLASS of each class and IN_ALL together, the classes in turn: any first few are of all classes.

    `logits` (n, classes): eager fp32's of the test images.
    """
    by_class: dict[int, list[int]] = defaultdict(list)
    for index, item in enumerate(test):
        by_class[item.label].append(index)
    ranked = sorted((rank, label, i) for label, found in by_class.items() for rank, i in enumerate(found))
    places = [index for rank, _, index in ranked if rank < PER_CLASS][:IN_ALL]
    return tuple(
        _chosen(number, place, test[place], logits[place], classes, spec) for number, place in enumerate(places)
    )


def decisions(chosen: Sequence[Chosen], logits: NDArray[np.float32]) -> tuple[int, ...]:
    """What a variant decides of the chosen ones, by its logits (n, classes) of all test images."""
    return tuple(int(logits[one.place].argmax()) for one in chosen)


def write(chosen: Sequence[Chosen], folder: Path) -> tuple[Golden, ...]:
    """Copy them into a bundle's folder."""
    (folder / "golden").mkdir()
    for one in chosen:
        shutil.copyfile(one.path, folder / one.golden.file)
    return tuple(one.golden for one in chosen)


def _chosen(
    number: int, place: int, item: Item, logits: NDArray[np.float32], classes: Sequence[str], spec: Preprocess
) -> Chosen:
    golden = Golden(
        file=f"golden/{number:03d}{item.path.suffix.lower()}",
        label=classes[item.label],
        logits=tuple(float(value) for value in logits),
        pixels_sha256=sha256_of(prepare(item.path.read_bytes(), spec).tobytes()),
    )
    return Chosen(place, item.path, golden)
