"""Numbers to text: what is printed says what was meant, at every size."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.intervals import samples_to_bound
from edgecnn.numbers import duration, plain, rounded, unlike

FINITE = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(1e-9, 1e12)


@given(FINITE)
def test_plain_reads_back_as_the_same_number_without_an_exponent(value: float) -> None:
    assert float(plain(value)) == value
    assert "e" not in plain(value).lower()


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e6, "1000000"), (99.99999, "99.99999"), (1e-5, "0.00001"), (30.0, "30"), (1e22, "10000000000000000000000")],
)
def test_plain_examples(value: float, text: str) -> None:
    assert plain(value) == text


@given(POSITIVE, st.integers(1, 8))
def test_rounded_has_so_many_digits(value: float, digits: int) -> None:
    text = rounded(value, digits)
    assert "e" not in text
    assert len(text.replace(".", "").strip("0")) <= digits
    assert float(text) == pytest.approx(value, rel=0.5 * 10.0 ** (1 - digits) * (1 + 1e-9))


@given(POSITIVE, st.floats(-1e-3, 1e-3))
def test_a_bound_is_never_rounded_onto_or_across_its_budget(budget: float, off: float) -> None:
    value = budget * (1 + off)
    text = float(unlike(value, budget))
    assert (text > budget, text < budget) == (value > budget, value < budget)


@pytest.mark.parametrize(
    ("value", "text"), [(30.004, "30.004"), (30.0, "30"), (29.99996, "29.99996"), (12.3456, "12.35")]
)
def test_as_few_digits_as_tell_it_from_the_budget(value: float, text: str) -> None:
    assert unlike(value, 30.0) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "0.5 s"),
        (12, "12 s"),
        (119, "119 s"),
        (1380, "23 minutes"),
        (13_680, "3.8 hours"),
        (1.3816e11, "4,378 years"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(1e-6, 100, exclude_max=True), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_fewest_samples_of_which_the_largest_bounds_a_percentile(percent: float, confidence: float) -> None:
    """Checked in logarithms of exact fractions: powers of so many samples are too small for floats."""
    needed = samples_to_bound(percent, confidence)
    share, rest = Fraction(repr(percent)) / 100, 1 - Fraction(confidence)
    log = math.log1p(-float(1 - share)) if share > Fraction(1, 2) else math.log(share)
    assert needed * log <= math.log(rest) * (1 - 1e-9)
    assert needed == 1 or (needed - 1) * log >= math.log(rest) * (1 + 1e-9)
