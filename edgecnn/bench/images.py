"""The encoded images that a bench makes units of."""

from __future__ import annotations

from pathlib import Path

from edgecnn.artifact import Bundle
from edgecnn.data.walk import files_below, listed, refuse_no_folder
from edgecnn.errors import UserError
from edgecnn.imaging import EXTENSIONS

MOST_IMAGES = 256
"""All are held in memory, encoded. Of a larger folder as many are taken, evenly spaced by name."""


def find_images(bundle_folder: Path, bundle: Bundle, images: Path | None) -> tuple[list[Path], int]:
    """The golden images, or those below the folder `images`: at most MOST_IMAGES of them, and how many there are.

    UserError where there are none.
    """
    if images is None:
        paths = [bundle_folder / golden.file for golden in bundle.golden]
        if not paths:
            raise UserError(f"{bundle_folder}: the bundle has no golden images: give a folder of images")
    else:
        paths = _below(images)
    taken = min(MOST_IMAGES, len(paths))
    return [paths[index * len(paths) // taken] for index in range(taken)], len(paths)


def _below(folder: Path) -> list[Path]:
    accepted = ", ".join(sorted(EXTENSIONS))
    refuse_no_folder(folder, f"images: {accepted}")
    below = files_below(folder)
    if below.problems:
        raise UserError(f"{folder}: {listed(below.problems)}: mend or remove")
    if not below.images:
        raise UserError(f"{folder}: no images there (accepted: {accepted})")
    return list(below.images)
