"""Rows of a bench as plain data: for a terminal's table, for JSON, for an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from edgecnn.bench.measure import STAGES
from edgecnn.bench.stats import EXIT_CODES, Outcome
from edgecnn.bench.summary import Summary
from edgecnn.documents import Frozen
from edgecnn.require import Requirement, unmet

_MIB = 1024 * 1024


class Skipped(Frozen):
    """A variant that could not be measured, with the reason."""

    variant: str
    chosen: bool
    reason: str
    refused: bool = False
    """It was opened, and decides otherwise on this processor."""
    unusable: str | None = None
    """Why it must not be deployed anyway: see `Bundle.unusable`."""


Row: TypeAlias = Summary | Skipped


class Overall(Frozen):
    """The verdict of a whole bench."""

    outcome: Outcome
    reason: str
    variant: str | None = None
    """The one that it is about; where that could not be measured, the best of the others."""

    @property
    def exit_code(self) -> int:
        """PASS 0, FAIL 1, INCONCLUSIVE 3."""
        return EXIT_CODES[self.outcome]


def overall(rows: Sequence[Row]) -> Overall:
    """The chosen variant's verdict where it is among the rows, INCONCLUSIVE where it could not be measured, and then
    the best of the others is named.

    Without a chosen one, the best of those that may be deployed, of equal ones that with the lowest bound: PASS where
    any passes, FAIL where every one was measured and failed, else INCONCLUSIVE. FAIL, however fast they are, where none
    may be. Each PASS errs as rarely as `stats.CONFIDENCE` says, the best of k up to k times as often.
    """
    variants = [row for row in rows if isinstance(row, Skipped) or row.verdict]
    vetoed = [row for row in variants if row.unusable is not None]
    for row in rows:
        if row.chosen and row.unusable is None:
            outcome, reason = _judged(row)
            instead = _best_measured(variants) if isinstance(row, Skipped) and not row.refused else None
            other = f"; of those that run here the best is {_told(instead)}" if instead else ""
            reason = f"{row.variant} (the bundle's choice): {reason}{other}"
            return Overall(outcome=outcome, reason=reason, variant=(instead or row).variant)
    if vetoed and (len(vetoed) == len(variants) or any(row.chosen for row in vetoed)):
        row = next((row for row in vetoed if row.chosen), vetoed[0])
        reason = f"{row.variant} must not be deployed: {row.unusable}"
        return Overall(outcome="FAIL", reason=reason, variant=row.variant)
    usable = [row for row in variants if row.unusable is None]
    if not usable:
        return Overall(outcome="INCONCLUSIVE", reason="no variant was measured")
    best = min(usable, key=_rank)
    outcome, reason = _judged(best)
    measured = sum(isinstance(row, Summary) for row in usable)
    of = f" (the best of {measured})" if measured > 1 else ""
    return Overall(outcome=outcome, reason=f"{best.variant}{of}: {reason}", variant=best.variant)


def table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One flat dict for each row, same keys in the same order, units in the keys; None where nothing is known."""
    return [_cells(row) for row in rows]


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    """Everything, for machines: {"overall": …, "rows": [summaries], "skipped": […]}."""
    verdict = overall(rows)
    return {
        "overall": {**verdict.model_dump(mode="json"), "exit_code": verdict.exit_code},
        "rows": [row.model_dump(mode="json") for row in rows if isinstance(row, Summary)],
        "skipped": [row.model_dump(mode="json") for row in rows if isinstance(row, Skipped)],
    }


def unmet_by(rows: Sequence[Row], requirements: Sequence[Requirement]) -> list[str]:
    """A line for each requirement that a measured int8 variant does not meet."""
    int8 = [row for row in rows if isinstance(row, Summary) and row.precision == "int8"]
    return [f"{row.variant}: {line}" for row in int8 for line in unmet(row.executed, requirements)]


COLUMNS = (
    *("variant", "chosen", "params_m", "macs_m", "flops_m", "file_mib"),
    *(f"{stage}_p50_ms" for stage in STAGES),
    *("p50_ms", "p90_ms", "p99_ms", "bound_percentile", "bound_ms", "peak_rss_mib", "threads_used"),
    *("int8_layers", "float_layers", "int8_share", "verdict", "reason", "notes"),
)
"""Keys of `table`'s rows. `bound_ms` is the upper 99 % confidence bound of the budget's percentile."""


def _cells(row: Row) -> dict[str, Any]:
    if isinstance(row, Skipped):
        verdict = "REFUSED" if row.refused else "SKIPPED"
        notes = _notes(row)
        known = {"variant": row.variant, "chosen": row.chosen, "verdict": verdict, "reason": row.reason, "notes": notes}
        return {**dict.fromkeys(COLUMNS), **known}
    values = (
        *(row.variant, row.chosen, _over(row.params, 1e6), _over(row.macs, 1e6), _over(row.flops, 1e6)),
        _over(row.file_bytes, _MIB),
        *(row.stages[stage].p50_ms for stage in STAGES),
        *(row.p50_ms, row.p90_ms, row.p99_ms, row.budget.percentile, row.upper_ms),
        *(_over(row.peak_rss_bytes, _MIB), row.threads_used, row.int8_layers, row.float_layers, row.int8_share),
        *((row.verdict.outcome, row.verdict.reason) if row.verdict else (None, None)),
        _notes(row),
    )
    return dict(zip(COLUMNS, values, strict=True))


def _notes(row: Row) -> tuple[str, ...]:
    veto = () if row.unusable is None else (f"must not be deployed: {row.unusable}",)
    return (*veto, *(row.notes if isinstance(row, Summary) else ()))


def _rank(row: Row) -> tuple[int, float]:
    """Small is good: the outcome, then the bound that is compared with the budget."""
    order: tuple[Outcome, ...] = ("PASS", "INCONCLUSIVE", "FAIL")
    bound = None if isinstance(row, Skipped) else row.upper_ms
    return order.index(_judged(row)[0]), float("inf") if bound is None else bound


def _best_measured(rows: Sequence[Row]) -> Summary | None:
    """Of those that may be deployed."""
    measured = [row for row in rows if isinstance(row, Summary) and row.verdict and row.unusable is None]
    return min(measured, key=_rank, default=None)


def _told(row: Summary) -> str:
    outcome, reason = _judged(row)
    return f"{row.variant}: {outcome}, {reason}"


def _judged(row: Row) -> tuple[Outcome, str]:
    if isinstance(row, Skipped):
        return "FAIL" if row.refused else "INCONCLUSIVE", f"not measured: {row.reason}"
    if row.verdict is None:
        return "INCONCLUSIVE", "not a variant"
    return row.verdict.outcome, row.verdict.reason


def _over(value: int | None, unit: float) -> float | None:
    return None if value is None else value / unit
