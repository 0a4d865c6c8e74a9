"""Image folders to a dataset: which images there are, which are unfit and why, and splits that cannot leak."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecnn.artifact import Preprocess
from edgecnn.data.depth import Depth, find_depth
from edgecnn.documents import sha256_of
from edgecnn.errors import BadImage, UserError, not_one_of
from edgecnn.imaging import EXTENSIONS, Preparer

SPLITS = ("train", "val", "test")
FRACTIONS = {"train": 0.65, "val": 0.15, "test": 0.20}
MIN_PER_CLASS = 5
"""Fewer images of a class cannot be trained on, tuned on and judged on."""
_ALIASES = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}
_GOOD = frozenset({"good", "ok", "okay", "normal", "free", "pass", "no_defect", "no-defect", "nodefect", "perfect"})
_NOT_IMAGES = frozenset({".txt", ".md", ".json", ".xml", ".csv", ".yaml", ".yml", ".db", ".ini", ".log", ".html"})
"""Side files that nobody takes for an image. Whatever else is not read is listed."""
# Any small size will do: the decoder reads the whole file whatever it is asked to return.
_PROBE = Preprocess(height=32, width=32)

Progress = Callable[[int, int], None]
"""Called with (done, of)."""


@dataclass(frozen=True)
class Item:
    """A labelled image."""

    path: Path
    name: str
    """Relative to the data folder, with forward slashes."""
    label: int
    sha256: str
    """Of the encoded file."""


@dataclass(frozen=True)
class Problem:
    """An image that was left out, with the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Labelled images in three splits that share no image content."""

    root: Path
    classes: tuple[str, ...]
    good_class: str | None
    """The class of parts without a defect; None where there is none."""
    train: tuple[Item, ...]
    val: tuple[Item, ...]
    test: tuple[Item, ...]
    problems: tuple[Problem, ...] = ()
    bits: int | None = None
    """For `Preprocess.bits`: how many bits of its 16-bit files count; None where it has no such file."""
    remarks: tuple[str, ...] = ()
    """What the user should know of the data, a line each."""

    def split(self, name: str) -> tuple[Item, ...]:
        """train, val or test."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


def load_folder(
    root: Path,
    *,
    seed: int = 0,
    good: str | None = None,
    skip_unreadable: bool = False,
    min_per_class: int = MIN_PER_CLASS,
    progress: Progress | None = None,
) -> Dataset:
    """Read `root/<class>/*`, split by content hash, or `root/{train,val,test}/<class>/*` as it was split.

    Every file is hashed and decoded once. Images with equal bytes stay in one split; equal bytes under two classes are
    left out. `good` names the class without defects (else guessed from the usual names; "none" for none).
    Raises UserError: no such folder or classes, a class missing from a split, a class with fewer than `min_per_class`
    images, unreadable images (unless `skip_unreadable`: then they are listed in `problems`).
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder (expected <class>/*.jpg or {{train,val,test}}/<class>/*.jpg in it)")
    folders = _split_folders(root)
    classes = _classes(root, folders)
    found, problems, depth = _scan(root, folders, classes, progress)
    if problems and not skip_unreadable:
        raise UserError(f"{root}: {_listed(problems)}: mend or remove, or leave them out with --skip-unreadable")
    found, conflicts = _without_conflicts(found, classes)
    splits, moved = _assign(found, folders, seed)
    data = Dataset(
        root=root,
        classes=classes,
        good_class=_good_class(classes, good),
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        problems=(*problems, *conflicts, *moved),
        bits=depth.bits,
        remarks=(depth.remark,) if depth.remark else (),
    )
    _refuse_small_classes(data, min_per_class)
    return data


def split_hash(items: Sequence[Item]) -> str:
    """Identifies a set of labelled images by content: sha256 over the sorted (sha256, label) pairs."""
    return sha256_of("\n".join(sorted(f"{item.sha256} {item.label}" for item in items)).encode())


def calibration_items(data: Dataset, images: int) -> tuple[Item, ...]:
    """At most `images` images of the train split, the classes in turn, so that rare ones are seen too."""
    queues: dict[int, list[Item]] = defaultdict(list)
    for item in sorted(data.train, key=lambda item: item.sha256, reverse=True):
        queues[item.label].append(item)
    chosen: list[Item] = []
    while len(chosen) < images and any(queues.values()):
        for label in sorted(queues):
            if queues[label] and len(chosen) < images:
                chosen.append(queues[label].pop())
    return tuple(chosen)


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
    root: Path, folders: dict[str, Path], classes: tuple[str, ...], progress: Progress | None
) -> tuple[list[tuple[str, Item]], list[Problem], Depth]:
    files = [
        (split, label, path)
        for split, folder in folders.items()
        for label, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path.suffix.lower() not in _NOT_IMAGES
    ]
    found: list[tuple[str, Item]] = []
    problems: list[Problem] = []
    peaks: dict[str, int] = {}
    preparer = Preparer(_PROBE)
    for done, (split, label, path) in enumerate(files, 1):
        name = path.relative_to(root).as_posix()
        try:
            sha256, peak = _read(path, preparer)
            found.append((split, Item(path, name, label, sha256)))
            if peak is not None:
                peaks[name] = peak
        except BadImage as error:
            problems.append(Problem(name, str(error)))
        except OSError as error:
            problems.append(Problem(name, f"cannot be read ({error.strerror})"))
        if progress:
            progress(done, len(files))
    depth = find_depth(peaks)
    problems += [Problem(name, reason) for name, reason in depth.unfit.items()]
    return [(split, item) for split, item in found if item.name not in depth.unfit], problems, depth


def _read(path: Path, preparer: Preparer) -> tuple[str, int | None]:
    """The content hash of an image that decodes, and the largest value of one of 16 bits. Raises BadImage."""
    if path.suffix.lower() not in EXTENSIONS:
        raise BadImage(f"{path.suffix or 'no ending'} is not a format that is read here: convert it to JPEG or PNG")
    encoded = path.read_bytes()
    _, peak = preparer.probe(encoded)
    return sha256_of(encoded), peak


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
        return _stratified([item for _, item in found], FRACTIONS, seed), []
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
        carved = _stratified(given["train"], {"train": 0.8, "val": 0.2}, seed)
        splits = {**carved, "test": splits["test"]}
    return splits, moved


def _stratified(items: Sequence[Item], fractions: dict[str, float], seed: int) -> dict[str, tuple[Item, ...]]:
    """Split each class by the order of its images' seeded hashes; copies of one image share a hash and so a split."""
    splits: dict[str, list[Item]] = {name: [] for name in fractions}
    by_class: dict[int, dict[str, list[Item]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        by_class[item.label][item.sha256].append(item)
    for groups in by_class.values():
        order = sorted(groups, key=lambda sha256: hashlib.sha256(f"{seed}:{sha256}".encode()).digest())
        start, share = 0, 0.0
        for name, fraction in fractions.items():
            share += fraction
            end = round(share * len(order))
            splits[name] += [item for sha256 in order[start:end] for item in groups[sha256]]
            start = end
    return {name: tuple(sorted(found, key=lambda item: item.name)) for name, found in splits.items()}


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
    if not data.train or not data.test:
        raise UserError(f"{data.root}: {len(data.train)} train and {len(data.test)} test images: at least one of each")
    if least == 0:
        return
    counts = {name: Counter(item.label for item in data.split(name)) for name in SPLITS}
    small = []
    for label, name in enumerate(data.classes):
        per_split = [counts[split][label] for split in SPLITS]
        if sum(per_split) < least or min(per_split) < 1:
            small.append(f"{name}/ has {sum(per_split)} usable images ({'/'.join(map(str, per_split))} train/val/test)")
    if small:
        raise UserError(
            f"{data.root}: {'; '.join(small)}: at least {least} a class are needed, one of them in each split: "
            "add images or remove the class"
        )


def _listed(problems: Sequence[Problem], most: int = 5) -> str:
    shown = "; ".join(f"{problem.name}: {problem.reason}" for problem in problems[:most])
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return f"{len(problems)} unusable image{'s' if len(problems) > 1 else ''} ({shown}{more})"
