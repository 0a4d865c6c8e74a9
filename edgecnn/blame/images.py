"""The bundle's test images, found by content, with what the trained network answers to each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn.artifact import Bundle
from edgecnn.blame.answers import Expected
from edgecnn.errors import UserError
from edgecnn.parity import REFERENCE_FILE, find_test_images, load_reference
from edgecnn.progress import Progress


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


def given_images(folder: Path, data: Path, bundle: Bundle, progress: Progress | None = None) -> GivenImages:
    """UserError where the reference does not fit the bundle or images are not in `data`."""
    reference = load_reference(folder / REFERENCE_FILE)
    if reference.logits.shape != (len(reference.names), len(bundle.classes)):
        raise UserError(f"{folder / REFERENCE_FILE}: does not fit the bundle's classes: export the bundle again")
    paths = tuple(find_test_images(data, reference, bundle.classes, progress))
    return GivenImages(paths, reference.names, Expected(reference.logits, reference.labels))
