"""k folds: every image a test image once, no part in two splits of a fold, the answers pooled over the folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Artifact, Interval, LeftOut, Precision, load_bundle
from edgecnn.data import SPLITS, Dataset, folds, part_of
from edgecnn.errors import UserError
from edgecnn.evaluate import false_alarms, missed_defects
from edgecnn.intervals import difference_by_part, share_by_part
from edgecnn.judge import Distance, Yardstick, judge, yardstick_of
from edgecnn.parity import REFERENCE_FILE, load_reference
from edgecnn.pooled import Pooled, PooledVariant

_PRECISIONS: dict[str, Precision] = {name: name for name in get_args(Precision)}
"""How the names of variants end."""
_INFINITE = float(np.finfo(np.float64).max)
"""The logit error of answers that are no numbers: see `Check.max_logit_error`."""


@dataclass(frozen=True)
class _Answers:
    """A variant's decisions in one fold."""

    variant: str
    precision: Precision
    kept: bool
    max_error: float
    """Of the logits, in units of their scale."""
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
            cure = "try --folds 3, or add images" if parts >= 3 != count else "add images"
            raise UserError(
                f"{data.root}: {data.classes[label]}/ has {parts} parts: fold {number + 1} of {count} has none of them "
                f"in {name}: {cure}"
            )
    return found


def pool(bundles: Sequence[tuple[Dataset, Path]]) -> Pooled:
    """From each fold and its bundle. Nothing is run again: the bundles hold what each variant answered."""
    answers: dict[str, list[_Answers]] = {}
    for fold, folder in bundles:
        for one in _answers(fold, folder):
            answers.setdefault(one.variant, []).append(one)
    tested = [item for fold, _ in bundles for item in fold.test]
    yardstick = yardstick_of(load_bundle(bundles[0][1]))
    return Pooled(
        folds=len(bundles),
        images=len(tested),
        parts=len({part_of(item) for item in tested}),
        grouping=bundles[0][0].grouping,
        loss_limit=yardstick.loss_limit,
        variants=tuple(_pooled(found, yardstick) for found in answers.values()),
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
        yield _Answers(
            variant=variant.variant,
            precision=_PRECISIONS[variant.variant.rpartition("-")[2]],
            kept=isinstance(variant, Artifact) and variant.check.judged.acceptable,
            max_error=variant.check.max_logit_error,
            decided=answered,
            reference=decided,
            labels=reference.labels,
            parts=parts,
            good=good,
        )


def _distance(found: Sequence[_Answers]) -> Distance:
    """Of the answers of all folds; a part is in one fold, and its images are one piece of evidence."""
    parts = [part for one in found for part in one.parts]
    groups = np.unique(parts, return_inverse=True)[1].astype(np.int64)
    decided, reference, labels = (
        np.concatenate([getattr(one, name) for one in found]) for name in ("decided", "reference", "labels")
    )
    max_error = max(one.max_error for one in found)
    return Distance(
        decided=decided,
        expected=reference,
        labels=labels,
        groups=groups if len(set(parts)) < len(parts) else None,
        finite=max_error < _INFINITE,
        bit_equal=max_error == 0,
        max_error=max_error,
        mean_error=max_error,  # bundles keep the largest alone
        rms_error=max_error,
    )


def _pooled(found: Sequence[_Answers], yardstick: Yardstick) -> PooledVariant:
    distance, parts = _distance(found), [part for one in found for part in one.parts]
    decided, reference, labels = distance.decided, distance.expected, distance.known
    right, before, same = distance.right, distance.expected_right, ~distance.flipped
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
        judged=judge(distance, yardstick, found[0].precision),
        agreement=float(same.mean()),
        agreement_interval=Interval.of(share_by_part(same.tolist(), parts)),
        defects=int(defect.sum()) if known else None,
        missed_defects=missed_defects(decided, labels, good),
        missed_interval=Interval.of(share_by_part((decided[defect] == good).tolist(), of_defects)) if known else None,
        reference_missed_defects=missed_defects(reference, labels, good),
        false_alarms=false_alarms(decided, labels, good),
        reference_false_alarms=false_alarms(reference, labels, good),
    )
