"""The engineer's charts of a report: every variant's latencies, stages and accuracy, and the training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecnn.bench import Summary
from edgecnn.bench.measure import STAGES
from edgecnn.bench.report.drawing import (
    FAINT,
    INK,
    LIMIT,
    PAPER,
    Chart,
    Size,
    bins,
    both,
    figure,
    limit_label,
    margins,
    patch,
    plain_ticks,
    svg,
)
from edgecnn.bench.report.material import Material, Variant
from edgecnn.bench.report.training import Training
from edgecnn.bench.report.wording import limit_words, milliseconds
from edgecnn.numbers import plain
from edgecnn.profiles import Budget

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

PRECISION_COLOURS = {"fp32": "#4c78a8", "fp16": "#59a14f", "int8": "#f28e2b"}
STAGE_COLOURS = {"decode": "#76b7b2", "prepare": "#edc948", "infer": "#8cb3dd", "decide": "#c99bbf"}
_ON_STAGE = "#1b1b1b"
"""Text on any of them."""


def histograms(material: Material) -> Chart | None:
    """Each variant's end-to-end latencies with p99, its bound and the budget, on one x axis. None without runs."""
    shown = material.measured
    if not shown:
        return None
    totals = {v.name: np.asarray(v.run.samples.measured.total) / 1e6 for v in shown if v.run}
    edges, log = bins(list(totals.values()), material.budget)
    return both(lambda size: _histograms(material, totals, edges, log, size))


def _histograms(
    material: Material, totals: dict[str, NDArray[np.float64]], edges: NDArray[np.float64], log: bool, size: Size
) -> str:
    shown, budget = material.measured, material.budget
    row = 58.0 if size.narrow else 46.0
    with figure(size, row * len(shown) + 62) as drawn:
        axes = drawn.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        if size.narrow:
            margins(drawn, 6, 10, 38, 40, hspace=0.6)
        else:
            margins(drawn, 128, 194, 38, 24, hspace=0.25)
        for axis, variant in zip(axes, shown, strict=True):
            _histogram(axis, variant, totals[variant.name], edges, budget, size)
        if log:
            axes[-1].set_xscale("log")
        limit_label(axes[0], f"budget {budget}", budget.milliseconds, 1.6 if size.narrow else 1.08)
        plain_ticks(axes[-1], log, size)
        axes[-1].set_xlabel("end to end, ms" + (" (log scale)" if log else ""))
        return svg(drawn, size, "Histograms of each variant's latency from encoded bytes to decision, with the budget")


def stages(material: Material) -> Chart | None:
    """Median of each stage, stacked. None without runs."""
    rows = [(variant.name, variant.summary) for variant in material.measured if variant.summary]
    if material.harness:
        rows.append(("harness alone", material.harness))
    return both(lambda size: _stages(rows, size)) if rows else None


def _stages(rows: Sequence[tuple[str, Summary]], size: Size) -> str:
    with figure(size, (40 if size.narrow else 25) * len(rows) + 70) as drawn:
        axis = drawn.subplots()
        margins(drawn, 6 if size.narrow else 128, 58, 38, 30)
        widest = max(sum(stage.p50_ms for stage in row.stages.values()) for _, row in rows)
        for place, (name, row) in enumerate(rows):
            _stack(axis, place, row, widest, size)
            if size.narrow:
                axis.text(0, place - 0.33, name, va="bottom")
        axis.set_ylim(len(rows) - 0.5, -0.85 if size.narrow else -0.6)
        axis.set_yticks([] if size.narrow else range(len(rows)), [] if size.narrow else [name for name, _ in rows])
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
        axis.set_xlabel("sum of the stages' medians, ms")
        plain_ticks(axis, False, size)
        axis.legend(
            [patch(STAGE_COLOURS[stage]) for stage in STAGES], STAGES, ncols=len(STAGES), frameon=False,
            handlelength=1, columnspacing=1.2, loc="lower left", bbox_to_anchor=(-0.01, 1),
        )  # fmt: skip
        return svg(drawn, size, "Median of each stage for each variant")


def accuracy_against_latency(material: Material) -> Chart | None:
    """Top-1 with its interval against the bound of the budget's percentile. None without runs."""
    return both(lambda size: _accuracy(material, size)) if material.measured else None


def _accuracy(material: Material, size: Size) -> str:
    shown, budget = material.measured, material.budget
    x = np.array([variant.bound_ms for variant in shown])
    y = np.array([100 * variant.artifact.check.top1 for variant in shown])
    names = [variant.name if not size.narrow else str(number) for number, variant in enumerate(shown, 1)]
    below = 18 * len(shown) + 10 if size.narrow else 0
    with figure(size, 300 + below) as drawn:
        axis = drawn.subplots()
        margins(drawn, 46 if size.narrow else 58, 12, 44 + below, 24)
        log = max(x.max(), budget.milliseconds) > 6 * x.min()
        if log:
            axis.set_xscale("log")
        axis.set_xlim(*_limits(min(x.min(), budget.milliseconds), max(x.max(), budget.milliseconds), log))
        _front(axis, x, y)
        for variant, left, top in zip(shown, x, y, strict=True):
            _point(axis, variant, left, top)
        axis.axvline(budget.milliseconds, color=LIMIT, linewidth=1.4)
        floor = _accuracy_floor(axis, material)
        limit_label(axis, f"budget {budget}", budget.milliseconds, 1.01)
        bound = f"bound of p{plain(budget.percentile)}, ms" + (" (log scale)" if log else "")
        axis.set_xlabel(bound if size.narrow else f"upper 99 % {bound}, end to end")
        axis.set_ylabel("top-1, % (bars: 95 % interval)")
        axis.grid(color=FAINT, linewidth=0.6)
        plain_ticks(axis, log, size)
        axis.set_axisbelow(True)
        drawn.canvas.draw()
        _label(axis, shown, names, [*_obstacles(axis, shown, budget), floor.get_window_extent()])
        for number, variant in enumerate(shown, 1) if size.narrow else ():
            drawn.text(0.02, (below - 18 * number) / (300 + below), f"{number}  {variant.name}", va="bottom")
        return svg(drawn, size, "Accuracy against latency of each variant, with the Pareto front and the budget")


def training_curves(training: Training | None) -> Chart | None:
    """Losses, and validation accuracy, by epoch; the kept epoch is marked. None where nothing was trained."""
    return None if training is None or not training.epochs else both(lambda size: _training(training, size))


def _training(training: Training, size: Size) -> str:
    epochs = [row["epoch"] for row in training.epochs]
    panels = (
        ("loss", (("train_loss", "training", "#f28e2b"), ("val_loss", "validation", "#4c78a8")), 1.0),
        ("%", (("val_top1", "validation top-1", "#59a14f"), ("val_balanced", "mean recall", "#4c78a8")), 100.0),
    )
    with figure(size, 420 if size.narrow else 210) as drawn:
        axes = drawn.subplots(2, 1) if size.narrow else drawn.subplots(1, 2)
        margins(drawn, 48, 12, 40, 12, wspace=0.2, hspace=0.28)
        for axis, (unit, lines, scale) in zip(axes, panels, strict=True):
            for key, label, colour in lines:
                values = [scale * row[key] for row in training.epochs]
                axis.plot(epochs, values, color=colour, label=label, marker="o", markersize=3, linewidth=1.4)
            axis.axvline(training.best["epoch"], color=INK, linewidth=0.8, linestyle=":")
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.set_xlabel("epoch (dotted: kept)")
            axis.set_ylabel(unit)
            axis.grid(color=FAINT, linewidth=0.6)
            axis.legend(frameon=False)
        return svg(drawn, size, "Training and validation loss, and validation accuracy, by epoch")


def _histogram(
    axis: Axes,
    variant: Variant,
    total: NDArray[np.float64],
    edges: NDArray[np.float64],
    budget: Budget,
    size: Size,
) -> None:
    summary = variant.summary
    if summary is None:
        return
    counts, _ = np.histogram(np.clip(total, edges[0], edges[-1]), edges)
    axis.stairs(counts / counts.max(), edges, fill=True, color=PRECISION_COLOURS[variant.artifact.precision])
    axis.axvline(budget.milliseconds, color=LIMIT, linewidth=1.4)
    axis.axvline(summary.p99_ms, ymax=0.75, color=INK, linewidth=1.1)
    text = f"p99 {milliseconds(summary.p99_ms, budget)}"
    if summary.upper_ms is not None:
        axis.axvline(summary.upper_ms, ymax=0.75, color=INK, linewidth=1.1, linestyle=(0, (2, 2)))
        text += f" · p{plain(budget.percentile)} ≤ {milliseconds(summary.upper_ms, budget)} ms"
    if size.narrow:
        axis.text(0, 1.04, variant.name, transform=axis.transAxes, va="bottom")
        axis.text(1, 1.04, text, transform=axis.transAxes, ha="right", va="bottom")
    else:
        axis.text(1.015, 0.28, text, transform=axis.transAxes, va="center")
        axis.text(-0.012, 0.28, variant.name, transform=axis.transAxes, ha="right", va="center")
    axis.set_xlim(edges[0], edges[-1])
    axis.set_ylim(0, 1.05)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)


def _stack(axis: Axes, place: int, row: Summary, widest: float, size: Size) -> None:
    left = 0.0
    for stage in STAGES:
        width = row.stages[stage].p50_ms
        axis.barh(place, width, left=left, height=0.55 if size.narrow else 0.66, color=STAGE_COLOURS[stage])
        if width > (0.14 if size.narrow else 0.06) * widest:
            middle = left + width / 2
            axis.text(middle, place, milliseconds(width), ha="center", va="center", color=_ON_STAGE)
        left += width
    axis.text(left + 0.01 * widest, place, f"{milliseconds(left)} ms", va="center")


def _limits(low: float, high: float, log: bool) -> tuple[float, float]:
    """With a margin. Matplotlib's own limits divide by zero where two bounds are the same but for their last bit."""
    if log:
        margin = (high / low) ** 0.12
        return low / margin, high * margin
    margin = 0.12 * (high - low) or 0.05 * high
    return low - margin, high + margin


def _front(axis: Axes, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """Steps through the variants that no other one beats in both."""
    best: list[int] = []
    for index in np.lexsort((-y, x)).tolist():
        if not best or y[index] > y[best[-1]]:
            best.append(index)
    axis.step(x[best], y[best], where="post", color=INK, linewidth=1, alpha=0.45, linestyle=(0, (4, 3)), zorder=1)


def _point(axis: Axes, variant: Variant, x: float, y: float) -> None:
    interval = variant.artifact.check.top1_interval
    colour = PRECISION_COLOURS[variant.artifact.precision]
    error = [[y - 100 * interval.low], [100 * interval.high - y]]
    axis.errorbar(x, y, yerr=error, color=colour, linewidth=1.2, capsize=3, alpha=0.65, zorder=2)
    axis.plot(x, y, "o", markersize=10 if variant.chosen else 7.5, color=colour, markeredgecolor=PAPER, zorder=3)
    if variant.chosen:
        axis.plot(
            x, y, "o", markersize=15, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=1.4, zorder=3
        )


def _accuracy_floor(axis: Axes, material: Material) -> Text:
    """The least top-1 that the target accepts; returns its text."""
    reference = max(variant.artifact.check.reference_top1 for variant in material.variants)
    floor = 100 * reference - material.bundle.accuracy_loss_limit
    axis.axhline(floor, color=LIMIT, linewidth=1, linestyle=(0, (1, 2)))
    limit = limit_words(material.bundle.accuracy_loss_limit)
    return axis.text(
        0.996, floor, f"least accepted: fp32 − {limit}", color=LIMIT,
        ha="right", va="top", transform=axis.get_yaxis_transform(),
    )  # fmt: skip


def _label(axis: Axes, shown: Sequence[Variant], names: Sequence[str], taken: list[Bbox]) -> None:
    """Names beside their points, each where it covers the fewest of the boxes that are `taken` (in pixels)."""
    frame = axis.get_window_extent()
    places = [(side, lift) for lift in (8, -8, 20, -20, 32, -32, 44, -44, 56, -56) for side in (1, -1)]
    for variant, name in zip(shown, names, strict=True):
        point = (variant.bound_ms, 100 * variant.artifact.check.top1)
        text = axis.annotate(name, point, (0, 0), textcoords="offset points", va="center")
        found = []
        for order, (side, lift) in enumerate(places):
            text.set(position=(9 * side, lift), horizontalalignment="left" if side > 0 else "right")
            box = text.get_window_extent().padded(1.5)
            outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
            found.append((100 * outside + sum(box.overlaps(other) for other in taken), order, box))
        _, best, box = min(found, key=lambda place: place[:2])
        side, lift = places[best]
        text.set(position=(9 * side, lift), horizontalalignment="left" if side > 0 else "right")
        taken.append(box)


def _obstacles(axis: Axes, shown: Sequence[Variant], budget: Budget) -> list[Bbox]:
    """Where no name should stand: on the budget's line, on an interval's bar, least of all on a point. In pixels."""
    from matplotlib.transforms import Bbox

    frame = axis.get_window_extent()
    boxes = [Bbox.from_bounds(axis.transData.transform((budget.milliseconds, 0))[0] - 1, frame.y0, 2, frame.height)]
    for variant in shown:
        check = variant.artifact.check
        heights = np.array([check.top1, check.top1_interval.low, check.top1_interval.high]) * 100
        middle, low, high = axis.transData.transform([(variant.bound_ms, height) for height in heights])
        boxes += 3 * [Bbox.from_bounds(middle[0] - 7, middle[1] - 7, 14, 14)]
        boxes.append(Bbox.from_bounds(low[0] - 1, low[1], 2, high[1] - low[1]))
    return boxes
