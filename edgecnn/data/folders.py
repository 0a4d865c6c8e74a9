"""Image folders to a dataset: which images there are, which are unfit and why, and splits that cannot leak."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Preprocess
from edgecnn.data.assign import FRACTIONS, split_by_part
from edgecnn.data.depth import Depth, find_depth
from edgecnn.data.items import SPLITS, Dataset, Item, Problem, part_of
from edgecnn.data.looks import SIDE, grey_picture
from edgecnn.data.parts import Rule, alike_apart, grouping_of, remarks_on, straddling_parts, with_parts
from edgecnn.documents import sha256_of
from edgecnn.errors import BadImage, UserError, not_one_of
from edgecnn.imaging import EXTENSIONS, Preparer

MIN_PER_CLASS = 5
"""Fewer images of a class cannot be trained on, tuned on and judged on."""
_ALIASES = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}
_GOOD = frozenset({"good", "ok", "okay", "normal", "free", "pass", "no_defect", "no-defect", "nodefect", "perfect"})
_NOT_IMAGES = frozenset({".txt", ".md", ".json", ".xml", ".csv", ".yaml", ".yml", ".db", ".ini", ".log", ".html"})
"""Side files that nobody takes for an image. Whatever else is not read is listed."""
# The decoder reads the whole file whatever it is asked to return.
_PROBE = Preprocess(height=SIDE, width=SIDE)

ImagesRead = Callable[[int, int], None]
"""Called with (done, of)."""


def load_folder(
    root: Path,
    *,
    seed: int = 0,
    good: str | None = None,
    skip_unreadable: bool = False,
    min_per_class: int = MIN_PER_CLASS,
    group: str | None = None,
    looks: bool = True,
    given_splits: bool = True,
    progress: ImagesRead | None = None,
) -> Dataset:
    """Read `root/<class>/*`, split by content hash, or `root/{train,val,test}/<class>/*` as it was split.

    Every file is hashed and decoded once; hidden files and folders are passed over. Images of one part stay in one
    split, whatever their labels: `group` names the parts (a regular expression over file names, or a .csv table
    file,group); without it images that look alike are a part, unless `looks` is off; equal bytes always are. Where the
    folders give the splits, parts in several of them are counted and told in `remarks`; without `given_splits` they are
    not used, which `remarks` says. Equal bytes under two classes
    are left out. `good` names the class without defects (else guessed from the usual names; "none" for none).
    Raises UserError: no such folder or classes, a class missing from a split, a class with fewer than `min_per_class`
    images, a `group` that does not fit, unreadable images (unless `skip_unreadable`: then they are in `problems`).
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder (expected <class>/*.jpg or {{train,val,test}}/<class>/*.jpg in it)")
    folders = _split_folders(root)
    classes = _classes(root, folders)
    rule = Rule(group, looks)
    found, problems, depth, pictures = _scan(root, folders, classes, progress)
    if problems and not skip_unreadable:
        raise UserError(f"{root}: {_listed(problems)}: mend or remove, or leave them out with --skip-unreadable")
    found, conflicts = _without_conflicts(found, classes)
    items = with_parts([item for _, item in found], pictures, root, rule)
    found = [(split, item) for (split, _), item in zip(found, items, strict=True)]
    given = given_splits and "" not in folders
    splits, moved = _assign(found, folders if given else {"": root}, seed)
    unused = () if given or "" in folders else (_unused(folders),)
    data = Dataset(
        root=root,
        classes=classes,
        good_class=_good_class(classes, good),
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        problems=(*problems, *conflicts, *moved),
        bits=depth.bits,
        remarks=((depth.remark,) if depth.remark else ()) + unused,
    )
    _refuse_small_classes(data, min_per_class)
    kept = [item for name in SPLITS for item in data.split(name)]
    apart = alike_apart(data, pictures, rule)
    return replace(
        data,
        grouping=grouping_of(kept, rule, len(straddling_parts(data)), len(apart)),
        remarks=(*data.remarks, *remarks_on(data, rule, given, apart)),
    )


def _unused(folders: Mapping[str, Path]) -> str:
    names = ", ".join(f"{path.name}/" for path in folders.values())
    return f"the splits that the folders give ({names}) are not used: all their images are split anew, parts kept whole"


def _split_folders(root: Path) -> dict[str, Path]:
    """{"": root} for a plain folder of classes; else split name to its folder."""
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    split_of = {path: _ALIASES.get(path.name.casefold(), path.name.casefold()) for path in folders}
    splits = {split: path for path, split in split_of.items() if split in SPLITS}
    if len(splits) < 2 and "train" not in splits:
        return {"": root}
    others = [path for path in folders if splits.get(split_of[path]) != path]
    if others:
        raise UserError(
            f"{root}: {others[0].name}/ stands beside {' and '.join(f'{path.name}/' for path in splits.values())}: "
            "keep either splits or classes in one folder, one folder for each split"
        )
    if "train" not in splits or "test" not in splits:
        missing = "test" if "train" in splits else "train"
        raise UserError(
            f"{root}: has no {missing}/ beside {next(iter(splits.values())).name}/: add {missing}/<class>/*, "
            "or give one folder with <class>/* in it"
        )
    return splits


def _classes(root: Path, folders: dict[str, Path]) -> tuple[str, ...]:
    per_split = {
        name: {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
        for name, folder in folders.items()
    }
    every = sorted(set.union(*per_split.values()))
    if len(every) < 2:
        found = f"only {every[0]}/" if every else "no class folder"
        raise UserError(f"{root}: {found} there: at least two class folders are needed (<class>/*.jpg)")
    for split, classes in per_split.items():
        missing = sorted(set(every) - classes)
        if missing:
            raise UserError(f"{folders[split]}: class folder {missing[0]}/ is missing (the other splits have it)")
    return tuple(every)


def _scan(
    root: Path, folders: dict[str, Path], classes: tuple[str, ...], progress: ImagesRead | None
) -> tuple[list[tuple[str, Item]], list[Problem], Depth, dict[str, NDArray[np.uint8]]]:
    """The images with their splits, those that are unfit, the depth of all, and a grey picture of each content."""
    files = [
        (split, label, path)
        for split, folder in folders.items()
        for label, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.is_file() and not _is_hidden(path, folder) and path.suffix.lower() not in _NOT_IMAGES
    ]
    found: list[tuple[str, Item]] = []
    problems: list[Problem] = []
    peaks: dict[str, int] = {}
    pictures: dict[str, NDArray[np.uint8]] = {}
    preparer = Preparer(_PROBE)
    for done, (split, label, path) in enumerate(files, 1):
        name = path.relative_to(root).as_posix()
        try:
            content, peak, picture = _read(path, preparer)
        except BadImage as error:
            problems.append(Problem(name, str(error)))
        except OSError as error:
            problems.append(Problem(name, f"cannot be read ({error.strerror})"))
        else:
            found.append((split, Item(path, name, label, content)))
            pictures[content] = picture
            if peak is not None:
                peaks[name] = peak
        if progress:
            progress(done, len(files))
    depth = find_depth(peaks)
    problems += [Problem(name, reason) for name, reason in depth.unfit.items()]
    return [(split, item) for split, item in found if item.name not in depth.unfit], problems, depth, pictures


def _is_hidden(path: Path, below: Path) -> bool:
    """Such as what an editor keeps in .ipynb_checkpoints/."""
    return any(part.startswith(".") for part in path.relative_to(below).parts)


def _read(path: Path, preparer: Preparer) -> tuple[str, int | None, NDArray[np.uint8]]:
    """The content hash of an image that decodes, the largest value of one of 16 bits, and its grey picture.

    Raises BadImage.
    """
    if path.suffix.lower() not in EXTENSIONS:
        raise BadImage(f"{path.suffix or 'no ending'} is not a format that is read here: convert it to JPEG or PNG")
    encoded = path.read_bytes()
    pixels, peak = preparer.probe(encoded)
    return sha256_of(encoded), peak, grey_picture(pixels)


def _without_conflicts(
    found: list[tuple[str, Item]], classes: tuple[str, ...]
) -> tuple[list[tuple[str, Item]], list[Problem]]:
    labels: dict[str, set[int]] = defaultdict(set)
    for _, item in found:
        labels[item.sha256].add(item.label)
    conflicts = [
        Problem(
            item.name, f"the same image is in {' and '.join(f'{classes[i]}/' for i in sorted(labels[item.sha256]))}"
        )
        for _, item in found
        if len(labels[item.sha256]) > 1
    ]
    return [(split, item) for split, item in found if len(labels[item.sha256]) == 1], conflicts


def _assign(
    found: list[tuple[str, Item]], folders: dict[str, Path], seed: int
) -> tuple[dict[str, tuple[Item, ...]], list[Problem]]:
    if "" in folders:
        return split_by_part([item for _, item in found], FRACTIONS, seed), []
    given = {name: [item for split, item in found if split == name] for name in folders}
    moved: list[Problem] = []
    # What the test split holds must not be trained or tuned on.
    seen = {item.sha256 for item in given["test"]}
    for name in ("val", "train"):
        for item in [item for item in given.get(name, []) if item.sha256 in seen]:
            moved.append(Problem(item.name, "left out: the same image is in a later split"))
        given[name] = [item for item in given.get(name, []) if item.sha256 not in seen]
        seen |= {item.sha256 for item in given[name]}
    splits = {name: tuple(items) for name, items in given.items()}
    if "val" not in folders:
        carved = split_by_part(given["train"], {"train": 0.8, "val": 0.2}, seed)
        splits = {**carved, "test": splits["test"]}
    return splits, moved


def _good_class(classes: tuple[str, ...], asked: str | None) -> str | None:
    if asked == "none":
        return None
    if asked is not None:
        if asked not in classes:
            raise not_one_of("--good", asked, [*classes, "none"])
        return asked
    likely = [name for name in classes if name.lower() in _GOOD or name.lower().endswith(("_free", "_good", "_ok"))]
    return likely[0] if len(likely) == 1 else None


def _refuse_small_classes(data: Dataset, least: int) -> None:
    every = [item for name in SPLITS for item in data.split(name)]
    sizes = Counter(part_of(item) for item in every)
    largest, most = max(sizes.items(), key=lambda one: (one[1], one[0]), default=("", 0))
    of_one = [item.name for item in every if part_of(item) == largest]
    large = (
        f"; {most} of all {len(every)} images are one part ({', '.join(of_one[:2])}, …), which stays in one split: "
        "a finer --group, or --no-group"
    )
    hint = large if most > max(1, len(every) // 5) else ""
    if not data.train or not data.test:
        raise UserError(
            f"{data.root}: {len(data.train)} train and {len(data.test)} test images: at least one of each{hint}"
        )
    if least == 0:
        return
    small = [text for label in range(len(data.classes)) if (text := _too_small(data, label, least))]
    if small:
        raise UserError(
            f"{data.root}: {'; '.join(small)}: at least {least} a class are needed, one of them in each split: "
            f"add images or remove the class{hint}"
        )


def _too_small(data: Dataset, label: int, least: int) -> str | None:
    """What a class lacks; None where nothing."""
    members = {name: [item for item in data.split(name) if item.label == label] for name in SPLITS}
    counts, images = [len(found) for found in members.values()], sum(map(len, members.values()))
    if images >= least and min(counts) >= 1:
        return None
    parts = len({part_of(item) for found in members.values() for item in found})
    of_parts = f" of {parts} part{'s' * (parts != 1)}" if parts < images else ""
    return f"{data.classes[label]}/ has {images} usable images{of_parts} ({'/'.join(map(str, counts))} train/val/test)"


def _listed(problems: Sequence[Problem], most: int = 5) -> str:
    shown = "; ".join(f"{problem.name}: {problem.reason}" for problem in problems[:most])
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return f"{len(problems)} unusable image{'s' if len(problems) > 1 else ''} ({shown}{more})"
