"""The two kernels of the one preprocessing, in whole numbers, so that every processor gives the same bits.

*reduce*: box averages of 2, 4 or 8 pixels a side. *fit*: an antialiased bilinear (triangle) filter with weights of 8
bits that sum to 256, sums in uint16 (at most 255 · 256 + 128), rounded to 8 bits after each direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgecnn.imaging.pixels import Pixels

PARTS = 1 << 16
"""Boundaries are whole multiples of this part of a pixel: the square of a center-crop rarely ends between pixels."""
_ONE = 256
"""What the weights of one target pixel sum to."""
_STRIP_BYTES = 512 * 1024
"""Of the sums of a strip of rows: they stay in the processor's cache."""

Sums: TypeAlias = NDArray[np.uint16]


@dataclass(frozen=True)
class Span:
    """The part of one axis of reduced pixels that fills the target, in PARTS of a pixel of the unreduced picture."""

    start: int
    extent: int


@dataclass(frozen=True)
class Taps:
    """Which source pixels make each target pixel of one axis. All arrays are (taps, targets)."""

    index: NDArray[np.intp]
    weight: NDArray[np.uint16]
    """The weights of a target sum to 256."""


class Workspace:
    """Arrays that are made once and used again: fresh large ones cost more than what is computed in them."""

    def __init__(self) -> None:
        self._held: dict[str, NDArray[np.uint8]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> NDArray[Any]:
        """The array of that name in a new shape, with whatever was in it."""
        size = prod(shape) * np.dtype(dtype).itemsize
        held = self._held.get(name)
        if held is None or held.size < size:
            held = self._held[name] = np.empty(size, np.uint8)
        return held[:size].view(dtype).reshape(shape)


def reduce(pixels: Pixels, factor: int, work: Workspace) -> Pixels:
    """uint8 (h, w, 3) or (h, w) to the means of factor × factor pixels, (⌈h / factor⌉, ⌈w / factor⌉).

    `factor`: 2, 4 or 8. A half is rounded up. Where the last block is partial its last pixel is repeated, as JPEG
    encoders do. Lies in `work` under "reduced".
    """
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    rows, columns = -(-height // factor), -(-width // factor)
    values = pixels.reshape(height, width, channels)
    reduced: Pixels = work.array("reduced", (rows, columns, channels))
    padded = columns * factor * channels
    whole = height // factor
    strip = max(1, _STRIP_BYTES // (2 * padded))
    for first in range(0, rows, strip):
        last = min(first + strip, rows)
        sums = work.array("sums", (last - first, padded), np.uint16)
        _add_rows(values, factor, first, min(last, whole), sums)
        if last > whole:  # the partial row of blocks
            at = np.minimum(np.arange(whole * factor, rows * factor), height - 1)
            sums[whole - first, : width * channels] = values[at].sum(axis=0, dtype=np.uint16).reshape(-1)
        for column in range(width, columns * factor):
            place = column * channels
            sums[:, place : place + channels] = sums[:, place - channels : place]
        _add_columns(sums, factor, channels, reduced[first:last], work)
    return reduced if pixels.ndim == 3 else reduced[:, :, 0]


def fit(pixels: Pixels, down: Taps, across: Taps, work: Workspace) -> Pixels:
    """uint8 (h, w, channels), of any strides, to (targets of `down`, targets of `across`, channels). In `work`.

    Columns first, then rows. Each runs along the first axis, where whole rows are added, so the pixels are transposed
    by planes before each.
    """
    height, width, channels = pixels.shape
    target = across.index.shape[1]
    turned = work.array("turned", (width, channels, height))
    for channel in range(channels):
        turned[:, channel] = pixels[:, :, channel].T
    narrow = _weighted(turned.reshape(width, -1), across, "narrow", work).reshape(target, channels, height)
    back = work.array("back", (height, target, channels))
    for channel in range(channels):
        back[:, :, channel] = narrow[:, channel].T
    return _weighted(back.reshape(height, -1), down, "fitted", work).reshape(-1, target, channels)


@lru_cache(maxsize=64)
def taps(length: int, factor: int, span: Span, target: int) -> Taps:
    """The filter of one axis: `length` reduced pixels, each of `factor` pixels of the picture, to `target` pixels.

    The triangle reaches as far as one target pixel, or one reduced pixel where that is more (Pillow's and
    torchvision's antialiased bilinear filter). All in units of 1 / (2 · target) of a part, so that only the weights
    are rounded: down, and what is missing to 256 goes to the largest remainders.
    """
    pixel = 2 * target * factor * PARTS
    reach = max(pixel, 2 * span.extent)
    places = np.arange(target, dtype=np.int64)
    centre = 2 * target * span.start + (2 * places + 1) * span.extent
    first = (centre - reach) // pixel
    index = first[:, None] + np.arange(2 * reach // pixel + 3)
    inside = (index >= 0) & (index < length)
    share = np.where(inside, np.maximum(reach - np.abs(index * pixel + pixel // 2 - centre[:, None]), 0), 0)
    total = share.sum(axis=1, keepdims=True)
    weight, rest = np.divmod(share * _ONE, total)
    order = np.argsort(-rest, axis=1, kind="stable")
    missing = _ONE - weight.sum(axis=1, keepdims=True)
    np.put_along_axis(weight, order, np.take_along_axis(weight, order, 1) + (np.arange(index.shape[1]) < missing), 1)
    return _compact(np.clip(index, 0, length - 1), weight)


def _compact(index: NDArray[np.int64], weight: NDArray[np.int64]) -> Taps:
    """(targets, candidates) to as few taps as the widest target needs: weights of 0 go to the end and are cut off."""
    order = np.argsort(weight == 0, axis=1, kind="stable")
    most = int((weight > 0).sum(axis=1).max())
    index, weight = (np.take_along_axis(values, order, 1)[:, :most].T for values in (index, weight))
    return Taps(np.ascontiguousarray(index, np.intp), np.ascontiguousarray(weight, np.uint16))


def _weighted(rows: Pixels, along: Taps, name: str, work: Workspace) -> Pixels:
    """uint8 (n, m) to (targets, m): each target the weighted sum of its rows, rounded."""
    shape = (along.index.shape[1], rows.shape[1])
    gathered = work.array("gathered", shape)
    sums, product = work.array("sums", shape, np.uint16), work.array("product", shape, np.uint16)
    for number, (index, weight) in enumerate(zip(along.index, along.weight, strict=True)):
        np.take(rows, index, axis=0, out=gathered, mode="clip")
        np.multiply(gathered, weight[:, None], out=product if number else sums)
        if number:
            np.add(sums, product, out=sums)
    sums += _ONE // 2
    sums >>= 8
    found: Pixels = work.array(name, shape)
    np.copyto(found, sums, casting="unsafe")
    return found


def _add_rows(values: Pixels, factor: int, first: int, last: int, sums: Sums) -> None:
    """Sums of `factor` rows each, for whole blocks `first` to `last`, into the first of `sums`."""
    if last <= first:
        return
    block = values[first * factor : last * factor]
    height, width, channels = block.shape
    rows = block.reshape(height // factor, factor, width * channels)
    into = sums[: last - first, : width * channels]
    np.add(rows[:, 0], rows[:, 1], out=into, dtype=np.uint16)
    for row in range(2, factor):
        np.add(into, rows[:, row], out=into)


def _add_columns(sums: Sums, factor: int, channels: int, reduced: Pixels, work: Workspace) -> None:
    """Means of `factor` pixels of each row of sums: added to themselves shifted by 1, 2, 4 pixels, every f-th taken."""
    added, shift = sums, channels
    for step in range(factor.bit_length() - 1):
        wider = work.array(f"wider{step % 2}", (len(sums), added.shape[1] - shift), np.uint16)
        np.add(added[:, :-shift], added[:, shift:], out=wider)
        added, shift = wider, 2 * shift
    added += factor * factor // 2
    added >>= 2 * (factor.bit_length() - 1)
    for channel in range(channels):
        reduced[:, :, channel] = added[:, channel :: factor * channels]
