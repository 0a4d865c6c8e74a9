"""The tables of a report as text, the same ones for HTML and for Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from edgecnn.artifact import Artifact, Bundle, Check, Judged
from edgecnn.bench import Run, Summary
from edgecnn.bench.host import State, steal_share
from edgecnn.bench.measure import STAGES
from edgecnn.bench.report.material import Material, Variant
from edgecnn.bench.report.wording import (
    UNKNOWN,
    between,
    mebibytes,
    milliseconds,
    percent,
    points,
    probability,
    proportion,
    signed,
)
from edgecnn.numbers import plain

MOST_CLASSES = 20
"""A larger confusion matrix is shown as a list of its most frequent errors."""
_MOST_CONFUSIONS = 20


@dataclass(frozen=True)
class Cell:
    """One cell: what it says, and what is said below it in small."""

    text: str
    below: str = ""
    shade: float = 0.0
    """0 to 1, for a heat map."""


@dataclass(frozen=True)
class Row:
    """One row, as long as the table has columns."""

    cells: tuple[Cell, ...]
    kind: str = ""
    """chosen, muted or nothing."""
    outcome: str = ""
    """PASS, FAIL or INCONCLUSIVE: of the last cell."""


@dataclass(frozen=True)
class Table:
    """Columns, under groups where these have names."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    groups: tuple[tuple[str, int], ...] = ()
    """(name, columns that it spans), in order."""


def variants_table(material: Material) -> Table:
    """A row for each variant, the harness last."""
    columns = _columns(material)
    rows = [
        Row(
            tuple(cell(variant) for _, _, cell in columns),
            "chosen" if variant.chosen else "",
            variant.summary.verdict.outcome if variant.summary and variant.summary.verdict else "",
        )
        for variant in material.variants
    ]
    if material.harness:
        rows.append(_harness_row(material.harness, len(columns)))
    groups = tuple((group, len(list(members))) for group, members in groupby(columns, key=lambda column: column[0]))
    return Table(tuple(title for _, title, _ in columns), tuple(rows), groups)


def left_out_table(bundle: Bundle) -> Table | None:
    """What was asked for and is not in the bundle."""
    if not bundle.left_out:
        return None
    rows = [
        _texts(left.variant, left.reason, _top1(left.check).text if left.check else UNKNOWN) for left in bundle.left_out
    ]
    return Table(("variant", "reason", "top-1 (right/images) [95 %]"), tuple(rows))


def confusion_table(check: Check, classes: Sequence[str]) -> Table | None:
    """Counts of label (rows) against decision; a list of errors for many classes; None where none were kept."""
    if check.confusion is None:
        return None
    if len(classes) > MOST_CLASSES:
        return _confusions(check.confusion, classes)
    rows = []
    for label, counts in zip(classes, check.confusion, strict=True):
        of_label = max(sum(counts), 1)
        cells = [Cell(str(count) if count else "·", shade=round(count / of_label, 2)) for count in counts]
        rows.append(Row((Cell(label), *cells, Cell(str(sum(counts))))))
    return Table(("label ↓ · decision →", *classes, "images"), tuple(rows))


def recall_table(material: Material) -> Table:
    """Recall per class: eager fp32, the headline's variant, every int8 one."""
    subject = material.subject
    shown = [v for v in material.variants if v is subject or v.artifact.precision == "int8"]
    images = _images_per_class(material)
    eager = _eager_recall(material)
    rows = []
    for name in material.bundle.classes:
        n = images.get(name)
        recalls = [eager.get(name) if eager else None, *(v.artifact.check.recall.get(name) for v in shown)]
        shares = [_recall(recall, n) for recall in recalls[0 if eager else 1 :]]
        rows.append(Row((Cell(name), Cell(UNKNOWN if n is None else f"{n:,}"), *shares)))
    columns = ("class", "test images", *(["eager fp32"] if eager else []), *(v.name for v in shown))
    return Table(columns, tuple(rows))


def rungs_table(artifact: Artifact) -> Table | None:
    """The quantisation rungs that were tried, judged on validation images; None where the bundle has no record."""
    tried = artifact.notes.get("rungs_tried")
    if not isinstance(tried, Sequence) or not all(isinstance(row, Mapping) for row in tried) or not tried:
        return None
    taken = artifact.notes.get("rung")
    rows = []
    for row in tried:
        name = str(row.get("rung"))
        cells = (
            Cell(name + (" (taken)" if name == taken else "")),
            Cell(_number(row.get("loss_points"), points)),
            Cell(_number(row.get("agreement"), percent)),
            Cell(_number(row.get("logit_error"), lambda value: f"{value:.3f}")),
            Cell(_number(row.get("largest_class_share"), percent)),
            Cell(str(row.get("criterion", UNKNOWN))),
        )
        rows.append(Row(cells, "chosen" if name == taken else ""))
    columns = ("rung", "loss, points", "agreement with fp32", "logit error, rms", "most frequent decision", "judged by")
    return Table(columns, tuple(rows))


def host_table(runs: Sequence[Run]) -> Table:
    """How the host was doing before → after each run."""
    columns = ("run", "load average", "MHz", "°C", "governor", "memory free, MiB", "stolen time")
    return Table(columns, tuple(_host_row(run) for run in runs))


def facts_table(facts: Mapping[str, str], title: str, value: str) -> Table:
    """Names and values."""
    return Table((title, value), tuple(_texts(name, text) for name, text in facts.items()))


_Column = tuple[str, str, Callable[[Variant], Cell]]


def _columns(material: Material) -> list[_Column]:
    """(group, title, cell of a variant)."""
    budget = material.budget
    bound = f"p{plain(budget.percentile)}\N{NO-BREAK SPACE}≤"

    def measured(cell: Callable[[Summary], Cell]) -> Callable[[Variant], Cell]:
        return lambda variant: cell(variant.summary) if variant.summary else Cell(UNKNOWN)

    def checked(cell: Callable[[Check], Cell]) -> Callable[[Variant], Cell]:
        return lambda variant: cell(variant.artifact.check)

    stages: list[_Column] = [("stages, p50 ms", stage, measured(_stage_cell(stage))) for stage in STAGES]
    return [
        ("", "variant", _name),
        ("", "MiB", lambda variant: Cell(mebibytes(variant.artifact.bytes))),
        *stages,
        ("end to end, ms", "p50", measured(lambda row: Cell(milliseconds(row.p50_ms)))),
        ("end to end, ms", "p90", measured(lambda row: Cell(milliseconds(row.p90_ms)))),
        ("end to end, ms", "p99", measured(lambda row: Cell(milliseconds(row.p99_ms)))),
        ("end to end, ms", bound, measured(lambda row: Cell(milliseconds(row.upper_ms, budget)))),
        ("takes", "RSS MiB", measured(lambda row: Cell(mebibytes(row.peak_rss_bytes)))),
        ("takes", "threads", measured(lambda row: Cell(f"{row.threads_used:.2f}"))),
        ("takes", "int8 layers", lambda variant: Cell(_int8_layers(variant))),
        ("against fp32", "logit error", checked(lambda check: Cell(_small(check.max_logit_error)))),
        ("against fp32", "agree", checked(_agreement)),
        ("accuracy", "top-1", checked(_top1_stacked)),
        ("accuracy", "loss, points", checked(_loss)),
        ("accuracy", "McNemar p", checked(lambda check: Cell(probability(check.mcnemar_p)))),
        ("accuracy", "loss limit", checked(lambda check: loss_shown(check.judged))),
        (
            "errors (fp32)",
            "missed",
            checked(lambda check: Cell(*errors(check.missed_defects, check.reference_missed_defects))),
        ),
        (
            "errors (fp32)",
            "false",
            checked(lambda check: Cell(*errors(check.false_alarms, check.reference_false_alarms))),
        ),
        ("", "verdict", _verdict),
    ]


def _name(variant: Variant) -> Cell:
    samples = f" · n = {variant.summary.samples:,}" if variant.summary else ""
    return Cell(variant.name + (" (chosen)" if variant.chosen else ""), variant.artifact.runtime + samples)


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


def _top1(check: Check) -> Cell:
    return Cell(proportion(check.top1, check.images))


def _top1_stacked(check: Check) -> Cell:
    return Cell(percent(check.top1), between(check.top1_interval.low, check.top1_interval.high))


def _loss(check: Check) -> Cell:
    low, high = signed(check.loss_interval.low, 1), signed(check.loss_interval.high, 1)
    return Cell(points(check.loss_points), f"[{low}, {high}]")


def loss_shown(judged: Judged) -> Cell:
    """In how far the loss is shown to be within the limit, and how many images would show it."""
    images = f"n ≈ {judged.images_to_show:,}" if judged.images_to_show else ""
    return Cell("SHOWN BEYOND" if judged.shown == "shown beyond" else judged.shown, images)


def errors(variant: int | None, reference: int | None) -> tuple[str, str]:
    """Images that a variant got wrong in one way, and in brackets how many eager fp32 did."""
    return (UNKNOWN, "") if variant is None else (str(variant), "" if reference is None else f"({reference})")


def _verdict(variant: Variant) -> Cell:
    summary = variant.summary
    return Cell(summary.verdict.outcome) if summary and summary.verdict else Cell("not measured")


def _harness_row(row: Summary, columns: int) -> Row:
    stages = [_stage_cell(stage)(row) for stage in STAGES]
    total = [Cell(milliseconds(value)) for value in (row.p50_ms, row.p90_ms, row.p99_ms, row.upper_ms)]
    takes = [Cell(mebibytes(row.peak_rss_bytes)), Cell(f"{row.threads_used:.2f}")]
    cells = [Cell("harness alone", f"no engine · n = {row.samples:,}"), Cell(""), *stages, *total, *takes]
    return Row((*cells, *[Cell("")] * (columns - len(cells))), "muted")


def _small(value: float) -> str:
    return "0" if value == 0 else f"{value:.0e}".replace("e-0", "e-") if value < 1e-3 else f"{value:#.2g}"


def _confusions(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Table:
    wrong = [
        (count, label, decision)
        for label, counts in enumerate(confusion)
        for decision, count in enumerate(counts)
        if label != decision and count
    ]
    shown = sorted(wrong, key=lambda error: -error[0])[:_MOST_CONFUSIONS]
    rows = [
        _texts(classes[label], classes[decision], f"{count} of {sum(confusion[label])}")
        for count, label, decision in shown
    ]
    rest = sum(count for count, _, _ in wrong) - sum(count for count, _, _ in shown)
    if rest:
        rows.append(_texts("…", "…", f"{rest} more errors"))
    return Table(("label", "decision", "images"), tuple(rows))


def _images_per_class(material: Material) -> dict[str, int]:
    classes, reference = material.bundle.classes, material.reference
    if reference is not None:
        return {name: int((reference.labels == label).sum()) for label, name in enumerate(classes)}
    confusion = next((v.artifact.check.confusion for v in material.variants if v.artifact.check.confusion), None)
    return {name: sum(row) for name, row in zip(classes, confusion, strict=True)} if confusion else {}


def _eager_recall(material: Material) -> dict[str, float | None]:
    reference = material.reference
    if reference is None:
        return {}
    right = reference.logits.argmax(1) == reference.labels
    per_class = {name: right[reference.labels == label] for label, name in enumerate(material.bundle.classes)}
    return {name: float(found.mean()) if len(found) else None for name, found in per_class.items()}


def _recall(recall: float | None, images: int | None) -> Cell:
    if recall is None:
        return Cell("no image")
    if images is None:
        return Cell(percent(recall))
    text, _, interval = proportion(recall, images).partition(" [")
    return Cell(text, f"[{interval}")


def _host_row(run: Run) -> Row:
    before, after = run.before, run.after
    steal = steal_share(before, after)
    texts = [
        _change(before, after, lambda state: f"{state.load_average[0]:.1f}" if state.load_average else None),
        _change(before, after, lambda state: f"{max(state.mhz):,.0f}" if state.mhz else None),
        _change(before, after, lambda state: None if state.temperature_c is None else f"{state.temperature_c:.0f}"),
        _change(before, after, lambda state: state.governor),
        _change(before, after, _free_memory),
        UNKNOWN if steal is None else percent(steal),
    ]
    return _texts(run.subject.variant, *texts)


def _free_memory(state: State) -> str | None:
    return None if state.memory_available_bytes is None else mebibytes(state.memory_available_bytes)


def _change(before: State, after: State, tell: Callable[[State], str | None]) -> str:
    first, last = tell(before), tell(after)
    if first is None and last is None:
        return "not told"
    return str(first) if first == last else f"{first or UNKNOWN} → {last or UNKNOWN}"


def _number(value: object, write: Callable[[float], str]) -> str:
    return write(float(value)) if isinstance(value, int | float) else UNKNOWN


def text_rows(rows: Sequence[Sequence[str]]) -> tuple[Row, ...]:
    """Rows of plain cells."""
    return tuple(_texts(*row) for row in rows)


def _texts(*texts: str) -> Row:
    return Row(tuple(Cell(text) for text in texts))
