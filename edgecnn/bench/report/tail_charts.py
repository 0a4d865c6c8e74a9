"""The charts of a tail: how many parts took how long, and each part's time in the order of measuring."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecnn.bench.report.charts import PRECISION_COLOURS
from edgecnn.bench.report.drawing import (
    INK,
    LIMIT,
    Chart,
    Size,
    both,
    figure,
    limit_label,
    margins,
    plain_ticks,
    svg,
)
from edgecnn.bench.report.material import Variant
from edgecnn.bench.report.tail import Tail
from edgecnn.numbers import plain

_OUTLIERS = 10
"""Slowest parts that are drawn one by one; beyond the limit, up to _MOST_OVER are."""
_MOST_OVER = 200


def spread(tail: Tail, variant: Variant) -> Chart:
    """How many parts took how long; the slowest ones as dots."""
    return both(lambda size: _spread(tail, variant, size))


def timeline(tail: Tail, variant: Variant) -> Chart:
    """Each part's time in the order of measuring: whether slow parts come together, and whether it drifts."""
    return both(lambda size: _timeline(tail, variant, size))


def _spread(tail: Tail, variant: Variant, size: Size) -> str:
    total, budget = tail.total_ms, tail.budget
    low, high, log = _range(tail)
    count = 60 if size.narrow else 120
    edges = np.geomspace(low, high, count) if log else np.linspace(low, high, count)
    with figure(size, 200) as drawn:
        axis = drawn.subplots()
        margins(drawn, 54, 12, 40, 24)
        counts, _ = np.histogram(np.clip(total, low, high), edges)
        axis.stairs(counts, edges, fill=True, color=PRECISION_COLOURS[variant.artifact.precision])
        slow = _slowest(tail)
        lift = np.full(slow.size, 0.04 * counts.max())
        over = total[slow] > budget.milliseconds
        axis.plot(total[slow][~over], lift[~over], "o", markersize=4, color=INK, markerfacecolor="none")
        axis.plot(total[slow][over], lift[over], "o", markersize=5, color=LIMIT)
        axis.axvline(budget.milliseconds, color=LIMIT, linewidth=1.4)
        axis.set_xscale("log" if log else "linear")
        axis.set_xlim(low, high)
        axis.set_ylim(0, 1.05 * counts.max())
        limit_label(axis, f"limit {plain(budget.milliseconds)} ms", budget.milliseconds, 1.02)
        plain_ticks(axis, log, size)
        plain_ticks(axis, False, size, vertical=True)
        axis.set_xlabel("time for one part, ms" + (" (log scale)" if log else ""))
        axis.set_ylabel("parts")
        return svg(drawn, size, f"How many parts took how long in {variant.name}, the slowest as dots, with the limit")


def _timeline(tail: Tail, variant: Variant, size: Size) -> str:
    total, budget = tail.total_ms, tail.budget
    low, high, log = _range(tail)
    with figure(size, 220) as drawn:
        axis = drawn.subplots()
        margins(drawn, 54, 12, 40, 12)
        x, y = _envelope(total, 150 if size.narrow else 380)
        axis.plot(x, y, color=PRECISION_COLOURS[variant.artifact.precision], linewidth=0.8)
        slow = _slowest(tail)
        over = total[slow] > budget.milliseconds
        axis.plot(slow[~over] + 1, total[slow][~over], "o", markersize=4, color=INK, markerfacecolor="none")
        axis.plot(slow[over] + 1, total[slow][over], "o", markersize=5, color=LIMIT)
        axis.axhline(budget.milliseconds, color=LIMIT, linewidth=1.4)
        axis.set_yscale("log" if log else "linear")
        axis.set_ylim(low, high)
        axis.set_xlim(0, total.size + 1)
        above = budget.milliseconds < (low * (high / low) ** 0.85 if log else low + 0.85 * (high - low))
        words = f"limit {plain(budget.milliseconds)} ms"
        axis.annotate(
            words, (total.size, budget.milliseconds), (0, 3 if above else -4), textcoords="offset points",
            color=LIMIT, ha="right", va="bottom" if above else "top",
        )  # fmt: skip
        plain_ticks(axis, False, size)
        plain_ticks(axis, log, size, vertical=True)
        axis.set_xlabel("parts, in the order in which they were measured")
        axis.set_ylabel("ms" + (" (log scale)" if log else ""))
        return svg(drawn, size, f"Time of each part in {variant.name} in the order of measuring, with the limit")


def _range(tail: Tail) -> tuple[float, float, bool]:
    """From the fastest part to the slowest and the limit, and whether on a log scale."""
    low = min(float(tail.total_ms.min()), tail.budget.milliseconds)
    high = max(tail.summary.max_ms, tail.budget.milliseconds)
    if high > 8 * low:
        return max(low, 1e-6) / 1.15, high * 1.2, True
    margin = 0.08 * (high - low) or 0.05 * high
    return max(0.0, low - margin), high + margin, False


def _slowest(tail: Tail) -> NDArray[np.intp]:
    """Places of the parts that are drawn one by one, in the order of measuring."""
    shown = min(max(_OUTLIERS, tail.summary.over_budget), _MOST_OVER, tail.total_ms.size)
    return np.sort(np.argsort(tail.total_ms)[-shown:])


def _envelope(total: NDArray[np.float64], steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A line through all values, or, where they are many, through the least and the largest of each stretch."""
    if total.size <= 2 * steps:
        return np.arange(1.0, total.size + 1), total
    stretches = np.array_split(total, steps)
    starts = np.cumsum([0, *(len(stretch) for stretch in stretches[:-1])])
    x = np.repeat(starts + 1.0, 2)
    return x, np.array([[stretch.min(), stretch.max()] for stretch in stretches]).ravel()
