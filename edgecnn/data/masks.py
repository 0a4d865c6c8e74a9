"""Masks that lie beside the images which they belong to, as sets for segmentation have them: they are no images."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgecnn.errors import BadImage
from edgecnn.imaging import Pixels, decode_whole

_WORD = "masks?|gt|ground[ _-]?truth|labels?|seg|segmentation|annotations?"
_END = re.compile(rf"[ _.-]+({_WORD})$", re.IGNORECASE)
_FOLDER = re.compile(_WORD, re.IGNORECASE)
_MOST_COLOURS = 16
"""Of a mask. A photograph of so few is beside none of more."""
_SAMPLED = 65_536
"""Pixels that are looked at, spread over the image."""
_CONTRAST, _NEAR, _SHARE = 128, 16, 0.98
"""A mask that was saved as JPEG: its values lie so near to the least and the most, which are so far apart."""


def masks_among(files: Sequence[tuple[str, Path]]) -> dict[Path, Path]:
    """Mask to its image, of files each with the name of what it is compared within (its class and split).

    A mask has an image's name (crack/7.png of crack/7.jpg) or that with `_mask` and the like at its end, lies in the
    same folder or in one called masks/ or ground_truth/, and has at most 16 colours or two values, which the image has
    not. Two photographs of one name are no masks. Only files of such names are decoded.
    """
    looks_flat = _remembered(_is_flat)
    groups: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for within, path in files:
        groups[within, _END.sub("", path.stem).casefold()].append(path)
    found: dict[Path, Path] = {}
    for paths in groups.values():
        for one in paths:
            for other in paths:
                if other != one and _may_be_mask(one, other) and looks_flat(one) and not looks_flat(other):
                    found.setdefault(one, other)
    return found


def _may_be_mask(one: Path, other: Path) -> bool:
    """By the names alone."""
    named = _END.search(one.stem) is not None and _END.search(other.stem) is None
    apart = any(_FOLDER.fullmatch(part) for part in one.parts) and not any(
        _FOLDER.fullmatch(part) for part in other.parts
    )
    return apart or (one.parent == other.parent and (named or one.stem.casefold() == other.stem.casefold()))


def _is_flat(path: Path) -> bool:
    """Whether an image has few colours, or two values."""
    try:
        pixels = decode_whole(path.read_bytes(), bits=16)
    except (BadImage, OSError):
        return False
    rows: Pixels = pixels.reshape(-1, 3)[:: max(1, pixels.size // 3 // _SAMPLED)]
    colours = np.unique(rows.astype(np.uint32) @ np.array([1, 256, 65_536], np.uint32))
    if len(colours) <= _MOST_COLOURS:
        return True
    grey = rows.max(1).astype(np.int64)
    least, most = int(grey.min()), int(grey.max())
    near = np.minimum(grey - least, most - grey) <= _NEAR
    return most - least >= _CONTRAST and float(near.mean()) >= _SHARE


def _remembered(look: Callable[[Path], bool]) -> Callable[[Path], bool]:
    seen: dict[Path, bool] = {}

    def known(path: Path) -> bool:
        if path not in seen:
            seen[path] = look(path)
        return seen[path]

    return known
