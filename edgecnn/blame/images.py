"""The bundle's test images, found by content, with what the trained network answers to each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn.artifact import Bundle
from edgecnn.blame.answers import Expected
from edgecnn.data import find_images
from edgecnn.errors import UserError
from edgecnn.parity import REFERENCE_FILE, load_reference


@dataclass(frozen=True)
class GivenImages:
    """Encoded test images and the reference answers, in one order."""

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    expected: Expected

    def at_most(self, count: int) -> GivenImages:
        """Evenly spaced ones where there are more."""
        if len(self.paths) <= count:
            return self
        index = np.unique(np.linspace(0, len(self.paths) - 1, count).astype(np.int64))
        paths, names = (tuple(values[i] for i in index.tolist()) for values in (self.paths, self.names))
        return GivenImages(paths, names, self.expected.some(index))


def given_images(folder: Path, data: Path, bundle: Bundle) -> GivenImages:
    """UserError where the reference does not fit the bundle or images are not in `data`."""
    reference = load_reference(folder / REFERENCE_FILE)
    if reference.logits.shape != (len(reference.names), len(bundle.classes)):
        raise UserError(f"{folder / REFERENCE_FILE}: does not fit the bundle's classes: export the bundle again")
    found = find_images(data, reference.sha256)
    missing = [name for name, digest in zip(reference.names, reference.sha256, strict=True) if digest not in found]
    if missing:
        raise UserError(
            f"{data}: {len(missing)} of the {len(reference.names)} test images are not there (such as {missing[0]}): "
            "give the folder that the bundle was made from"
        )
    paths = tuple(found[digest] for digest in reference.sha256)
    return GivenImages(paths, reference.names, Expected(reference.logits, reference.labels))
