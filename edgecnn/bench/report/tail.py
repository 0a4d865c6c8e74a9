"""How slow the slowest parts are: the tail of one variant's latencies, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecnn.bench import Run, Summary
from edgecnn.bench.report.cells import Cell, Row, Table
from edgecnn.bench.report.wording import milliseconds, of_parts
from edgecnn.bench.stats import percentile
from edgecnn.numbers import plain
from edgecnn.profiles import Budget

_SHOWN = (50.0, 90.0, 99.0, 99.9)
"""Percentiles; one that takes more parts than were measured is left open."""


@dataclass(frozen=True)
class Tail:
    """Milliseconds of every measured part, in the order in which they were measured."""

    total_ms: NDArray[np.float64]
    summary: Summary

    @property
    def budget(self) -> Budget:
        """The limit."""
        return self.summary.budget

    @property
    def over_words(self) -> str:
        """Such as: 2 of 2,300 over 30 ms."""
        return f"{self.summary.over_budget:,} of {self.total_ms.size:,} over {plain(self.budget.milliseconds)} ms"


def tail_of(run: Run, summary: Summary) -> Tail:
    """Of a run's end-to-end latencies, and of what was derived from them."""
    return Tail(np.asarray(run.samples.measured.total) / 1e6, summary)


def tail_table(tail: Tail) -> Table:
    """So many of 100 parts take at most so long; with the name that an engineer gives it."""
    size, budget, summary = tail.total_ms.size, tail.budget, tail.summary
    rows = []
    for percent in sorted({*_SHOWN, budget.percentile}):
        known = size * (100 - percent) >= 100 - 1e-6
        text = f"{milliseconds(percentile(tail.total_ms, percent), budget)} ms" if known else "too few were measured"
        rows.append((f"{of_parts(percent)} take at most", text, f"p{plain(percent)}"))
    rows.append(("the slowest one took", f"{milliseconds(summary.max_ms, budget)} ms", "max"))
    limit = f"{plain(budget.milliseconds)} ms"
    rows.append((f"longer than the limit of {limit}", f"{summary.over_budget:,} of {size:,}", "over budget"))
    bound = "–" if summary.upper_ms is None else f"{milliseconds(summary.upper_ms, budget)} ms"
    sure = f"{of_parts(budget.percentile)} take at most, 99 % sure (decides the verdict)"
    rows.append((sure, bound, f"upper bound of p{plain(budget.percentile)}"))
    return Table(
        ("of the parts that were measured", "time", "in engineers' words"),
        tuple(Row(tuple(map(Cell, row)), "chosen" if row is rows[-1] else "") for row in rows),
    )
