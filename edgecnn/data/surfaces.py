"""The built-in surface-defect generator: a labelled set to try every step with, drawn rather than downloaded.

Five classes of grey industrial surface under uneven light. Every class has dust, hair, tool marks, reflections and
dried stains, so that a mark alone is no defect: its shape is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from edgecnn.data.brushes import (
    Canvas,
    Field,
    Mark,
    Size,
    Stroke,
    blob,
    distance,
    fractal,
    grid_of,
    lit,
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
from edgecnn.data.textures import MARKS, PRETRAIN_CLASSES
from edgecnn.disk import FULL
from edgecnn.documents import folder_written_whole
from edgecnn.errors import UserError, not_one_of
from edgecnn.imaging import Pixels

__all__ = ["CLASSES", "PRETRAIN_CLASSES", "draw", "write_demo_data"]

CLASSES = ("crack", "dent", "discolour", "good", "scratch")
"""Alphabetical, as the class folders are."""
GOOD_SHARE = 0.28
"""Share of good parts; the defects share the rest equally."""
LEAST_IMAGES = 25
LEAST_SIDE, LARGEST_SIDE = 64, 1024
_JPEG_QUALITY = 90


def write_demo_data(
    out: Path,
    images: int = 1200,
    seed: int = 0,
    size: Size = (176, 176),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Draw `images` labelled JPEGs of `size` = (height, width) pixels into `out/<class>/<class>_0001.jpg` …

    Returns the number of images per class. The same arguments give the same bytes (with the same NumPy and Pillow),
    and a larger set contains the smaller ones. `progress(done, images)` is called after each image. `out` appears
    whole or not at all. Raises UserError: `out` is not empty, or an argument is out of range.
    """
    _check(out, images, seed, size)
    counts = shares(images)
    jobs = [(name, number) for name in CLASSES for number in range(1, counts[name] + 1)]
    try:
        with folder_written_whole(out.resolve()) as folder:
            for done, (name, number) in enumerate(jobs, start=1):
                _write(folder / name / f"{name}_{number:04d}.jpg", name, (seed, CLASSES.index(name), number), size)
                if progress is not None:
                    progress(done, images)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise UserError(f"{out}: cannot be written ({error.strerror}): name a folder that can be made there") from None
    return counts


def draw(name: str, rng: np.random.Generator, size: Size = (176, 176)) -> Pixels:
    """One image of a class of `CLASSES` or `PRETRAIN_CLASSES`: uint8 (height, width, 3), RGB. Raises UserError."""
    mark = _DEFECTS.get(name) or MARKS.get(name)
    if mark is None:
        raise not_one_of("surface", name, (*CLASSES, *PRETRAIN_CLASSES))
    return photographed(mark(with_allowed_marks(ground(rng, size), rng), rng), rng)


def shares(images: int) -> dict[str, int]:
    """Images per class: `GOOD_SHARE` of them good, the rest equally among the defects."""
    defects = [name for name in CLASSES if name != "good"]
    each, left = divmod(images - round(images * GOOD_SHARE), len(defects))
    counts = {name: each + (rank < left) for rank, name in enumerate(defects)}
    return {name: counts.get(name, round(images * GOOD_SHARE)) for name in CLASSES}


def _write(path: Path, name: str, seed: tuple[int, int, int], size: Size) -> None:
    path.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    Image.fromarray(draw(name, rng, size)).save(path, quality=_JPEG_QUALITY)


def _check(out: Path, images: int, seed: int, size: Size) -> None:
    if images < LEAST_IMAGES:
        raise UserError(f"images: {images} is too few: ask for at least {LEAST_IMAGES}")
    if seed < 0:
        raise UserError(f"seed: {seed} is negative: give 0 or more")
    if not all(LEAST_SIDE <= side <= LARGEST_SIDE for side in size):
        raise UserError(f"size: {size[0]}×{size[1]} pixels: each side must be {LEAST_SIDE} to {LARGEST_SIDE}")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file is there: name a new or an empty folder")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out}: the folder is not empty: name a new or an empty one, or remove it first")


# ------------------------------------------------------------------------------------------------------- defects


def _crack(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """A dark, jagged, branching line of changing width."""
    size = canvas.shape[:2]
    k, angle = scale_of(size), rng.uniform(0, math.tau)
    start, length = place(rng, size, 0.25), rng.uniform(60, 120) * k
    widest = rng.uniform(1.8, 3.4) * k
    trunk = wandering(rng, start, angle, length, 0.55)
    strokes: list[Stroke] = [(trunk, _tapering(rng, len(trunk), widest))]
    for _ in range(int(rng.integers(0, 4))):
        fork = tuple(trunk[int(rng.integers(len(trunk)))])
        twig = wandering(rng, fork, angle + sign(rng) * rng.uniform(0.4, 1.1), length * rng.uniform(0.15, 0.45), 0.55)
        strokes.append((twig, _tapering(rng, len(twig), 0.7 * widest)))
    return shaded(canvas, stroked(size, strokes) * np.float32(-rng.uniform(0.5, 0.9)))


def _tapering(rng: np.random.Generator, count: int, widest: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    profile = 1 - 0.75 * np.linspace(0, 1, count)
    return np.asarray(widest * profile * rng.uniform(0.6, 1.2, count))


def _dent(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """A shallow hollow: one flank bright, the other dark."""
    size = canvas.shape[:2]
    radius = rng.uniform(13, 30) * scale_of(size)
    field = distance(size, place(rng, size, 0.2), (radius, radius * rng.uniform(0.6, 1)), rng.uniform(0, math.pi))
    field = field + np.float32(0.08) * fractal(rng, size, radius, 2)
    hollow = np.exp(-((np.maximum(field, 0) / np.float32(0.75)) ** np.float32(rng.uniform(2, 3.5))))
    return shaded(
        canvas, lit(hollow * np.float32(radius), rng.uniform(0, math.tau)) * np.float32(rng.uniform(0.2, 0.5))
    )


def _discolour(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """A soft tint, as heat or a wrong bath leaves it: straw, brown, violet, blue or green."""
    size = canvas.shape[:2]
    patch = blob(rng, size, rng.uniform(24, 56) * scale_of(size), soft=rng.uniform(0.4, 1.2))
    colour = np.asarray(_TINTS[int(rng.integers(len(_TINTS)))])
    red, green, blue = 1 + (colour - 1) * rng.uniform(0.7, 1.4)
    return tinted(canvas, patch, (red, green, blue))


def _good(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """Nothing but what every part may have."""
    return canvas


def _scratch(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """One or a few straight or gently bent thin lines, bright with a dark flank, or the reverse."""
    size = canvas.shape[:2]
    k, angle, start = scale_of(size), rng.uniform(0, math.tau), np.asarray(place(rng, size, 0.2))
    width, bend = rng.uniform(1.6, 2.8) * k, rng.normal(0, 0.008)
    strokes: list[Stroke] = []
    for _ in range(int(rng.choice((1, 1, 1, 2, 3)))):
        begin = start + rng.normal(0, 5 * k, 2)
        path = wandering(rng, (begin[0], begin[1]), angle + rng.normal(0, 0.04), rng.uniform(60, 140) * k, 0.006, bend)
        strokes.append((path, width * np.sin(np.linspace(0.25, math.pi - 0.25, len(path)))))
    groove = stroked(size, strokes)
    flank = np.roll(groove, (1, 1), axis=(0, 1)) * np.float32(0.45)
    return shaded(canvas, (groove - flank) * np.float32(rng.choice((1, 1, 1, 1, -0.6)) * rng.uniform(0.6, 1.1)))


_TINTS = ((1.0, 0.88, 0.62), (0.85, 0.66, 0.5), (0.84, 0.72, 0.95), (0.7, 0.82, 1.0), (0.78, 0.95, 0.78))
_DEFECTS: Mapping[str, Mark] = {
    "crack": _crack,
    "dent": _dent,
    "discolour": _discolour,
    "good": _good,
    "scratch": _scratch,
}

# ------------------------------------------------------------------------------------------------------- grounds


def ground(rng: np.random.Generator, size: Size) -> Canvas:
    """A clean surface of a random material: brushed, cast, ceramic, turned on a lathe or blasted."""
    material = _MATERIALS[int(rng.integers(len(_MATERIALS)))]
    texture = material(rng, size) * np.float32(rng.uniform(0.5, 1.1))
    grey = rng.uniform(0.35, 0.68) + texture
    return np.repeat(np.asarray(grey, dtype=np.float32)[:, :, None], 3, axis=2)


def _brushed(rng: np.random.Generator, size: Size) -> Field:
    k, angle = scale_of(size), rng.choice((0, math.pi / 2)) + rng.normal(0, 0.12)
    fine = turned(rng, size, (1.2 * k, rng.uniform(30, 90) * k), angle)
    broad = turned(rng, size, (5 * k, 150 * k), angle)
    return np.asarray(0.045 * fine + 0.025 * broad, dtype=np.float32)


def _cast(rng: np.random.Generator, size: Size) -> Field:
    k = scale_of(size)
    relief = lit(fractal(rng, size, rng.uniform(5, 9) * k, 3), rng.uniform(0, math.tau))
    return np.asarray(0.055 * relief + 0.02 * fractal(rng, size, 30 * k, 3), dtype=np.float32)


def _ceramic(rng: np.random.Generator, size: Size) -> Field:
    k = scale_of(size)
    peel = lit(smooth_noise(rng, size, (7 * k, 7 * k)), rng.uniform(0, math.tau))
    return np.asarray(0.025 * peel + 0.012 * fractal(rng, size, 60 * k, 2), dtype=np.float32)


def _lathed(rng: np.random.Generator, size: Size) -> Field:
    far, angle = rng.uniform(0.7, 3) * max(size), rng.uniform(0, math.tau)
    centre = (size[1] / 2 + far * math.cos(angle), size[0] / 2 + far * math.sin(angle))
    radius = distance(size, centre)
    pitch = rng.uniform(3, 6) * scale_of(size)
    chatter = 0.4 * smooth_noise(rng, size, (40, 40))
    rough = smooth_noise(rng, size, (1.5, 1.5))
    return np.asarray(0.035 * np.sin(radius * (math.tau / pitch) + chatter) + 0.02 * rough, dtype=np.float32)


def _blasted(rng: np.random.Generator, size: Size) -> Field:
    k = scale_of(size)
    grain = smooth_noise(rng, size, (1.6 * k, 1.6 * k))
    return np.asarray(0.05 * grain + 0.025 * fractal(rng, size, 20 * k, 3), dtype=np.float32)


_MATERIALS: tuple[Callable[[np.random.Generator, Size], Field], ...] = (_brushed, _cast, _ceramic, _lathed, _blasted)

# -------------------------------------------------------------------------------------------------- allowed marks


def with_allowed_marks(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """The canvas with some of the marks that every part may have, so that no mark alone means a defect."""
    for mark, share in _ALLOWED:
        if rng.random() < share:
            canvas = mark(canvas, rng)
    return canvas


def _machining(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """Evenly spaced tool marks right across the part."""
    size = canvas.shape[:2]
    angle, pitch = rng.uniform(0, math.pi), rng.uniform(14, 40) * scale_of(size)
    x, y = grid_of(size)
    across = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle)) + np.float32(rng.uniform(0, pitch))
    line = step(np.abs((across % np.float32(pitch)) - np.float32(pitch / 2)), 1.6, 0.3)
    return shaded(canvas, np.asarray(line * sign(rng) * rng.uniform(0.06, 0.16), dtype=np.float32))


def _dust(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    size = canvas.shape[:2]
    shade: Field = np.zeros(size, np.float32)
    for _ in range(int(rng.integers(2, 14))):
        radius = rng.uniform(0.7, 2) * scale_of(size)
        spot = step(distance(size, place(rng, size, 0.02), (radius, radius)), 1.4, 0.6)
        shade += spot * np.float32(sign(rng) * rng.uniform(0.1, 0.4))
    return shaded(canvas, shade)


def _lint(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """A curled hair."""
    size = canvas.shape[:2]
    k = scale_of(size)
    curl = sign(rng) * rng.uniform(0.06, 0.16)
    path = wandering(rng, place(rng, size), rng.uniform(0, math.tau), rng.uniform(25, 60) * k, 0.03, curl)
    width = np.full(len(path), rng.uniform(0.7, 1.2) * k)
    return shaded(canvas, stroked(size, [(path, width)]) * np.float32(sign(rng) * rng.uniform(0.2, 0.4)))


def _dried_stain(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """A neutral patch of cleaning fluid: allowed, as it has no colour."""
    size = canvas.shape[:2]
    patch = blob(rng, size, rng.uniform(15, 45) * scale_of(size), soft=rng.uniform(0.2, 1))
    return shaded(canvas, patch * np.float32(sign(rng) * rng.uniform(0.05, 0.14)))


def _reflection(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    size = canvas.shape[:2]
    radii = (rng.uniform(0.4, 1.5) * size[1], rng.uniform(0.08, 0.25) * size[0])
    band = step(distance(size, place(rng, size, 0.05), radii, rng.uniform(0, math.pi)), 1.3, 0)
    return shaded(canvas, band * np.float32(rng.uniform(0.1, 0.35)))


_ALLOWED: tuple[tuple[Mark, float], ...] = (
    (_machining, 0.25),
    (_dust, 0.5),
    (_lint, 0.3),
    (_dried_stain, 0.35),
    (_reflection, 0.4),
)

# ------------------------------------------------------------------------------------------------ light and camera


def photographed(canvas: Canvas, rng: np.random.Generator) -> Pixels:
    """The canvas under uneven light of some colour, seen by a noisy sensor: uint8 (h, w, 3), RGB."""
    size = canvas.shape[:2]
    angle, x, y = rng.uniform(0, math.tau), *grid_of(size)
    slope = ((x / size[1] - 0.5) * math.cos(angle) + (y / size[0] - 0.5) * math.sin(angle)) * rng.uniform(0, 0.5)
    vignette = distance(size, (size[1] / 2, size[0] / 2), (size[1], size[0])) ** 2 * rng.uniform(0, 0.5)
    light = (1 + slope - vignette) * rng.uniform(0.75, 1.25)
    warmth, green = rng.normal(0, 0.04), rng.normal(0, 0.01)
    cast = np.array((1 + warmth, 1 + green, 1 - warmth))
    grain = rng.normal(0, rng.uniform(0.006, 0.022), (*size, 1)) + rng.normal(0, 0.006, (*size, 3))
    seen = canvas * light[:, :, None] * cast + grain
    return np.asarray(np.clip(np.rint(seen * 255), 0, 255), dtype=np.uint8)
