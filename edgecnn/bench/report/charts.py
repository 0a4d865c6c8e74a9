"""The charts of a report: inline SVG that takes its text colours from the page, to read on light and on dark."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.bench import Summary
from edgecnn.bench.measure import STAGES
from edgecnn.bench.report.material import Material, Variant
from edgecnn.bench.report.training import Training
from edgecnn.bench.report.wording import limit_words, milliseconds
from edgecnn.cache import cache_folder
from edgecnn.numbers import plain, rounded
from edgecnn.profiles import Budget

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

PRECISION_COLOURS = {"fp32": "#4c78a8", "fp16": "#59a14f", "int8": "#f28e2b"}
STAGE_COLOURS = {"decode": "#76b7b2", "prepare": "#edc948", "infer": "#4c78a8", "decide": "#b07aa1"}
_BUDGET_COLOUR = "#d62f3a"
# Stand-ins that `_svg` replaces by the page's CSS variables.
_INK, _FAINT, _PAPER = "#010101", "#020202", "#fefefe"
_VARIABLES = {_INK: "var(--ink)", _FAINT: "var(--line)", _PAPER: "var(--paper)"}
_WIDTH = 11.0
"""Inches, of 100 px each."""
_BINS = 70
_STYLE: dict[str, str | float | bool] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names come from users
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "figure.dpi": 72,
}


def histograms(material: Material) -> str | None:
    """Each variant's end-to-end latencies with p99, its bound and the budget, on one x axis. None without runs."""
    shown = material.measured
    if not shown:
        return None
    totals = {v.name: np.asarray(v.run.samples.measured.total) / 1e6 for v in shown if v.run}
    edges, log = _bins(list(totals.values()), material.budget)
    with _figure(_WIDTH, 0.62 * len(shown) + 0.75) as figure:
        axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        figure.subplots_adjust(left=0.16, right=0.79, top=1 - 0.25 / figure.get_figheight(), hspace=0.25)
        figure.subplots_adjust(bottom=0.5 / figure.get_figheight())
        for axis, variant in zip(axes, shown, strict=True):
            _histogram(axis, variant, totals[variant.name], edges, material.budget)
        axes[0].text(
            material.budget.milliseconds, 1.08, f"budget {material.budget}", color=_BUDGET_COLOUR, ha="center",
            va="bottom", transform=axes[0].get_xaxis_transform(),
        )  # fmt: skip
        if log:
            axes[-1].set_xscale("log")
        _plain_ticks(axes[-1], log)
        axes[-1].set_xlabel("end to end, ms" + (" (log scale)" if log else ""))
        return _svg(figure, "Histograms of each variant's latency from encoded bytes to decision, against the budget")


def stages(material: Material) -> str | None:
    """Median of each stage, stacked. None without runs."""
    rows = [(variant.name, variant.summary) for variant in material.measured if variant.summary]
    if material.harness:
        rows.append(("harness alone", material.harness))
    if not rows:
        return None
    with _figure(_WIDTH, 0.34 * len(rows) + 0.95) as figure:
        height = figure.get_figheight()
        axis = figure.subplots()
        figure.subplots_adjust(left=0.16, right=0.93, bottom=0.5 / height, top=1 - 0.38 / height)
        widest = max(sum(stage.p50_ms for stage in row.stages.values()) for _, row in rows)
        for place, (_, row) in enumerate(rows):
            _stack(axis, place, row, widest)
        axis.set_yticks(range(len(rows)), [name for name, _ in rows])
        axis.invert_yaxis()
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
        axis.set_xlabel("sum of the stages' medians, ms")
        handles = [_patch(STAGE_COLOURS[stage]) for stage in STAGES]
        axis.legend(
            handles, STAGES, ncols=len(STAGES), frameon=False, handlelength=1, loc="lower left",
            bbox_to_anchor=(-0.01, 1),
        )  # fmt: skip
        return _svg(figure, "Median of each stage for each variant")


def accuracy_against_latency(material: Material) -> str | None:
    """Top-1 with its interval against the bound of the budget's percentile. None without runs."""
    shown = material.measured
    if not shown:
        return None
    x = np.array([variant.bound_ms for variant in shown])
    y = np.array([100 * variant.artifact.check.top1 for variant in shown])
    budget = material.budget
    with _figure(_WIDTH, 4.3) as figure:
        axis = figure.subplots()
        figure.subplots_adjust(left=0.075, right=0.98, bottom=0.13, top=0.93)
        log = max(x.max(), budget.milliseconds) > 6 * x.min()
        if log:
            axis.set_xscale("log")
        axis.set_xlim(*_limits(min(x.min(), budget.milliseconds), max(x.max(), budget.milliseconds), log))
        _front(axis, x, y)
        for variant, left, top in zip(shown, x, y, strict=True):
            _point(axis, variant, left, top)
        axis.axvline(budget.milliseconds, color=_BUDGET_COLOUR, linewidth=1.4)
        floor = _accuracy_floor(axis, material)
        axis.text(
            budget.milliseconds, 1.01, f"budget {budget}", color=_BUDGET_COLOUR, ha="center", va="bottom",
            transform=axis.get_xaxis_transform(),
        )  # fmt: skip
        axis.set_xlabel(
            f"upper 99 % bound of p{plain(budget.percentile)}, end to end, ms" + (" (log scale)" if log else "")
        )
        axis.set_ylabel("top-1, % (bars: 95 % interval)")
        axis.grid(color=_FAINT, linewidth=0.6)
        _plain_ticks(axis, log)
        axis.set_axisbelow(True)
        figure.canvas.draw()
        _label(axis, shown, [*_obstacles(axis, shown, budget), floor.get_window_extent()])
        return _svg(figure, "Accuracy against latency of each variant, with the Pareto front and the budget")


def training_curves(training: Training | None) -> str | None:
    """Losses, and validation accuracy, by epoch; the kept epoch is marked. None where nothing was trained."""
    if training is None or not training.epochs:
        return None
    epochs = [row["epoch"] for row in training.epochs]
    panels = (
        ("loss", (("train_loss", "training", "#f28e2b"), ("val_loss", "validation", "#4c78a8")), 1.0),
        ("%", (("val_top1", "validation top-1", "#59a14f"), ("val_balanced", "mean recall", "#4c78a8")), 100.0),
    )
    with _figure(_WIDTH, 2.9) as figure:
        axes = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.06, right=0.98, bottom=0.17, top=0.93, wspace=0.16)
        for axis, (unit, lines, scale) in zip(axes, panels, strict=True):
            for key, label, colour in lines:
                values = [scale * row[key] for row in training.epochs]
                axis.plot(epochs, values, color=colour, label=label, marker="o", markersize=3, linewidth=1.4)
            axis.axvline(training.best["epoch"], color=_INK, linewidth=0.8, linestyle=":")
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.set_xlabel("epoch (dotted: kept)")
            axis.set_ylabel(unit)
            axis.grid(color=_FAINT, linewidth=0.6)
            axis.legend(frameon=False)
        return _svg(figure, "Training and validation loss, and validation accuracy, by epoch")


def _histogram(
    axis: Axes, variant: Variant, total: NDArray[np.float64], edges: NDArray[np.float64], budget: Budget
) -> None:
    summary = variant.summary
    if summary is None:
        return
    counts, _ = np.histogram(np.clip(total, edges[0], edges[-1]), edges)
    axis.stairs(counts / counts.max(), edges, fill=True, color=PRECISION_COLOURS[variant.artifact.precision])
    axis.axvline(budget.milliseconds, color=_BUDGET_COLOUR, linewidth=1.4)
    axis.axvline(summary.p99_ms, ymax=0.75, color=_INK, linewidth=1.1)
    text = f"p99 {milliseconds(summary.p99_ms)}"
    if summary.upper_ms is not None:
        axis.axvline(summary.upper_ms, ymax=0.75, color=_INK, linewidth=1.1, linestyle=(0, (2, 2)))
        text += f" · p{plain(budget.percentile)} ≤ {milliseconds(summary.upper_ms, budget)} ms"
    axis.text(1.015, 0.28, text, transform=axis.transAxes, va="center")
    axis.text(-0.012, 0.28, variant.name, transform=axis.transAxes, ha="right", va="center")
    axis.set_ylim(0, 1.05)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)


def _stack(axis: Axes, place: int, row: Summary, widest: float) -> None:
    left = 0.0
    for stage in STAGES:
        width = row.stages[stage].p50_ms
        axis.barh(place, width, left=left, height=0.62, color=STAGE_COLOURS[stage])
        if width > 0.055 * widest:
            dark = stage in ("infer", "decide")
            axis.text(
                left + width / 2, place, milliseconds(width), ha="center", va="center", fontsize=8.5,
                color="#ffffff" if dark else "#1b1b1b",
            )  # fmt: skip
        left += width
    axis.text(left + 0.008 * widest, place, f"{milliseconds(left)} ms", va="center")


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
    axis.step(x[best], y[best], where="post", color=_INK, linewidth=1, alpha=0.45, linestyle=(0, (4, 3)), zorder=1)


def _point(axis: Axes, variant: Variant, x: float, y: float) -> None:
    interval = variant.artifact.check.top1_interval
    colour = PRECISION_COLOURS[variant.artifact.precision]
    error = [[y - 100 * interval.low], [100 * interval.high - y]]
    axis.errorbar(x, y, yerr=error, color=colour, linewidth=1.2, capsize=3, alpha=0.65, zorder=2)
    axis.plot(x, y, "o", markersize=10 if variant.chosen else 7.5, color=colour, markeredgecolor=_PAPER, zorder=3)
    if variant.chosen:
        axis.plot(
            x, y, "o", markersize=15, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=1.4, zorder=3
        )


def _accuracy_floor(axis: Axes, material: Material) -> Text:
    """The least top-1 that the target accepts; returns its text."""
    reference = max(variant.artifact.check.reference_top1 for variant in material.variants)
    floor = 100 * reference - material.bundle.accuracy_loss_limit
    axis.axhline(floor, color=_BUDGET_COLOUR, linewidth=1, linestyle=(0, (1, 2)))
    limit = limit_words(material.bundle.accuracy_loss_limit)
    return axis.text(
        0.996, floor, f"least accepted: fp32 − {limit}", color=_BUDGET_COLOUR,
        fontsize=8.5, ha="right", va="top", transform=axis.get_yaxis_transform(),
    )  # fmt: skip


def _label(axis: Axes, shown: Sequence[Variant], taken: list[Bbox]) -> None:
    """Names beside their points, each where it covers the fewest of the boxes that are `taken` (in pixels)."""
    frame = axis.get_window_extent()
    places = [(side, lift) for lift in (8, -8, 20, -20, 32, -32, 44, -44, 56, -56) for side in (1, -1)]
    for variant in shown:
        point = (variant.bound_ms, 100 * variant.artifact.check.top1)
        text = axis.annotate(variant.name, point, (0, 0), textcoords="offset points", va="center")
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


def _bins(totals: Sequence[NDArray[np.float64]], budget: Budget) -> tuple[NDArray[np.float64], bool]:
    """Edges of bins for all, and whether they are logarithmic."""
    low = min(float(total.min()) for total in totals)
    high = max(budget.milliseconds, *(float(total.max()) for total in totals))
    if high > 6 * low:
        return np.geomspace(low / 1.1, high * 1.1, 2 * _BINS), True
    return np.linspace(0.95 * low, 1.03 * high, 2 * _BINS), False


def _plain_ticks(axis: Axes, log: bool) -> None:
    """1, 2, 5, 10 instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if not log:
        return
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: rounded(value, 6)))
    axis.xaxis.set_minor_locator(NullLocator())


def _patch(colour: str) -> Patch:
    from matplotlib.patches import Patch

    return Patch(color=colour)


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    """A figure in our style, without pyplot's global state."""
    # Its list of fonts goes beside what else we keep, not into two more folders of the user's.
    os.environ.setdefault("MPLCONFIGDIR", str(cache_folder("matplotlib")))
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(dict[Any, Any](_STYLE)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has its own fonts
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        yield figure


def _svg(figure: Figure, description: str) -> str:
    """The figure as an <svg> element that scales to the page; `description` is for who cannot see it."""
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": description}):  # so that no id comes twice in a page
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*pt" height="[^"]*pt"|(<svg)', lambda m: m[1] or m[2], svg, count=1)
    svg = re.sub(r' id="[A-Za-z][\w.]*_\d+"', "", svg)  # names of layers, the same in each chart
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    return svg.replace("<svg", f'<svg role="img" aria-label="{description}"', 1)
