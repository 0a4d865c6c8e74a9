"""The order of classes: what it may be, and one line for it however many there are."""

from __future__ import annotations

import numpy as np
import pytest

from edgecnn.blame.orders import closest_order, order_words, usual_orders
from edgecnn.data.names import sorts_two_ways

NUMBERS = tuple(sorted(str(number) for number in range(1, 12)))
MANY = tuple(f"class {number:04d}" for number in range(1000))


def test_numbers_sort_two_ways_and_words_one() -> None:
    assert sorts_two_ways(NUMBERS)
    assert usual_orders(NUMBERS)["sorted by number"] == tuple(str(number) for number in range(1, 12))
    assert not sorts_two_ways(("crack", "good", "spot"))
    assert not sorts_two_ways(("class01", "class02", "class10"))
    assert sorts_two_ways(("class1", "class2", "class10"))


def test_a_short_order_is_said_whole_and_how_it_is_sorted() -> None:
    assert order_words(("crack", "good", "spot"), ("spot", "crack", "good")) == "spot, crack, good (a place later)"
    assert "(sorted by number)" in order_words(NUMBERS, usual_orders(NUMBERS)["sorted by number"])


@pytest.mark.parametrize("seed", range(3))
def test_a_permutation_of_a_thousand_classes_is_one_short_line(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(1000)
    line = order_words(MANY, [MANY[i] for i in order])
    assert "of 1,000 classes stand elsewhere (such as: output 0 is " in line
    assert "\n" not in line
    assert len(line) < 200
    assert order_words(MANY, MANY[::-1]) == "class 0999, class 0998, class 0997, … (the other way round)"


def test_the_closest_pairs_are_taken_first_and_each_once() -> None:
    rng = np.random.default_rng(0)
    for classes in (2, 5, 40):
        order = rng.permutation(classes)
        distance = rng.uniform(1, 2, (classes, classes))
        distance[order, np.arange(classes)] = rng.uniform(0, 0.5, classes)
        assert closest_order(distance) == tuple(order)
    assert sorted(closest_order(np.zeros((4, 4)))) == [0, 1, 2, 3]
    assert sorted(closest_order(rng.uniform(size=(9, 9)))) == list(range(9))
