"""What lies in a folder of images: the one walk, for every verb that reads one.

Links to folders and files are followed, whatever the link lies in; names that only programs give are passed over.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecnn.data.items import Problem
from edgecnn.data.names import printable, text_of, unfit_name
from edgecnn.errors import UserError
from edgecnn.filekinds import kind_of
from edgecnn.imaging import EXTENSIONS

NOT_IMAGES = frozenset({".txt", ".md", ".json", ".xml", ".csv", ".yaml", ".yml", ".db", ".ini", ".log", ".html"})
"""Side files that nobody takes for an image. Whatever else is not read is listed."""
_OF_NETWORK_STORAGE = ("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "@sharebin")
_OF_MACOS = ("__macosx", "icon\r", "network trash folder", "temporary items")  # what begins with a dot besides
_OF_WINDOWS = ("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "recycler", "system volume information")
_OF_PROGRAMS = frozenset((*_OF_NETWORK_STORAGE, *_OF_MACOS, *_OF_WINDOWS, "lost+found", "__pycache__"))
_ICLOUD = re.compile(r"\.(.+)\.icloud", re.IGNORECASE | re.DOTALL)
"""What macOS leaves of a file whose contents it has sent away."""


@dataclass(frozen=True)
class Listing:
    """What lies in one folder, sorted by name."""

    folders: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    problems: tuple[Problem, ...] = ()
    """What is neither: links to nothing, folders that cannot be opened, names that are no text."""


@dataclass(frozen=True)
class Below:
    """The files below a folder, sorted by path."""

    files: tuple[Path, ...]
    problems: tuple[Problem, ...]

    @property
    def images(self) -> tuple[Path, ...]:
        """Those whose ending is that of an image."""
        return tuple(path for path in self.files if has_image_ending(path))


def has_image_ending(path: Path) -> bool:
    """Whether a file is called as those that are read here."""
    return path.suffix.lower() in EXTENSIONS


def is_passed_over(name: str) -> bool:
    """Whether a name is hidden (what a notebook's editor or macOS copies is) or that of what a program keeps."""
    return name.startswith(".") or unicodedata.normalize("NFC", name).casefold() in _OF_PROGRAMS


def listing(folder: Path, root: Path) -> Listing:
    """One folder. Problems are named relative to `root`."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        return Listing(problems=(Problem(shown(folder, root), f"this folder cannot be opened ({error.strerror})"),))
    folders: list[Path] = []
    files: list[Path] = []
    problems: list[Problem] = []
    for entry in found:
        away = _ICLOUD.fullmatch(entry.name)
        path = folder / (away[1] if away else entry.name)
        if is_passed_over(path.name):
            continue
        kind = _kind(entry)
        reason = unfit_name(path.name) or (None if kind in ("folder", "file") else kind)
        if away:
            reason = reason or "lies in iCloud alone: download it, or remove its placeholder"
        elif kind == "file" and path.suffix.lower() == ".lnk":
            reason = reason or "a shortcut of Windows, which leads nowhere here: copy what it stands for, or remove it"
        if reason is None:
            (folders if kind == "folder" else files).append(path)
        elif kind == "folder" or path.suffix.lower() not in NOT_IMAGES:
            problems.append(Problem(shown(path, root), reason))
    return Listing(tuple(folders), tuple(files), tuple(problems))


def files_below(folder: Path, root: Path | None = None) -> Below:
    """All files below a folder, itself perhaps a link. Problems are named relative to `root` (None: to `folder`).

    A folder that several links lead to is read once, under its own name where it has one here. A link to a folder that
    it lies in leads nowhere new, and is not followed.
    """
    root = root or folder
    files: list[Path] = []
    problems: list[Problem] = []
    seen: set[tuple[int, int]] = set()
    waiting, links = [folder], list[Path]()
    while waiting or links:
        here = waiting.pop() if waiting else links.pop(0)
        if here != folder and here.is_symlink() and _leads_back(here, folder):
            continue
        identity = _identity(here)
        if identity in seen:
            continue
        seen |= {identity} if identity else set()
        found = listing(here, root)
        files += found.files
        problems += found.problems
        for inside in found.folders:
            (links if inside.is_symlink() else waiting).append(inside)
    return Below(tuple(sorted(files)), tuple(sorted(problems, key=lambda problem: problem.name)))


def shown(path: Path, root: Path) -> str:
    """A path relative to `root`, with forward slashes, as it can be printed."""
    return printable(path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix())


def refuse_no_folder(root: Path, expected: str) -> None:
    """UserError where there is no folder that can be read, or none whose path can be written down."""
    try:
        there = root.is_dir()
    except OSError as error:
        raise UserError(f"{printable(str(root))}: cannot be opened ({error.strerror})") from None
    if not there and root.exists():
        kind = kind_of(root) if root.is_file() else None
        cure = f", {kind.words}: {kind.cure}" if kind is not None and kind.name == "archive" else ""
        raise UserError(f"{printable(str(root))}: is a file{cure} (expected a folder: {expected})")
    if not there:
        raise UserError(f"{printable(str(root))}: no such folder (expected {expected})")
    reason = unfit_name(str(root.absolute()))
    if reason:
        raise UserError(f"{printable(str(root))}: {reason}: rename it")


def listed(problems: Sequence[Problem], what: str = "unusable image", most: int = 5) -> str:
    """In one line, the first problems and how many there are."""
    first = "; ".join(f"{problem.name}: {problem.reason}" for problem in problems[:most])
    more = f"; and {len(problems) - most:,} more" if len(problems) > most else ""
    return f"{len(problems):,} {what}{'s' * (len(problems) > 1)} ({first}{more})"


def _kind(entry: os.DirEntry[str]) -> str:
    """folder, file, or the reason why it is neither."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        if entry.is_symlink():
            return f"a link to {printable(text_of(str(Path(entry.path).readlink())))}, which is not there"
    except OSError as error:  # a link to itself, one through a folder that may not be entered
        return f"cannot be opened ({error.strerror})"
    return "no file and no folder, but a pipe, a socket or a device"


def _leads_back(link: Path, folder: Path) -> bool:
    """Whether a link's folder holds the link itself, by where it really lies or by the way that led to it."""
    target = link.resolve()
    way = [path.resolve() for path in link.absolute().parents]
    return any(target == path or target in path.parents for path in [*way, folder.resolve()])


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
