"""Which images show the same part, told by their looks: small grey pictures without light and without what all share.

Frozen features of a network were tried and do worse (benchmarks/README.md): they tell kinds of things, not things.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

SIDE = 32
"""Of the pictures, pixels."""
ALIKE, ALIKE_OF_FEW, FEW = 0.6, 0.8, 200
"""Least correlation of two pictures of one part; in a set of few images, which hardly shows what all share, more.
Measured: benchmarks/parts.py."""
SURE = 0.9
"""Correlation from which pictures are of one part however many there are."""

Pictures = NDArray[np.uint8]
"""(n, 32, 32), grey."""

_LIGHT = 3.0
"""Standard deviation, in pixels, of the blur that takes the light out."""
_MOST_SHARED, _LEAST_SHARED, _IMAGES_EACH = 16, 4, 40
"""Directions in which pictures differ most that are taken out: one for so many images, within the two bounds."""
_SMALL, _LARGE_SHARE = 12, 20
"""A part that is only probable has at most so many images (a quarter of a small set), or one in so many of all."""
_NEIGHBOURS = 32
"""Most similar pictures of each that are looked at; a part with more hangs together by them."""
_CHUNK = 512
_FLAT = 1e-6


def grey_picture(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (32, 32, 3), RGB, to uint8 (32, 32)."""
    return np.asarray(np.rint(pixels @ np.array([0.299, 0.587, 0.114], np.float32)), np.uint8)


def alike(pictures: Pictures) -> NDArray[np.int64]:
    """int64 (n,): a number of its part for each picture, that of the first one in it.

    Pictures that correlate are linked, the most similar first. A link below `SURE` that would make a part of more than
    twelve images and a twentieth of all is not made: so many images that are a little alike are of one kind of part,
    seen by a fixed camera, and chaining them would make one part of the whole set.
    """
    links = _links(_details(pictures))
    count = len(pictures)
    most = max(min(_SMALL, count // 4), count // _LARGE_SHARE)
    part = _Parts(count)
    for correlation, one, other in links:
        if correlation >= SURE or part.size_with(one, other) <= most:
            part.join(one, other)
    return np.array([part.first(place) for place in range(count)], np.int64)


class _Parts:
    """Disjoint sets of places."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))
        self._sizes = [1] * count

    def first(self, place: int) -> int:
        """The least place of its set."""
        while self._above[place] != place:
            self._above[place] = self._above[self._above[place]]
            place = self._above[place]
        return place

    def size_with(self, one: int, other: int) -> int:
        """Of the set that joining would make."""
        one, other = self.first(one), self.first(other)
        return self._sizes[one] + (self._sizes[other] if one != other else 0)

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.first(one), self.first(other)))
        if low != high:
            self._above[high] = low
            self._sizes[low] += self._sizes[high]


def _links(rows: NDArray[np.float32]) -> list[tuple[float, int, int]]:
    """(correlation, i, j), i < j, of pictures that are alike, the most similar first. No n × n matrix is held."""
    found: dict[tuple[int, int], float] = {}
    least = ALIKE if len(rows) >= FEW else ALIKE_OF_FEW
    width = min(_NEIGHBOURS + 1, len(rows))
    for start in range(0, len(rows), _CHUNK):
        correlation = rows[start : start + _CHUNK] @ rows.T
        nearest = np.argpartition(-correlation, width - 1, axis=1)[:, :width]
        values = np.take_along_axis(correlation, nearest, axis=1)
        for row, column in zip(*np.nonzero(values >= least), strict=True):
            i, j = start + int(row), int(nearest[row, column])
            if i != j:
                found[min(i, j), max(i, j)] = float(values[row, column])
    return sorted(((value, *pair) for pair, value in found.items()), key=lambda link: (-link[0], link[1], link[2]))


def _details(pictures: Pictures) -> NDArray[np.float32]:
    """float32 (n, 1024), each of length 1, or 0 where nothing is left: what is a picture's own.

    First the light goes: each pixel less the blurred picture, over the blurred size of that difference. Then what the
    set has in common: its mean, and the directions in which it varies most, which are kinds of parts.
    """
    whole: NDArray[np.float32] = pictures.astype(np.float32)
    whole -= whole.mean((1, 2), keepdims=True)
    whole /= np.maximum(np.sqrt((whole**2).sum((1, 2), keepdims=True)), _FLAT)
    blur = _blur()
    sharp = whole - blur @ whole @ blur.T
    spread = np.sqrt(blur @ (sharp * sharp) @ blur.T) + 1e-3
    rows: NDArray[np.float32] = np.asarray(sharp / spread, np.float32).reshape(len(pictures), -1)
    flat = np.linalg.norm(sharp.reshape(len(pictures), -1), axis=1) < _FLAT
    rows = _unit(rows - rows.mean(1, keepdims=True))
    rows = rows - rows.mean(0)
    count = len(rows)
    shared = min(_MOST_SHARED, max(_LEAST_SHARED, count // _IMAGES_EACH), count // 10)
    if shared:
        axes = _main_axes(rows, shared)
        rows -= (rows @ axes) @ axes.T
    rows = _unit(rows)
    rows[flat] = 0
    return rows


def _main_axes(rows: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """(1024, count): orthonormal, the directions of greatest variance."""
    wide = rows.astype(np.float64)
    if len(wide) < wide.shape[1]:
        vectors = wide.T @ np.linalg.eigh(wide @ wide.T)[1][:, -count:]
    else:
        vectors = np.linalg.eigh(wide.T @ wide)[1][:, -count:]
    axes: NDArray[np.float32] = np.linalg.qr(vectors)[0].astype(np.float32)
    return axes


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _FLAT)
    return scaled


@cache
def _blur() -> NDArray[np.float32]:
    """(32, 32): multiplied from the left it blurs columns by a Gaussian, the picture mirrored at its edges."""
    reach = round(4 * _LIGHT)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _LIGHT) ** 2)
    matrix = np.zeros((SIDE, SIDE))
    for place in range(SIDE):
        for offset, weight in zip(range(-reach, reach + 1), weights / weights.sum(), strict=True):
            source = (place + offset) % (2 * SIDE)
            matrix[place, min(source, 2 * SIDE - 1 - source)] += weight
    return matrix.astype(np.float32)
