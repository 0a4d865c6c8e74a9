"""The one preprocessing: same pixels from a file, from bytes and from a frame, on every path."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgecnn.artifact import Preprocess
from edgecnn.errors import BadImage, UserError
from edgecnn.imaging import Preparer, decode_whole, prepare, prepare_frame, reduction
from tests.conftest import encode, picture

SPEC = Preprocess(height=24, width=32)
sizes = st.tuples(st.integers(1, 200), st.integers(1, 200))


@given(size=sizes, seed=st.integers(0, 9), fit=st.sampled_from(["stretch", "center-crop"]))
@settings(deadline=None, max_examples=60)
def test_a_lossless_file_and_its_frame_give_the_same_pixels(size: tuple[int, int], seed: int, fit: str) -> None:
    spec = Preprocess(height=24, width=32, fit=fit)
    frame = picture(seed, *size)
    assert np.array_equal(prepare(encode(frame, "PNG"), spec), prepare_frame(frame, spec))


@given(size=sizes, quality=st.integers(30, 95), grey=st.booleans())
@settings(deadline=None, max_examples=60)
def test_a_file_and_its_bytes_give_the_same_pixels(
    tmp_path_factory: pytest.TempPathFactory, size: tuple[int, int], quality: int, grey: bool
) -> None:
    frame = picture(1, *size)
    encoded = encode(frame[:, :, 0] if grey else frame, "JPEG", quality=quality)
    path = tmp_path_factory.mktemp("images") / "part.jpg"
    path.write_bytes(encoded)
    assert np.array_equal(prepare(path.read_bytes(), SPEC), prepare(encoded, SPEC))
    assert prepare(encoded, SPEC).shape == (24, 32, 3)


@given(first=sizes, second=sizes)
@settings(deadline=None, max_examples=40)
def test_reused_buffers_do_not_leak_from_one_image_into_the_next(
    first: tuple[int, int], second: tuple[int, int]
) -> None:
    files = [encode(picture(seed, *size), "JPEG") for seed, size in enumerate((first, second))]
    preparer = Preparer(SPEC)
    prepared = [preparer.prepare(file).copy() for file in files]
    assert all(np.array_equal(one, prepare(file, SPEC)) for one, file in zip(prepared, files, strict=True))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_the_scaled_decode_is_the_one_of_every_libjpeg_turbo(factor: int) -> None:
    """Pillow's decoder with the same scale gives the same pixels: no device needs ours to reproduce them."""
    encoded = encode(picture(3, 240, 320), "JPEG", quality=90)
    spec = Preprocess(height=240 // factor, width=320 // factor)
    reference = Image.open(io.BytesIO(encoded))
    reference.draft("RGB", (320 // factor, 240 // factor))
    assert np.array_equal(Preparer(spec).decode(encoded).pixels, np.asarray(reference))


def test_the_resize_is_antialiased() -> None:
    """A one-pixel chessboard, shrunk, is grey; a plain two-tap filter would keep its extremes."""
    board = np.indices((96, 96)).sum(0) % 2 * 255
    shrunk = prepare(encode(np.repeat(board[:, :, None], 3, 2).astype(np.uint8)), Preprocess(height=20, width=20))
    assert shrunk.min() > 100
    assert shrunk.max() < 155


def test_sixteen_bit_grey_keeps_its_range() -> None:
    ramp = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    pixels = decode_whole(encode(ramp))
    assert pixels.min() == 0
    assert pixels.max() == 255
    assert abs(float(pixels.mean()) - 127) < 2


def test_cmyk_palette_alpha_and_grey_files_become_rgb() -> None:
    rgb = Image.fromarray(picture(4))
    for mode, image_format in (("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("L", "PNG"), ("1", "PNG")):
        stream = io.BytesIO()
        rgb.convert(mode).save(stream, image_format)
        assert prepare(stream.getvalue(), SPEC).shape == (24, 32, 3), mode


@given(cut=st.floats(0.02, 0.9))
@settings(deadline=None, max_examples=40)
def test_a_truncated_jpeg_is_refused(cut: float) -> None:
    encoded = encode(picture(5, 90, 120), "JPEG", quality=90)
    with pytest.raises(BadImage):
        prepare(encoded[: int(len(encoded) * cut)], SPEC)


def test_a_truncated_png_is_refused() -> None:
    encoded = encode(picture(5, 90, 120))
    with pytest.raises(BadImage, match="damaged"):
        prepare(encoded[: len(encoded) // 2], SPEC)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [(b"", "0 bytes"), (b"just a text\n", "not an image"), (b"\xff\xd8\xff not really", "not a readable JPEG")],
)
def test_what_is_no_image_is_refused_with_the_reason(encoded: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        prepare(encoded, SPEC)


def test_an_animation_is_refused() -> None:
    frames = [Image.fromarray(picture(seed)) for seed in (1, 2, 3)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(BadImage, match="3 frames"):
        prepare(stream.getvalue(), SPEC)


@given(data=st.binary(max_size=400))
@settings(deadline=None, max_examples=80)
def test_any_bytes_end_in_pixels_or_a_bad_image(data: bytes) -> None:
    for encoded in (data, b"\xff\xd8\xff" + data, b"\x89PNG\r\n\x1a\n" + data):
        try:
            assert prepare(encoded, SPEC).shape == (24, 32, 3)
        except BadImage as error:
            assert "\n" not in str(error)


def test_a_huge_image_is_refused_from_its_header() -> None:
    stream = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(stream, "PNG")
    with pytest.raises(BadImage, match="refused|exceeds"):
        prepare(stream.getvalue(), SPEC)


def test_a_frame_of_another_kind_is_refused() -> None:
    with pytest.raises(UserError, match="float32"):
        prepare_frame(np.zeros((8, 8, 3), np.float32), SPEC)  # type: ignore[arg-type]


@given(height=st.integers(1, 5000), width=st.integers(1, 5000))
def test_reduction_never_goes_below_the_input_size(height: int, width: int) -> None:
    factor = reduction(height, width, SPEC)
    assert factor in (1, 2, 4, 8)
    assert factor == 1 or (height >= factor * SPEC.height and width >= factor * SPEC.width)


def test_center_crop_takes_the_middle() -> None:
    frame = np.zeros((60, 100, 3), np.uint8)
    frame[:, 20:80] = 200
    pixels = prepare_frame(frame, Preprocess(height=16, width=16, fit="center-crop", crop=1.0))
    assert (pixels[1:-1, 1:-1] == 200).all()
    assert pixels.min() > 100


def test_a_phones_mpo_is_its_first_picture() -> None:
    stream = io.BytesIO()
    first, second = Image.fromarray(picture(1)), Image.fromarray(picture(2))
    first.save(stream, "MPO", save_all=True, append_images=[second])
    encoded = stream.getvalue()
    assert np.abs(prepare(encoded, SPEC).astype(int) - prepare_frame(decode_whole(encoded), SPEC)).max() <= 12


@given(size=sizes, seed=st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_grey_gives_the_same_pixels_as_its_three_equal_channels(size: tuple[int, int], seed: int) -> None:
    grey = picture(seed, *size)[:, :, 0]
    coloured = np.repeat(grey[:, :, None], 3, axis=2)
    assert np.array_equal(prepare_frame(grey, SPEC), prepare_frame(coloured, SPEC))


@pytest.mark.parametrize("shape", [(0, 10, 3), (10, 0, 3), (0, 0), (0, 10)])
def test_a_frame_without_pixels_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="holds no pixels"):
        prepare_frame(np.zeros(shape, np.uint8), Preprocess(height=8, width=8))
