"""What all folds say together, as a table of the report."""

from __future__ import annotations

from edgecnn.bench.report.cells import Cell, Row, Table
from edgecnn.bench.report.variants import errors, loss_shown
from edgecnn.bench.report.wording import between, limit_words, percent, points, signed
from edgecnn.pooled import Pooled, PooledVariant

_COLUMNS = (
    *("variant", "passed", "top-1", "fp32", "loss, points", "loss limit", "agree"),
    *("missed (fp32)", "false (fp32)"),
)


def pooled_table(pooled: Pooled) -> Table:
    """A row for each variant; below a figure its 95 % interval by part."""
    return Table(_COLUMNS, tuple(Row(_cells(pooled, row)) for row in pooled.variants))


def pooled_notes(pooled: Pooled) -> list[str]:
    """How to read it, and what each variant's loss is shown or not shown to be."""
    found = [
        f"loss limit: whether all folds together show, for all variants at once with 95 %, that the loss is within "
        f"{limit_words(pooled.loss_limit)}, or beyond a limit; n: so many images, answered alike, would."
    ]
    for row in pooled.variants:
        judged = row.judged
        found += [f"{row.variant}: {text}" for text in (*judged.refused, *judged.doubts, *judged.too_few)]
    return found


def _cells(pooled: Pooled, row: PooledVariant) -> tuple[Cell, ...]:
    low, high = signed(row.loss_interval.low, 1), signed(row.loss_interval.high, 1)
    return (
        Cell(row.variant),
        Cell(f"{row.kept} of {pooled.folds} folds"),
        Cell(percent(row.top1), between(row.top1_interval.low, row.top1_interval.high)),
        Cell(percent(row.reference_top1)),
        Cell(points(row.loss_points), f"[{low}, {high}]"),
        loss_shown(row.judged),
        Cell(percent(row.agreement), between(row.agreement_interval.low, row.agreement_interval.high)),
        Cell(*errors(row.missed_defects, row.reference_missed_defects)),
        Cell(*errors(row.false_alarms, row.reference_false_alarms)),
    )
