"""Tests of outputs that are tried before anything is done."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from edgecnn import disk, outputs
from edgecnn.errors import UserError


def test_a_place_that_is_free_is_held_and_left_as_it_was(tmp_path: Path) -> None:
    with outputs.folders(tmp_path / "a" / "out", apart_from=tmp_path / "images"):
        pass
    with outputs.files(tmp_path / "b" / "features.npz", None):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", [outputs.folders, outputs.files])
def test_a_place_below_a_file_is_none(tmp_path: Path, verb) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/out: .*/file is no folder: choose another"), verb(tmp_path / "file/out"):
        pass


def test_another_kind_of_thing_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    with pytest.raises(UserError, match="is a file"), outputs.folders(tmp_path / "file"):
        pass
    with pytest.raises(UserError, match="is a folder"), outputs.files(tmp_path / "folder"):
        pass
    with pytest.raises(UserError, match="is a link to nothing"), outputs.folders(tmp_path / "link"):
        pass


@pytest.mark.parametrize("out", ["images", "images/good/run", "images/../images/run", "link/run"])
def test_a_folder_among_the_images_is_refused(tmp_path: Path, out: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "images")
    with (
        pytest.raises(UserError, match="lies inside .*images, and would be read with its images"),
        outputs.folders(tmp_path / out, apart_from=tmp_path / "images"),
    ):
        pass


def test_long_work_needs_room_for_temporary_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(outputs, "room_for", lambda folder, least_bytes: asked.append(folder))
    with outputs.folders(tmp_path / "out"):
        pass
    with outputs.folders(tmp_path / "out", least_bytes=outputs.LITTLE):
        pass
    assert asked == [tmp_path, tmp_path / "elsewhere", tmp_path]


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "is full"), (errno.EROFS, "Read-only file system"), (errno.EACCES, "Permission denied")],
)
def test_a_disk_that_takes_nothing_is_told_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(**given: Path) -> None:
        raise OSError(number, os.strerror(number), "a file without a name")

    monkeypatch.setattr(disk.tempfile, "TemporaryFile", refuse)
    with pytest.raises(UserError, match=words) as caught, outputs.folders(tmp_path / "new" / "out"):
        pass
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert list(tmp_path.iterdir()) == []
