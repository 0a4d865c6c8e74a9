"""Two sets of answers to the same images: how far apart they are, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Interval
from edgecnn.blame.orders import closest_order
from edgecnn.blame.outputs import LOGITS, Answers, Output
from edgecnn.documents import Frozen
from edgecnn.intervals import paired_difference
from edgecnn.judge import Labels, measure


class Effect(Frozen):
    """What one change does to the answers of some images."""

    error: float
    """Largest |answer − expected|, divided by the standard deviation of all expected answers."""
    mean_error: float
    correlation: float
    """Of the answers, each image's mean taken off. 1: the same net."""
    agreement: float
    """Share of equal decisions."""
    flipped: int
    top1: float
    loss_points: float
    """100 × (expected's top-1 − top1): positive where it is worse."""
    loss_interval: Interval
    """95 %, of the paired difference."""


@dataclass(frozen=True)
class Expected:
    """What the trained network answers."""

    logits: Answers
    labels: Labels

    def some(self, index: NDArray[np.int64]) -> Expected:
        """Of these images."""
        return Expected(self.logits[index], self.labels[index])


def effect(answers: Answers, expected: Expected, output: Output = LOGITS) -> Effect:
    """Judge answers to the expected ones' images; `output` is what `answers` are of the logits."""
    found = measure(answers, output.of(expected.logits), expected.labels)
    low, high = paired_difference(int(found.lost.sum()), int(found.gained.sum()), found.images)
    return Effect(
        error=min(found.max_error, 1e30),
        mean_error=min(found.mean_error, 1e30),
        correlation=correlation(answers, output.of(expected.logits)) if found.finite else 0.0,
        agreement=found.agreement,
        flipped=int(found.flipped.sum()),
        top1=float(found.right.mean()),
        loss_points=found.loss_points,
        loss_interval=Interval(low=100 * low, high=100 * high),
    )


def moved(before: Answers, after: Answers, scale: float) -> float:
    """How far a change moves the answers: root of the mean square, in `scale`."""
    difference = after.astype(np.float64) - before
    return float(min(np.sqrt((difference**2).mean()) / scale, 1e30)) if np.isfinite(difference).all() else 1e30


def correlation(first: Answers, second: Answers) -> float:
    """Pearson's, over all images and classes, each image's mean taken off. 0 where one side is constant."""
    a, b = (one.astype(np.float64) - one.mean(1, keepdims=True) for one in (first, second))
    norms = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / norms) if norms > 0 else 0.0


def class_order(answers: Answers, wanted: Answers) -> tuple[int, ...]:
    """Which column of `answers` is which class of `wanted`, however the two are scaled: the closest pairs first."""
    a, b = (_standardised(one) for one in (answers, wanted))
    return closest_order((a**2).sum(0)[:, None] + (b**2).sum(0)[None, :] - 2 * (a.T @ b))


def _standardised(answers: Answers) -> NDArray[np.float64]:
    """Each image's mean taken off, in units of the standard deviation of all."""
    centred: NDArray[np.float64] = answers.astype(np.float64) - answers.mean(1, keepdims=True)
    centred /= max(float(centred.std()), 1e-300)
    return centred
