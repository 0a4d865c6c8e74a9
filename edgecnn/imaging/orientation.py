"""Which way up an image lies in its file: the one place that reads the tag, and the one that turns by it."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from PIL import Image

from edgecnn.imaging.opened import opened

ON_ITS_SIDE = (5, 6, 7, 8)
"""Tags whose height is the upright picture's width."""
MIRRORED = (2, 3, 6, 7)
"""Tags whose upright columns run against the file's (of 6 and 7: against its rows)."""
UPSIDE_DOWN = (3, 4, 7, 8)
"""Likewise the upright rows."""
_TAG = 0x0112


def orientation(encoded: bytes) -> int:
    """Of the file's own tag, 1 (upright) to 8; 1 where it has none, or nothing readable. See `tag_of`."""
    try:
        with opened(encoded) as image:
            return tag_of(image)
    except Exception:  # whether the pixels can be read is for the decoder to say
        return 1


def tag_of(image: Image.Image) -> int:
    """The orientation that a file states, 1 to 8, so that every path turns an image alike.

    Of the Exif block, or of the TIFF's own tag: Pillow would obey XMP too, which no decoder of cameras does. A PNG may
    have its Exif block behind the pixels, so it is loaded first. An Exif block that cannot be read says nothing.
    """
    if image.format == "PNG":
        image.load()
    tags: Any = getattr(image, "tag_v2", None)
    if tags is None:
        tags = Image.Exif()
        try:
            tags.load(image.info.get("exif", b""))
        except Exception:  # Pillow raises whatever a damaged block leads it to
            return 1
    value = tags.get(_TAG, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def load_and_tag(image: Image.Image) -> int:
    """Load the pixels; the orientation by which they have still to be turned.

    Pillow turns a TIFF by itself while it loads, by its tag or else by XMP, and forgets the tag: XMP is taken away
    before, and nothing is left to turn.
    """
    if image.format == "TIFF":
        image.info.pop("xmp", None)
        image.load()
        return 1
    image.load()
    return tag_of(image)


def upright(pixels: NDArray[Any], tag: int) -> NDArray[Any]:
    """Pixels as they lie in the file, turned and mirrored as the tag says: a view."""
    if tag in ON_ITS_SIDE:
        pixels = pixels.swapaxes(0, 1)
    if tag in MIRRORED:
        pixels = pixels[:, ::-1]
    if tag in UPSIDE_DOWN:
        pixels = pixels[::-1]
    return pixels
