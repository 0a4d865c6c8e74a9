"""What is shown, what is refused and what is only said, of answers whose right judgement is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.artifact import Judged
from edgecnn.executed import Executed, ExecutedLayer
from edgecnn.judge import Yardstick, judge, judge_elsewhere, measure, most_new_flips, network_faults, unlike, verdict
from edgecnn.require import parse

CLASSES = ("crack", "dent", "good")
CRACK, DENT, GOOD = range(3)
HALVES = np.repeat((CRACK, GOOD), 150)
"""150 defects, 150 good parts."""


def answers(decisions: np.ndarray | list[int], classes: int = 3) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[np.asarray(decisions)] * 4


def judged(
    decided: np.ndarray, fp32: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None, **changes: Any
) -> Judged:
    known = {"classes": CLASSES, "good_class": "good", "loss_limit": 1.0, **changes}
    return judge(measure(answers(decided), answers(fp32), labels, groups), Yardstick(**known), "int8")


def turned(labels: np.ndarray, index: Any, into: int) -> np.ndarray:
    other = labels.copy()
    other[index] = into
    return other


@pytest.mark.parametrize("together", [1, 2, 5, 8])
def test_eight_more_missed_defects_are_refused_whatever_is_gained_elsewhere(together: int) -> None:
    """300 test images: missed defects 0 to 8, false alarms 8 to 0; no loss of top-1 at all."""
    fp32 = turned(HALVES, slice(292, 300), CRACK)
    variant = turned(HALVES, slice(0, 8), GOOD)
    found = judged(variant, fp32, HALVES, together=together)
    assert found.shown == "shown beyond"
    assert not found.acceptable
    assert any("misses 8 of 150 defects, fp32 0" in text for text in found.refused)


def test_a_lost_rare_class_is_never_silent() -> None:
    labels = np.concatenate([np.repeat((CRACK, GOOD), 500), np.full(5, DENT)])
    for images in range(1, 6):
        kept = labels[: 1000 + images]
        found = judged(turned(kept, kept == DENT, CRACK), kept, kept)
        assert found.shown != "shown within"
        assert any(f"recalls 0 of {images} of 'dent', fp32 {images}" in t for t in (*found.refused, *found.doubts))
    labels = np.concatenate([labels, np.full(7, DENT)])
    found = judged(turned(labels, labels == DENT, CRACK), labels, labels)
    assert any("recalls 0 of 12 of 'dent', fp32 12" in text for text in found.refused)


def test_agreement_of_80_percent_is_refused_where_shown_and_said_where_not() -> None:
    """Half of the flips make it right, half wrong: no loss."""
    for images, shown in ((10, "not shown"), (60, "shown beyond"), (300, "shown beyond")):
        labels, step = np.arange(images) % 3, np.arange(images) % 10
        fp32 = np.where(step == 0, (labels + 1) % 3, labels)
        variant = np.where(step == 5, (labels + 1) % 3, labels)
        found = judged(variant, fp32, labels, together=8)
        assert found.shown == shown
        assert any(
            f"decides 80.0% of {images} images as fp32 (wanted 98%)" in t for t in (*found.refused, *found.doubts)
        )


def test_a_loss_is_shown_within_by_its_upper_bound_and_says_how_many_images_that_takes() -> None:
    labels = np.arange(600) % 3
    assert judged(labels, labels, labels).shown == "shown within"
    few = judged(labels[:60], labels[:60], labels[:60])
    assert (few.shown, few.acceptable) == ("not shown", True)
    assert few.images_to_show is not None
    assert f"about {few.images_to_show} answered alike would show it" in few.too_few[0]
    enough = np.arange(few.images_to_show) % 3
    assert judged(enough, enough, enough).shown == "shown within"
    one_less = enough[:-1]
    assert judged(one_less, one_less, one_less).shown == "not shown"


def test_a_loss_beyond_the_limit_is_refused_where_shown() -> None:
    labels = np.arange(600) % 3
    found = judged(turned(labels, slice(0, 30), 0), labels, labels)
    assert any("loses 3.3 points of accuracy on 600 images (limit 1)" in text for text in found.refused)
    assert found.loss_bounds.low > 1
    maybe = judged(turned(labels, slice(0, 12), 0), labels, labels)
    assert maybe.shown == "not shown"
    assert any("loses 1.3 points" in text and "may be chance" in text for text in maybe.doubts)
    assert maybe.images_to_show is None


def test_a_strict_target_refuses_what_is_not_shown() -> None:
    labels = np.arange(60) % 3
    found = judged(labels, labels, labels, not_shown="refuse")
    assert not found.acceptable
    assert found.reason is not None
    assert "not shown to be within 1" in found.reason
    many = np.arange(600) % 3
    assert judged(many, many, many, not_shown="refuse").acceptable


def test_more_variants_at_once_take_more_images() -> None:
    labels = np.arange(60) % 3
    alone, among = (judged(labels, labels, labels, together=count).images_to_show for count in (1, 8))
    assert alone is not None
    assert among is not None
    assert alone < among


def test_images_of_one_part_are_one_piece_of_evidence() -> None:
    """Six exposures of each of 100 parts: no flip shows as much as 100 images without one, eight misses of two parts
    as little as two."""
    labels, groups = np.repeat(np.arange(100) % 3, 6), np.repeat(np.arange(100), 6)
    assert judged(labels, labels, labels).shown == "shown within"
    found = judged(labels, labels, labels, groups)
    assert (found.shown, found.independent) == ("not shown", 100)
    assert "600 images of 100 parts" in found.too_few[0]
    defects = np.repeat((CRACK, GOOD), 150)
    missing = turned(defects, slice(0, 8), GOOD)
    assert judged(missing, defects, defects).refused
    six_of_one = judged(missing, defects, defects, np.arange(300) // 6)
    assert not six_of_one.refused
    assert any("misses 8 of 150 defects" in text for text in six_of_one.doubts)


def test_collapse_is_measured_against_fp32() -> None:
    labels = np.arange(300) % 3
    collapsed = judged(np.zeros_like(labels), labels, labels)
    assert any("has collapsed: 100% of its decisions are one class, of fp32's 33%" in t for t in collapsed.refused)
    same = judged(np.zeros_like(labels), np.zeros_like(labels), labels)
    assert not same.refused
    found = measure(answers(np.zeros_like(labels)), answers(np.zeros_like(labels)), labels)
    (fault,) = network_faults(found, Yardstick(1.0, classes=CLASSES))
    assert "the network answers one class: fp32 already says 'crack' of all 300 images" in fault
    assert network_faults(measure(answers(labels), answers(labels), labels), Yardstick(1.0)) == ()
    one = np.zeros(10, np.int64)
    assert network_faults(measure(answers(one), answers(one), one), Yardstick(1.0)) == ()


def test_a_class_without_images_is_said() -> None:
    labels = np.repeat((CRACK, GOOD), 300)
    found = judged(labels, labels, labels)
    assert found.shown == "not shown"
    assert "there is no image of 'dent'" in found.too_few[0]


def test_fp32_is_judged_by_its_logits() -> None:
    labels = np.arange(12) % 3
    reference = answers(labels)
    for shift, shown in ((1e-5, "shown within"), (1e-2, "shown beyond"), (np.nan, "shown beyond")):
        logits = reference.copy()
        logits[0, 0] += shift
        found = judge(measure(logits, reference, labels), Yardstick(1.0, classes=CLASSES), "fp32")
        assert found.shown == shown
        assert found.acceptable == (shown == "shown within")
    assert "not finite" in found.refused[0]


def test_what_the_engine_ran_is_judged_too() -> None:
    labels = np.arange(600) % 3
    found, yardstick = measure(answers(labels), answers(labels), labels), Yardstick(1.0, classes=CLASSES)
    int8 = ExecutedLayer(name="conv", kind="", precision="int8", macs=80)
    kept = ExecutedLayer(name="head", kind="", precision="fp32", macs=20)
    ran = Executed(layers=(int8, kept))
    assert judge(found, yardstick, "int8", ran).acceptable
    required = Yardstick(1.0, classes=CLASSES, requirements=parse("int8>=90%"))
    refused = judge(found, required, "int8", ran)
    assert "int8 ran 80 % of the MACs, required >= 90 %" in refused.refused[0]
    assert refused.shown == "shown within"
    assert not refused.acceptable
    assert "ran none of its layers in int8" in judge(found, yardstick, "int8", Executed(layers=(kept,))).refused[0]
    assert judge(found, required, "fp16", ran).acceptable


def test_without_a_good_class_nothing_is_called_missed() -> None:
    labels = np.repeat((CRACK, DENT), 150)
    found = judged(turned(labels, slice(0, 20), GOOD), labels, labels, good_class=None)
    assert not any("misses" in text for text in (*found.refused, *found.doubts))
    assert any("recalls 130 of 150 of 'crack'" in text for text in found.refused)


def test_many_classes_are_counted_instead_of_listed() -> None:
    classes = tuple(f"c{index}" for index in range(40))
    labels = np.repeat(np.arange(40), 20)
    variant = np.where(np.arange(800) % 20 < 3, (labels + 1) % 40, labels)
    found = judge(measure(answers(variant, 40), answers(labels, 40), labels), Yardstick(1.0, classes=classes), "int8")
    assert len((*found.refused, *found.doubts)) < 12
    assert any("35 more classes" in text for text in (*found.refused, *found.doubts))


def test_errors_are_in_the_given_unit_and_bits_are_bits() -> None:
    reference = np.array([[3, 1], [0, 2]], np.float32)
    found = measure(reference + np.float32(0.5), reference, scale=0.25)
    assert (found.max_error, found.mean_error, found.rms_error) == (2, 2, 2)
    assert not found.bit_equal
    assert measure(reference, reference).bit_equal
    assert not measure(np.where(reference == 0, -0.0, reference).astype(np.float32), reference).bit_equal
    assert unlike(measure(np.full_like(reference, np.nan), reference), "int8", 1) is not None


def test_another_processor_may_repeat_this_machines_flips_and_no_others() -> None:
    trained, yardstick = answers([0, 1, 2]), Yardstick(1.0, classes=CLASSES)
    one, two = (measure(answers(decided), trained) for decided in ([1, 1, 2], [1, 2, 2]))
    names = ("a.png", "b.png", "c.png")
    assert judge_elsewhere(one, one.flipped, yardstick, "fp16", names) == ("same", None)
    found, reason = judge_elsewhere(two, one.flipped, yardstick, "fp16", names)
    assert found == "differs"
    assert "1 of 3 images" in (reason or "")
    assert "b.png: good instead of dent" in (reason or "")
    assert judge_elsewhere(one, one.flipped, yardstick, "fp32", names)[0] == "differs"


@pytest.mark.parametrize("images", [3, 16, 60])
@pytest.mark.parametrize("flips", [0, 1, 2, 3])
def test_int8_elsewhere_is_judged_by_one_rule(images: int, flips: int) -> None:
    trained, yardstick = [place % 3 for place in range(images)], Yardstick(1.0, classes=CLASSES)
    there = [(one + 1) % 3 if place < flips else one for place, one in enumerate(trained)]
    names = tuple(map(str, range(images)))
    found, text = judge_elsewhere(measure(answers(there), answers(trained)), None, yardstick, "int8", names)
    assert found == verdict(images, flips, yardstick.agreement)
    assert (text is None) == (found == "same")
    assert ("too little" in (text or "")) == (found == "too few")


@given(st.integers(1, 400), st.sampled_from([0.9, 0.95, 0.98, 0.99, 1.0]))
def test_the_number_of_flips_that_is_told_is_the_one_that_is_judged_by(images: int, agreement: float) -> None:
    most = most_new_flips("int8", images, agreement)
    assert verdict(images, most, agreement) != "differs"
    assert verdict(images, most + 1, agreement) == "differs"
