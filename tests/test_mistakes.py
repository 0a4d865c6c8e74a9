"""Mistakes are counted as they were made, each with an interval that knows of parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecnn.artifact import Bundle, Check, load_bundle
from edgecnn.evaluate import compare
from edgecnn.judge import Yardstick
from edgecnn.mistakes import mistakes_of
from tests.bench.conftest import write_tiny_bundle


def _check(decided: list[int], labels: list[int], groups: list[int] | None = None) -> Check:
    logits = np.eye(3, dtype=np.float32)[decided]
    names = [f"{number}.png" for number in range(len(labels))]
    yardstick = Yardstick(1.0, classes=("crack", "good", "spot"), good_class="good")
    parts = None if groups is None else np.array(groups, np.int64)
    return compare(logits, logits, np.array(labels), names, yardstick, "fp32", groups=parts)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    found = load_bundle(write_tiny_bundle(tmp_path / "bundle"))
    return found.model_copy(update={"classes": ("crack", "good", "spot"), "good_class": "good"})


def test_counts_are_those_of_the_decisions(bundle: Bundle) -> None:
    found = mistakes_of(bundle, _check([0, 1, 2, 1, 0, 1, 2, 0], [0, 0, 2, 2, 1, 1, 2, 0]))
    assert (found.right.count, found.right.of) == (5, 8)
    assert found.missed is not None
    assert (found.missed.count, found.missed.of) == (2, 6)
    assert found.false_alarms is not None
    assert (found.false_alarms.count, found.false_alarms.of) == (1, 2)
    assert found.weakest is not None
    assert found.weakest[0] == "good"
    assert found.weakest[1].count == 1
    for share in (found.right, found.missed, found.false_alarms, found.weakest[1]):
        assert share.interval.low <= share.value <= share.interval.high


def test_images_of_one_part_make_the_intervals_wider(bundle: Bundle) -> None:
    labels, decided = [0] * 24 + [1] * 24, [0] * 18 + [1] * 6 + [1] * 24
    apart = mistakes_of(bundle, _check(decided, labels))
    together = mistakes_of(bundle, _check(decided, labels, [number // 6 for number in range(48)]))
    assert apart.missed is not None
    assert together.missed is not None
    assert together.missed.interval.high > apart.missed.interval.high


def test_a_bundle_that_records_no_intervals_has_them_of_independent_images(bundle: Bundle) -> None:
    check = _check([0, 1, 1], [0, 0, 1]).model_copy(
        update={"missed_interval": None, "false_alarms_interval": None, "recall_intervals": {}}
    )
    found = mistakes_of(bundle, check)
    assert found.missed is not None
    assert found.missed.interval.high == pytest.approx(0.987, abs=1e-3)


def test_no_good_class_or_too_many_classes_is_no_count(bundle: Bundle) -> None:
    check = _check([0, 1, 1], [0, 0, 1])
    assert mistakes_of(bundle.model_copy(update={"good_class": None}), check).missed is None
    whole = mistakes_of(bundle, check.model_copy(update={"confusion": None}))
    assert (whole.missed, whole.weakest, whole.right.count) == (None, None, 2)
