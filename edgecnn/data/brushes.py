"""The brushes that surfaces are drawn with.

Everything is drawn in floating point on a *canvas*; `edgecnn.data.surfaces` photographs it. Lengths are in pixels of a
surface 176 pixels high and are multiplied by `scale_of` the surface at hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""
Field: TypeAlias = NDArray[np.float32]
"""float32 (h, w)."""
Canvas: TypeAlias = NDArray[np.float32]
"""float32 (h, w, 3), RGB, 0 black to 1 white, not yet clipped."""
Stroke: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Points (n, 2) as (x, y), and the width at each of them (n,), in pixels."""
Mark: TypeAlias = Callable[[Canvas, np.random.Generator], Canvas]

_REFERENCE_HEIGHT = 176
_OVERSAMPLING = 3


def scale_of(size: Size) -> float:
    """Pixels per reference pixel: lengths in this module are multiplied by it."""
    return min(size) / _REFERENCE_HEIGHT


def smooth_noise(rng: np.random.Generator, size: Size, cell: tuple[float, float]) -> Field:
    """Noise of unit deviation (about) whose features measure `cell` = (height, width) pixels."""
    grid = rng.standard_normal([math.ceil(side / step) + 3 for side, step in zip(size, cell, strict=True)], np.float32)
    box = (1.0, 1.0, 1.0 + size[1] / cell[1], 1.0 + size[0] / cell[0])
    return np.asarray(Image.fromarray(grid).resize((size[1], size[0]), Image.Resampling.BICUBIC, box=box))


def fractal(rng: np.random.Generator, size: Size, cell: float, octaves: int = 4) -> Field:
    """Noise with detail at every scale from `cell` pixels down, each octave at 0.6 × the strength of the last."""
    total: Field = np.zeros(size, np.float32)
    for octave in range(octaves):
        step = max(1.0, cell / 2**octave)
        total += np.float32(0.6**octave) * smooth_noise(rng, size, (step, step))
    return total


def turned(rng: np.random.Generator, size: Size, cell: tuple[float, float], angle: float) -> Field:
    """Noise with oblong features, `cell` = (across, along), that run at `angle` radians to the horizontal."""
    side = math.ceil(math.hypot(*size)) + 2
    wide = Image.fromarray(smooth_noise(rng, (side, side), cell))
    left, top = (side - size[1]) // 2, (side - size[0]) // 2
    straight = wide.rotate(-math.degrees(angle), Image.Resampling.BILINEAR)
    return np.asarray(straight.crop((left, top, left + size[1], top + size[0])))


def grid_of(size: Size) -> tuple[Field, Field]:
    """The x and y of every pixel."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    return x, y


def place(rng: np.random.Generator, size: Size, margin: float = 0.15) -> tuple[float, float]:
    """A random (x, y), at least `margin` × the side away from the border."""
    x, y = rng.uniform(margin, 1 - margin, 2)
    return float(x * size[1]), float(y * size[0])


def distance(size: Size, centre: tuple[float, float], radii: tuple[float, float] = (1, 1), angle: float = 0) -> Field:
    """Distance from `centre` in units of `radii`, along axes turned by `angle` radians: 1 on the ellipse."""
    x, y = grid_of(size)
    x, y = x - np.float32(centre[0]), y - np.float32(centre[1])
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return np.hypot((x * cos + y * sin) / np.float32(radii[0]), (y * cos - x * sin) / np.float32(radii[1]))


def step(field: Field, low: float, high: float) -> Field:
    """0 where `field` is below `low`, 1 above `high`, smooth between; falling where `low` is above `high`."""
    share = np.clip((field - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(share * share * (3 - 2 * share), dtype=np.float32)


def blob(rng: np.random.Generator, size: Size, radius: float, ragged: float = 0.3, soft: float = 0.3) -> Field:
    """An irregular patch: 1 inside, 0 outside. `radius` in pixels; `ragged`, `soft` as a share of it."""
    oval = rng.uniform(0.6, 1)
    field = distance(size, place(rng, size), (radius, radius * oval), rng.uniform(0, math.pi))
    field = field + np.float32(ragged) * fractal(rng, size, radius * 0.8, 3)
    return step(field, 1 + soft / 2, 1 - soft / 2)


def stroked(size: Size, strokes: Iterable[Stroke]) -> Field:
    """How much of each pixel the strokes cover, 0 to 1."""
    fine = Image.new("L", (size[1] * _OVERSAMPLING, size[0] * _OVERSAMPLING))
    pen = ImageDraw.Draw(fine)
    for points, widths in strokes:
        corners = [tuple(map(float, point)) for point in points * _OVERSAMPLING]
        for start, end, width in zip(corners, corners[1:], widths, strict=False):
            pen.line((*start, *end), fill=255, width=max(1, round(float(width) * _OVERSAMPLING)))
    coverage = fine.resize((size[1], size[0]), Image.Resampling.BOX)
    return np.asarray(coverage, dtype=np.float32) / np.float32(255)


def wandering(
    rng: np.random.Generator, start: tuple[float, float], angle: float, length: float, turn: float, drift: float = 0.0
) -> NDArray[np.float64]:
    """A path (n, 2) of steps of 2 pixels. Each step turns by N(drift, turn) radians from a straight course.

    With `drift` 0 the heading is drawn towards `angle` again, so that the path stays a line; else it curls.
    """
    steps = max(2, round(length / 2))
    headings = np.empty(steps)
    heading = angle
    for index, turned_by in enumerate(rng.normal(drift, turn, steps)):
        heading += turned_by - (0.15 * (heading - angle) if drift == 0 else 0)
        headings[index] = heading
    path = 2 * np.cumsum(np.stack([np.cos(headings), np.sin(headings)], axis=1), axis=0)
    return np.concatenate([[start], np.asarray(start) + path])


def lit(height: Field, angle: float) -> Field:
    """The shading of a relief by light from `angle` radians: the slope towards the light, brighter where it rises."""
    down, right = np.gradient(height)
    return np.asarray(right * math.cos(angle) + down * math.sin(angle), dtype=np.float32)


def shaded(canvas: Canvas, shade: Field) -> Canvas:
    """The canvas made brighter by the share `shade` of itself (darker where it is negative)."""
    return np.asarray(canvas * np.clip(1 + shade, 0, 3)[:, :, None], dtype=np.float32)


def tinted(canvas: Canvas, coverage: Field, colour: tuple[float, float, float]) -> Canvas:
    """The canvas multiplied by `colour` where it is covered."""
    factor = 1 + coverage[:, :, None] * (np.asarray(colour, np.float32) - 1)
    return np.asarray(canvas * factor, dtype=np.float32)


def painted(canvas: Canvas, coverage: Field, colour: tuple[float, float, float]) -> Canvas:
    """The canvas hidden by `colour` where it is covered."""
    share = coverage[:, :, None]
    return np.asarray(canvas * (1 - share) + share * np.asarray(colour, np.float32), dtype=np.float32)


def sign(rng: np.random.Generator) -> float:
    """+1 or −1."""
    return float(rng.choice((-1.0, 1.0)))
