"""Which files are one picture, pixel by pixel, though their bytes differ: saved again, or with other metadata.

A full decode of every file would cost more than all else that is read. So it is done only where the small pictures,
which are there already, do not tell two files apart.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.data.items import Item
from edgecnn.documents import sha256_of
from edgecnn.errors import BadImage
from edgecnn.imaging import decode_whole

_JPEG = b"\xff\xd8\xff"
_BLOCKS = 4
"""Small pictures are compared by the means of so many blocks a side."""
_APART = 2.0
"""Levels by which these may differ in a JPEG, reduced by its decoder, and the same pixels in another format, reduced by
averaging. Of 373 photographs of three sets it was at most 0.6."""

Pictures = Mapping[str, NDArray[np.uint8]]
"""Content to its small grey picture."""


def same_pixels(items: Sequence[Item], pictures: Pictures, bits: int | None) -> dict[str, str]:
    """Each content to the least content of the same pixels, upright and of 8 bits: mostly to itself."""
    paths = {item.sha256: item.path for item in items}
    by_pixels: dict[str, list[str]] = defaultdict(list)
    for content in sorted(_undecided(paths, pictures)):
        by_pixels[_pixels_hash(paths[content], bits) or content].append(content)
    return {content: content for content in paths} | {one: found[0] for found in by_pixels.values() for one in found}


def _undecided(paths: Mapping[str, Path], pictures: Pictures) -> set[str]:
    """Contents whose small pictures do not show that no other has their pixels.

    Files that are decoded alike have equal small pictures where their pixels are equal; a JPEG and another format have
    nearly equal ones.
    """
    small = {content: pictures[content].tobytes() for content in paths}
    counts = Counter(small.values())
    found = {content for content in paths if counts[small[content]] > 1}
    jpegs = [content for content in paths if _starts(paths[content]) == _JPEG]
    others = sorted(set(paths) - set(jpegs))
    if jpegs and others:
        one, other = (_means(contents, pictures) for contents in (jpegs, others))
        near = _near(one, other)
        found |= {jpegs[row] for row, _ in near} | {others[column] for _, column in near}
    return found


def _means(contents: Sequence[str], pictures: Pictures) -> NDArray[np.float32]:
    """(n, 17): of the picture and of its blocks."""
    stack = np.stack([pictures[content] for content in contents]).astype(np.float32)
    side = stack.shape[1] // _BLOCKS
    blocks = stack.reshape(len(stack), _BLOCKS, side, _BLOCKS, side).mean((2, 4)).reshape(len(stack), -1)
    return np.concatenate([blocks.mean(1, keepdims=True), blocks], axis=1)


def _near(one: NDArray[np.float32], other: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Rows of `one` with a row of `other` that differs by at most _APART everywhere; all of them."""
    order = np.argsort(other[:, 0], kind="stable")
    means = other[order, 0]
    found = []
    for row, values in enumerate(one):
        first, last = np.searchsorted(means, [values[0] - _APART, values[0] + _APART])
        close = (np.abs(other[order[first:last]] - values) <= _APART).all(1)
        found += [(row, int(column)) for column in order[first:last][close]]
    return found


def _starts(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(3)
    except OSError:
        return b""


def _pixels_hash(path: Path, bits: int | None) -> str | None:
    """Of the whole upright picture; None where it cannot be read."""
    try:
        pixels = decode_whole(path.read_bytes(), bits)
    except (BadImage, OSError):
        return None
    return sha256_of(f"{pixels.shape}".encode() + pixels.tobytes())
