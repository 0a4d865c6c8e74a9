"""How many bits count is found over the data set; what does not fit is refused by name."""

from __future__ import annotations

import pytest

from edgecnn.data.depth import find_depth


def test_a_set_without_16_bits_decides_nothing() -> None:
    found = find_depth({})
    assert (found.bits, found.remark, found.unfit) == (None, None, {})


@pytest.mark.parametrize(
    ("peaks", "bits"),
    [([900, 1023], 10), ([700, 1024, 3000], 12), ([4096, 16383], 14), ([16384], 16), ([65535, 5000], 16)],
)
def test_the_brightest_image_decides(peaks: list[int], bits: int) -> None:
    found = find_depth({f"{number}.png": peak for number, peak in enumerate(peaks)})
    assert found.bits == bits
    assert found.unfit == {}
    assert found.remark is not None
    assert str(max(peaks)) in found.remark


def test_a_black_image_is_black_at_any_depth() -> None:
    assert find_depth({"a": 0, "b": 65535}).unfit == {}


def test_twelve_bits_among_sixteen_are_refused() -> None:
    found = find_depth({"a": 65535, "b": 60000, "c": 4000, "d": 3999})
    assert set(found.unfit) == {"c", "d"}
    assert "values up to 4000 among others of 16 bits" in found.unfit["c"]


def test_several_clipped_where_fewer_bits_end_are_refused() -> None:
    """Twelve bits among fourteen: a quarter of the range could be a dark image, ending twice at 4095 could not."""
    found = find_depth({"a": 16383, "b": 4095, "c": 4095, "d": 3000})
    assert set(found.unfit) == {"b", "c"}
    assert find_depth({"a": 16383, "b": 4095}).unfit == {}
