"""A PNG is what was written, or it is refused."""

from __future__ import annotations

import numpy as np
import pytest

from edgecnn.errors import BadImage
from edgecnn.imaging.whole import load
from tests.conftest import encode, picture
from tests.imaging.files import exif, png16, png_with_exif_behind

GREY = picture(2, 64, 64)[:, :, 0]
FILES = {"8 bits": encode(GREY), "16 bits": png16(GREY.astype(np.uint16) << 8)}


def flipped(encoded: bytes, bit: int) -> bytes:
    changed = bytearray(encoded)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("kind", FILES)
def test_no_bit_of_the_pixels_changes_unnoticed(kind: str) -> None:
    encoded = FILES[kind]
    first, behind = 8 * (encoded.index(b"IDAT") - 4), 8 * (encoded.index(b"IEND") - 4)
    assert behind - first > 2_000
    for bit in range(first, behind):
        with pytest.raises(BadImage):
            load(flipped(encoded, bit))


def test_an_orientation_behind_the_pixels_changes_as_little() -> None:
    encoded = png_with_exif_behind(picture(2, 32, 40), 6)
    with pytest.raises(BadImage, match="checksum of its eXIf chunk"):
        load(flipped(encoded, 8 * (encoded.index(b"eXIf") + 24)))


@pytest.mark.parametrize("kind", FILES)
def test_a_file_whose_pixels_are_there_may_end_early_or_late(kind: str) -> None:
    encoded = FILES[kind]
    expected, end = load(encoded), encoded.index(b"IEND") - 4
    for changed in (encoded + b"IDAT" * 9, encoded + bytes(40), encoded[:end], encoded[:end] + bytes(40)):
        assert np.array_equal(load(changed), expected)


def test_chunks_of_every_kind_are_taken() -> None:
    encoded = encode(GREY, exif=exif(1), dpi=(72, 72), icc_profile=bytes(128))
    assert np.array_equal(load(encoded), GREY)
