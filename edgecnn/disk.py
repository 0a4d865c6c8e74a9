"""Disks that are full, read-only or not ours to write on: one line that names the disk, before or while one writes."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgecnn.errors import UserError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOTHING = 2**20
"""Bytes free, below which a library's failure to write is the disk's."""


class FullDisk(UserError):
    """No room: no variant, format or engine is to blame."""


def room_for(folder: Path, least_bytes: int) -> None:
    """Try that so much can be written into a folder that is there. UserError with what stands against it."""
    try:
        # A file without a name, where the system has that: nothing is left behind, however this ends.
        with tempfile.TemporaryFile(dir=folder) as stream:
            reserve(stream.fileno(), least_bytes)
    except OSError as error:
        cure = "" if error.errno in FULL else ": name another place"
        need = f" ({least_bytes / 2**20:.0f} MiB are needed to begin)" if error.errno in FULL else ""
        raise UserError(f"{refusal(error, folder)}{need}{cure}") from None


def reserve(file: int, size: int) -> None:
    """Have the disk set so many bytes of an open file aside. OSError where it cannot.

    A mapped file that the disk has no room for ends the process at the first write to it (SIGBUS), without a word.
    """
    if not hasattr(os, "posix_fallocate") or size <= 0:
        return
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno in FULL:
            raise
        # A file system that cannot: it says so by one of several codes.


def refusal(error: OSError, path: Path | None = None) -> str:
    """What the system refused, in one line with the path, and the disk where that is full."""
    # Of a file without a name it is one that only was tried.
    where = path or (Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else None)
    if error.errno not in FULL:
        return f"{where or 'system'}: {error.strerror or error}"
    if where is None:  # what we write to a file has its name
        return f"standard output: {error.strerror}: free some, or write it to another disk"
    return _full(where, error.errno)


@contextmanager
def naming_the_disk(*paths: Path) -> Iterator[None]:
    """Turn what fails inside because a disk is full into a UserError that names it: that of one of `paths`, or of
    temporary files. Libraries say it in many ways, or only that they failed."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if isinstance(error, OSError) and number in FULL and error.filename:
            raise FullDisk(refusal(error)) from error
        refuse_full(*paths)
        if number in FULL:
            raise FullDisk(_full([*paths, Path(tempfile.gettempdir())][0], number)) from error
        raise


def refuse_full(*paths: Path) -> None:
    """UserError where nothing is free on the disk of one of these, or on that of temporary files: asked where a library
    failed, which may be for that."""
    for path in (*paths, Path(tempfile.gettempdir())):
        if _free(path) < _NOTHING:
            raise FullDisk(_full(path, errno.ENOSPC))


def _full(path: Path, number: int | None) -> str:
    disk = _disk(path)
    if number == errno.EDQUOT:
        return f"{path}: your quota on the disk {disk} is used up: free some, or name a place on another disk"
    if number == errno.EFBIG:
        return f"{path}: larger than a file may be here (ulimit -f, or the disk {disk}): raise the limit"
    free = f"{_free(path) / 2**20:.1f} MiB free"
    return f"{path}: the disk {disk} is full ({free}): free some, or name a place on another disk"


def nearest(path: Path) -> Path:
    """The path itself, or the lowest folder above it that is there."""
    path = path.absolute()
    return next((one for one in (path, *path.parents) if os.path.lexists(one)), Path(path.anchor))


def _disk(path: Path) -> Path:
    """Where the disk of a path is mounted."""
    there = nearest(path)
    with suppress(OSError):
        there = there.resolve()
    return next((one for one in (there, *there.parents) if os.path.ismount(one)), there)


def _free(path: Path) -> float:
    try:
        return shutil.disk_usage(nearest(path)).free
    except OSError:
        return float("inf")
