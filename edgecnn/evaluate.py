"""What a variant decides, judged against eager fp32 and the labels on the same images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Check, Flip, Interval
from edgecnn.intervals import clopper_pearson, mcnemar, paired_difference

Labels = NDArray[np.int64]
"""int64 (n,), indices of classes."""
MAX_CONFUSION = 50
"""Confusion is kept for at most so many classes."""


def compare(
    logits: NDArray[np.float32],
    reference: NDArray[np.float32],
    labels: Labels,
    images: Sequence[str],
    classes: Sequence[str],
    good_class: str | None,
    loss_limit: float,
) -> Check:
    """Judge a variant's logits (n, classes) against eager fp32's on the same images, whose names are `images`.

    `loss_limit`, points: where the paired interval is wider than it on either side, the check says that n is too small.
    """
    decided, expected = logits.argmax(1), reference.argmax(1)
    right, reference_right = decided == labels, expected == labels
    error = np.abs(logits - reference) / _scale(reference)
    n = len(labels)
    lost, gained = int((reference_right & ~right).sum()), int((right & ~reference_right).sum())
    low, high = (100 * bound for bound in paired_difference(lost, gained, n))
    good = classes.index(good_class) if good_class is not None else None
    return Check(
        images=n,
        max_logit_error=float(error.max()),
        mean_logit_error=float(error.mean()),
        agreement=float((decided == expected).mean()),
        top1=float(right.mean()),
        top1_interval=_interval(clopper_pearson(int(right.sum()), n)),
        reference_top1=float(reference_right.mean()),
        loss_points=100 * (int(reference_right.sum()) - int(right.sum())) / n,
        loss_interval=Interval(low=low, high=high),
        mcnemar_p=mcnemar(lost, gained),
        recall={name: _recall(right[labels == label]) for label, name in enumerate(classes)},
        confusion=_confusion(decided, labels, len(classes)),
        largest_decision_share=float(np.bincount(decided).max() / n),
        largest_label_share=float(np.bincount(labels).max() / n),
        missed_defects=_missed(decided, labels, good),
        false_alarms=_alarms(decided, labels, good),
        reference_missed_defects=_missed(expected, labels, good),
        reference_false_alarms=_alarms(expected, labels, good),
        flips=tuple(
            Flip(
                image=images[i],
                label=classes[labels[i]],
                reference=classes[expected[i]],
                variant=classes[decided[i]],
            )
            for i in np.flatnonzero(decided != expected).tolist()
        ),
        too_few=_too_few(n, high, low, loss_limit),
    )


def frames_against_files(
    frame_pixels: NDArray[np.uint8],
    file_pixels: NDArray[np.uint8],
    frame_logits: NDArray[np.float32],
    file_logits: NDArray[np.float32],
) -> dict[str, float | int]:
    """How far prepared raw frames are from the same images' prepared files: pixels in levels, logits in their scale."""
    pixels = np.abs(frame_pixels.astype(np.int16) - file_pixels)
    logits = np.abs(frame_logits - file_logits) / _scale(file_logits)
    return {
        "images": len(file_pixels),
        "mean_pixel_error": float(pixels.mean()),
        "max_pixel_error": int(pixels.max()),
        "mean_logit_error": float(logits.mean()),
        "max_logit_error": float(logits.max()),
        "agreement": float((frame_logits.argmax(1) == file_logits.argmax(1)).mean()),
    }


def _scale(logits: NDArray[np.float32]) -> float:
    """Standard deviation of all logits: the unit in which errors of nets with different heads compare."""
    return max(float(logits.std()), 1e-12)


def _interval(bounds: tuple[float, float]) -> Interval:
    return Interval(low=bounds[0], high=bounds[1])


def _recall(right: NDArray[np.bool_]) -> float | None:
    return float(right.mean()) if len(right) else None


def _confusion(decided: Labels, labels: Labels, classes: int) -> tuple[tuple[int, ...], ...] | None:
    if classes > MAX_CONFUSION:
        return None
    counts = np.bincount(labels * classes + decided, minlength=classes * classes).reshape(classes, classes)
    return tuple(tuple(int(count) for count in row) for row in counts)


def _missed(decided: Labels, labels: Labels, good: int | None) -> int | None:
    return None if good is None else int(((labels != good) & (decided == good)).sum())


def _alarms(decided: Labels, labels: Labels, good: int | None) -> int | None:
    return None if good is None else int(((labels == good) & (decided != good)).sum())


def _too_few(n: int, high: float, low: float, limit: float) -> str | None:
    if high <= limit:
        return None
    return f"{n} images leave the loss between {low:+.1f} and {high:+.1f} points: too few to rule out {limit:g}"
