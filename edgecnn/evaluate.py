"""What a variant decides, counted and judged against eager fp32 and the labels on the same images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Check, Interval, Judged, Precision
from edgecnn.executed import Executed
from edgecnn.intervals import difference_by_part, mcnemar, share_by_part
from edgecnn.judge import Distance, Labels, Yardstick, flips_of, judge, measure
from edgecnn.judge.costs import Part

MAX_CONFUSION = 50
"""Confusion is kept for at most so many classes."""


def compare(
    logits: NDArray[np.float32],
    reference: NDArray[np.float32],
    labels: Labels,
    images: Sequence[str],
    yardstick: Yardstick,
    precision: Precision,
    executed: Executed | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Check:
    """Judge a variant's logits (n, classes) against eager fp32's on the same images, whose names are `images`.

    `executed`, `groups`: as of `edgecnn.judge.judge` and `measure`.
    """
    found = measure(logits, reference, labels, groups)
    return check_of(found, judge(found, yardstick, precision, executed), images, yardstick)


def check_of(found: Distance, judged: Judged, images: Sequence[str], yardstick: Yardstick) -> Check:
    """The record of what was measured and judged; images of one group count as far as each says something new."""
    n, classes = found.images, yardstick.classes
    parts = [str(group) for group in (range(n) if found.groups is None else found.groups.tolist())]
    low, high = difference_by_part(found.expected_right.tolist(), found.right.tolist(), parts)
    changed = Part(found, np.ones(n, bool), found.lost, found.gained).changed
    good = classes.index(yardstick.good_class) if yardstick.good_class is not None else None
    right, labels = found.right, found.known
    return Check(
        images=n,
        max_logit_error=found.max_error,
        mean_logit_error=found.mean_error,
        agreement=found.agreement,
        top1=float(right.mean()),
        top1_interval=Interval.of(share_by_part(right.tolist(), parts)),
        reference_top1=float(found.expected_right.mean()),
        loss_points=found.loss_points,
        loss_interval=Interval(low=100 * low, high=100 * high),
        mcnemar_p=mcnemar(*changed),
        recall={name: _recall(right[labels == label]) for label, name in enumerate(classes)},
        recall_intervals={
            name: interval
            for label, name in enumerate(classes)
            if (interval := _interval(right, labels == label, parts)) is not None
        },
        confusion=_confusion(found.decided, labels, len(classes)),
        largest_decision_share=float(np.bincount(found.decided).max() / n),
        largest_label_share=float(np.bincount(labels).max() / n),
        missed_defects=missed_defects(found.decided, labels, good),
        false_alarms=false_alarms(found.decided, labels, good),
        missed_interval=None if good is None else _interval(found.decided == good, labels != good, parts),
        false_alarms_interval=None if good is None else _interval(found.decided != good, labels == good, parts),
        reference_missed_defects=missed_defects(found.expected, labels, good),
        reference_false_alarms=false_alarms(found.expected, labels, good),
        flips=flips_of(found.decided, found.expected, images, [classes[label] for label in labels.tolist()], classes),
        judged=judged,
    )


def missed_defects(decided: Labels, labels: Labels, good: int | None) -> int | None:
    """Images of another class than the good one that are decided good; None where no class is the good one."""
    return None if good is None else int(((labels != good) & (decided == good)).sum())


def false_alarms(decided: Labels, labels: Labels, good: int | None) -> int | None:
    """Images of the good class that are decided otherwise; None where no class is the good one."""
    return None if good is None else int(((labels == good) & (decided != good)).sum())


def frames_against_files(
    frame_pixels: NDArray[np.uint8],
    file_pixels: NDArray[np.uint8],
    frame_logits: NDArray[np.float32],
    file_logits: NDArray[np.float32],
) -> dict[str, float | int]:
    """How far prepared raw frames are from the same images' prepared files: pixels in levels, logits in their scale."""
    pixels = np.abs(frame_pixels.astype(np.int16) - file_pixels)
    found = measure(frame_logits, file_logits)
    return {
        "images": len(file_pixels),
        "mean_pixel_error": float(pixels.mean()),
        "max_pixel_error": int(pixels.max()),
        "mean_logit_error": found.mean_error,
        "max_logit_error": found.max_error,
        "agreement": found.agreement,
    }


def _recall(right: NDArray[np.bool_]) -> float | None:
    return float(right.mean()) if len(right) else None


def _interval(hits: NDArray[np.bool_], among: NDArray[np.bool_], parts: Sequence[str]) -> Interval | None:
    """95 %, of the share of hits among some of the images; None where there are none of them."""
    if not among.any():
        return None
    return Interval.of(share_by_part(hits[among].tolist(), [parts[index] for index in np.flatnonzero(among).tolist()]))


def _confusion(decided: Labels, labels: Labels, classes: int) -> tuple[tuple[int, ...], ...] | None:
    if classes > MAX_CONFUSION:
        return None
    counts = np.bincount(labels * classes + decided, minlength=classes * classes).reshape(classes, classes)
    return tuple(tuple(int(count) for count in row) for row in counts)
