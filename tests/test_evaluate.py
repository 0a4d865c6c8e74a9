"""A variant against fp32 on the same images: what it costs, what it flips, and how sure that is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgecnn.evaluate import compare, frames_against_files
from edgecnn.intervals import clopper_pearson, paired_difference
from edgecnn.judge import Yardstick

CLASSES = ("crack", "dent", "good")


def one_hot(decisions: list[int]) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[decisions] * 4


def judged(decisions: list[int], reference: list[int], labels: list[int], good: str | None = "good"):
    names = [f"{index}.png" for index in range(len(labels))]
    yardstick = Yardstick(1.0, classes=CLASSES, good_class=good)
    return compare(one_hot(decisions), one_hot(reference), np.array(labels), names, yardstick, "int8")


def test_the_counts_are_those_of_a_worked_example() -> None:
    check = judged([0, 2, 2, 1, 2, 0], reference=[0, 1, 2, 1, 2, 2], labels=[0, 1, 2, 1, 1, 2])
    assert check.top1 == 4 / 6 - 1 / 6
    assert check.reference_top1 == 5 / 6
    assert check.loss_points == pytest.approx(100 * 2 / 6)
    assert (check.missed_defects, check.reference_missed_defects) == (2, 1)
    assert (check.false_alarms, check.reference_false_alarms) == (1, 0)
    assert check.recall == {"crack": 1.0, "dent": pytest.approx(1 / 3), "good": 0.5}
    assert check.confusion == ((1, 0, 0), (0, 1, 2), (1, 0, 1))
    assert [(flip.image, flip.label, flip.reference, flip.variant) for flip in check.flips] == [
        ("1.png", "dent", "dent", "good"),
        ("5.png", "good", "good", "crack"),
    ]
    assert check.mcnemar_p == 0.5
    assert check.judged.shown == "not shown"


def test_images_of_one_part_are_one_piece_of_evidence_in_every_figure() -> None:
    """40 parts in six pictures each; the variant loses two parts in all of them."""
    labels = np.arange(240) // 6 % 2
    decided = np.where(np.arange(240) < 12, 2, labels)
    names, yardstick = [f"{i}.png" for i in range(240)], Yardstick(1.0, classes=CLASSES, good_class="good")
    answers = one_hot(decided.tolist()), one_hot(labels.tolist()), labels, names, yardstick, "int8"
    alone, together = compare(*answers), compare(*answers, groups=np.arange(240) // 6)
    assert alone.mcnemar_p == pytest.approx(2 * 0.5**12)
    assert (alone.top1_interval.low, alone.top1_interval.high) == clopper_pearson(228, 240)
    low, high = paired_difference(12, 0, 240)
    assert (alone.loss_interval.low, alone.loss_interval.high) == pytest.approx((100 * low, 100 * high))
    assert together.mcnemar_p == 0.5  # the sign test of two parts
    assert together.loss_interval.low < 0 < 12 < together.loss_interval.high
    assert together.top1_interval.low < 0.9 < alone.top1_interval.low
    assert (together.top1, together.loss_points) == (alone.top1, alone.loss_points)


def test_without_a_good_class_nothing_is_called_missed() -> None:
    check = judged([0, 1], [0, 1], [0, 1], good=None)
    assert check.missed_defects is check.false_alarms is None


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=80))
@settings(deadline=None)
def test_the_figures_agree_with_each_other(rows: list[tuple[int, int, int]]) -> None:
    decisions, reference, labels = (list(column) for column in zip(*rows, strict=True))
    check = judged(decisions, reference, labels)
    assert len(check.flips) == round((1 - check.agreement) * check.images)
    assert check.confusion is not None
    assert sum(map(sum, check.confusion)) == check.images
    assert sum(check.confusion[i][i] for i in range(3)) == round(check.top1 * check.images)
    assert check.top1_interval.low <= check.top1 <= check.top1_interval.high
    assert check.loss_interval.low - 1e-9 <= check.loss_points <= check.loss_interval.high + 1e-9
    assert check.missed_defects == check.confusion[0][2] + check.confusion[1][2]


@given(arrays(np.float32, (7, 3), elements=st.floats(-5, 5, width=32)), st.floats(0.125, 100, width=32))
def test_the_logit_error_does_not_depend_on_the_scale(logits: np.ndarray, scale: float) -> None:
    reference = one_hot([0, 1, 2, 0, 1, 2, 0])
    args = (np.zeros(7, np.int64), [""] * 7, Yardstick(1.0, classes=CLASSES), "int8")
    plain = compare(logits, reference, *args).max_logit_error
    scaled = compare(logits * np.float32(scale), reference * np.float32(scale), *args).max_logit_error
    assert scaled == pytest.approx(plain, rel=1e-3, abs=1e-6)


def test_frames_are_compared_in_levels_and_in_the_logit_scale() -> None:
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    other = pixels.copy()
    other[0, 0, 0, 0] = 9
    found = frames_against_files(other, pixels, one_hot([0, 1]), one_hot([0, 2]))
    assert found["max_pixel_error"] == 9
    assert found["mean_pixel_error"] == pytest.approx(9 / pixels.size)
    assert found["agreement"] == 0.5
