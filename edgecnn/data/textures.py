"""The textures of the pretraining classes: marks that a network learns to tell apart.

They are shown in patches and faintly, as defects are, so that a network cannot tell them by the whole picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from edgecnn.data.brushes import (
    Canvas,
    Field,
    Mark,
    blob,
    distance,
    fractal,
    grid_of,
    lit,
    painted,
    place,
    scale_of,
    shaded,
    sign,
    smooth_noise,
    step,
    stroked,
    tinted,
    turned,
    wandering,
)


def _patch(canvas: Canvas, rng: np.random.Generator) -> Field:
    """Where a texture shows: now a small patch, now nearly everything."""
    size = canvas.shape[:2]
    return blob(rng, size, rng.uniform(0.22, 0.75) * min(size), ragged=0.2)


def _strength(rng: np.random.Generator) -> np.float32:
    """How much brighter or darker a mark is than its ground."""
    return np.float32(sign(rng) * rng.uniform(0.18, 0.6))


def _spots(canvas: Canvas, rng: np.random.Generator, count: int, low: float, high: float) -> list[Field]:
    """Distance fields of `count` discs with radii from `low` to `high`: 1 on the rim."""
    size = canvas.shape[:2]
    radii = rng.uniform(low, high, count) * scale_of(size)
    return [distance(size, place(rng, size, 0.08), (radius, radius)) for radius in radii]


def _waves(canvas: Canvas, angle: float, pitch: float, warp: Field | float = 0.0) -> Field:
    """A sine of `pitch` pixels along `angle`; `warp` shifts its phase (radians)."""
    x, y = grid_of(canvas.shape[:2])
    phase = (x * math.cos(angle) + y * math.sin(angle)) * (math.tau / (pitch * scale_of(canvas.shape[:2])))
    return np.asarray(np.sin(phase + warp), dtype=np.float32)


def _bubbles(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    rims = [step(np.abs(d - 1), 0.35, 0.05) for d in _spots(canvas, rng, int(rng.integers(3, 9)), 4, 11)]
    rings: Field = np.sum(rims, axis=0, dtype=np.float32)
    return shaded(canvas, rings * np.float32(rng.uniform(0.2, 0.5)))


def _burr(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """A ragged ridge of metal along a straight line."""
    size = canvas.shape[:2]
    angle, (cx, cy) = rng.uniform(0, math.tau), place(rng, size, 0.3)
    x, y = grid_of(size)
    across = (x - cx) * np.float32(-math.sin(angle)) + (y - cy) * np.float32(math.cos(angle))
    ragged = across + 3 * scale_of(size) * fractal(rng, size, 8, 3)
    ridge = step(np.abs(ragged), 4 * scale_of(size), 0)
    return shaded(canvas, lit(ridge, angle + math.pi / 2) * np.float32(rng.uniform(0.8, 1.6)))


def _chipped_edge(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """The part ends within the picture and its edge has bites."""
    size = canvas.shape[:2]
    angle, (cx, cy) = rng.uniform(0, math.tau), place(rng, size, 0.25)
    x, y = grid_of(size)
    beyond = (x - cx) * np.float32(math.cos(angle)) + (y - cy) * np.float32(math.sin(angle))
    for _ in range(int(rng.integers(2, 6))):
        slide, radius = rng.uniform(-0.5, 0.5) * max(size), rng.uniform(4, 12) * scale_of(size)
        bite = (cx - slide * math.sin(angle), cy + slide * math.cos(angle))
        beyond = np.maximum(beyond, radius - distance(size, bite) + 2 * smooth_noise(rng, size, (5, 5)))
    return tinted(canvas, step(beyond, -0.7, 0.7), (0.35, 0.36, 0.38))


def _engraved(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """A line of marks like letters."""
    size = canvas.shape[:2]
    k, (x, y) = scale_of(size), place(rng, size, 0.25)
    height, angle = rng.uniform(9, 18) * k, rng.uniform(-0.4, 0.4)
    along = np.array([math.cos(angle), math.sin(angle)])
    strokes = []
    for letter in range(int(rng.integers(3, 8))):
        corner = np.array([x, y]) + along * (letter - 2) * height * 0.8
        for _ in range(3):
            points = corner + rng.integers(0, 3, (int(rng.integers(2, 4)), 2)) / 2 * (height * 0.55, height)
            strokes.append((points, np.full(len(points), rng.uniform(1.2, 2) * k)))
    return shaded(canvas, stroked(size, strokes) * _strength(rng))


def _fibres(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    size = canvas.shape[:2]
    k = scale_of(size)
    curls = rng.uniform(-0.2, 0.2, int(rng.integers(4, 12)))
    paths = [wandering(rng, place(rng, size, 0), rng.uniform(0, math.tau), 50 * k, 0.05, curl) for curl in curls]
    return shaded(canvas, stroked(size, [(path, np.full(len(path), k)) for path in paths]) * _strength(rng))


def _fingerprint(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    size = canvas.shape[:2]
    k = scale_of(size)
    whorl = distance(size, place(rng, size, 0.3), (k, 1.4 * k), rng.uniform(0, math.pi))
    ridges = np.sin(whorl * np.float32(math.tau / rng.uniform(4, 6)) + fractal(rng, size, 25 * k, 2))
    return shaded(canvas, ridges * step(whorl, 40, 20) * _strength(rng) * np.float32(0.5))


def _grid(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    angle, pitch = rng.uniform(0, math.pi), rng.uniform(9, 20)
    lines = np.maximum(_waves(canvas, angle, pitch), _waves(canvas, angle + math.pi / 2, pitch))
    return shaded(canvas, step(lines, 0.85, 1) * _patch(canvas, rng) * _strength(rng))


def _hatch(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """Short strokes side by side."""
    size = canvas.shape[:2]
    k, start, angle = scale_of(size), np.array(place(rng, size, 0.2)), rng.uniform(0, math.tau)
    along, across = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    lengths = rng.uniform(8, 16, int(rng.integers(6, 16))) * k
    ends = [np.stack([start, start + along * length]) + across * i * 5 * k for i, length in enumerate(lengths)]
    return shaded(canvas, stroked(size, [(end, np.full(2, 1.2 * k)) for end in ends]) * _strength(rng))


def _holes(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    for rim in _spots(canvas, rng, int(rng.integers(1, 5)), 4, 14):
        canvas = tinted(canvas, step(rim, 1.1, 0.9), (0.25, 0.25, 0.27))
        canvas = shaded(canvas, step(np.abs(rim - 1.2), 0.2, 0) * np.float32(0.3))
    return canvas


def _honeycomb(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    angle, pitch = rng.uniform(0, math.pi), rng.uniform(10, 18)
    thirds = [_waves(canvas, angle + turn * math.pi / 3, pitch, math.pi / 2) for turn in range(3)]
    walls = step(np.sum(thirds, axis=0, dtype=np.float32), -0.3, -1.1)
    return shaded(canvas, walls * _patch(canvas, rng) * _strength(rng))


def _ink(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """A note in felt-tip pen."""
    size = canvas.shape[:2]
    k = scale_of(size)
    line = wandering(
        rng, place(rng, size, 0.2), rng.uniform(0, math.tau), rng.uniform(40, 110) * k, 0.3, 0.1 * sign(rng)
    )
    coverage = stroked(size, [(line, np.full(len(line), rng.uniform(3, 6) * k))])
    hue = rng.permutation((0.25, 0.5, 0.95))
    return tinted(canvas, coverage * np.float32(rng.uniform(0.4, 0.9)), (hue[0], hue[1], hue[2]))


def _knurl(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    angle, pitch, half = rng.uniform(0, math.pi), rng.uniform(6, 11), rng.uniform(0.4, 0.7)
    diamonds = np.abs(_waves(canvas, angle + half, pitch)) + np.abs(_waves(canvas, angle - half, pitch))
    return shaded(
        canvas, lit(diamonds, rng.uniform(0, math.tau)) * _patch(canvas, rng) * np.float32(rng.uniform(0.3, 0.7))
    )


def _label(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """What a torn-off label leaves."""
    size = canvas.shape[:2]
    k, angle = scale_of(size), rng.uniform(0, math.pi)
    x, y = grid_of(size)
    cx, cy = place(rng, size, 0.3)
    along = np.abs((x - cx) * math.cos(angle) + (y - cy) * math.sin(angle)) / (rng.uniform(18, 50) * k)
    across = np.abs((y - cy) * math.cos(angle) - (x - cx) * math.sin(angle)) / (rng.uniform(12, 30) * k)
    inside = step(np.maximum(along, across).astype(np.float32) + 0.04 * fractal(rng, size, 12 * k), 1.04, 0.98)
    torn = inside * step(fractal(rng, size, 25 * k), -0.7, -0.3)
    return painted(canvas, torn * np.float32(rng.uniform(0.25, 0.7)), (0.8, 0.78, 0.7))


def _orange_peel(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    size = canvas.shape[:2]
    cell = rng.uniform(6, 12) * scale_of(size)
    relief = lit(smooth_noise(rng, size, (cell, cell)), rng.uniform(0, math.tau))
    return shaded(canvas, relief * _patch(canvas, rng) * np.float32(rng.uniform(0.3, 0.9)))


def _pitting(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    angle = rng.uniform(0, math.tau)
    pits = [step(d, 1.2, 0) for d in _spots(canvas, rng, int(rng.integers(6, 20)), 2, 5)]
    return shaded(canvas, lit(np.sum(pits, axis=0, dtype=np.float32), angle) * np.float32(rng.uniform(0.7, 1.6)))


def _ring_mark(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    size = canvas.shape[:2]
    shade: Field = np.zeros(size, np.float32)
    for field in _spots(canvas, rng, int(rng.integers(1, 3)), 18, 45):
        shade += step(np.abs(field + 0.05 * fractal(rng, size, 20, 2) - 1), 0.09, 0.02)
    return shaded(canvas, shade * _strength(rng) * np.float32(0.7))


def _rust(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    size = canvas.shape[:2]
    crusts = step(fractal(rng, size, rng.uniform(10, 22) * scale_of(size), 5), 0.4, 1.1) * _patch(canvas, rng)
    return tinted(canvas, crusts, (0.75, 0.45, 0.3))


def _smear(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    size = canvas.shape[:2]
    k = scale_of(size)
    streaks = step(turned(rng, size, (6 * k, 70 * k), rng.uniform(0, math.pi)), 0, 1.5)
    return shaded(canvas, streaks * _patch(canvas, rng) * _strength(rng))


def _speckle(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    size = canvas.shape[:2]
    cell = rng.uniform(2, 4) * scale_of(size)
    return shaded(canvas, step(smooth_noise(rng, size, (cell, cell)), 1, 1.6) * _patch(canvas, rng) * _strength(rng))


def _stripes(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    stripes = step(_waves(canvas, rng.uniform(0, math.pi), rng.uniform(12, 40)), -0.2, 0.2)
    return shaded(canvas, stripes * _patch(canvas, rng) * _strength(rng) * np.float32(0.6))


def _water_drops(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    angle = rng.uniform(0, math.tau)
    for rim in _spots(canvas, rng, int(rng.integers(2, 7)), 6, 16):
        dome = np.sqrt(np.clip(1 - rim * rim, 0, 1))
        canvas = shaded(
            canvas, lit(dome * np.float32(10), angle) * np.float32(0.25) - step(rim, 1.1, 0.8) * np.float32(0.1)
        )
    return canvas


def _weave(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    angle, pitch = rng.uniform(0, math.pi), rng.uniform(6, 12)
    warp, weft = _waves(canvas, angle, pitch), _waves(canvas, angle + math.pi / 2, pitch)
    return shaded(canvas, warp * weft * _patch(canvas, rng) * _strength(rng) * np.float32(0.8))


def _weld(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """A bead with its ripples."""
    size = canvas.shape[:2]
    k, angle, (cx, cy) = scale_of(size), rng.uniform(0, math.tau), place(rng, size, 0.25)
    x, y = grid_of(size)
    across = ((y - cy) * math.cos(angle) - (x - cx) * math.sin(angle)).astype(np.float32) / np.float32(
        rng.uniform(7, 14) * k
    )
    bead = np.sqrt(np.clip(1 - across * across, 0, 1))
    ripples = bead * _waves(canvas, angle, rng.uniform(5, 8), 3 * across * across)
    return shaded(canvas, lit(bead * np.float32(6), angle + math.pi / 2) * np.float32(0.3) + ripples * np.float32(0.15))


def _wood(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    size = canvas.shape[:2]
    k, angle = scale_of(size), rng.uniform(0, math.pi)
    warp = 4 * turned(rng, size, (40 * k, 90 * k), angle)
    return shaded(
        canvas, _waves(canvas, angle + math.pi / 2, rng.uniform(8, 14), warp) * _patch(canvas, rng) * np.float32(0.2)
    )


def _wrinkles(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """Folds of a coating."""
    size = canvas.shape[:2]
    folds = step(np.abs(fractal(rng, size, rng.uniform(25, 50) * scale_of(size), 2)), 0.25, 0)
    relief = lit(folds, rng.uniform(0, math.tau))
    return shaded(canvas, relief * _patch(canvas, rng) * np.float32(rng.uniform(0.5, 1.2)))


MARKS: Mapping[str, Mark] = {
    "bubbles": _bubbles,
    "burr": _burr,
    "chipped_edge": _chipped_edge,
    "engraved": _engraved,
    "fibres": _fibres,
    "fingerprint": _fingerprint,
    "grid": _grid,
    "hatch": _hatch,
    "holes": _holes,
    "honeycomb": _honeycomb,
    "ink": _ink,
    "knurl": _knurl,
    "label": _label,
    "orange_peel": _orange_peel,
    "pitting": _pitting,
    "ring_mark": _ring_mark,
    "rust": _rust,
    "smear": _smear,
    "speckle": _speckle,
    "stripes": _stripes,
    "water_drops": _water_drops,
    "weave": _weave,
    "weld": _weld,
    "wood": _wood,
    "wrinkles": _wrinkles,
}
PRETRAIN_CLASSES: tuple[str, ...] = tuple(MARKS)
"""Alphabetical; none of them is a class of the demo set."""
