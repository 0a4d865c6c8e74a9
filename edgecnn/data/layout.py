"""How a data folder is laid out: its classes, the splits that its folders give, and the folders that are no classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgecnn.data.items import SPLITS, Problem
from edgecnn.data.names import natural, printable, same, sorts_two_ways, text_of, twins
from edgecnn.data.walk import has_image_ending, listing, refuse_no_folder, shown
from edgecnn.errors import UserError
from edgecnn.imaging import EXTENSIONS

_SPLIT_OF = {
    **dict.fromkeys(("train", "training", "trainset", "trainingset", "traindata", "trainingdata"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "validset", "validationset", "validationdata"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "testingset", "testdata"), "test"),
}
"""What splits are called, without case, spaces and hyphens."""
_MASKS = frozenset({"groundtruth", "masks", "annotations", "labels", "jsons", "imagesets", "segmentationclass"})
"""Folders of boxes or masks, which lie beside one of images; ground_truth/ beside any."""
_IMAGES = frozenset({"images", "imgs", "image", "img", "jpegimages"})
_TABLES = frozenset({".csv", ".tsv", ".json", ".xml", ".xlsx", ".parquet"})
_SHOWN = 12

EXPECTED = "<class>/*.jpg or {train,val,test}/<class>/*.jpg in it"


@dataclass(frozen=True)
class Place:
    """A folder of one class, in one split."""

    split: str
    """Empty where the folders give none."""
    label: int
    folder: Path


@dataclass(frozen=True)
class Layout:
    """Where the images of each class lie."""

    classes: tuple[str, ...]
    """Spelled alike whatever the disk does (NFC), and sorted as text."""
    places: tuple[Place, ...]
    given: tuple[str, ...] = ()
    """The folders that give the splits, as they are called; empty where there are none."""
    unfit: bool = False
    """Whether the splits that the folders give cannot be used: all images are split anew."""
    roles: tuple[str, ...] = ()
    """What to say of the splits where they are used."""
    remarks: tuple[str, ...] = ()


def read_layout(root: Path) -> Layout:
    """The layout of `root`: classes, splits of classes, or classes that each hold the same splits.

    A test split is always there where splits are: without test/ it is val/, and validation is taken from train/.
    Raises UserError: no such folder, fewer than two classes, folders that are neither, a class missing from a split.
    """
    refuse_no_folder(root, EXPECTED)
    top = listing(root, root)
    _refuse_problem_folders(root, top.problems)
    splits = _splits_in(top.folders)
    if "train" in splits or len(splits) > 1:
        found = _of_splits(root, top.folders, splits)
    else:
        found = _of_classes(root, top.folders)
    return replace(found, remarks=(*found.remarks, *_on_loose(root, top.files), *_on_names(found.classes)))


def gives_test(root: Path) -> bool:
    """Whether the folders name test images that whoever trained on them kept aside: a test/ beside train/."""
    layout = read_layout(root)
    return not layout.unfit and any(_split_of(name.rstrip("/")) == "test" for name in layout.given)


def _refuse_problem_folders(root: Path, problems: Sequence[Problem]) -> None:
    """A class or split that cannot be read is not left out: the network would have one output fewer."""
    folders = [problem for problem in problems if Path(problem.name).suffix.lower() not in EXTENSIONS]
    if folders:
        raise UserError(f"{root / folders[0].name}: {folders[0].reason} (it stands where a class or split should)")


def _of_classes(root: Path, folders: Sequence[Path]) -> Layout:
    within = {folder: _splits_in(listing(folder, root).folders) for folder in folders}
    if any("train" in splits and len(splits) > 1 for splits in within.values()):
        return _of_splits_in_classes(root, within)
    _refuse_no_classes(root, folders)
    _refuse_called_as_splits(root, folders)
    classes = _spelled_once(root, folders)
    _refuse_few(root, tuple(classes))
    places = tuple(Place("", label, classes[name]) for label, name in enumerate(classes))
    return Layout(tuple(classes), places)


def _of_splits(root: Path, folders: Sequence[Path], splits: Mapping[str, Sequence[Path]]) -> Layout:
    """`{train,val,test}/<class>/*`."""
    taken = {split: paths[0] for split, paths in splits.items()}
    masks = [path for path in folders if _plain(path.name) == "groundtruth"]
    others = [path for path in folders if path not in taken.values() and path not in masks]
    if others:
        raise UserError(
            f"{root}: {others[0].name}/ stands beside {' and '.join(f'{path.name}/' for path in taken.values())}: "
            "keep either splits or classes in one folder, one folder for each split"
        )
    use, roles = _roles(root, taken)
    remarks: tuple[str, ...] = ()
    inside = {split: listing(folder, root) for split, folder in use.items()}
    for one in inside.values():
        _refuse_problem_folders(root, one.problems)
        remarks += _on_loose(root, one.files)
    classes = {split: _spelled_once(use[split], one.folders) for split, one in inside.items()}
    every = tuple(sorted(set().union(*classes.values())))
    for split, one in inside.items():
        _refuse_no_classes(use[split], one.folders)
    _refuse_few(root, every)
    unfit = _learns_from_one_class(classes)
    if unfit:
        only = next(iter(classes["train"]))
        remarks = (f"{use['train'].name}/ holds {only}/ alone, as MVTec's sets do, and a classifier needs every class",)
    else:
        _refuse_missing(use, classes, every)
    if masks:
        remarks += (f"{masks[0].name}/ holds masks, no class: it is not read",)
    places = [
        Place(split, every.index(name), folder) for split, found in classes.items() for name, folder in found.items()
    ]
    return Layout(every, tuple(places), _folder_names(use), unfit, roles, remarks)


def _of_splits_in_classes(root: Path, within: Mapping[Path, Mapping[str, Sequence[Path]]]) -> Layout:
    """`<class>/{train,val,test}/*`."""
    _refuse_no_classes(root, tuple(within))
    classes = _spelled_once(root, tuple(within))
    _refuse_few(root, tuple(classes))
    first = next(folder for folder, splits in within.items() if "train" in splits and len(splits) > 1)
    wanted = set(within[first])
    names = ", ".join(f"{paths[0].name}/" for paths in within[first].values())
    for folder, splits in within.items():
        inside = listing(folder, root)
        beside = [path for path in inside.folders if path not in [paths[0] for paths in splits.values()]]
        beside += [path for path in inside.files if has_image_ending(path)]
        if set(splits) != wanted or beside:
            what = f"has {beside[0].name} beside them" if beside and splits else "has not the same"
            raise UserError(
                f"{root}: {first.name}/ holds splits ({names}), {folder.name}/ {what}: give each class the same "
                "splits and nothing else, or none; a set of several products (MVTec) is given one product at a time"
            )
    use, roles = _roles(root, {split: paths[0] for split, paths in within[first].items()})
    old = {split: _split_of(folder.name) for split, folder in use.items()}
    places = tuple(
        Place(split, label, within[classes[name]][old[split]][0]) for split in use for label, name in enumerate(classes)
    )
    told = f"each class holds its splits ({names}): they are used"
    return Layout(tuple(classes), places, _folder_names(use), roles=(told, *roles))


def _roles(root: Path, found: Mapping[str, Path]) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Which folder is which split, and what to say of it. Raises UserError where train/, or any other, is missing."""
    if "train" not in found:
        raise UserError(
            f"{root}: has no train/ beside {next(iter(found.values())).name}/: add train/<class>/*, "
            "or give one folder with <class>/* in it"
        )
    train = found["train"].name
    if len(found) == 1:
        raise UserError(
            f"{root}: has no test/ beside {train}/: add test/<class>/* (or val/), or give {found['train']}: its images "
            "are then split"
        )
    if "test" not in found:
        other = found["val"]
        told = f"no test/ beside {train}/ and {other.name}/: {other.name}/ is the test split"
        return {"train": found["train"], "test": other}, (f"{told}, validation is taken from {train}/",)
    remarks = () if "val" in found else (f"no val/ beside {train}/: validation is taken from {train}/",)
    return {split: found[split] for split in SPLITS if split in found}, remarks


def _splits_in(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Split to the folders that are called so."""
    found: dict[str, list[Path]] = {}
    for path in folders:
        split = _split_of(path.name)
        if split:
            found.setdefault(split, []).append(path)
    return {split: found[split] for split in SPLITS if split in found}


def _split_of(name: str) -> str:
    return _SPLIT_OF.get(_plain(name), "")


def _plain(name: str) -> str:
    """Without case, spaces, hyphens."""
    return re.sub(r"[\s_.-]", "", name.casefold())


def _spelled_once(folder: Path, paths: Sequence[Path]) -> dict[str, Path]:
    """Class to its folder, sorted. UserError where two folders are one class, or one folder is two."""
    found: dict[str, Path] = {}
    real: dict[Path, str] = {}
    for path in paths:
        name = same(path.name)
        if name in found:
            raise UserError(
                f"{folder}: two folders are called {printable(name)}/, spelled with other characters (NFC and NFD): "
                "put their images into one"
            )
        other = real.setdefault(path.resolve(), name)
        if other != name:
            raise UserError(f"{folder}: {other}/ and {name}/ are one folder (a link): remove one of them")
        found[name] = path
    return dict(sorted(found.items()))


def _refuse_few(root: Path, classes: Sequence[str]) -> None:
    if len(classes) > 1:
        return
    found = f"only {classes[0]}/" if classes else "no class folder"
    hints = _on_deeper(root) + _on_table(root)
    raise UserError(f"{root}: {found} there: at least two class folders are needed (<class>/*.jpg){hints}")


def _on_deeper(root: Path) -> str:
    """Where the classes may lie instead: archives hold a folder, which holds a folder."""
    here, seen = root, set[Path]()
    while len(inside := listing(here, root).folders) == 1 and here.resolve() not in seen:
        seen.add(here.resolve())
        here = inside[0]
    return f"; or give {here}, which holds {len(inside)} folders" if here != root and len(inside) > 1 else ""


def _on_table(root: Path) -> str:
    """Sets whose labels are in a table or in files of annotations (CSV, COCO), beside images in no order."""
    top = listing(root, root)
    files = [path for folder in (root, *top.folders) for path in listing(folder, root).files]
    tables = [path for path in files if path.suffix.lower() in _TABLES]
    if not tables or not any(has_image_ending(path) for path in files):
        return ""
    return (
        f"; labels in tables or annotations ({shown(tables[0], root)}) are not read: put the images of each class into "
        "a folder of its own"
    )


def _refuse_called_as_splits(root: Path, folders: Sequence[Path]) -> None:
    """train2017/ and val2017/, train_images/ and test_images/ are splits, and would be learned as two classes."""
    called: dict[str, dict[str, Path]] = {}
    for path in folders:
        for split, rest in _like_splits(_plain(path.name)):
            called.setdefault(rest, {}).setdefault(split, path)
    for found in called.values():
        if "train" in found and len(found) > 1:
            found = {split: found[split] for split in SPLITS if split in found}
            new = " and ".join(f"{split}/" for split in found)
            raise UserError(
                f"{root}: {' and '.join(f'{path.name}/' for path in found.values())} are called like splits and stand "
                f"where classes should: if they hold class folders, call them {new}; else put the images of each class "
                "into a folder of its own"
            )


def _like_splits(plain: str) -> set[tuple[str, str]]:
    """Splits that a name begins or ends with, each with the rest of the name."""
    parts = [(plain[:cut], plain[cut:]) for cut in range(1, len(plain))]
    return {(_SPLIT_OF[one], rest) for part in parts for one, rest in (part, part[::-1]) if one in _SPLIT_OF}


def _refuse_no_classes(folder: Path, folders: Sequence[Path]) -> None:
    """Layouts of detection and segmentation sets, and masks."""
    plain = {_plain(path.name): path.name for path in folders}
    images, masks = sorted(_IMAGES & set(plain)), sorted(_MASKS & set(plain))
    if images and masks:
        raise UserError(
            f"{folder}: {plain[images[0]]}/ beside {plain[masks[0]]}/ is the layout of boxes or masks, not of classes: "
            "put the images of each class into a folder of its own (<class>/*.jpg)"
        )
    if "groundtruth" in plain and len(plain) > 1:
        raise UserError(
            f"{folder}: {plain['groundtruth']}/ stands among the class folders and holds masks: move it out of {folder}"
        )


def _learns_from_one_class(classes: Mapping[str, Mapping[str, Path]]) -> bool:
    """MVTec's layout: train/good, test/{good,crack,…}."""
    return len(classes["train"]) == 1 and set(classes["train"]) < set(classes["test"])


def _refuse_missing(use: Mapping[str, Path], classes: Mapping[str, Mapping[str, Path]], every: Sequence[str]) -> None:
    for split, found in classes.items():
        missing = [name for name in every if name not in found]
        if not missing:
            continue
        there = [use[other].name for other, names in classes.items() if missing[0] in names]
        alike = next((name for pair in twins([missing[0], *found]) if missing[0] in pair for name in pair[1:]), None)
        hint = f"{alike}/ there is the same but for case or spaces: rename it" if alike else ""
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"{use[split]}: class folder {missing[0]}/{more} is missing ({', '.join(f'{name}/' for name in there)} has "
            f"it): {hint or 'add its images there, take it out of the others, or give one folder of classes to split'}"
        )


def _on_loose(root: Path, files: Sequence[Path]) -> tuple[str, ...]:
    loose = [path for path in files if has_image_ending(path)]
    if not loose:
        return ()
    one = len(loose) == 1
    such = f"{len(loose):,} image{'s' * (not one)} beside the folders (such as {shown(loose[0], root)})"
    return (f"{such} belong{'s' * one} to no class and {'is' if one else 'are'} not read",)


def _on_names(classes: Sequence[str]) -> tuple[str, ...]:
    remarks = [
        f"classes {' and '.join(repr(name) for name in names)} differ by case, spaces or invisible letters alone: are "
        "they one?"
        for names in twins(classes)
    ]
    if sorts_two_ways(classes):
        numbered = sorted(classes, key=natural)
        apart = next(place for place, pair in enumerate(zip(numbered, classes, strict=True)) if len(set(pair)) > 1)
        remarks.append(
            f"classes, in the order of the network's outputs: {_some(classes, apart)} (sorted as text; by number: "
            f"{_some(numbered, apart)})"
        )
    return tuple(remarks)


def _some(names: Sequence[str], apart: int) -> str:
    """As many as show the order, at most a dozen."""
    last = min(max(apart + 2, 4), len(names))
    first = max(0, last - _SHOWN)
    return f"{'…, ' * (first > 0)}{', '.join(names[first:last])}{', …' * (last < len(names))}"


def _folder_names(use: Mapping[str, Path]) -> tuple[str, ...]:
    return tuple(f"{text_of(path.name)}/" for path in use.values())
