"""Where a verb writes: tried before hours of work, held meanwhile, its disk named where that is full."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edgecnn.disk import naming_the_disk, nearest, room_for
from edgecnn.errors import UserError
from edgecnn.holding import held

MUCH = 32 * 2**20
"""Bytes that a network or a bundle takes, at least."""
LITTLE = 2**20
"""Bytes that a table or a page takes, at most."""


@contextmanager
def folders(*paths: Path, least_bytes: int = MUCH, apart_from: Path | None = None) -> Iterator[None]:
    """Hold the output folders `paths`. UserError, before anything is done: see `refuse`."""
    for path in paths:
        refuse(path, least_bytes, folder=True, apart_from=apart_from)
    if least_bytes >= MUCH:  # work of that size has temporary files too
        room_for(Path(tempfile.gettempdir()), least_bytes)
    with _held(paths):
        yield


@contextmanager
def files(*paths: Path | None, least_bytes: int = LITTLE) -> Iterator[None]:
    """Hold the output files `paths`, None for not asked for. UserError, before anything is done: see `refuse`."""
    there = [path for path in paths if path is not None]
    for path in there:
        refuse(path, least_bytes, folder=False)
    with _held(there):
        yield


def refuse(path: Path, least_bytes: int, *, folder: bool, apart_from: Path | None = None) -> None:
    """UserError where `path` cannot be written: it, or what is above it, is of another kind, read-only, not ours, on a
    full disk; or it lies inside the images `apart_from`, with which it would be read."""
    if path.exists() and path.is_dir() != folder:
        found, wanted = ("a file", "a folder") if folder else ("a folder", "a file")
        raise UserError(f"{path}: is {found} (expected {wanted} to write, or nothing): choose another --out")
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path}: is a link to nothing: choose another --out")
    if apart_from is not None and path.resolve().is_relative_to(apart_from.resolve()):
        raise UserError(
            f"{path}: lies inside {apart_from}, and would be read with its images: choose an --out outside of it"
        )
    there = nearest(path if folder else path.parent)
    if not there.is_dir():
        raise UserError(f"{path}: {there} is no folder: choose another --out")
    room_for(there, least_bytes)


@contextmanager
def _held(paths: Iterable[Path]) -> Iterator[None]:
    paths = tuple(paths)
    with ExitStack() as stack:
        stack.enter_context(naming_the_disk(*paths))
        for path in paths:
            stack.enter_context(held(path))
        yield
