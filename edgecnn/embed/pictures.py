"""The images to embed: a labelled folder with its split, or any folder of images without labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgecnn.artifact import Preprocess, sha256_of
from edgecnn.data import SPLITS, Dataset, Problem, load_folder, load_split
from edgecnn.errors import BadImage, UserError
from edgecnn.imaging import EXTENSIONS, Preparer

_PROBE = Preprocess(height=32, width=32)
_SHOWN = 5


@dataclass(frozen=True)
class Picture:
    """An image of the folder."""

    path: Path
    name: str
    """Relative to the folder, with forward slashes."""
    label: str
    """Its class; empty where there are no labels."""
    split: str
    """train, val or test; empty where there are no labels."""
    sha256: str
    """Of the encoded file."""


@dataclass(frozen=True)
class Collection:
    """The images of a folder, sorted by name."""

    pictures: tuple[Picture, ...]
    classes: tuple[str, ...]
    """Empty where there are no labels."""
    left_out: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


def collect(
    root: Path,
    *,
    seed: int = 0,
    split: Path | None = None,
    unlabelled: bool = False,
    skip_unreadable: bool = False,
) -> Collection:
    """Class folders with labels and split; a folder that holds images but no folders (or `unlabelled`) without.

    `split`: the split.json of a run, used where the folder holds its images: a fine-tuned network has seen its training
    images, so that another split would judge it by them. Raises UserError: no such folder, no images, unreadable images
    (unless `skip_unreadable`: then they are in `left_out`).
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder (expected <class>/*.jpg, {{train,val,test}}/<class>/*.jpg or *.jpg)")
    if unlabelled or _is_flat(root):
        return _unlabelled(root, skip_unreadable)
    notes: tuple[str, ...] = ()
    if split is not None:
        try:
            return _labelled(load_split(root, split))
        except UserError as error:
            notes = (
                f"the run's own split is not used ({error}): test images may be among those that it was trained on",
            )
    data = load_folder(root, seed=seed, skip_unreadable=skip_unreadable, min_per_class=0)
    return _labelled(data, notes)


def _is_flat(root: Path) -> bool:
    inside = [path for path in root.iterdir() if not path.name.startswith(".")]
    return not any(path.is_dir() for path in inside) and any(path.suffix.lower() in EXTENSIONS for path in inside)


def _labelled(data: Dataset, notes: tuple[str, ...] = ()) -> Collection:
    pictures = [
        Picture(item.path, item.name, data.classes[item.label], split, item.sha256)
        for split in SPLITS
        for item in data.split(split)
    ]
    return Collection(tuple(sorted(pictures, key=lambda one: one.name)), data.classes, data.problems, notes)


def _unlabelled(root: Path, skip_unreadable: bool) -> Collection:
    preparer = Preparer(_PROBE)
    pictures: list[Picture] = []
    problems: list[Problem] = []
    for path in sorted(root.rglob("*")):
        if path.name.startswith(".") or path.suffix.lower() not in EXTENSIONS or not path.is_file():
            continue
        name = path.relative_to(root).as_posix()
        try:
            encoded = path.read_bytes()
            preparer.decode(encoded)
        except BadImage as error:
            problems.append(Problem(name, str(error)))
        except OSError as error:
            problems.append(Problem(name, f"cannot be read ({error.strerror})"))
        else:
            pictures.append(Picture(path, name, "", "", sha256_of(encoded)))
    if problems and not skip_unreadable:
        shown = "; ".join(f"{one.name}: {one.reason}" for one in problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise UserError(
            f"{root}: {len(problems)} unreadable ({shown}{more}): mend or remove, or leave out with --skip-unreadable"
        )
    if not pictures:
        raise UserError(f"{root}: no image there (read are {', '.join(sorted(EXTENSIONS))})")
    return Collection(tuple(pictures), (), tuple(problems))
