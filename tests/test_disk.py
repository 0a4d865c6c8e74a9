"""Tests of disks that are full: what the system says, and what libraries make of it."""

from __future__ import annotations

import errno
import os
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from edgecnn import disk
from edgecnn.documents import write_atomically
from edgecnn.errors import UserError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def nothing_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(10, 10, 0))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk / is full"),
        (errno.EDQUOT, "your quota on the disk / is used up"),
        (errno.EFBIG, "larger than a file may be here"),
    ],
)
def test_a_full_disk_is_named_with_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    monkeypatch.setattr(disk.os.path, "ismount", lambda path: str(path) == "/")
    with pytest.raises(UserError) as caught, disk.naming_the_disk(tmp_path / "out"):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith(f"{tmp_path / 'out'}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("write failed"), ValueError("bad"), OSError(errno.EIO, "Input/output")])
def test_a_library_that_fails_while_the_disk_is_full_is_not_blamed(tmp_path: Path, nothing_free, error) -> None:
    with (
        pytest.raises(UserError, match=r"out: the disk .* is full \(0\.0 MiB free\)"),
        disk.naming_the_disk(tmp_path / "out"),
    ):
        raise error


def test_a_full_disk_is_asked_for_where_a_library_failed(tmp_path: Path, nothing_free) -> None:
    with pytest.raises(UserError, match=r"out: the disk .* is full"):
        disk.refuse_full(tmp_path / "out")


def test_a_disk_with_room_is_none(tmp_path: Path) -> None:
    disk.refuse_full(tmp_path)


def test_other_failures_stay_what_they_are(tmp_path: Path) -> None:
    for error in (RuntimeError("a fault"), UserError("a mistake"), PermissionError(errno.EACCES, "Permission denied")):
        with pytest.raises(type(error)) as caught, disk.naming_the_disk(tmp_path):
            raise error
        assert caught.value is error


def test_a_file_that_is_half_written_is_removed_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "bundle.json").write_text("older")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"bundle\.json"):
        write_atomically(tmp_path / "bundle.json", "newer")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["older"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems set nothing aside")
def test_a_file_that_the_system_has_no_room_for_is_an_error_when_room_is_tried(tmp_path: Path, largest_file) -> None:
    with largest_file(100_000), pytest.raises(UserError, match="larger than a file may be here") as caught:
        disk.room_for(tmp_path, 200_000)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert list(tmp_path.iterdir()) == []


def test_room_is_tried_without_leaving_anything(tmp_path: Path) -> None:
    disk.room_for(tmp_path, 1000)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="No such file or directory: name another place"):
        disk.room_for(tmp_path / "absent", 1000)
