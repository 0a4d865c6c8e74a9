"""What a device answered against the trained network and this machine: differences, flips, exit codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecnn import rehearse as rehearsing
from edgecnn.artifact import Flip, Golden
from edgecnn.documents import sha256_of
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
    ("precision", "on_board", "here", "words"),
    [
        ("fp32", TRAINED + 5e-5, TRAINED, None),
        ("fp32", TRAINED + 5e-4, TRAINED, "logits differ"),
        ("int8", TRAINED + 0.1, TRAINED, None),
        ("int8", flipped(1), TRAINED, "1 of 3 images"),
        ("int8", flipped(1), flipped(1), None),
        ("int8", flipped(1, 2), flipped(1), "1 of 3 images"),
        ("int8", TRAINED, flipped(1), None),
        ("int8", flipped(1), None, "1 of 3 images"),
        ("int8", TRAINED, None, None),
        ("fp16", flipped(0), TRAINED, "a: "),
    ],
)
def test_the_judgement(precision: Any, on_board: np.ndarray, here: np.ndarray | None, words: str | None) -> None:
    native = None if here is None else measured(here)
    reason = judge(measured(on_board), native, True, YARDSTICK, precision, NAMES)
    assert (reason is None) == (words is None)
    if words:
        assert reason is not None
        assert words in reason


def test_other_pixels_or_no_numbers_are_never_good() -> None:
    nothing = measured(np.full_like(TRAINED, np.nan))
    assert "pixels" in (judge(measured(TRAINED), None, False, YARDSTICK, "int8", NAMES) or "")
    assert "finite" in (judge(nothing, None, True, YARDSTICK, "int8", NAMES) or "")
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
    golden = [Golden(file=str(i), label="x", logits=(0.0,), pixels_sha256=sha256_of(b"")) for i in range(50)]
    chosen = [int(one.file) for one in rehearsing.evenly(golden, 5)]
    assert chosen == [0, 12, 24, 37, 49]
    assert len(rehearsing.evenly(golden, 99)) == 50
    assert len(rehearsing.evenly(golden, 1)) == 1
