"""Resizes of other libraries: within a level of the library itself, where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn.blame.resizes import resize

SIZES = [((75, 110), (32, 32)), ((60, 40), (32, 48)), ((30, 50), (64, 64)), ((97, 97), (24, 96)), ((33, 64), (32, 32))]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize("how", ["linear", "cubic", "area", "nearest"])
def test_opencv(how: str, source: tuple[int, int], target: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    pixels = noise(*source)
    flag = getattr(cv2, f"INTER_{how.upper()}")
    theirs = cv2.resize(pixels, target[::-1], interpolation=flag)
    ours = resize(pixels, *target, f"opencv-{how}")  # type: ignore[arg-type]
    assert np.abs(ours.astype(int) - theirs).max() <= (0 if how == "nearest" else 1)


@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
def test_torch_without_antialias(how: str, source: tuple[int, int], target: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    pixels = noise(*source)
    values = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    theirs = torch.nn.functional.interpolate(values, target, mode=how, align_corners=False)[0].permute(1, 2, 0)
    ours = resize(pixels, *target, how, antialias=False)  # type: ignore[arg-type]
    assert np.abs(ours - theirs.clamp(0, 255).numpy()).max() <= 1


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.integers(1, 40))
@settings(deadline=None, max_examples=40)
def test_an_even_image_stays_even(height: int, width: int, tall: int, wide: int) -> None:
    pixels = np.full((height, width, 3), 77, np.uint8)
    for how in ("opencv-linear", "opencv-cubic", "opencv-area", "opencv-nearest", "nearest", "bilinear", "lanczos"):
        found = resize(pixels, tall, wide, how)  # type: ignore[arg-type]
        assert found.shape == (tall, wide, 3)
        assert (found == 77).all()
