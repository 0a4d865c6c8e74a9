"""What a device answered against the trained network and this machine: differences, flips, exit codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecnn import rehearse as rehearsing
from edgecnn.artifact import Flip
from edgecnn.judge import Distance, Yardstick, measure
from edgecnn.rehearse.compare import Difference, Rehearsed, difference, exit_code, judge

CLASSES = ("good", "crack", "dent")
NAMES, LABELS = ("a", "b", "c"), ("good", "crack", "dent")
TRAINED = np.array([[3, 1, 0], [0, 2, 1], [0, 1, 1.5]], np.float32)


YARDSTICK = Yardstick(1.0, classes=CLASSES)


def measured(board_logits: np.ndarray, other: np.ndarray = TRAINED) -> Distance:
    return measure(board_logits.astype(np.float32), other.astype(np.float32), scale=1.0)


def against(board_logits: np.ndarray, other: np.ndarray = TRAINED) -> Difference:
    return difference(measured(board_logits, other), NAMES, LABELS, CLASSES)


def test_equal_logits() -> None:
    found = against(TRAINED)
    assert found == Difference(images=3, max_error=0, mean_error=0, bit_equal=True, flips=())


def test_a_difference_is_in_units_of_the_scale_and_names_its_flips() -> None:
    changed = TRAINED.copy()
    changed[2] = (0, 1.75, 1.5)
    found = difference(measure(changed, TRAINED, scale=0.5), NAMES, LABELS, CLASSES)
    assert found.max_error == pytest.approx(1.5)
    assert not found.bit_equal
    assert found.flips == (Flip(image="c", label="dent", reference="dent", variant="crack"),)


def test_minus_zero_is_not_the_same_bits() -> None:
    found = against(np.where(TRAINED == 0, -0.0, TRAINED))
    assert found.max_error == 0
    assert not found.bit_equal


def flipped(*images: int) -> np.ndarray:
    logits = TRAINED.copy()
    for image in images:
        logits[image] = np.roll(logits[image], 1)
    return logits


@pytest.mark.parametrize(
    ("precision", "on_board", "at_home", "outcome", "words"),
    [
        ("fp32", TRAINED + 5e-5, TRAINED, "same", None),
        ("fp32", TRAINED + 5e-4, TRAINED, "differs", "logits differ"),
        ("int8", TRAINED + 0.1, TRAINED, "too few", "3 images show too little"),
        ("int8", flipped(1), TRAINED, "too few", "1 of 3 images"),
        ("int8", flipped(1, 2), TRAINED, "differs", "2 of 3 images"),
        ("int8", flipped(1, 2), flipped(1, 2), "too few", "3 images show too little"),
        ("int8", flipped(1, 2), flipped(1), "too few", "1 of 3 images"),
        ("int8", flipped(1, 2), None, "differs", "2 of 3 images"),
        ("fp16", TRAINED + 0.1, TRAINED, "same", None),
        ("fp16", flipped(1), flipped(1), "same", None),
        ("fp16", flipped(1, 2), flipped(1), "differs", "and the home decides it like it (c: "),
        ("fp16", TRAINED, flipped(1), "same", None),
        ("fp16", flipped(1), None, "differs", "1 of 3 images"),
        ("fp16", TRAINED, None, "same", None),
        ("fp16", flipped(0), TRAINED, "differs", "a: "),
    ],
)
def test_the_judgement(
    precision: Any, on_board: np.ndarray, at_home: np.ndarray | None, outcome: str, words: str | None
) -> None:
    mask = None if at_home is None else measured(at_home).flipped
    found, reason = judge(measured(on_board), mask, True, YARDSTICK, precision, NAMES, "the home")
    assert (found, reason is None) == (outcome, words is None)
    assert (words or "") in (reason or "")


def test_other_pixels_or_no_numbers_are_never_good() -> None:
    nothing = measured(np.full_like(TRAINED, np.nan))
    assert "pixels" in (judge(measured(TRAINED), None, False, YARDSTICK, "int8", NAMES)[1] or "")
    assert "finite" in (judge(nothing, None, True, YARDSTICK, "int8", NAMES)[1] or "")
    assert against(np.full_like(TRAINED, np.nan)).max_error > 1e300


def rows(*outcomes: Any) -> list[Rehearsed]:
    return [Rehearsed(variant=str(i), outcome=outcome, reason=None) for i, outcome in enumerate(outcomes)]


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        (("same", "same"), 0),
        (("same", "differs"), 1),
        (("crashed", "same"), 1),
        (("timed out",), 1),
        (("refused",), 1),
        (("same", "not run"), 1),
        (("not run", "not run"), 3),
        ((), 3),
    ],
)
def test_exit_codes(outcomes: tuple[str, ...], code: int) -> None:
    assert exit_code(rows(*outcomes)) == code


def test_images_are_spread_over_the_classes() -> None:
    assert rehearsing.evenly(50, 5) == (0, 12, 24, 37, 49)
    assert rehearsing.evenly(50, 99) == tuple(range(50))
    assert rehearsing.evenly(50, 1) == (0,)
