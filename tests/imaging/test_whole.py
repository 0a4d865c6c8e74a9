"""Files of 16 bits a channel: every bit is read, and as many count as was decided."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from edgecnn.artifact import Preprocess
from edgecnn.errors import BadImage
from edgecnn.imaging import MAX_PIXELS, Preparer, bits_of, decode_whole, prepare, prepare_frame
from edgecnn.imaging.whole import load
from tests.conftest import encode
from tests.imaging.files import png16, tiff16

VALUES = np.random.default_rng(0).integers(0, 65536, (37, 53, 4)).astype(np.uint16)
COLOUR = VALUES[:, :, :3]
FILES: dict[str, tuple[Callable[[], bytes], np.ndarray]] = {
    "grey png": (lambda: png16(VALUES[:, :, 0]), VALUES[:, :, 0]),
    "grey png with alpha": (lambda: png16(VALUES[:, :, :2]), VALUES[:, :, 0]),
    "png": (lambda: png16(COLOUR), COLOUR),
    "png with alpha": (lambda: png16(VALUES), COLOUR),
    "grey tiff": (lambda: encode(VALUES[:, :, 0], "TIFF"), VALUES[:, :, 0]),
    "grey tiff, compressed": (lambda: encode(VALUES[:, :, 0], "TIFF", compression="tiff_lzw"), VALUES[:, :, 0]),
    "tiff": (lambda: tiff16(COLOUR), COLOUR),
    "tiff, big-endian": (lambda: tiff16(COLOUR, ">"), COLOUR),
    "tiff, compressed": (lambda: tiff16(COLOUR, compressed=True), COLOUR),
    "tiff, big-endian, compressed": (lambda: tiff16(COLOUR, ">", compressed=True), COLOUR),
    "pgm": (lambda: b"P5 53 37 65535 " + VALUES[:, :, 0].astype(">u2").tobytes(), VALUES[:, :, 0]),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_bit_is_read(kind: str) -> None:
    write, values = FILES[kind]
    read = load(write())
    assert read.dtype == np.uint16
    assert np.array_equal(read, values)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_as_many_bits_count_as_were_decided(kind: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = VALUES >> (16 - bits)
    monkeypatch.setattr(f"{__name__}.VALUES", values)
    monkeypatch.setattr(f"{__name__}.COLOUR", values[:, :, :3])
    encoded = FILES[kind][0]()
    upper = values >> (bits - 8)
    expected = np.repeat(upper[:, :, :1], 3, 2) if "grey" in kind or kind == "pgm" else upper[:, :, :3]
    spec = Preprocess(height=20, width=24, bits=bits)
    assert np.array_equal(decode_whole(encoded, bits), expected)
    assert np.array_equal(prepare(encoded, spec), prepare_frame(expected.astype(np.uint8), spec))
    pixels, peak = Preparer(Preprocess(height=20, width=24)).probe(encoded)
    assert peak is not None
    assert bits_of(peak) == bits
    assert np.array_equal(pixels, prepare(encoded, spec))


def test_values_beyond_what_was_decided_are_refused() -> None:
    with pytest.raises(BadImage, match="have 12 significant bits"):
        decode_whole(png16(COLOUR), 12)


def test_a_dark_image_is_not_judged_by_itself_where_it_was_decided() -> None:
    assert int(decode_whole(png16(COLOUR >> 6), 16).max()) == 3


@pytest.mark.parametrize("values", [VALUES[:, :, 0] >> 4, COLOUR >> 4], ids=["grey", "colour"])
def test_twelve_bits_are_not_taken_for_sixteen(values: np.ndarray) -> None:
    with pytest.raises(BadImage, match=r"values up to 40\d\d: a camera's"):
        decode_whole(png16(values))


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "PPM", "JPEG"])
def test_there_is_one_limit_of_size(image_format: str) -> None:
    """Pillow's own lies below, and refuses at twice as much."""
    side = 9_700
    assert 89_478_485 < side * side < MAX_PIXELS
    mode = "L" if image_format == "JPEG" else "1"
    encoded = encode_blank(mode, side, side, image_format)
    assert prepare(encoded, Preprocess(height=8, width=8)).shape == (8, 8, 3)
    for height, width in ((10_100, 10_000), (20_000, 20_000)):
        with pytest.raises(BadImage, match="pixels.* refused"):
            prepare(encode_blank(mode, height, width, image_format), Preprocess(height=8, width=8))


def test_a_line_of_pixels_is_refused() -> None:
    with pytest.raises(BadImage, match="65,535 a side"):
        decode_whole(encode_blank("1", 1, 70_000, "PNG"))


def encode_blank(mode: str, height: int, width: int, image_format: str) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (width, height)).save(stream, image_format)
    return stream.getvalue()


def test_grey_of_16_bits_is_not_widened_on_its_way() -> None:
    encoded = png16(np.zeros((1000, 1000), np.uint16))
    tracemalloc.start()
    load(encoded)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 7e6, f"{peak / 1e6:.1f} bytes a pixel"


@pytest.mark.parametrize("value", [-1, 65536])
def test_values_beyond_16_bits_are_refused(value: int) -> None:
    values = np.full((4, 5), 1000, np.int32)
    assert np.array_equal(load(encode(values, "TIFF")), values)
    values[2, 3] = value
    with pytest.raises(BadImage, match=f"values from .*{value}.*save it with 8 or 16 bits"):
        load(encode(values, "TIFF"))


def test_16_bits_in_which_0_is_white_are_refused() -> None:
    """Of 8 they are read: Pillow inverts them, when it writes them too."""
    values = VALUES[:, :, 0]
    eight = (values >> 8).astype(np.uint8)
    assert np.array_equal(load(encode(eight, "TIFF", tiffinfo={262: 0})), eight)
    with pytest.raises(BadImage, match="in which 0 is white: invert it"):
        load(encode(values, "TIFF", tiffinfo={262: 0}))
