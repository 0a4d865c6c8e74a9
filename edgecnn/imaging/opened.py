"""The one place that hands a user's file to Pillow: only to decoders that are meant, and without warnings of theirs."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM")
"""Pillow knows more, whatever a file is called: for EPS it starts Ghostscript on the file's own program.

MPO is opened as JPEG."""


@contextmanager
def opened(file: bytes | Path) -> Iterator[Image.Image]:
    """Of encoded bytes or a path: its header is read, its pixels are not yet. Raises whatever Pillow does."""
    with warnings.catch_warnings():
        # There is one limit of size, ours: Pillow's own lies elsewhere.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(file if isinstance(file, Path) else io.BytesIO(file), formats=FORMATS) as image:
            yield image
