"""Observers: ranges from histograms, and the histograms themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn.quantize.observe import BINS, OBSERVERS, Histogram, load_histograms, observe, save_histograms


def histogram_of(values: np.ndarray, parts: int = 4) -> Histogram:
    """Observed as if each part were an image's tensor."""
    pieces = iter(np.array_split(values.astype(np.float32), parts))
    images = np.zeros((parts, 1, 1, 3), np.uint8)
    return observe(lambda image: {"x": next(pieces)}, images)["x"]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(-5, 5), st.floats(0.01, 10))
def test_a_histogram_keeps_the_extremes_the_count_and_the_shape(seed: int, centre: float, spread: float) -> None:
    values = np.random.default_rng(seed).normal(centre, spread, 4000)
    found = histogram_of(values)
    assert (found.low, found.high) == (np.float32(values.min()), np.float32(values.max()))
    assert found.counts.sum() == 4000
    edges = np.linspace(found.low, found.high, BINS + 1)
    below = found.counts.cumsum()[BINS // 2 - 1]
    assert abs(below - (values < edges[BINS // 2]).sum()) <= 60


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_every_observer_stays_within_the_extremes_and_holds_most_values(seed: int, rectified: bool) -> None:
    values = np.random.default_rng(seed).normal(0, 1, 4000)
    values = np.maximum(values, 0) if rectified else values
    found = histogram_of(values)
    step = (found.high - found.low) / BINS
    for name, observer in OBSERVERS.items():
        low, high = observer(found)
        assert found.low - step <= low < high <= found.high + step, name
        assert ((values >= low - step) & (values <= high + step)).mean() > 0.9, name


def test_clipping_observers_leave_a_lone_outlier_out_and_min_max_does_not() -> None:
    values = np.concatenate([np.random.default_rng(0).uniform(0, 1, 40_000), [50.0]])
    found = histogram_of(values)
    assert OBSERVERS["min-max"](found)[1] == 50
    assert OBSERVERS["percentile 99.99"](found)[1] < 25
    assert 25 < OBSERVERS["least squared error"](found)[1] < 49, "the outlier's own error counts too"


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_a_constant_tensor_has_a_range(value: float) -> None:
    found = histogram_of(np.full(100, value))
    for observer in OBSERVERS.values():
        low, high = observer(found)
        assert np.isfinite([low, high]).all()
        assert low <= max(value, 0)
        assert high >= min(value, 0)


def test_histograms_come_back_from_disk(tmp_path: Path) -> None:
    made = {"a": histogram_of(np.arange(100.0)), "b": histogram_of(-np.arange(50.0))}
    save_histograms(made, tmp_path / "h.npz")
    back = load_histograms(tmp_path / "h.npz")
    assert back.keys() == made.keys()
    for name in made:
        assert np.array_equal(back[name].counts, made[name].counts)
        assert (back[name].low, back[name].high) == (made[name].low, made[name].high)


def test_every_channel_is_seen_where_channels_lie_last() -> None:
    values = np.zeros((1, 112, 112, 32), np.float32)
    values[..., 5] = 1.0
    (found,) = observe(lambda image: {"x": values}, np.zeros((1, 2, 2, 3), np.uint8)).values()
    assert found.counts[-1] / found.counts.sum() == pytest.approx(1 / 32, rel=0.05)


@settings(max_examples=60, deadline=None)
@given(st.integers(20, 160), st.integers(20, 160), st.sampled_from([16, 24, 96, 105, 210]), st.booleans())
def test_every_channel_row_and_column_is_seen(height: int, width: int, channels: int, last: bool) -> None:
    """Whichever axis lies last, all its places are met, and about equally often."""
    shape = (1, height, width, channels) if last else (1, channels, height, width)
    for axis in range(1, 4):
        numbers = np.arange(shape[axis], dtype=np.float32).reshape([-1 if one == axis else 1 for one in range(4)])
        values = np.broadcast_to(numbers, shape)
        (found,) = observe(lambda image, values=values: {"x": values}, np.zeros((1, 2, 2, 3), np.uint8)).values()
        seen = found.counts[found.counts > 0]
        assert len(seen) == shape[axis]
        assert seen.max() <= 2 + 2 * seen.min()
