"""The split on disk: which image is in which split, by content hash, so that it can be proven later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from edgecnn.artifact import Grouping
from edgecnn.data.items import SPLITS, Dataset, Item, Problem, split_hash
from edgecnn.data.located import Sought, locate
from edgecnn.data.parts import parts_hash
from edgecnn.data.walk import files_below, refuse_no_folder
from edgecnn.documents import Frozen, Sha256, parse, sha256_of_file, write_atomically
from edgecnn.errors import UserError
from edgecnn.progress import Progress


class _Image(Frozen):
    name: str
    label: int
    sha256: Sha256
    part: str = ""


class _Left(Frozen):
    name: str
    reason: str


class _Split(Frozen):
    version: int = 1
    root: str
    """Where the images were when the split was made: a default, never a proof."""
    classes: tuple[str, ...]
    good_class: str | None
    hashes: dict[str, Sha256]
    splits: dict[str, tuple[_Image, ...]]
    problems: tuple[_Left, ...] = ()
    bits: int | None = None
    grouping: Grouping | None = None
    remarks: tuple[str, ...] = ()
    test_root: str | None = None


def save_split(data: Dataset, path: Path) -> None:
    """Write split.json."""
    split = _Split(
        root=str(data.root.resolve()),
        classes=data.classes,
        good_class=data.good_class,
        hashes=split_hashes(data),
        splits={
            name: tuple(
                _Image(name=item.name, label=item.label, sha256=item.sha256, part=item.part)
                for item in data.split(name)
            )
            for name in SPLITS
        },
        problems=tuple(_Left(name=problem.name, reason=problem.reason) for problem in data.problems),
        bits=data.bits,
        grouping=data.grouping,
        remarks=data.remarks,
        test_root=str(data.test_root.resolve()) if data.test_root else None,
    )
    write_atomically(path, split.model_dump_json(indent=1) + "\n")


def load_split(root: Path | None, path: Path, progress: Progress = lambda text: None) -> Dataset:
    """The dataset of a split.json, its images in `root` (None: where they were), there by name or else by content.

    Images that lie elsewhere now, or under another class, are told to `progress`; they keep their class and split.
    UserError where an image is gone or its bytes changed.
    """
    if not path.is_file():
        raise UserError(f"{path}: no split file there (written by `edgecnn finetune`)")
    split = parse(_Split, path.read_bytes(), str(path))
    root = root or Path(split.root)
    test_root = Path(split.test_root) if split.test_root else None
    every = []
    for folder in dict.fromkeys((root, test_root or root)):
        names = [name for name in split.splits if (test_root or root if name == "test" else root) == folder]
        every += _placed(folder, split, names, path, progress)
    if split.grouping and parts_hash([item for _, item in every]) != split.grouping.sha256:
        raise UserError(f"{path}: its images are not grouped as it says: train again")
    items = {split_name: tuple(item for name, item in every if name == split_name) for split_name in SPLITS}
    return Dataset(
        root=root,
        classes=split.classes,
        good_class=split.good_class,
        train=items["train"],
        val=items["val"],
        test=items["test"],
        problems=tuple(Problem(left.name, left.reason) for left in split.problems),
        bits=split.bits,
        grouping=split.grouping,
        remarks=split.remarks,
        test_root=test_root,
    )


def _placed(root: Path, split: _Split, names: Sequence[str], path: Path, progress: Progress) -> list[tuple[str, Item]]:
    """The images of the splits `names`, where they lie below `root` now."""
    images = [(name, image) for name in names for image in split.splits[name]]
    sought = [Sought(image.name, image.sha256, split.classes[image.label]) for _, image in images]
    located = locate(root, sought, split.classes)
    for (name, image), place in zip(images, located.places, strict=True):
        there = root / image.name
        if place is None and there.is_file():
            raise UserError(f"{there}: its bytes changed since the {name} split was made: train again")
        if place is None:
            raise UserError(f"{there}: no such file, but {path} has it in {name}: give the same data folder")
    for line in located.words("images"):
        progress(line)
    return [
        (name, Item(place or root / image.name, image.name, image.label, image.sha256, image.part))
        for (name, image), place in zip(images, located.places, strict=True)
    ]


def split_hashes(data: Dataset) -> dict[str, Sha256]:
    """Hash of each split."""
    return {name: split_hash(data.split(name)) for name in SPLITS}


def find_images(root: Path, wanted: Iterable[Sha256]) -> dict[Sha256, Path]:
    """The images below `root` whose content hash is wanted."""
    left = set(wanted)
    found: dict[Sha256, Path] = {}
    refuse_no_folder(root, "the images that the bundle was made from")
    for path in files_below(root).images:
        if not left:
            break
        sha256 = sha256_of_file(path)
        if sha256 in left:
            found[sha256] = path
            left.discard(sha256)
    return found
