"""One process at a time writes to an output: by a lock that dies with its process.

A killed process leaves no lock behind, only an empty name. What it had half written is removed by the next holder.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from edgecnn.errors import UserError

_HELD = ".held"
_PREFIX = "edgecnn-"


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold an output, a file or a folder that need not be there yet. UserError at once where another process does."""
    path = path.resolve()
    made = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    try:
        file = _lock(lock, path)
        try:
            _remove_half_written(path)
            yield
        finally:
            lock.unlink(missing_ok=True)
            os.close(file)
    finally:
        for folder in made:
            with suppress(OSError):  # not empty
                folder.rmdir()


@contextmanager
def temporary_folder(name: str) -> Iterator[Path]:
    """An empty folder among the temporary files, gone at the end; those of processes that were killed go now."""
    _remove_abandoned(Path(tempfile.gettempdir()))
    outer = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{name}-"))
    file = os.open(outer / f"{_HELD}.new", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _try_lock(file)
        (outer / f"{_HELD}.new").rename(outer / _HELD)  # never seen unlocked
        inner = outer / name
        inner.mkdir()
        yield inner
    finally:
        shutil.rmtree(outer, ignore_errors=True)
        os.close(file)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that are gone had half written straight into a folder: `.<name>.<process>.tmp`."""
    for left in folder.glob(".*.tmp"):
        process = left.name.split(".")[-2]
        if process.isdigit() and not _runs(int(process)):
            _remove(left)


def _lock(lock: Path, path: Path) -> int:
    """The open, locked file."""
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _try_lock(file):
                raise UserError(f"{path}: {_holder(file)} writes there: wait for it, end it, or name another place")
            # The one before may have removed the name just now: then this file is nobody's.
            if _same(file, lock):
                os.ftruncate(file, 0)
                os.write(file, f"{os.getpid()} {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode())
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _try_lock(file: int) -> bool:
    """Whether it is ours now; also where the system or its disk knows no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _holder(file: int) -> str:
    process, _, since = os.pread(file, 100, 0).decode(errors="replace").strip().partition(" ")
    return f"process {process} (since {since})" if process.isdigit() else "another process"


def _same(file: int, path: Path) -> bool:
    try:
        there = path.stat()
    except OSError:
        return False
    ours = os.fstat(file)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _remove_half_written(path: Path) -> None:
    """Beside an output that nobody else writes now: see `documents`. An older whole one is put back where a process
    was killed between taking it away and putting the new one there."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.\d+\.(tmp|old)")
    for left in sorted(path.parent.iterdir()):
        if ours.fullmatch(left.name):
            if left.suffix == ".old" and not path.exists():
                left.rename(path)
            else:
                _remove(left)


def _remove_abandoned(temporary: Path) -> None:
    for outer in temporary.glob(f"{_PREFIX}*"):
        try:
            file = os.open(outer / _HELD, os.O_RDWR)
        except OSError:  # not one of ours, or another user's
            continue
        try:
            if _try_lock(file):
                shutil.rmtree(outer, ignore_errors=True)
        finally:
            os.close(file)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
