"""Resizes as other libraries do them, in NumPy and Pillow: what a pipeline that is not ours may have used."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgecnn.imaging import Pixels

ResizeName: TypeAlias = Literal[
    "edgecnn",
    "bilinear",
    "bicubic",
    "lanczos",
    "nearest",
    "opencv-linear",
    "opencv-cubic",
    "opencv-area",
    "opencv-nearest",
]
"""edgecnn: the pinned resize of `edgecnn.imaging`. bilinear, bicubic: Pillow's where antialiased, else torch's with
antialias=False (which is what OpenCV computes). lanczos, nearest: Pillow's. opencv-…: cv2.INTER_…, which is never
antialiased but for INTER_AREA."""

WITH_A_CHOICE = ("bilinear", "bicubic")
"""Filters of libraries that can be told to antialias or not."""
_PILLOW = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
_UNSMOOTHED = {"bilinear": "opencv-linear", "bicubic": "opencv-cubic"}
_CUBIC = -0.75
"""The parameter of OpenCV's and torch's cubic; Pillow's antialiased one takes -0.5."""

Taps: TypeAlias = list[tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Of one axis: (source index of each target pixel, its weight), one pair for every pixel that contributes."""


def resize(pixels: Pixels, height: int, width: int, how: ResizeName, antialias: bool = True) -> Pixels:
    """uint8 (h, w, 3) or (h, w) to `height` × `width` as `how` says. `edgecnn` is not done here."""
    if pixels.shape[:2] == (height, width):
        return pixels
    if how in _UNSMOOTHED and not antialias:
        how = _UNSMOOTHED[how]  # type: ignore[assignment]
    if how in _PILLOW:
        return np.asarray(Image.fromarray(pixels).resize((width, height), _PILLOW[how]))
    down, across = (
        _taps(how, source, target, both_shrink=height <= pixels.shape[0] and width <= pixels.shape[1])
        for source, target in ((pixels.shape[0], height), (pixels.shape[1], width))
    )
    rows = _along_rows(pixels.astype(np.float32), down)
    found = _along_rows(rows.swapaxes(0, 1), across).swapaxes(0, 1)
    return np.clip(np.rint(found), 0, 255).astype(np.uint8)


def _along_rows(values: NDArray[np.float32], taps: Taps) -> NDArray[np.float32]:
    shape = (-1,) + (1,) * (values.ndim - 1)
    summed = np.zeros((len(taps[0][0]), *values.shape[1:]), np.float32)
    for index, weight in taps:
        summed += values[index] * weight.reshape(shape)
    return summed


def _taps(how: str, source: int, target: int, both_shrink: bool) -> Taps:
    scale = source / target
    place = np.arange(target)
    if how == "opencv-nearest":
        return [(np.minimum((place * scale).astype(np.int64), source - 1), np.ones(target, np.float32))]
    if how == "opencv-area" and both_shrink:
        return _areas(source, target)
    if how == "opencv-area":  # enlarging, OpenCV's INTER_AREA is a linear one with the pixels' edges aligned
        first = np.floor(place * scale)
        share = (place + 1) - (first + 1) / scale
        return _gathered([first, first + 1], [1 - _fraction(share), _fraction(share)], source)
    centre = (place + 0.5) * scale - 0.5
    first = np.floor(centre)
    share = centre - first
    if how == "opencv-linear":
        return _gathered([first, first + 1], [1 - share, share], source)
    return _gathered(
        [first + step for step in (-1, 0, 1, 2)], [_cubic(np.abs(share - step)) for step in (-1, 0, 1, 2)], source
    )


def _fraction(share: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(share <= 0, 0.0, share - np.floor(share))


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance * distance + 1
    far = ((_CUBIC * distance - 5 * _CUBIC) * distance + 8 * _CUBIC) * distance - 4 * _CUBIC
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _areas(source: int, target: int) -> Taps:
    """Each target pixel is the mean of the source area under it, shares of pixels included."""
    scale = source / target
    low, high = np.arange(target) * scale, (np.arange(target) + 1) * scale
    first = np.floor(low)
    taps = int(np.ceil(scale)) + 1
    indices = [first + step for step in range(taps)]
    weights = [np.clip(np.minimum(high, i + 1) - np.maximum(low, i), 0, None) / scale for i in indices]
    return _gathered(indices, weights, source)


def _gathered(indices: list[NDArray[np.float64]], weights: list[NDArray[np.float64]], source: int) -> Taps:
    """Pixels beyond the edge are those at the edge."""
    return [
        (np.clip(index, 0, source - 1).astype(np.int64), weight.astype(np.float32))
        for index, weight in zip(indices, weights, strict=True)
    ]
