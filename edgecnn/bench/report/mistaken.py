"""The test images that one variant decides wrongly: missed defects first, then false alarms, then the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgecnn.artifact import Check
from edgecnn.bench.report.cells import Cell, Row, Table
from edgecnn.bench.report.material import Material, Variant
from edgecnn.bench.report.pictures import pictures
from edgecnn.bench.report.tables import images_per_class
from edgecnn.bench.report.wording import UNKNOWN, between, percent
from edgecnn.intervals import clopper_pearson
from edgecnn.parity import Reference

MOST_PICTURES = 24
"""In each group."""


@dataclass(frozen=True)
class Mistake:
    """A test image that is decided wrongly."""

    image: str
    label: str
    decision: str
    score: str
    """How sure the network as trained (eager fp32) is of this decision."""
    before: str | None
    """What the network as trained decides, where that is something else."""
    source: str | None = None
    """A data: URI."""


@dataclass(frozen=True)
class Group:
    """Mistakes of one kind, the surest first."""

    name: str
    means: str
    kind: str
    """missed, alarm or other; all where no class is the good one."""
    pictured: tuple[Mistake, ...]
    listed: tuple[Mistake, ...]
    """Beyond MOST_PICTURES, or without a picture."""

    @property
    def count(self) -> int:
        """All of them."""
        return len(self.pictured) + len(self.listed)

    @property
    def not_found(self) -> bool:
        """Whether any has no picture although there is room for it."""
        return len(self.pictured) < min(self.count, MOST_PICTURES)


def mistakes_by_kind(material: Material, variant: Variant, data: Path | None) -> list[Group] | None:
    """Those kinds that occur. None where the bundle does not hold the answers image by image.

    A variant's own decisions are eager fp32's but for its flips, which the bundle lists one by one.
    """
    if material.reference is None:
        return None
    found = _mistakes(material.reference, variant.artifact.check, material.bundle.classes)
    good = material.bundle.good_class
    kinds = _kinds(found, good)
    names = [one.image for _, _, _, ones in kinds for one in ones[:MOST_PICTURES]]
    sources = pictures(material, data, names)
    return [_group(name, means, kind, ones, sources) for name, means, kind, ones in kinds if ones]


def class_table(material: Material, variant: Variant) -> Table:
    """Of each class, the weakest first: images, right ones with their share, and the most frequent mistake."""
    check, classes = variant.artifact.check, material.bundle.classes
    counts = images_per_class(material)
    rows = []
    for name in sorted(classes, key=lambda name: (check.recall.get(name) is None, check.recall.get(name) or 0.0)):
        share, images = check.recall.get(name), counts.get(name)
        if share is None or images is None:
            rows.append(Row((Cell(name), Cell("no test image"), Cell(UNKNOWN), Cell(UNKNOWN))))
            continue
        right = round(share * images)
        known = check.recall_intervals.get(name)
        low, high = (known.low, known.high) if known is not None else clopper_pearson(right, images)
        cells = (Cell(name), Cell(f"{right:,} of {images:,}"), Cell(percent(share), between(low, high)))
        rows.append(Row((*cells, Cell(_instead(check, classes, name)))))
    return Table(("class", "right", "share [95 %]", "mostly called instead"), tuple(rows))


def _mistakes(reference: Reference, check: Check, classes: Sequence[str]) -> list[Mistake]:
    flipped = {flip.image: classes.index(flip.variant) for flip in check.flips}
    spread = np.exp(reference.logits - reference.logits.max(1, keepdims=True))
    shares = spread / spread.sum(1, keepdims=True)
    found = []
    for index, (name, label) in enumerate(zip(reference.names, reference.labels.tolist(), strict=True)):
        before = int(reference.logits[index].argmax())
        decision = flipped.get(name, before)
        if decision != label:
            other = None if decision == before else classes[before]
            found.append((float(shares[index, decision]), name, label, decision, other))
    found.sort(key=lambda one: (-one[0], one[1]))
    return [
        Mistake(name, classes[label], classes[decision], percent(share), other)
        for share, name, label, decision, other in found
    ]


def _kinds(found: Sequence[Mistake], good: str | None) -> list[tuple[str, str, str, list[Mistake]]]:
    if good is None:
        return [("Wrong decisions", "parts of one class that were called another", "all", list(found))]
    missed = [one for one in found if one.decision == good]
    alarms = [one for one in found if one.label == good]
    rest = [one for one in found if good not in (one.label, one.decision)]
    return [
        ("Missed defects", f"parts with a defect that were called {good!r}", "missed", missed),
        ("False alarms", f"{good!r} parts that were called a defect", "alarm", alarms),
        ("Other mistakes", "defects that were found, but called another defect", "other", rest),
    ]


def _group(name: str, means: str, kind: str, found: Sequence[Mistake], sources: dict[str, str | None]) -> Group:
    shown = [replace(one, source=sources[one.image]) for one in found[:MOST_PICTURES]]
    pictured = tuple(one for one in shown if one.source is not None)
    listed = [one for one in shown if one.source is None] + list(found[MOST_PICTURES:])
    return Group(name, means, kind, pictured, tuple(listed))


def _instead(check: Check, classes: Sequence[str], name: str) -> str:
    if check.confusion is None:
        return UNKNOWN
    own = classes.index(name)
    wrong = [(count, classes[place]) for place, count in enumerate(check.confusion[own]) if place != own and count]
    most = max(wrong, default=None, key=lambda one: one[0])
    return "–" if most is None else f"{most[1]} ({most[0]:,})"
