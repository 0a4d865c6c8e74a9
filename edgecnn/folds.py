"""k folds: every image a test image once, no part in two splits of a fold, the answers pooled over the folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Artifact, Grouping, Interval, LeftOut, load_bundle
from edgecnn.data import SPLITS, Dataset, folds, part_of
from edgecnn.documents import Frozen
from edgecnn.errors import UserError
from edgecnn.evaluate import false_alarms, missed_defects
from edgecnn.intervals import difference_by_part, share_by_part
from edgecnn.parity import REFERENCE_FILE, load_reference

POOLED = "folds.json"
"""In the run's folder."""


class PooledVariant(Frozen):
    """A variant's answers over the test images of all folds in which it was checked."""

    variant: str
    folds: int
    """In which it was checked."""
    kept: int
    """In which it passed, by the test images too."""
    images: int
    parts: int
    top1: float
    top1_interval: Interval
    """95 %, as all here: images of one part count as far as they say something of their own."""
    reference_top1: float
    loss_points: float
    loss_interval: Interval
    agreement: float
    agreement_interval: Interval
    defects: int | None
    """Test images of defects; None where no class is the good one."""
    missed_defects: int | None
    missed_interval: Interval | None
    """Of the share of defects."""
    reference_missed_defects: int | None
    false_alarms: int | None
    reference_false_alarms: int | None


class Pooled(Frozen):
    """What all folds say together: of the way to train and export, not of one network."""

    folds: int
    images: int
    parts: int
    grouping: Grouping | None
    variants: tuple[PooledVariant, ...]


@dataclass(frozen=True)
class _Answers:
    """A variant's decisions in one fold."""

    variant: str
    kept: bool
    decided: NDArray[np.int64]
    reference: NDArray[np.int64]
    labels: NDArray[np.int64]
    parts: tuple[str, ...]
    good: int | None


def datasets(data: Dataset, count: int, seed: int) -> tuple[Dataset, ...]:
    """The folds, of all images: splits that the folder gives are not used.

    Raises UserError where a split of a fold lacks a class.
    """
    if count < 2:
        raise UserError(f"--folds {count}: at least 2")
    found = tuple(folds(data, count, seed))
    every = [item for name in SPLITS for item in data.split(name)]
    for number, name in ((number, name) for number in range(count) for name in SPLITS):
        missing = set(range(len(data.classes))) - {item.label for item in found[number].split(name)}
        if missing:
            label = min(missing)
            parts = len({part_of(item) for item in every if item.label == label})
            raise UserError(
                f"{data.root}: {data.classes[label]}/ has {parts} parts: fold {number + 1} of {count} has none of them "
                f"in {name}: fewer --folds, or add images"
            )
    return found


def pool(bundles: Sequence[tuple[Dataset, Path]]) -> Pooled:
    """From each fold and its bundle. Nothing is run again: the bundles hold what each variant answered."""
    answers: dict[str, list[_Answers]] = {}
    for fold, folder in bundles:
        for one in _answers(fold, folder):
            answers.setdefault(one.variant, []).append(one)
    tested = [item for fold, _ in bundles for item in fold.test]
    return Pooled(
        folds=len(bundles),
        images=len(tested),
        parts=len({part_of(item) for item in tested}),
        grouping=bundles[0][0].grouping,
        variants=tuple(_pooled(found) for found in answers.values()),
    )


def _answers(fold: Dataset, folder: Path) -> Iterator[_Answers]:
    bundle, reference = load_bundle(folder), load_reference(folder / REFERENCE_FILE)
    part = {item.sha256: part_of(item) for item in fold.test}
    parts = tuple(part[content] for content in reference.sha256)
    decided = reference.logits.argmax(1).astype(np.int64)
    place = {name: number for number, name in enumerate(reference.names)}
    good = bundle.classes.index(bundle.good_class) if bundle.good_class is not None else None
    variants: tuple[Artifact | LeftOut, ...] = (*bundle.artifacts, *bundle.left_out)
    for variant in variants:
        if variant.check is None:
            continue
        answered = decided.copy()
        for flip in variant.check.flips:
            answered[place[flip.image]] = bundle.classes.index(flip.variant)
        kept = isinstance(variant, Artifact) and variant.check.judged.acceptable
        yield _Answers(variant.variant, kept, answered, decided, reference.labels, parts, good)


def _pooled(found: Sequence[_Answers]) -> PooledVariant:
    decided, reference, labels = (
        np.concatenate([getattr(one, name) for one in found]) for name in ("decided", "reference", "labels")
    )
    parts = [part for one in found for part in one.parts]
    right, before, same = decided == labels, reference == labels, decided == reference
    loss = difference_by_part(before.tolist(), right.tolist(), parts)
    good = found[0].good
    defect = labels != good
    of_defects = [part for part, bad in zip(parts, defect.tolist(), strict=True) if bad]
    known = good is not None
    return PooledVariant(
        variant=found[0].variant,
        folds=len(found),
        kept=sum(one.kept for one in found),
        images=len(labels),
        parts=len(set(parts)),
        top1=float(right.mean()),
        top1_interval=Interval.of(share_by_part(right.tolist(), parts)),
        reference_top1=float(before.mean()),
        loss_points=100 * float(before.mean() - right.mean()),
        loss_interval=Interval.of((100 * loss[0], 100 * loss[1])),
        agreement=float(same.mean()),
        agreement_interval=Interval.of(share_by_part(same.tolist(), parts)),
        defects=int(defect.sum()) if known else None,
        missed_defects=missed_defects(decided, labels, good),
        missed_interval=Interval.of(share_by_part((decided[defect] == good).tolist(), of_defects)) if known else None,
        reference_missed_defects=missed_defects(reference, labels, good),
        false_alarms=false_alarms(decided, labels, good),
        reference_false_alarms=false_alarms(reference, labels, good),
    )
