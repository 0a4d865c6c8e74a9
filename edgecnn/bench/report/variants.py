"""The engineer's tables of variants: speed, engine, answers, and why the others were not chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby

from edgecnn.artifact import Check, Judged
from edgecnn.bench import Summary
from edgecnn.bench.measure import STAGES
from edgecnn.bench.report.cells import Cell, Row, Table, texts
from edgecnn.bench.report.material import Material, Variant
from edgecnn.bench.report.wording import (
    UNKNOWN,
    between,
    mebibytes,
    milliseconds,
    percent,
    points,
    probability,
    signed,
)
from edgecnn.numbers import plain


def speed_table(material: Material) -> Table:
    """Latencies of each variant, the harness last."""
    table = _table(material, _speed_columns(material))
    harness = [] if material.harness is None else [_harness_row(material.harness, len(table.columns))]
    return Table(table.columns, (*table.rows, *harness), table.groups)


def engine_table(material: Material) -> Table:
    """What each variant takes, and what its engine ran."""
    return _table(material, _engine_columns())


def answers_table(material: Material) -> Table:
    """How each variant decides the test images, against eager fp32 and the labels."""
    return _table(material, _answer_columns())


def why_not_table(material: Material) -> Table | None:
    """What speaks for and against every variant that the report is not about, those left out last."""
    subject = material.subject
    others = [variant for variant in material.variants if variant is not subject]
    rows = [texts(variant.name, *_against(variant, subject, material)) for variant in others]
    left_out = material.bundle.left_out
    rows += [texts(left.variant, f"left out of the bundle: {left.reason}", UNKNOWN) for left in left_out]
    title = "why not" if subject is None else f"why not, beside {subject.name}"
    bound = f"p{plain(material.budget.percentile)}\N{NO-BREAK SPACE}≤, ms"
    return Table(("variant", title, bound), tuple(rows)) if rows else None


def loss_shown(judged: Judged) -> Cell:
    """In how far the loss is shown to be within the limit, and how many images would show it."""
    images = f"n ≈ {judged.images_to_show:,}" if judged.images_to_show else ""
    return Cell("SHOWN BEYOND" if judged.shown == "shown beyond" else judged.shown, images)


def errors(variant: int | None, reference: int | None) -> tuple[str, str]:
    """Images that a variant got wrong in one way, and in brackets how many eager fp32 did."""
    return (UNKNOWN, "") if variant is None else (str(variant), "" if reference is None else f"({reference})")


_Column = tuple[str, str, Callable[[Variant], Cell]]
"""(group, title, cell of a variant)."""


def _table(material: Material, columns: Sequence[_Column]) -> Table:
    """A row for each variant. Only the verdict is the last column that has an outcome."""
    judged = columns[-1][1] == "verdict"
    rows = [
        Row(
            tuple(cell(variant) for _, _, cell in columns),
            "chosen" if variant.chosen else "",
            _outcome(variant) if judged else "",
        )
        for variant in material.variants
    ]
    groups = tuple((group, len(list(members))) for group, members in groupby(columns, key=lambda column: column[0]))
    return Table(tuple(title for _, title, _ in columns), tuple(rows), groups if len(groups) > 1 else ())


def _speed_columns(material: Material) -> list[_Column]:
    budget = material.budget
    bound = f"p{plain(budget.percentile)}\N{NO-BREAK SPACE}≤"
    stages: list[_Column] = [("stages, p50 ms", stage, _measured(_stage_cell(stage))) for stage in STAGES]
    return [
        ("", "variant", _name),
        *stages,
        ("end to end, ms", "p50", _measured(lambda row: Cell(milliseconds(row.p50_ms, budget)))),
        ("end to end, ms", "p90", _measured(lambda row: Cell(milliseconds(row.p90_ms, budget)))),
        ("end to end, ms", "p99", _measured(lambda row: Cell(milliseconds(row.p99_ms, budget)))),
        ("end to end, ms", bound, _measured(lambda row: Cell(milliseconds(row.upper_ms, budget)))),
        ("end to end, ms", "max", _measured(lambda row: Cell(milliseconds(row.max_ms, budget)))),
        ("end to end, ms", "over budget", _measured(lambda row: Cell(f"{row.over_budget:,}"))),
        ("", "verdict", _verdict),
    ]


def _engine_columns() -> list[_Column]:
    return [
        ("", "variant", lambda variant: Cell(_marked(variant))),
        ("", "file, MiB", lambda variant: Cell(mebibytes(variant.artifact.bytes))),
        ("", "memory (RSS), MiB", _measured(lambda row: Cell(mebibytes(row.peak_rss_bytes)))),
        ("", "threads used", _measured(lambda row: Cell(f"{row.threads_used:.2f}"))),
        ("", "int8 layers", lambda variant: Cell(_int8_layers(variant))),
        ("", "engine", lambda variant: Cell(variant.artifact.runtime)),
    ]


def _answer_columns() -> list[_Column]:
    return [
        ("", "variant", lambda variant: Cell(_marked(variant))),
        ("against fp32", "logit error", _checked(lambda check: Cell(_small(check.max_logit_error)))),
        ("against fp32", "agree", _checked(_agreement)),
        ("accuracy", "top-1", _checked(_top1_stacked)),
        ("accuracy", "loss, points", _checked(_loss)),
        ("accuracy", "McNemar p", _checked(lambda check: Cell(probability(check.mcnemar_p)))),
        ("accuracy", "loss limit", _checked(lambda check: loss_shown(check.judged))),
        (
            "errors (fp32)",
            "missed defects",
            _checked(lambda check: Cell(*errors(check.missed_defects, check.reference_missed_defects))),
        ),
        (
            "errors (fp32)",
            "false alarms",
            _checked(lambda check: Cell(*errors(check.false_alarms, check.reference_false_alarms))),
        ),
    ]


def _measured(cell: Callable[[Summary], Cell]) -> Callable[[Variant], Cell]:
    return lambda variant: cell(variant.summary) if variant.summary else Cell(UNKNOWN)


def _checked(cell: Callable[[Check], Cell]) -> Callable[[Variant], Cell]:
    return lambda variant: cell(variant.artifact.check)


def _outcome(variant: Variant) -> str:
    return variant.summary.verdict.outcome if variant.summary and variant.summary.verdict else ""


def _against(variant: Variant, subject: Variant | None, material: Material) -> tuple[str, str]:
    """Facts that decide between two variants, and the bound."""
    veto = material.bundle.unusable(variant.artifact)
    bound = milliseconds(variant.summary.upper_ms, material.budget) if variant.summary else UNKNOWN
    if veto is not None:
        return f"must not be used: {veto}", bound
    if variant.summary is None or variant.summary.verdict is None:
        return "not measured", bound
    outcome, reason = variant.summary.verdict.outcome, variant.summary.verdict.reason
    if outcome != "PASS":
        return f"{outcome}: {reason}", bound
    facts = ["meets the budget too"]
    if subject is not None:
        facts += _compared(variant, subject)
    return "; ".join(facts), bound


def _compared(variant: Variant, subject: Variant) -> list[str]:
    """Bound, size and mistakes beside the subject's: what is equal is not said."""
    mine, theirs = variant.artifact, subject.artifact
    facts = [] if variant.summary is None or subject.summary is None else [_than(variant.bound_ms, subject.bound_ms)]
    small, large = mebibytes(mine.bytes), mebibytes(theirs.bytes)
    facts += [f"{small} MiB against {large}"] if small != large else []
    top1, other = percent(mine.check.top1), percent(theirs.check.top1)
    facts += [f"top-1 {top1} against {other}"] if top1 != other else []
    missed = mine.check.missed_defects, theirs.check.missed_defects
    facts += [f"missed defects {missed[0]} against {missed[1]}"] if missed[0] != missed[1] else []
    return facts


def _than(bound: float, other: float) -> str:
    if not (math.isfinite(bound) and math.isfinite(other)):
        return "bound not known"
    share = 100 * (bound / other - 1)
    if abs(share) < 0.5:
        return "its bound is the same"
    return f"its bound is {abs(share):.0f} % {'higher' if share > 0 else 'lower'}"


def _name(variant: Variant) -> Cell:
    samples = f" · n = {variant.summary.samples:,}" if variant.summary else ""
    return Cell(_marked(variant), variant.artifact.runtime + samples)


def _marked(variant: Variant) -> str:
    return variant.name + (" (chosen)" if variant.chosen else "")


def _stage_cell(stage: str) -> Callable[[Summary], Cell]:
    return lambda row: Cell(f"{row.stages[stage].p50_ms:.2f}")


def _int8_layers(variant: Variant) -> str:
    executed = variant.summary.executed if variant.summary else variant.artifact.executed
    if executed is None or not executed.layers:
        return "not told"
    int8, part = executed.int8_layers, executed.int8_share
    share = f" · {percent(part)} of MACs" if part is not None and int8 else ""
    return f"{int8}/{len(executed.layers)}{share}"


def _agreement(check: Check) -> Cell:
    return Cell(percent(check.agreement), f"{round(check.agreement * check.images):,}/{check.images:,}")


def _top1_stacked(check: Check) -> Cell:
    return Cell(percent(check.top1), between(check.top1_interval.low, check.top1_interval.high))


def _loss(check: Check) -> Cell:
    low, high = signed(check.loss_interval.low, 1), signed(check.loss_interval.high, 1)
    return Cell(points(check.loss_points), f"[{low}, {high}]")


def _verdict(variant: Variant) -> Cell:
    summary = variant.summary
    return Cell(summary.verdict.outcome) if summary and summary.verdict else Cell("not measured")


def _harness_row(row: Summary, columns: int) -> Row:
    stages = [_stage_cell(stage)(row) for stage in STAGES]
    total = [
        Cell(milliseconds(value, row.budget))
        for value in (row.p50_ms, row.p90_ms, row.p99_ms, row.upper_ms, row.max_ms)
    ]
    cells = [Cell("harness alone", f"no engine · n = {row.samples:,}"), *stages, *total]
    return Row((*cells, *[Cell("")] * (columns - len(cells))), "muted")


def _small(value: float) -> str:
    return "0" if value == 0 else f"{value:.0e}".replace("e-0", "e-") if value < 1e-3 else f"{value:#.2g}"
