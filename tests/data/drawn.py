"""Folders of drawn images for the tests of what is read of them."""

from __future__ import annotations

import os
from pathlib import Path

from edgecnn.data import SPLITS, Dataset
from tests.conftest import encode, picture


def draw(folder: Path, count: int, first: int = 0) -> None:
    """So many small pictures, each of a seed of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        (folder / f"{seed:03d}.png").write_bytes(encode(picture(seed, 12, 16)))


def two_classes(root: Path, count: int = 10) -> Path:
    """`root` with crack/ and good/."""
    draw(root / "crack", count)
    draw(root / "good", count, first=100)
    return root


def total(data: Dataset) -> int:
    return sum(len(data.split(name)) for name in SPLITS)


def all_names(data: Dataset) -> set[str]:
    return {item.name for name in SPLITS for item in data.split(name)}


def not_utf8(folder: Path, raw: bytes = b"Pr\xfcf 1.jpg") -> Path:
    """A path whose name is these bytes."""
    return Path(os.fsdecode(os.fsencode(folder) + b"/" + raw))
