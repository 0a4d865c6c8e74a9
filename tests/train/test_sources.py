"""Tests of what is prepared once and kept on disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgecnn.artifact import Preprocess
from edgecnn.data import Dataset
from edgecnn.train.progress import Silent
from edgecnn.train.sources import prepared


def test_a_disk_without_room_for_the_pixels_is_an_error_and_leaves_nothing(
    data: Dataset, tmp_path: Path, largest_file
) -> None:
    """Written through a mapping, they would end the process instead."""
    with largest_file(5_000), pytest.raises(OSError, match="too large") as caught:
        prepared(data.train, Preprocess(height=32, width=32), tmp_path, Silent())
    assert caught.value.filename.startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_had_half_prepared_is_removed(data: Dataset, tmp_path: Path) -> None:
    (tmp_path / ".rows.999999999.tmp").write_bytes(b"half")
    (tmp_path / f".rows.{os.getpid()}.tmp").write_bytes(b"half")
    found = prepared(data.train, Preprocess(height=32, width=32), tmp_path, Silent())
    assert found.shape == (len(data.train), 32, 32, 3)
    assert found.dtype == np.uint8
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".npy", ".tmp"]
