"""JPEG: what its header says, and its pixels from libjpeg-turbo, which reduces while it decodes and reports damage."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from edgecnn.errors import BadImage, first_line
from edgecnn.imaging.entropy import is_whole
from edgecnn.imaging.pixels import Pixels, check_size

START = b"\xff\xd8\xff"
MOST_STRAY_BYTES = 4
"""So many bytes that belong to nothing are a careless writer's, more are damage: a zeroed page leaves dozens."""
_STRAY = re.compile(r"(\d+) extraneous bytes? before marker")
_SCAN, _END, _EXIF = 0xDA, 0xD9, 0xE1
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length."""


class NotTaken(Exception):
    """A legal JPEG of a kind that simplejpeg does not take."""


@dataclass(frozen=True)
class Header:
    """What stands before the pixels."""

    height: int
    width: int
    components: int
    """1: grey, 3: colour, 4: CMYK or YCCK."""
    exif: bool
    stray: tuple[int, ...]
    """Positions of bytes between segments that belong to nothing."""
    end: int
    """Where the entropy-coded pixels start."""


def read_header(encoded: bytes) -> Header:
    """Walk the segments up to the first scan. Raises BadImage: no JPEG, or larger than what is read here."""
    try:
        header = _walk(encoded)
    except IndexError:
        header = None
    if header is None or header.height * header.width == 0 or header.components not in (1, 3, 4):
        raise BadImage("not a readable JPEG (its header is damaged or of no known kind)")
    check_size(header.height, header.width)
    return header


def decode(encoded: bytes, header: Header, factor: int, buffer: NDArray[np.uint8] | None = None) -> Pixels:
    """The pixels as they lie in the file, reduced by 1, 2, 4 or 8: (⌈h / factor⌉, ⌈w / factor⌉, 3), or grey without 3.

    Raises BadImage where the decoder finds damage (instead of showing grey where the data end), NotTaken.
    """
    if header.components == 4:
        _decoded(encoded, "CMYK", 1, 1, None, header)  # for the damage alone
        raise NotTaken
    height, width = -(-header.height // factor), -(-header.width // factor)
    pixels = _decoded(encoded, "GRAY" if header.components == 1 else "RGB", height, width, buffer, header)
    return pixels if header.components == 3 else pixels[:, :, 0]


def _decoded(
    encoded: bytes,
    space: str,
    height: int,
    width: int,
    buffer: NDArray[np.uint8] | None,
    header: Header | None = None,
) -> Pixels:
    try:
        found: Pixels = simplejpeg.decode_jpeg(
            encoded, space, min_height=height, min_width=width, buffer=buffer, strict=True
        )
        return found
    except (ValueError, KeyError) as error:
        if isinstance(error, KeyError) or "subsampling" in str(error):
            if not is_whole(encoded):
                raise BadImage("damaged JPEG (its data are not what its header promises)") from None
            raise NotTaken from None
        mended = _without_stray_bytes(encoded, header, str(error)) if header else None
        if mended is None:
            raise BadImage(f"damaged JPEG ({first_line(error)})") from None
    return _decoded(mended, space, height, width, buffer)


def _walk(encoded: bytes) -> Header | None:
    at, exif, stray = 2, False, []
    height = width = components = 0
    while True:
        while encoded[at] != 0xFF:
            stray.append(at)
            at += 1
        while encoded[at] == 0xFF:
            at += 1
        marker = encoded[at]
        at += 1
        if marker in _ALONE:
            continue
        if marker in (0, _END):
            return None
        length = encoded[at] << 8 | encoded[at + 1]
        if marker in _FRAMES:
            height, width = encoded[at + 3] << 8 | encoded[at + 4], encoded[at + 5] << 8 | encoded[at + 6]
            components = encoded[at + 7]
        elif marker == _EXIF:
            exif = exif or encoded[at + 2 : at + 8] == b"Exif\0\0"
        elif marker == _SCAN:
            return Header(height, width, components, exif, tuple(stray), at + length)
        at += length


def _without_stray_bytes(encoded: bytes, header: Header, complaint: str) -> bytes | None:
    """The file without the few bytes that belong to nothing; None where that is not all that is wrong with it.

    What is left is decoded as strictly as any other file.
    """
    found = _STRAY.search(complaint)
    if found is None:
        return None
    kept = bytearray(encoded)
    before_end = 0 if header.stray else int(found[1])
    if len(header.stray) + before_end > MOST_STRAY_BYTES:
        return None
    if before_end:
        end = _end_of_scans(encoded, header.end)
        del kept[end - before_end : end]
    for position in reversed(header.stray):
        del kept[position]
    return bytes(kept)


def _end_of_scans(encoded: bytes, at: int) -> int:
    """Position of the end marker of the first image (a phone's MPO has others behind it)."""
    while True:
        at = encoded.find(b"\xff", at)
        if at < 0 or at + 1 >= len(encoded):
            return len(encoded)
        marker = encoded[at + 1]
        if marker == _END:
            return at
        if marker == 0xFF:
            at += 1
        elif marker == 0 or marker in _ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
