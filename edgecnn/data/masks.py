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


def masks_among(files: Sequence[tuple[str, Path]], root: Path) -> dict[Path, Path]:
    """Mask to its image, of files below `root`, each with the name of what it is compared within (class and split).

    A mask has an image's name (crack/7.png of crack/7.jpg) or that with `_mask` and the like at its end, lies in the
    same folder or in one called masks/ or ground_truth/, and has at most 16 colours or two values, which the image has
    not. Two photographs of one name are no masks. Only files of such names are decoded.
    """
    is_flat = _remembered(_is_flat)
    groups: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for within, path in files:
        groups[within, _END.sub("", path.stem).casefold()].append(path)
    found: dict[Path, Path] = {}
    for paths in groups.values():
        if len(paths) > 1:
            found |= _in_folders_of_masks(paths, root, is_flat)
            found |= _beside_each_other(paths, is_flat)
    return {path: found[path] for _, path in files if path in found}


def _in_folders_of_masks(paths: Sequence[Path], root: Path, is_flat: Callable[[Path], bool]) -> dict[Path, Path]:
    """Of files of one name, those in masks/ to one that is not."""
    inside = {path for path in paths if any(map(_FOLDER.fullmatch, path.relative_to(root).parts[:-1]))}
    if not inside:
        return {}
    image = next((path for path in paths if path not in inside and not is_flat(path)), None)
    return {path: image for path in inside if image is not None and is_flat(path)}


def _beside_each_other(paths: Sequence[Path], is_flat: Callable[[Path], bool]) -> dict[Path, Path]:
    """Of files of one name, those in the folder of their image."""
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        folders[path.parent].append(path)
    found: dict[Path, Path] = {}
    for beside in folders.values():
        image = next((path for path in beside if len(beside) > 1 and not is_flat(path)), None)
        found |= {path: image for path in beside if image is not None and path != image and is_flat(path)}
    return found


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
