"""The two kernels: exactly what they say, and as near to the truth as Pillow's."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgecnn.artifact import Preprocess
from edgecnn.documents import sha256_of
from edgecnn.imaging import Preparer, prepare, prepare_frame
from edgecnn.imaging.kernels import PARTS, Span, Workspace, fit, reduce, taps
from tests.conftest import encode, picture
from tests.imaging.files import jpeg, stored

sides = st.integers(1, 90)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@given(height=sides, width=sides, factor=st.sampled_from([2, 4, 8]), grey=st.booleans())
@settings(deadline=None, max_examples=60)
def test_reducing_is_the_rounded_mean_of_each_block(height: int, width: int, factor: int, grey: bool) -> None:
    """The last pixel is repeated where a block is partial; Pillow's `reduce` to the bit where none is."""
    pixels = noise(1, height, width) if grey else noise(1, height, width, 3)
    edges = ((0, -height % factor), (0, -width % factor), (0, 0))[: pixels.ndim]
    padded = np.pad(pixels, edges, mode="edge")
    found = reduce(pixels, factor, Workspace())
    assert np.array_equal(found, np.asarray(Image.fromarray(padded).reduce(factor)))


def test_reducing_a_frame_of_many_strips_is_that_of_one() -> None:
    pixels = noise(2, 1203, 2500, 3)
    padded = np.pad(pixels, ((0, 5), (0, 4), (0, 0)), mode="edge")
    assert np.array_equal(reduce(pixels, 8, Workspace()), np.asarray(Image.fromarray(padded).reduce(8)))


@given(
    length=st.integers(1, 300),
    factor=st.sampled_from([1, 2, 4, 8]),
    target=st.integers(1, 120),
    cut=st.floats(0, 0.6),
    shift=st.floats(0, 1),
)
@settings(deadline=None, max_examples=120)
def test_the_weights_are_the_triangle_to_a_part_of_256(
    length: int, factor: int, target: int, cut: float, shift: float
) -> None:
    whole = length * factor * PARTS
    extent = max(1, int(whole * (1 - cut)))
    span = Span(int((whole - extent) * shift), extent)
    found = taps(length, factor, span, target)
    assert (found.weight.sum(axis=0) == 256).all()
    assert found.index.min() >= 0
    assert found.index.max() < length
    reach = max(Fraction(1), Fraction(extent, factor * PARTS * target))
    for place in {0, target // 2, target - 1}:
        centre = (span.start + (place + Fraction(1, 2)) * Fraction(extent, target)) / (factor * PARTS)
        exact = [max(Fraction(0), 1 - abs(at + Fraction(1, 2) - centre) / reach) for at in range(length)]
        given_ = np.zeros(length)
        np.add.at(given_, found.index[:, place], found.weight[:, place])
        total = sum(exact)
        assert total > 0
        assert max(abs(float(256 * one / total) - got) for one, got in zip(exact, given_, strict=True)) < 1


@given(height=st.integers(20, 120), width=st.integers(20, 120), channels=st.sampled_from([1, 3]))
@settings(deadline=None, max_examples=40)
def test_fitting_is_pillows_antialiased_bilinear_to_a_rounding(height: int, width: int, channels: int) -> None:
    pixels = noise(3, height, width, channels)
    down, across = taps(height, 1, Span(0, height * PARTS), 32), taps(width, 1, Span(0, width * PARTS), 40)
    found = fit(pixels, down, across, Workspace())
    image = Image.fromarray(pixels if channels == 3 else pixels[:, :, 0])
    theirs = np.asarray(image.resize((40, 32), Image.Resampling.BILINEAR)).reshape(32, 40, channels)
    error = np.abs(found.astype(int) - theirs)
    assert error.max() <= 3
    assert error.mean() < 0.7


def test_a_picture_of_one_colour_keeps_it() -> None:
    for value in (0, 1, 127, 255):
        frame = np.full((1203, 961, 3), value, np.uint8)
        assert (prepare_frame(frame, Preprocess(height=224, width=224)) == value).all()


def test_turned_pixels_need_no_copy_first() -> None:
    pixels, work = noise(4, 60, 80, 3), Workspace()
    down, across = taps(60, 1, Span(0, 60 * PARTS), 24), taps(80, 1, Span(0, 80 * PARTS), 32)
    plain = fit(pixels, down, across, work).copy()
    view = np.ascontiguousarray(pixels[::-1, ::-1])[::-1, ::-1]
    assert np.array_equal(fit(view, down, across, work), plain)


def test_every_processor_gives_these_pixels() -> None:
    """Whole numbers in, whole numbers out: the hashes hold on x86-64 and on an emulated Cortex-A72."""
    y, x = np.mgrid[0:961, 0:1283]
    frame = np.stack([(x * 7 + y * 3) % 256, (x * y) % 251, (x // 5 + y * 11) % 256], axis=2).astype(np.uint8)
    found = {
        fit_: sha256_of(prepare_frame(frame, Preprocess(height=224, width=224, fit=fit_, crop=crop)).tobytes())[:16]
        for fit_, crop in (("stretch", 1.0), ("center-crop", 0.875))
    }
    assert found == {"stretch": "7623ff1610480ad9", "center-crop": "9e4d3c0e0bd951bf"}


def shaded(seed: int, height: int, width: int) -> np.ndarray:
    """A picture with detail of several pixels, as a lens leaves it."""
    grain = np.random.default_rng(seed).normal(0, 40, (height // 8 + 2, width // 8 + 2, 3))
    small = np.clip(picture(seed, *grain.shape[:2]) + grain, 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", [(480, 640), (481, 641), (960, 1280), (961, 1283), (963, 1287), (1200, 1601)])
def test_prepared_pixels_are_near_the_whole_pictures(size: tuple[int, int]) -> None:
    """Against the whole JPEG through an antialiased bilinear resize: odd sides as even ones."""
    spec = Preprocess(height=224, width=224)
    frame = shaded(1, *size)
    encoded = encode(frame, "JPEG", quality=90)
    with Image.open(io.BytesIO(encoded)) as image:
        truth = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(prepare(encoded, spec) - truth).mean() <= 1.7
    assert np.abs(prepare_frame(frame, spec) - truth).mean() <= 1.7


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize(("size", "limit"), [((960, 1280), 0.5), ((961, 1283), 1.3)], ids=str)
def test_a_turned_jpeg_differs_from_its_frame_by_compression_only(
    tag: int, size: tuple[int, int], limit: float
) -> None:
    """Of odd sides the blocks of a mirrored file lie elsewhere than the frame's: that, too, is less than 1.3 levels."""
    spec = Preprocess(height=224, width=224)
    frame = shaded(2, *size)
    expected = prepare_frame(frame, spec).astype(int)
    encoded = jpeg(np.ascontiguousarray(stored(frame, tag)), tag)
    assert np.abs(prepare(encoded, spec) - expected).mean() <= limit


def test_a_frames_offset_is_that_of_its_orientation() -> None:
    preparer = Preparer(Preprocess(height=20, width=20))
    for tag, (top, left) in {1: (0, 0), 2: (0, 1), 3: (3, 1), 4: (3, 0), 6: (0, 1), 8: (3, 0)}.items():
        reduced = preparer.decode(jpeg(np.ascontiguousarray(stored(picture(1, 81, 83), tag)), tag))
        assert (reduced.factor, reduced.top, reduced.left) == (4, top, left), tag
