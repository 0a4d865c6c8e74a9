"""The folder that emulated machines are set up in: where it is, and how a part of it comes whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgecnn import cache
from edgecnn.errors import UserError

Say = Callable[[str], None]
"""Takes a line of progress."""


def cache_folder(given: Path | None) -> Path:
    """`given`, or $EDGECNN_CACHE/rehearse, or $XDG_CACHE_HOME/edgecnn/rehearse (~/.cache/edgecnn/rehearse)."""
    return given.resolve() if given is not None else cache.cache_folder("rehearse")


def refuse_separators(folder: Path) -> None:
    """UserError for a folder whose name an emulator's options or a search path would take apart."""
    for character in ",:":
        if character in str(folder):
            raise UserError(f"{folder}: {character!r} in its name cannot be handed to an emulator: name another folder")


def need_space(folder: Path, megabytes: int) -> None:
    """UserError where the disk of `folder` has less free."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free // 10**6
    if free < megabytes:
        raise UserError(
            f"{folder}: {free} MB free, {megabytes} MB are needed to set up the emulated machine: "
            "free some, or name another folder with --cache"
        )


@contextmanager
def made_once(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` on success and vanishes on failure. The first of two makers wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sweep(cache: Path) -> None:
    """Remove what killed set-ups left behind; a set-up that is stopped otherwise clears up itself."""
    for left in cache.glob(".*.tmp"):
        process = left.name.split(".")[-2]
        if process.isdigit() and not Path("/proc", process).exists():
            shutil.rmtree(left, ignore_errors=True)


def read_record(path: Path) -> bytes:
    """What a set-up wrote of itself. UserError where it is gone."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: remove {path.parent} and run again") from None
