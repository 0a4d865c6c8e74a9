"""Which variant to deploy: by the bound of its tail, and among those that it does not tell apart, the smaller."""

from __future__ import annotations

from collections.abc import Sequence

from edgecnn.artifact import Artifact, Bundle, Choice
from edgecnn.bench.summary import Summary
from edgecnn.numbers import plain, rounded

_AS_SMALL = 1.1
"""Sizes up to so many times the smallest count as equal: accuracy decides between them."""
_NAMED = 3


def chosen(bundle: Bundle, rows: Sequence[Summary]) -> Choice | None:
    """The variant of the lowest upper bound of the budget's percentile, and why; None where nothing was measured.

    Of those that meet the budget, where any does. The bounds leave open which of two is faster where the lower one of
    the slower is below the upper one of the faster. Of all that are so close to the fastest the smallest is taken, of
    equally small ones (within a tenth) the one that lost the least on validation images, then the lower bound.
    Test images choose nothing.
    """
    measured = [row for row in rows if row.verdict is not None]
    passing = [row for row in measured if row.verdict is not None and row.verdict.outcome == "PASS"]
    among = passing or measured
    if not among:
        return None
    fastest = min(among, key=_upper)
    level = [row for row in among if row is fastest or _lower(row) <= _upper(fastest)]
    known = {artifact.variant: artifact for artifact in bundle.artifacts}
    least = min(known[row.variant].bytes for row in level)
    small = [row for row in level if known[row.variant].bytes <= _AS_SMALL * least]
    best = min(small, key=lambda row: (_lost(known[row.variant]), _upper(row)))
    return Choice(variant=best.variant, reason=_reason(best, fastest, level, small, among, bool(passing)))


def _reason(
    best: Summary,
    fastest: Summary,
    level: Sequence[Summary],
    small: Sequence[Summary],
    among: Sequence[Summary],
    passes: bool,
) -> str:
    if len(among) == 1:
        return f"the only one {'that meets' if passes else 'measured, and it is not shown to meet'} {best.budget}"
    of = f"{len(among)} variants"
    fit = f"that meet {best.budget}" if passes else f"measured, none of which is shown to meet {best.budget}"
    if len(level) == 1:
        return f"lowest {_bound(best)} of the {of} {fit}"
    others = [row.variant for row in level if row is not best]
    names = ", ".join(others[:_NAMED]) + (f" and {len(others) - _NAMED} more" if len(others) > _NAMED else "")
    lead = f"lowest {_bound(best)}" if best is fastest else f"{_bound(best)}, lowest {_ms(fastest)} ({fastest.variant})"
    merit = "the smallest" if len(small) == 1 else "among the smallest, which lost the least on validation images"
    return f"{lead} of the {of} {fit}; {names} may be as fast, of these it is {merit}"


def _bound(row: Summary) -> str:
    return f"p{plain(row.budget.percentile)} bound ({_ms(row)})"


def _ms(row: Summary) -> str:
    return "open" if row.upper_ms is None else f"{rounded(row.upper_ms, 3)} ms"


def _upper(row: Summary) -> float:
    return float("inf") if row.upper_ms is None else row.upper_ms


def _lower(row: Summary) -> float:
    return 0.0 if row.lower_ms is None else row.lower_ms


def _lost(artifact: Artifact) -> float:
    """Points on the images that selected it; fp32, which nothing selects, lost none."""
    return artifact.selection.loss_points if artifact.selection is not None else 0.0
