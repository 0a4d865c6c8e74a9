"""How the charts of a report look: inline SVG, drawn once for wide and once for narrow pages, in the page's colours."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.cache import cache_folder
from edgecnn.numbers import rounded
from edgecnn.profiles import Budget

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

INK, FAINT, PAPER, LIMIT = "#010101", "#020202", "#fefefe", "#fe0101"
"""Stand-ins that `svg` replaces by the page's CSS variables. LIMIT: the budget, and what is over it."""
_VARIABLES = {INK: "var(--ink)", FAINT: "var(--line)", PAPER: "var(--paper)", LIMIT: "var(--fail)"}
TEXT = 11.5
"""Of all text. A chart is never shown smaller than it is drawn, so this is the least size in px."""
_STYLE: dict[str, str | float | bool] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names come from users
    "font.family": "sans-serif",
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.labelsize": TEXT,
    "xtick.labelsize": TEXT,
    "ytick.labelsize": TEXT,
    "legend.fontsize": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "figure.dpi": 72,
}
_BINS = 70


@dataclass(frozen=True)
class Size:
    """What page a chart is drawn for."""

    name: str
    width: float
    """CSS pixels, as all lengths of a chart."""

    @property
    def narrow(self) -> bool:
        """For a telephone: names stand above what they name, not beside it."""
        return self.name == "narrow"


WIDE, NARROW = Size("wide", 812), Size("narrow", 328)
"""The page shows the wide one from 860 px on, with 24 px of margin at each side: see page.css."""


@dataclass(frozen=True)
class Chart:
    """The same chart for both kinds of page: <svg> elements."""

    wide: str
    narrow: str


def both(draw: Callable[[Size], str]) -> Chart:
    """Draw for both."""
    return Chart(draw(WIDE), draw(NARROW))


@contextmanager
def figure(size: Size, height: float) -> Iterator[Figure]:
    """A figure of so many px in our style, without pyplot's global state."""
    # Its list of fonts goes beside what else we keep, not into two more folders of the user's.
    os.environ.setdefault("MPLCONFIGDIR", str(cache_folder("matplotlib")))
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(dict[Any, Any](_STYLE)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has its own fonts
        drawn = Figure(figsize=(size.width / 72, height / 72))
        FigureCanvasAgg(drawn)
        yield drawn


def margins(drawn: Figure, left: float, right: float, bottom: float, top: float, **between: float) -> None:
    """Px from each edge."""
    width, height = (72 * inches for inches in drawn.get_size_inches())
    drawn.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height, **between)


def svg(drawn: Figure, size: Size, description: str) -> str:
    """The figure as an <svg> element; `description` is for who cannot see it."""
    import matplotlib

    stream = io.StringIO()
    # So that no id comes twice in a page.
    with matplotlib.rc_context({"svg.hashsalt": f"{description} {size.name}"}):
        drawn.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*pt" height="[^"]*pt"|(<svg)', lambda m: m[1] or m[2], text, count=1)
    text = re.sub(r' id="[A-Za-z][\w.]*_\d+"', "", text)  # names of layers, the same in each chart
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, variable)
    return text.replace("<svg", f'<svg role="img" aria-label="{description}"', 1)


def bins(totals: Sequence[NDArray[np.float64]], budget: Budget) -> tuple[NDArray[np.float64], bool]:
    """Edges of bins for all, and whether they are logarithmic."""
    low = min(float(total.min()) for total in totals)
    high = max(budget.milliseconds, *(float(total.max()) for total in totals))
    if high > 6 * low:
        return np.geomspace(low / 1.1, high * 1.1, 2 * _BINS), True
    return np.linspace(0.95 * low, 1.03 * high, 2 * _BINS), False


def plain_ticks(axis: Axes, log: bool, size: Size, vertical: bool = False) -> None:
    """1, 2, 5, 10 instead of powers of ten; fewer where there is little room."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    ticks = axis.yaxis if vertical else axis.xaxis
    if not log:
        ticks.set_major_locator(MaxNLocator(5 if size.narrow or vertical else 9))
        return
    low, high = axis.get_ylim() if vertical else axis.get_xlim()
    few = size.narrow and high > 30 * low
    ticks.set_major_locator(LogLocator(subs=(1,) if few and high > 300 * low else (1, 3) if few else (1, 2, 5)))
    ticks.set_major_formatter(FuncFormatter(lambda value, _: rounded(value, 6)))
    ticks.set_minor_locator(NullLocator())


def limit_label(axis: Axes, words: str, limit: float, height: float) -> None:
    """Above the budget's line, and inside the chart; the scale and its ends are set before."""
    low, high = axis.get_xlim()
    log = axis.get_xscale() == "log"
    share = np.log(limit / low) / np.log(high / low) if log else (limit - low) / (high - low)
    side = "right" if share > 0.8 else "left" if share < 0.2 else "center"
    axis.text(limit, height, words, color=LIMIT, ha=side, va="bottom", transform=axis.get_xaxis_transform())


def patch(colour: str) -> Patch:
    """For a legend."""
    from matplotlib.patches import Patch

    return Patch(color=colour)
