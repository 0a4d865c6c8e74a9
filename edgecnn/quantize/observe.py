"""Observers: from the values that a float network's tensors take to the ranges that int8 shall cover."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.imaging import Images, Pixels

BINS = 2048
_SAMPLES = 10_000
"""Values of one tensor and image that enter the histogram, evenly strided."""


@dataclass(frozen=True)
class Histogram:
    """Values of one tensor over all calibration images."""

    counts: NDArray[np.float64]
    """(BINS,), evenly spaced between low and high."""
    low: float
    high: float


_SAME_EXTREMES = 1e-3
"""Of a tensor's width: how far the extremes of one tensor may lie apart in two engines."""
_SAME_SHAPE = 0.1
"""Engines order values otherwise, so that other ones are sampled."""
Range = tuple[float, float]
Observer = Callable[[Histogram], Range]


Tensors = Mapping[str, NDArray[np.float32]]
"""Name to values, of one image."""


def observe(run: Callable[[Pixels], Tensors], images: Images) -> dict[str, Histogram]:
    """Histograms of every tensor that `run` gives for one image, uint8 (height, width, 3).

    One pass: a histogram is widened where a value lies outside of it. Its low and high are the exact extremes at the
    end. Memory does not grow with the number of images.
    """
    found: dict[str, Histogram] = {}
    extremes_seen: dict[str, Range] = {}
    for image in images:
        for name, values in run(image).items():
            low, high = float(values.min()), float(values.max())
            seen = extremes_seen.get(name, (low, high))
            extremes_seen[name] = (min(seen[0], low), max(seen[1], high))
            known = found.get(name)
            if known is None:
                known = Histogram(np.zeros(BINS), low, high)
            if low < known.low or high > known.high:
                known = _widened(known, *_with_room(known, *extremes_seen[name]))
            flat = values.ravel()[:: _stride(values.size)]
            width = max(known.high - known.low, 1e-12)
            bins = np.clip(((flat - known.low) * (BINS / width)).astype(np.int64), 0, BINS - 1)
            found[name] = Histogram(known.counts + np.bincount(bins, minlength=BINS), known.low, known.high)
    return {name: _widened(histogram, *extremes_seen[name]) for name, histogram in found.items()}


def _stride(size: int) -> int:
    """Coprime to the size, and so to the channels, the height and the width: one that shared a factor with any would
    meet only some of its places, whichever of them lies last in the engine's memory."""
    stride = max(1, size // _SAMPLES)
    while math.gcd(stride, size) > 1:
        stride += 1
    return stride


def observed_once(cache: Path, run: Callable[[], Callable[[Pixels], Tensors]], images: Images) -> dict[str, Histogram]:
    """`observe`, once for each `cache`: the rungs of an engine start from the same histograms.

    `run` opens the engine and gives the function to observe, only where it is needed.
    """
    if not cache.exists():
        save_histograms(observe(run(), images), cache)
    return load_histograms(cache)


def _with_room(histogram: Histogram, low: float, high: float) -> Range:
    """A range that holds the histogram and [low, high], a quarter wider on the side that grew: growing costs."""
    room = (high - low) / 4
    return (
        low - room if low < histogram.low else histogram.low,
        high + room if high > histogram.high else histogram.high,
    )


def _widened(histogram: Histogram, low: float, high: float) -> Histogram:
    """The same counts between other edges; each bin goes where its middle lies."""
    step = (histogram.high - histogram.low) / BINS
    middles = histogram.low + (np.arange(BINS) + 0.5) * step
    bins = np.clip(((middles - low) * (BINS / max(high - low, 1e-12))).astype(np.int64), 0, BINS - 1)
    counts = np.bincount(bins, weights=histogram.counts, minlength=BINS).astype(np.float64)
    return Histogram(counts, low, high)


def save_histograms(histograms: dict[str, Histogram], path: Path) -> None:
    """Write an .npz (arrays only)."""
    np.savez(
        path,
        names=np.array(list(histograms)),
        counts=np.stack([histogram.counts for histogram in histograms.values()]),
        extremes=np.array([(histogram.low, histogram.high) for histogram in histograms.values()]),
    )


def load_histograms(path: Path) -> dict[str, Histogram]:
    """Read what `save_histograms` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        rows = zip(arrays["names"], arrays["counts"], arrays["extremes"], strict=True)
        return {str(name): Histogram(counts, float(low), float(high)) for name, counts, (low, high) in rows}


def exception_for(histogram: Histogram, exceptions: Sequence[tuple[Histogram, str]]) -> str | None:
    """The name that stands with the same tensor, as its values tell: the same extremes, the same distribution."""
    width = max(histogram.high - histogram.low, 1e-12)
    near = [
        (_distance(histogram, known), name)
        for known, name in exceptions
        if max(abs(known.low - histogram.low), abs(known.high - histogram.high)) <= _SAME_EXTREMES * width
    ]
    distance, name = min(near, default=(1.0, ""))
    return name if distance <= _SAME_SHAPE else None


def _distance(one: Histogram, other: Histogram) -> float:
    """Total variation, 0..1, between two distributions in 64 bins."""
    coarse = [histogram.counts.reshape(64, -1).sum(1) / histogram.counts.sum() for histogram in (one, other)]
    return float(np.abs(coarse[0] - coarse[1]).sum() / 2)


def extremes(histogram: Histogram) -> Range:
    """Every value fits: no clipping."""
    return histogram.low, histogram.high


def percentile(share: float) -> Observer:
    """Leave out (100 − share) % of the values at each end."""

    def ranged(histogram: Histogram) -> Range:
        edges = np.linspace(histogram.low, histogram.high, BINS + 1)
        cumulative = np.cumsum(histogram.counts) / histogram.counts.sum()
        first = int(np.searchsorted(cumulative, 1 - share / 100))
        last = int(np.searchsorted(cumulative, share / 100))
        return float(edges[first]), float(edges[min(last + 1, BINS)])

    return ranged


def least_error(levels: int = 256) -> Observer:
    """The range with the smallest expected squared error of rounding inside and clipping outside.

    After Banner et al., Post training 4-bit quantization of convolutional networks, NeurIPS 2019, from the measured
    histogram instead of an assumed distribution.
    """

    def ranged(histogram: Histogram) -> Range:
        centres = np.linspace(histogram.low, histogram.high, BINS, endpoint=False)
        centres += (histogram.high - histogram.low) / BINS / 2
        low, high = histogram.low, histogram.high
        shares = np.linspace(0.2, 1.0, 81)
        for _ in range(2):
            high = min(
                (share * histogram.high for share in shares), key=lambda h: _error(histogram, centres, low, h, levels)
            )
            if histogram.low < 0:
                low = min(
                    (share * histogram.low for share in shares),
                    key=lambda b: _error(histogram, centres, b, high, levels),
                )
        return float(low), float(high)

    return ranged


def entropy(levels: int = 256) -> Observer:
    """The range whose 8-bit values keep the most of the distribution: least Kullback–Leibler divergence.

    After Migacz, 8-bit inference with TensorRT, GTC 2017, for both ends of a range that need not be symmetric.
    """

    def ranged(histogram: Histogram) -> Range:
        edges = np.linspace(histogram.low, histogram.high, BINS + 1)
        best: tuple[float, Range] = (np.inf, (histogram.low, histogram.high))
        counts = histogram.counts.copy()
        if histogram.low <= 0 <= histogram.high:
            # What ReLU made zero is kept by any range and would outweigh all else.
            counts[min(int(np.searchsorted(edges, 0.0, "right")) - 1, BINS - 1)] = 0
        if not counts.any():
            return extremes(histogram)
        for share in np.linspace(0.2, 1.0, 41):
            low, high = min(0.0, share * histogram.low), max(0.0, share * histogram.high)
            first = int(np.searchsorted(edges, low, "right")) - 1 if histogram.low < 0 else 0
            last = int(np.searchsorted(edges, high)) if histogram.high > 0 else BINS
            if last - first < 2:
                continue
            best = min(best, (_divergence(counts, max(first, 0), last, levels), (low, high)))
        return float(best[1][0]), float(best[1][1])

    return ranged


def above(low: float, observer: Observer) -> Observer:
    """What `observer` makes of values below `low` that became `low`."""

    def ranged(histogram: Histogram) -> Range:
        if histogram.low >= low or histogram.high <= low:
            return observer(histogram)
        return observer(_widened(histogram, low, histogram.high))

    return ranged


OBSERVERS: dict[str, Observer] = {
    "min-max": extremes,
    "percentile 99.5": percentile(99.5),
    "percentile 99.9": percentile(99.9),
    "percentile 99.99": percentile(99.99),
    "percentile 99.999": percentile(99.999),
    "least squared error": least_error(),
    "entropy": entropy(),
}
"""By the names that rungs call them."""
ABOVE_MINUS_3 = {name: f"{name} above -3" for name in OBSERVERS}
"""Each observer to what it is for a tensor that only hard-swish reads, which tells no values below −3 apart."""
OBSERVERS |= {ABOVE_MINUS_3[name]: above(-3.0, observer) for name, observer in list(OBSERVERS.items())}
FOR_ALL = ("min-max", "percentile 99.99", "percentile 99.999", "least squared error", "entropy")
"""Those that may do for every tensor of a network; the others clip so much that they are for single tensors."""


def _divergence(counts: NDArray[np.float64], first: int, last: int, levels: int) -> float:
    """Kullback–Leibler divergence of the counts within [first, last) after rounding them to `levels` values."""
    inside = counts[first:last]
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last:].sum()
    groups = np.arange(len(inside)) * levels // len(inside)
    filled = inside > 0
    totals = np.bincount(groups, weights=inside, minlength=levels)
    members = np.bincount(groups, weights=filled, minlength=levels)
    rounded = np.where(filled, totals[groups] / np.maximum(members[groups], 1), 0.0)
    p, q = clipped / clipped.sum(), rounded / max(rounded.sum(), 1e-12)
    there = p > 0
    return float(np.sum(p[there] * np.log(p[there] / np.maximum(q[there], 1e-9))))


def _error(histogram: Histogram, centres: NDArray[np.float64], low: float, high: float, levels: int) -> float:
    low, high = min(low, 0.0), max(high, 0.0)
    if high <= low:
        return np.inf
    step = (high - low) / (levels - 1)
    clipped = np.clip(centres, low, high) - centres
    inside = clipped == 0
    return float((histogram.counts * np.where(inside, step**2 / 12, clipped**2)).sum())
