"""Images that are known by content, in a folder as it is today: where they lie now, and under which class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecnn.data.items import Problem
from edgecnn.data.names import same
from edgecnn.data.walk import files_below, listed, refuse_no_folder, shown
from edgecnn.documents import Sha256, sha256_of_file
from edgecnn.errors import UserError


@dataclass(frozen=True)
class Sought:
    """An image as it was."""

    name: str
    """Relative to its data folder then."""
    sha256: Sha256
    label: str
    """Its class then."""


@dataclass(frozen=True)
class Located:
    """Where images are now."""

    root: Path
    sought: tuple[Sought, ...]
    places: tuple[Path | None, ...]
    """Of each; None where its content is nowhere."""
    relabelled: frozenset[Sha256]
    """Those that lie under another class now, and under the one that they had no longer."""
    problems: tuple[Problem, ...] = ()
    """What could not be looked into."""

    @property
    def missing(self) -> tuple[Sought, ...]:
        """Those that are gone."""
        return tuple(image for image, place in self._each() if place is None)

    def words(self, what: str) -> tuple[str, ...]:
        """What their owner should know, a line each: of other classes and of other names. `what`: they."""
        told = []
        now = [(image, shown(place, self.root)) for image, place in self._each() if place is not None]
        others = [(image, name) for image, name in now if image.sha256 in self.relabelled]
        moved = [
            (image, name)
            for image, name in now
            if image.sha256 not in self.relabelled and same(name) != same(image.name)
        ]
        if others:
            image, name = others[0]
            told.append(
                f"WARNING: {self._of(others, what)} under another class than before (such as {image.name}, of "
                f"{image.label}/, now {name}): judged by the class they had; where the new one is right, make a new "
                "bundle"
            )
        if moved:
            image, name = moved[0]
            told.append(
                f"{self._of(moved, what)} under another name than before (such as {image.name}, now {name}): found "
                "by content"
            )
        return tuple(told)

    def refuse_missing(self, what: str) -> None:
        """UserError where any is gone."""
        if not self.missing:
            return
        unseen = f"; {listed(self.problems, 'thing', 1)} could not be looked into" if self.problems else ""
        raise UserError(
            f"{self.root}: {len(self.missing)} of the {len(self.sought)} {what} are not there (such as "
            f"{self.missing[0].name}{unseen}): give the folder that the bundle was made from"
        )

    def _each(self) -> Iterator[tuple[Sought, Path | None]]:
        return zip(self.sought, self.places, strict=True)

    def _of(self, some: Sequence[object], what: str) -> str:
        return f"{len(some)} of the {len(self.sought)} {what} lie{'s' * (len(some) == 1)}"


def locate(root: Path, sought: Sequence[Sought], classes: Sequence[str]) -> Located:
    """Find images by their names, else by their content below `root`, best under the class that they had.

    An image lies under the innermost folder that is called like one of `classes`. UserError: no such folder.
    """
    refuse_no_folder(root, "the images that the bundle was made from")
    places = [root / image.name if _holds(root, image) else None for image in sought]
    left = {image.sha256: image for image, place in zip(sought, places, strict=True) if place is None}
    if not left:
        return Located(root, tuple(sought), tuple(places), frozenset())
    below = files_below(root)
    elsewhere: dict[Sha256, list[Path]] = defaultdict(list)
    for path in below.images:
        try:
            content = sha256_of_file(path)
        except OSError:
            continue
        if content in left:
            elsewhere[content].append(path)
    relabelled: set[Sha256] = set()
    best: dict[Sha256, Path] = {}
    for content, found in elsewhere.items():
        fitting = [path for path in found if _class_of(path, root, classes) in (same(left[content].label), None)]
        best[content] = (fitting or found)[0]
        if not fitting:
            relabelled.add(content)
    now = [place or best.get(image.sha256) for image, place in zip(sought, places, strict=True)]
    return Located(root, tuple(sought), tuple(now), frozenset(relabelled), below.problems)


def is_below(name: str) -> bool:
    """Whether a name that a bundle gives leads to a place below the folder that it is taken in, links aside."""
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts


def _holds(root: Path, image: Sought) -> bool:
    path = root / image.name
    try:
        return is_below(image.name) and path.is_file() and sha256_of_file(path) == image.sha256
    except (OSError, ValueError):  # a name that no path can have
        return False


def _class_of(path: Path, root: Path, classes: Sequence[str]) -> str | None:
    """None where no folder between them is called like a class."""
    known = {same(name) for name in classes}
    folders = [same(part) for part in path.relative_to(root).parts[:-1]]
    return next((name for name in reversed(folders) if name in known), None)
