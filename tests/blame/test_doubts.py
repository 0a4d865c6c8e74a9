"""When labelled images speak against a network: the rule, and how often it is wrong, through the real functions."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecnn.artifact import Preprocess
from edgecnn.blame.doubts import Other, doubts, judge, judged, other_orders
from edgecnn.data import Item

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "doubts.py"
CLASSES = ("crack", "good", "spot")


def items(*counts: int) -> list[Item]:
    return [
        Item(Path(f"{label}/{i}"), f"{label}/{i}", label, f"{(i * 7919 + label) % 10007:05d}")
        for label, count in enumerate(counts)
        for i in range(count)
    ]


def test_the_judged_images_are_balanced_as_far_as_the_rarest_class_goes_and_then_filled_up() -> None:
    def counts(found: list[Item]) -> list[int]:
        return np.bincount([item.label for item in found]).tolist()

    assert counts(judged(items(300, 40, 50), 240)) == [150, 40, 50]
    assert counts(judged(items(300, 40, 50), 240)[:120]) == [40, 40, 40]
    assert counts(judged(items(300, 300, 300), 240)) == [80, 80, 80]
    assert counts(judged(items(500, 8), 240)) == [232, 8]
    assert judged(items(30, 40), 12) == judged(items(30, 40)[::-1], 12)


def test_a_guess_is_seen_where_one_class_is_rare() -> None:
    """8 cracks, 232 good ones: what guesses, and what says 'good' of nearly all, is in doubt; what is right is not."""
    labels = np.repeat([0, 1], [8, 232])
    half = np.where(np.arange(240) % 2 == 0, labels, 1 - labels)
    (doubt,) = judge(labels, half, [], CLASSES[:2])
    assert doubt.stage == "answers"
    assert "50.0% of 240 labelled images right, 50.0% of a class on average, hardly more" in doubt.words
    nearly = np.where(np.arange(240) == 100, 0, 1)
    assert [doubt.stage for doubt in judge(labels, nearly, [], CLASSES[:2])] == ["answers"]
    rng = np.random.default_rng(0)
    for _ in range(100):
        decided = np.where(rng.random(240) < 0.9, labels, 1 - labels)  # right less often than 'good' is the label
        assert judge(labels, decided, [], CLASSES[:2]) == ()


def test_a_guessing_network_is_doubted_by_all_images_and_another_reading_by_balanced_ones(tmp_path: Path) -> None:
    found = []
    for number in range(108):
        label, path = int(number >= 8), tmp_path / f"{number}.png"
        Image.new("RGB", (8, 8), (200 * label, number, number)).save(path)
        found.append(Item(path, path.name, label, f"{number * 7919 % 10007:05d}"))
    spec = Preprocess(width=8, height=8, mean=(0, 0, 0), std=(1, 1, 1))

    def told(score: Callable[[np.ndarray], np.ndarray]) -> list[str]:
        def answer(pixels: np.ndarray) -> np.ndarray:
            means = score(pixels.astype(np.float64).mean((1, 2)))
            return np.stack([-means, means], 1).astype(np.float32)

        return [doubt.stage for doubt in doubts(answer, spec, CLASSES[:2], found, 1)]

    assert told(lambda mean: mean[:, 0] - 100) == []
    assert told(lambda mean: np.round(mean[:, 1]) % 2 - 0.5) == ["answers"]
    assert told(lambda mean: 100 - mean[:, 0]) == ["class order"]


def answers_of(decided: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[decided]


def other(decided: np.ndarray, loss: float = 0.0) -> Other:
    return Other("fit", "stretch", f"another with loss {loss:g}", decided, loss)


def test_a_gain_counts_where_it_is_shown_to_be_large() -> None:
    labels = np.arange(60) % 3
    wrong = labels.copy()
    wrong[:30] = (wrong[:30] + 1) % 3  # half right
    slightly = wrong.copy()
    slightly[:4] = labels[:4]  # seven points more: not shown on 60 images
    assert judge(labels, wrong, [other(slightly)], CLASSES) == ()
    (doubt,) = judge(labels, wrong, [other(slightly), other(labels)], CLASSES)
    assert doubt.stage == "fit"
    assert "50.0% of 60 labelled images right, 100.0% then" in doubt.words
    (doubt,) = judge(labels, wrong, [other(labels, 0.5), other(labels, 0.1)], CLASSES)
    assert "another with loss 0.1" in doubt.words


@pytest.mark.parametrize(("classes", "images"), [(2, 18), (3, 12), (6, 12), (11, 22)])
def test_a_network_that_gets_no_more_right_than_the_commonest_class_is_in_doubt(classes: int, images: int) -> None:
    names = [f"part {chr(97 + i)}" for i in range(classes)]
    labels = np.arange(images) % classes
    decided = np.where(np.arange(images) < images // classes, labels, (labels + 1) % classes)
    assert [doubt.stage for doubt in judge(labels, decided, [], names)] == ["answers"]
    alone = np.zeros(4, np.int64)  # one class alone is in doubt on however few images
    assert [doubt.stage for doubt in judge(np.arange(4) % 2, alone, [], names)] == ["answers"]
    assert judge(np.arange(4) % 2, np.array([0, 0, 0, 1]), [], names) == ()


@pytest.mark.parametrize("classes", [2, 3, 11])
def test_an_order_that_was_fitted_to_chance_is_no_order(classes: int) -> None:
    """The best of K! orders always fits the images that it was chosen by better: it must hold for others."""
    rng = np.random.default_rng(classes)
    named = 0
    for _ in range(40):
        labels = np.arange(5 * classes) % classes
        decided = rng.integers(0, classes, len(labels))
        names = [f"part {chr(97 + i)}" for i in range(classes)]
        found = judge(labels, decided, other_orders(labels, answers_of(decided, classes), names), names)
        named += bool(found) and found[0].stage == "class order"
    assert named <= 2


def test_a_shift_by_one_place_is_found_with_one_image_a_class() -> None:
    """As of networks with a class for the background before the others."""
    names = [f"class {i:04d}" for i in range(1000)]
    labels = np.arange(0, 1000, 5)
    decided = np.where(np.arange(200) % 3 > 0, labels + 1, labels + 7) % 1000
    (doubt,) = judge(labels, decided, other_orders(labels, answers_of(decided, 1000), names), names)
    assert "class 0999, class 0000, class 0001, … (a place later)" in doubt.words


def test_any_order_of_many_classes_is_found_and_told_in_one_line() -> None:
    rng = np.random.default_rng(0)
    names = [f"class {i:04d}" for i in range(1000)]
    labels = np.arange(3000) % 1000
    decided = rng.permutation(1000)[labels]
    (doubt,) = judge(labels, decided, other_orders(labels, answers_of(decided, 1000), names), names)
    assert doubt.stage == "class order"
    assert "classes stand elsewhere (such as: output 0 is" in doubt.words
    assert "\n" not in doubt.words
    assert len(doubt.words) < 300


LIMITS: dict[str, Callable[[float], bool]] = {
    "right": lambda rate: rate <= 0.02,
    "right, others as good": lambda rate: rate <= 0.02,
    "order": lambda rate: rate >= 0.98,
    "preprocessing": lambda rate: rate >= 0.98,
    "one class": lambda rate: rate == 1.0,
}


@pytest.mark.parametrize("case", LIMITS)
def test_a_right_network_is_left_alone_and_a_wrong_one_is_caught(case: str) -> None:
    """Rates over drawn decisions; the whole table is benchmarks/results/doubts.jsonl."""
    simulation = runpy.run_path(str(BENCHMARK))
    each = 40 if case == "preprocessing" else 14  # which costs a third of what is right
    found = simulation["rates"](case, classes=3, each=each, top1=0.95, draws=100)
    assert LIMITS[case](found.warned)
    if not case.startswith("right"):
        assert found.named >= 0.95
