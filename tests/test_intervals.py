"""Exact binomial statistics against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgecnn.intervals import binomial_cdf, clopper_pearson, mcnemar, paired_difference

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.floats(0.001, 0.999))
@settings(deadline=None)
def test_binomial_cdf_is_scipys(count: tuple[int, int], probability: float) -> None:
    assert binomial_cdf(*count, probability) == pytest.approx(stats.binom.cdf(*count, probability), abs=1e-9)


@given(counts, st.sampled_from([0.9, 0.95, 0.99]))
@settings(deadline=None, max_examples=40)
def test_clopper_pearson_is_scipys(count: tuple[int, int], confidence: float) -> None:
    expected = stats.binomtest(*count).proportion_ci(confidence, method="exact")
    assert clopper_pearson(*count, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.integers(0, 60), st.integers(0, 60))
@settings(deadline=None)
def test_mcnemar_is_the_sign_test(first: int, second: int) -> None:
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(100, 2000))
@settings(deadline=None)
def test_a_paired_interval_holds_the_difference_and_turns_with_its_sides(first: int, second: int, n: int) -> None:
    low, high = paired_difference(first, second, n)
    assert low - 1e-12 <= (first - second) / n <= high + 1e-12
    assert paired_difference(second, first, n) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize("n", [50, 360, 2000])
def test_no_flips_leave_what_so_few_images_can_hide(n: int) -> None:
    """Tango's interval has a closed form there: ± z² / (n + z²)."""
    z = stats.norm.ppf(0.975)
    bound = z**2 / (n + z**2)
    assert paired_difference(0, 0, n) == pytest.approx((-bound, bound), rel=1e-6)


@pytest.mark.parametrize(("first", "second"), [(0.01, 0.005), (0.03, 0.0), (0.002, 0.002), (0.1, 0.05)])
def test_the_paired_interval_covers_the_truth(first: float, second: float) -> None:
    draws = np.random.default_rng(0).multinomial(300, [first, second, 1 - first - second], 2000)
    intervals = {pair: paired_difference(*pair, 300) for pair in {(int(b), int(c)) for b, c, _ in draws}}
    covered = [intervals[int(b), int(c)] for b, c, _ in draws]
    share = np.mean([low <= first - second <= high for low, high in covered])
    assert share > 0.925  # a score interval: close to 95 %, not never below


def test_the_edges() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert clopper_pearson(0, 300, 0.9)[1] == pytest.approx(0.00994, abs=1e-4)
    assert binomial_cdf(-1, 5, 0.5) == 0
    assert binomial_cdf(5, 5, 0.5) == 1
    assert paired_difference(0, 0, 0) == (-1.0, 1.0)
