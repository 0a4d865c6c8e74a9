"""Raw camera frames against the same images' files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgecnn.artifact import Preprocess
from edgecnn.parity import check_frames
from tests.conftest import encode, picture

SPEC = Preprocess(height=32, width=32)


class Answers:
    """A session that answers what it is told to, one image after the other."""

    def __init__(self, decisions: Sequence[int]) -> None:
        self._left = [np.eye(2, dtype=np.float32)[[decision]] for decision in decisions]

    def run(self, images: np.ndarray) -> np.ndarray:
        return self._left.pop(0)


@pytest.mark.parametrize(
    ("flips", "limit", "within"),
    [
        (0, 0.9, True),
        (1, 0.9, True),
        (2, 0.9, False),
        (1, 0.98, True),
        (2, 0.98, False),
        (1, 1.0, False),
        (0, 1.0, True),
    ],
)
def test_one_near_tie_among_few_images_is_no_fault(tmp_path: Path, flips: int, limit: float, within: bool) -> None:
    """Of 10 images; a target that wants all of them gets all of them."""
    paths = [tmp_path / f"{number}.png" for number in range(10)]
    for number, path in enumerate(paths):
        path.write_bytes(encode(picture(number)))
    files = np.eye(2, dtype=np.float32)[[0] * 10]
    found = check_frames(Answers([1] * flips + [0] * (10 - flips)), paths, SPEC, limit, files)  # type: ignore[arg-type]
    assert found.within is within
    assert found.agreement == pytest.approx(1 - flips / 10)
