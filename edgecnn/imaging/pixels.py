"""What pixels are called here, which files hold some, and how many are too many."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import BadImage

Pixels: TypeAlias = NDArray[np.uint8]
"""uint8 (h, w, 3), RGB; where a step says so also (h, w), grey."""
Images: TypeAlias = NDArray[np.uint8]
"""uint8 (n, h, w, 3), RGB, at model size."""
DeepPixels: TypeAlias = NDArray[np.uint16]
"""uint16 (h, w, 3) RGB or (h, w) grey, as a file of 16 bits a channel holds them."""

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"})
MAX_PIXELS = 100_000_000
MAX_SIDE = 65_535
"""Larger images are refused from their header, before a byte of them is decoded, whatever their format."""
MAX_BYTES = 8 * MAX_PIXELS
"""Of an encoded file: four channels of 16 bits, not compressed. A sparse file takes no disk, but memory when read."""


def read_encoded(path: Path) -> bytes:
    """The bytes of an image file. Raises BadImage where it is larger than any image that is read, OSError."""
    if path.stat().st_size > MAX_BYTES:
        raise BadImage(f"a file of more than {MAX_BYTES / 1e6:,.0f} MB, which no image that is read here takes")
    return path.read_bytes()


def check_size(height: int, width: int) -> None:
    """Raises BadImage where an image is larger than MAX_PIXELS or longer than MAX_SIDE."""
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        raise BadImage(f"{width}×{height} pixels: more than {MAX_PIXELS:,}, or {MAX_SIDE:,} a side, are refused")
