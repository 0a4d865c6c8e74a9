"""PNG: whether its chunks are as they were written. Pillow stops where the picture is full, and does not look."""

from __future__ import annotations

import zlib

from edgecnn.errors import BadImage

_SIGNATURE_BYTES = 8
_END = b"IEND\xaeB`\x82"
"""Name and checksum of the last chunk."""
_AROUND_DATA = 12
"""Bytes of a chunk beside its data: length and name before, checksum behind."""


def check_chunks(encoded: bytes) -> None:
    """Raises BadImage where a chunk differs from its checksum.

    What follows the end chunk is nobody's. A file that ends early is for the decoder to judge: its pixels may be there.
    """
    view, at = memoryview(encoded), _SIGNATURE_BYTES
    while at + _AROUND_DATA <= len(encoded):
        end = at + _AROUND_DATA + int.from_bytes(view[at : at + 4], "big")
        name = encoded[at + 4 : at + 8]
        if not name.isalpha():
            return
        # Longer than the file, though its end is there: it was the length that changed.
        damaged = encoded.find(_END, at) >= 0 if end > len(encoded) else not _agrees(view[at + 4 : end])
        if damaged:
            raise BadImage(f"damaged PNG (the checksum of its {name.decode('ascii')} chunk differs)")
        if name == b"IEND":
            return
        at = end


def _agrees(named: memoryview) -> bool:
    """Of name, data and checksum."""
    return zlib.crc32(named[:-4]) == int.from_bytes(named[-4:], "big")
