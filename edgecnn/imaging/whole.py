"""A file at full size, by Pillow: formats that have no decoder of their own here, and 16 bits a channel."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from edgecnn.errors import BadImage, first_line
from edgecnn.imaging.opened import opened
from edgecnn.imaging.orientation import load_and_tag, upright
from edgecnn.imaging.pixels import MAX_PIXELS, DeepPixels, Pixels, check_size
from edgecnn.imaging.png import check_chunks

DEPTHS = (8, 10, 12, 14, 16)
"""Bits of cameras and programs that write files of 16."""
_LEAST_16_BIT_PEAK = 4096
_NATIVE, _SWAPPED = ("L", "B") if sys.byteorder == "little" else ("B", "L")
_BYTES_OF_16 = {
    # Pillow opens 16 bits of colour with 8, the high byte. Told the other byte order, it gives the low one.
    f"{space};16{order}": tuple(f"{space};16{half}" for half in halves)
    for space in ("RGB", "RGBX", "RGBA")
    for order, halves in (("B", "BL"), ("L", "LB"), ("N", (_NATIVE, _SWAPPED)))
}
_GREY_ALPHA = "LA;16B"
"""Of a PNG. Its four bytes a pixel are read as if they were RGBA: high and low byte of grey come first."""

_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
"""A TIFF's tag. Pillow inverts such files of 8 bits, but not of 16."""


def load(encoded: bytes) -> Pixels | DeepPixels:
    """Any file to upright pixels of its own depth: uint8 or uint16, (h, w, 3) RGB or (h, w) grey. Raises BadImage.

    Of these formats only PNG has checksums: damage that leaves GIF, WebP, BMP, PPM or TIFF decodable goes unnoticed.
    """
    if not encoded:
        raise BadImage("empty file (0 bytes)")
    try:
        with _opened(encoded) as image:
            if image.format == "PNG":
                check_chunks(encoded)
            names = _BYTES_OF_16.get(raw := _raw_mode(image))
            if names is not None:
                return _deep_colour(encoded, names)
            if raw == _GREY_ALPHA:
                halves = _read_as(encoded, "RGBA")
                return _joined(halves[:, :, 0], halves[:, :, 1])
            if ";16" in raw and image.mode in ("RGB", "RGBA", "CMYK"):
                raise BadImage(f"16 bits a channel in a layout that is not read here ({raw}): save it as RGB")
            tag = load_and_tag(image)
            turned: Pixels | DeepPixels = upright(_values(image), tag)
            return turned
    except UnidentifiedImageError:
        raise BadImage("not an image in a format that is read here (JPEG, PNG, BMP, TIFF, WebP, GIF, PPM)") from None
    except Image.DecompressionBombError:
        raise BadImage(f"more than {MAX_PIXELS:,} pixels are refused") from None
    except BadImage:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        raise BadImage(f"damaged or unreadable ({first_line(error)})") from None


def bits_of(peak: int) -> int:
    """The fewest of DEPTHS that hold a value."""
    return next(bits for bits in DEPTHS if not peak >> bits)


def to_8_bits(values: Pixels | DeepPixels, bits: int | None) -> Pixels:
    """The upper 8 of `bits` significant ones. 8-bit values stay as they are.

    None: nobody has decided. Then all 16 count, and an image that cannot be meant so is refused. Raises BadImage.
    """
    if values.dtype == np.uint8:
        return values.astype(np.uint8, copy=False)
    peak = int(values.max(initial=0))
    if bits is None and 0 < peak < _LEAST_16_BIT_PEAK:
        raise BadImage(
            f"16-bit image with values up to {peak}: a camera's 8 to 12 bits? how many count is found over the images "
            "that are trained on, and they held none of 16 bits: scale it to the full 16, or train with such images"
        )
    if bits is not None and peak >> bits:
        raise BadImage(f"16-bit image with values up to {peak}: the images trained on have {bits} significant bits")
    return (values >> ((bits or 16) - 8)).astype(np.uint8)


@contextmanager
def _opened(encoded: bytes) -> Iterator[Image.Image]:
    with opened(encoded) as image:
        check_size(image.height, image.width)
        frames = getattr(image, "n_frames", 1)
        # A phone's MPO is a JPEG with previews behind it.
        if frames > 1 and image.format != "MPO":
            raise BadImage(f"animated or multi-page image ({frames} frames): save the frame you mean")
        yield image


def _values(image: Image.Image) -> Pixels | DeepPixels:
    """Of a loaded image, as it lies in the file."""
    if image.mode.startswith("I"):
        return _deep_grey(image)
    if image.mode == "F":
        raise BadImage("floating-point pixels have no defined range: save it with 8 or 16 bits")
    return np.asarray(image if image.mode == "L" else image.convert("RGB"))


def _deep_grey(image: Image.Image) -> DeepPixels:
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise BadImage("16-bit TIFF in which 0 is white: invert it, and save it so that 0 is black (MinIsBlack)")
    # Pillow's own conversion clips at 255.
    values = np.asarray(image)
    if image.mode == "I" and (values.max(initial=0) > 65535 or values.min(initial=0) < 0):
        raise BadImage(f"values from {values.min()} to {values.max()}: save it with 8 or 16 bits, none below 0")
    return values.astype(np.uint16, copy=False)


def _raw_mode(image: Image.Image) -> str:
    """How Pillow's decoder is told that the file's pixels lie; empty where it is told otherwise."""
    tiles: Any = getattr(image, "tile", ())
    if not tiles:
        return ""
    arguments = tiles[0].args
    first = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
    return first if isinstance(first, str) else ""


def _deep_colour(encoded: bytes, names: tuple[str, ...]) -> DeepPixels:
    high, low = (_read_as(encoded, name)[:, :, :3] for name in names)
    return _joined(high, low)


def _joined(high: Pixels, low: Pixels) -> DeepPixels:
    joined: DeepPixels = high.astype(np.uint16)
    joined <<= 8
    joined |= low
    return joined


def _read_as(encoded: bytes, raw: str) -> Pixels:
    """The file's pixels, upright, where the decoder is told that they lie in another way."""
    with _opened(encoded) as image:
        opened: Any = image
        opened.tile = [
            tile._replace(args=raw if isinstance(tile.args, str) else (raw, *tile.args[1:])) for tile in opened.tile
        ]
        tag = load_and_tag(image)
        return upright(np.asarray(image), tag)
