"""How far two sets of answers to the same images are apart, in logits, decisions and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Flip, Precision

Answers: TypeAlias = NDArray[np.floating]
"""(n, classes), logits or probabilities."""
Labels: TypeAlias = NDArray[np.int64]
"""int64 (n,), indices of classes."""
Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Distance:
    """Answers to the same images from two places, compared."""

    decided: Labels
    expected: Labels
    """The decisions of the place that is right by definition."""
    labels: Labels | None
    """None where nobody knows them: then there are flips, but no losses."""
    groups: NDArray[np.int64] | None
    """Which images show one part; None: none do."""
    finite: bool
    bit_equal: bool
    max_error: float
    """Largest |difference| over all answers, in units of `scale`; the largest float where one is not finite."""
    mean_error: float
    rms_error: float

    @property
    def images(self) -> int:
        """How many."""
        return len(self.decided)

    @cached_property
    def flipped(self) -> Mask:
        """Images that are decided otherwise."""
        return np.not_equal(self.decided, self.expected)

    @cached_property
    def agreement(self) -> float:
        """Share of equal decisions."""
        return float((self.decided == self.expected).mean())

    @cached_property
    def right(self) -> Mask:
        """Images that are decided as labelled."""
        return np.equal(self.decided, self.known)

    @cached_property
    def expected_right(self) -> Mask:
        """Images that the other place decides as labelled."""
        return np.equal(self.expected, self.known)

    @cached_property
    def lost(self) -> Mask:
        """Images that only the other place got right."""
        return self.expected_right & ~self.right

    @cached_property
    def gained(self) -> Mask:
        """Images that only this place got right."""
        return self.right & ~self.expected_right

    @property
    def loss_points(self) -> float:
        """Of top-1: positive where this place is worse."""
        return 100 * (int(self.lost.sum()) - int(self.gained.sum())) / self.images

    @property
    def known(self) -> Labels:
        """The labels, where they are needed."""
        if self.labels is None:
            raise TypeError("these images have no labels")
        return self.labels


def measure(
    answers: Answers,
    expected: Answers,
    labels: Labels | None = None,
    groups: NDArray[np.int64] | None = None,
    scale: float | None = None,
) -> Distance:
    """Compare answers (n, classes) with those that are right by definition, such as eager fp32's.

    `scale`: the unit of errors; by default `scale_of(expected)`.
    """
    error = (answers.astype(np.float64) - expected) / (scale_of(expected) if scale is None else scale)
    return Distance(
        decided=answers.argmax(1),
        expected=expected.argmax(1),
        labels=labels,
        groups=groups,
        finite=bool(np.isfinite(answers).all()),
        bit_equal=answers.tobytes() == expected.tobytes(),
        max_error=_finite(np.abs(error).max()),
        mean_error=_finite(np.abs(error).mean()),
        rms_error=_finite(np.sqrt((error**2).mean())),
    )


def flips_of(
    decided: Labels,
    expected: Labels,
    images: Sequence[str],
    labels: Sequence[str],
    classes: Sequence[str],
    among: Mask | None = None,
) -> tuple[Flip, ...]:
    """The images that are decided otherwise than expected, by name; `images`, `labels`: of each image.

    `among`: only these.
    """
    flipped = np.not_equal(decided, expected)
    return tuple(
        Flip(image=images[i], label=labels[i], reference=classes[expected[i]], variant=classes[decided[i]])
        for i in np.flatnonzero(flipped if among is None else flipped & among).tolist()
    )


def scale_of(answers: Answers) -> float:
    """Standard deviation of all answers, 1 where they are all the same: the unit in which errors of nets with different
    heads compare."""
    return float(answers.std()) or 1.0


def unlike(found: Distance, precision: Precision, tolerance: float) -> str | None:
    """Why answers cannot be the expected place's own: not finite, or fp32 logits beyond `tolerance`; None where they
    may be. Says nothing of decisions."""
    if not found.finite:
        return "its outputs are not finite numbers"
    if precision == "fp32" and not found.max_error <= tolerance:
        return (
            f"logits differ from the trained network's by {found.max_error:.1e} of their scale (limit {tolerance:.0e})"
        )
    return None


def _finite(value: np.floating) -> float:
    """JSON has no NaN: a difference that is no number is as large as can be."""
    return float(value) if np.isfinite(value) else float(np.finfo(np.float64).max)
