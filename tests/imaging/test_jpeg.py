"""JPEGs as strangers write them are read; damaged ones are refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgecnn.artifact import Preprocess
from edgecnn.errors import BadImage
from edgecnn.imaging import Preparer, decode_whole, prepare, prepare_frame
from edgecnn.imaging.entropy import is_whole
from edgecnn.imaging.jpeg import MOST_STRAY_BYTES
from tests.conftest import encode, picture
from tests.imaging.files import jpeg_of_scans

SPEC = Preprocess(height=24, width=32)
PAGE = 4096
READERS = (lambda data: prepare(data, SPEC), decode_whole, lambda data: Preparer(SPEC).probe(data))
"""Every way into a file."""


def noisy(seed: int, height: int = 480, width: int = 640) -> bytes:
    """A JPEG of many pages of data."""
    grain = np.random.default_rng(seed).normal(0, 25, (height, width, 3))
    return encode(np.clip(picture(seed, height, width) + grain, 0, 255).astype(np.uint8), "JPEG", quality=92)


@pytest.mark.parametrize("position", ["before the tables", "before the frame", "before the scan", "before the end"])
@pytest.mark.parametrize("stray", [b"\0", b"\x37", b"\x12\0\x34\x56"])
def test_a_few_bytes_that_belong_to_nothing_change_no_pixel(position: str, stray: bytes) -> None:
    encoded = noisy(3, 96, 120)
    marker = {"tables": b"\xff\xdb", "frame": b"\xff\xc0", "scan": b"\xff\xda", "end": b"\xff\xd9"}[
        position.split()[-1]
    ]
    at = encoded.rindex(marker)
    mended = encoded[:at] + stray + encoded[at:]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(mended)).convert("RGB")), decode_whole(encoded))
    assert np.array_equal(decode_whole(mended), decode_whole(encoded))
    assert np.array_equal(prepare(mended, SPEC), prepare(encoded, SPEC))
    pixels, peak = Preparer(SPEC).probe(mended)
    assert np.array_equal(pixels, prepare(encoded, SPEC))
    assert peak is None


def test_more_of_them_are_damage() -> None:
    encoded = noisy(3, 96, 120)
    at = encoded.rindex(b"\xff\xda")
    with pytest.raises(BadImage, match="damaged JPEG"):
        prepare(encoded[:at] + b"\x37" * (MOST_STRAY_BYTES + 1) + encoded[at:], SPEC)


def test_a_zeroed_page_is_damage() -> None:
    """A disk or a network that lost 4 KiB. Where the decoder happens to find nothing wrong nobody can know."""
    refused = tried = 0
    for seed in range(2):
        encoded = noisy(seed)
        for page in range(1, len(encoded) // PAGE - 1):
            damaged = encoded[: page * PAGE] + bytes(PAGE) + encoded[(page + 1) * PAGE :]
            tried += 1
            for read in READERS:
                try:
                    read(damaged)
                except BadImage:
                    refused += 1
    assert tried > 20
    assert refused >= 0.95 * 3 * tried


@pytest.mark.parametrize("colour", ["L", "RGB", "CMYK"])
def test_damage_is_found_in_every_colour_space(colour: str) -> None:
    stream = io.BytesIO()
    Image.open(io.BytesIO(noisy(5))).convert(colour).save(stream, "JPEG", quality=92)
    encoded = stream.getvalue()
    assert prepare(encoded, SPEC).shape == (24, 32, 3)
    at = len(encoded) // 2
    with pytest.raises(BadImage, match="damaged"):
        prepare(encoded[:at] + bytes(PAGE) + encoded[at + PAGE :], SPEC)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1"])
@pytest.mark.parametrize("progressive", [False, True])
def test_usual_subsamplings_are_those_of_pillow(subsampling: str, progressive: bool) -> None:
    encoded = encode(picture(3, 90, 121), "JPEG", subsampling=subsampling, progressive=progressive)
    assert np.array_equal(decode_whole(encoded), np.asarray(Image.open(io.BytesIO(encoded))))


@pytest.mark.parametrize(
    "factors",
    [
        ((1, 4), (1, 1), (1, 1)),
        ((4, 2), (1, 1), (1, 1)),
        ((2, 2), (1, 2), (2, 1)),
        ((4, 4), (1, 1), (1, 1)),
        ((2, 1), (1, 1), (1, 2)),
        ((3, 1), (1, 1), (1, 1)),
    ],
    ids=["4:4:1", "4:1:0", "two kinds", "16 to 1", "three kinds", "3 to 1"],
)
@pytest.mark.parametrize("size", [(96, 120), (97, 121)])
def test_odd_subsamplings_are_read_as_pillow_reads_them(
    factors: tuple[tuple[int, int], ...], size: tuple[int, int]
) -> None:
    frame = picture(3, *size)
    encoded = jpeg_of_scans(frame, factors)
    whole = decode_whole(encoded)
    assert np.array_equal(whole, np.asarray(Image.open(io.BytesIO(encoded))))
    assert np.abs(whole.astype(int) - frame).mean() < 4
    assert np.abs(prepare(encoded, SPEC).astype(int) - prepare_frame(whole, SPEC)).mean() < 1
    pixels, _ = Preparer(SPEC).probe(encoded)
    assert np.array_equal(pixels, prepare(encoded, SPEC))


@pytest.mark.parametrize("factors", [((4, 2), (1, 1), (1, 1)), ((2, 2), (1, 2), (2, 1)), ((1, 4), (1, 1), (1, 1))])
def test_damage_is_found_in_odd_subsamplings_too(factors: tuple[tuple[int, int], ...]) -> None:
    """Pillow, which reads them, would show it as grey."""
    grain = np.random.default_rng(0).normal(0, 25, (160, 240, 3))
    frame = np.clip(picture(6, 160, 240) + grain, 0, 255).astype(np.uint8)
    encoded = jpeg_of_scans(frame, factors)
    pages = range(1, len(encoded) // PAGE - 1)
    assert len(pages) >= 3
    for page, read in zip(pages, READERS, strict=False):
        damaged = encoded[: page * PAGE] + bytes(PAGE) + encoded[(page + 1) * PAGE :]
        with pytest.raises(BadImage, match="damaged JPEG"):
            read(damaged)
    with pytest.raises(BadImage):
        decode_whole(encoded[: len(encoded) // 2])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimize": True},
        {"subsampling": "4:2:2"},
        {"subsampling": "4:4:4"},
        {"restart_marker_blocks": 5},
        {"restart_marker_rows": 1},
        {"quality": 3},
        {"quality": 100},
    ],
    ids=str,
)
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (97, 131), (7, 9)])
def test_blocks_are_counted_as_the_decoder_counts_them(
    options: dict[str, object], grey: bool, size: tuple[int, int]
) -> None:
    frame = picture(8, *size)
    encoded = encode(frame[:, :, 0] if grey else frame, "JPEG", **options)
    assert is_whole(encoded)
    end = encoded.rindex(b"\xff\xd9")
    cut = encoded[: end - max(2, (end - encoded.rindex(b"\xff\xda")) // 3)] + encoded[end:]
    assert not is_whole(cut)


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_counting_blocks_finds_the_zeroed_data_that_the_decoder_finds(seed: int) -> None:
    encoded = noisy(seed % 3, 120, 160)
    draw = np.random.default_rng(seed)
    first = encoded.rindex(b"\xff\xda") + 14
    at, length = int(draw.integers(first, len(encoded) - 600)), int(draw.integers(64, 512))
    damaged = encoded[:at] + bytes(length) + encoded[at + length :]
    try:
        prepare(damaged, SPEC)
    except BadImage:
        assert not is_whole(damaged)
    # Of those that the decoder takes, three in a hundred, counting refuses some.


@given(at=st.integers(2, 700), value=st.integers(0, 255))
@settings(deadline=None, max_examples=80)
def test_any_byte_of_the_header_may_be_wrong(at: int, value: int) -> None:
    encoded = bytearray(encode(picture(3, 60, 80), "JPEG"))
    encoded[at] = value
    for read in READERS:
        try:
            read(bytes(encoded))
        except BadImage as error:
            assert "\n" not in str(error)


def test_a_grey_file_is_prepared_as_its_frame() -> None:
    encoded = encode(picture(3, 24, 32)[:, :, 0], "JPEG", quality=90)
    assert np.array_equal(prepare(encoded, SPEC), prepare_frame(decode_whole(encoded), SPEC))


def test_a_stray_byte_changes_no_pixel_of_four_inks() -> None:
    stream = io.BytesIO()
    Image.fromarray(picture(3, 96, 120)).convert("CMYK").save(stream, "JPEG", quality=92)
    encoded = stream.getvalue()
    for marker in (b"\xff\xda", b"\xff\xd9"):
        at = encoded.rindex(marker)
        stray = encoded[:at] + b"\x37" + encoded[at:]
        assert np.array_equal(decode_whole(stray), decode_whole(encoded))
        assert np.array_equal(prepare(stray, SPEC), prepare(encoded, SPEC))
