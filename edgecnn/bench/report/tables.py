"""Tables of a report: what was left out, decisions by class, the ladder, the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edgecnn.artifact import Artifact, Bundle, Check
from edgecnn.bench import Run
from edgecnn.bench.host import State, steal_share
from edgecnn.bench.report.cells import Cell, Row, Table, texts
from edgecnn.bench.report.material import Material
from edgecnn.bench.report.wording import (
    UNKNOWN,
    mebibytes,
    percent,
    points,
    proportion,
)

MOST_CLASSES = 20
"""A larger confusion matrix is shown as a list of its most frequent errors."""
_MOST_CONFUSIONS = 20


def left_out_table(bundle: Bundle) -> Table | None:
    """What was asked for and is not in the bundle."""
    if not bundle.left_out:
        return None
    rows = [
        texts(left.variant, left.reason, _top1(left.check).text if left.check else UNKNOWN) for left in bundle.left_out
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
    images = images_per_class(material)
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
            # Which layers it keeps in float is not repeated: the line above the table says it of the taken one.
            Cell(name.partition(" (")[0] + (" (taken)" if name == taken else "")),
            Cell(_number(row.get("loss_points"), points)),
            Cell(_number(row.get("agreement"), percent)),
            Cell(_number(row.get("logit_error"), lambda value: f"{value:.3f}")),
            Cell(_number(row.get("largest_class_share"), percent)),
            Cell(_number(row.get("latency_ms"), lambda value: f"{value:.2f}")),
            Cell(str(row.get("criterion", UNKNOWN))),
        )
        rows.append(Row(cells, "chosen" if name == taken else ""))
    columns = ("rung", "loss, points", "agreement with fp32", "logit error, rms", "most frequent decision")
    return Table((*columns, "ms here", "criterion"), tuple(rows))


def host_table(runs: Sequence[Run]) -> Table:
    """How the host was doing before → after each run."""
    columns = ("run", "load average", "MHz", "°C", "governor", "memory free, MiB", "stolen time")
    return Table(columns, tuple(_host_row(run) for run in runs))


def facts_table(facts: Mapping[str, str], title: str, value: str) -> Table:
    """Names and values."""
    return Table((title, value), tuple(texts(name, text) for name, text in facts.items()))


def _top1(check: Check) -> Cell:
    return Cell(proportion(check.top1, check.images))


def _confusions(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Table:
    wrong = [
        (count, label, decision)
        for label, counts in enumerate(confusion)
        for decision, count in enumerate(counts)
        if label != decision and count
    ]
    shown = sorted(wrong, key=lambda error: -error[0])[:_MOST_CONFUSIONS]
    rows = [
        texts(classes[label], classes[decision], f"{count} of {sum(confusion[label])}")
        for count, label, decision in shown
    ]
    rest = sum(count for count, _, _ in wrong) - sum(count for count, _, _ in shown)
    if rest:
        rows.append(texts("…", "…", f"{rest} more errors"))
    return Table(("label", "decision", "images"), tuple(rows))


def images_per_class(material: Material) -> dict[str, int]:
    """Test images of each class; empty where the bundle does not tell."""
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
    changes = [
        _change(before, after, lambda state: f"{state.load_average[0]:.1f}" if state.load_average else None),
        _change(before, after, lambda state: f"{max(state.mhz):,.0f}" if state.mhz else None),
        _change(before, after, lambda state: None if state.temperature_c is None else f"{state.temperature_c:.0f}"),
        _change(before, after, lambda state: state.governor),
        _change(before, after, _free_memory),
        UNKNOWN if steal is None else percent(steal),
    ]
    return texts(run.subject.variant, *changes)


def _free_memory(state: State) -> str | None:
    return None if state.memory_available_bytes is None else mebibytes(state.memory_available_bytes)


def _change(before: State, after: State, tell: Callable[[State], str | None]) -> str:
    first, last = tell(before), tell(after)
    if first is None and last is None:
        return "not told"
    return str(first) if first == last else f"{first or UNKNOWN} → {last or UNKNOWN}"


def _number(value: object, write: Callable[[float], str]) -> str:
    return write(float(value)) if isinstance(value, int | float) else UNKNOWN
