"""Raw camera frames against the same images' files, and test images that are not where they were."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgecnn.artifact import Preprocess
from edgecnn.documents import sha256_of_file
from edgecnn.errors import UserError
from edgecnn.parity import Reference, check_frames, find_test_images
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


def test_relabelled_test_images_are_told_by_verify_and_by_explanations(tmp_path: Path) -> None:
    root = tmp_path / "parts"
    for seed, label in enumerate(("crack", "good")):
        (root / label).mkdir(parents=True)
        (root / label / "1.png").write_bytes(encode(picture(seed)))
    paths = [root / "crack" / "1.png", root / "good" / "1.png"]
    hashes = tuple(sha256_of_file(path) for path in paths)
    reference = Reference(("crack/1.png", "good/1.png"), hashes, np.array([0, 1]), np.eye(2, dtype=np.float32))
    told: list[str] = []
    assert find_test_images(root, reference, ("crack", "good"), told.append) == paths
    assert told == []
    moved = paths[0].rename(root / "good" / "2.png")
    assert find_test_images(root, reference, ("crack", "good"), told.append) == [moved, paths[1]]
    (line,) = told
    assert line.startswith("WARNING: 1 of the 2 test images lies under another class than before (such as crack/1.png")
    assert find_test_images(root, reference, ("crack", "good")) == [moved, paths[1]]
    moved.unlink()
    with pytest.raises(UserError, match=r"parts: 1 of the 2 test images are not there \(such as crack/1.png\): give"):
        find_test_images(root, reference, ("crack", "good"))
