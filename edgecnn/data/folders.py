"""Image folders to a dataset: which images there are, which are unfit and why, and splits that cannot leak."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Preprocess
from edgecnn.data.assign import FRACTIONS, split_by_part
from edgecnn.data.copies import same_pixels
from edgecnn.data.depth import Depth, find_depth
from edgecnn.data.items import SPLITS, Dataset, Item, Problem, part_of
from edgecnn.data.layout import Layout, read_layout
from edgecnn.data.looks import SIDE, grey_picture
from edgecnn.data.masks import masks_among
from edgecnn.data.names import same, text_of
from edgecnn.data.parts import Rule, alike_apart, grouping_of, remarks_on, straddling_parts, with_parts
from edgecnn.data.walk import NOT_IMAGES, files_below, listed, shown
from edgecnn.documents import sha256_of
from edgecnn.errors import BadImage, UserError, not_one_of
from edgecnn.imaging import EXTENSIONS, Preparer, read_encoded

MIN_PER_CLASS = 5
"""Fewer images of a class cannot be trained on, tuned on and judged on."""
_GOOD = frozenset({"good", "ok", "okay", "normal", "free", "pass", "no_defect", "no-defect", "nodefect", "perfect"})
# The decoder reads the whole file whatever it is asked to return.
_PROBE = Preprocess(height=SIDE, width=SIDE)

ImagesRead = Callable[[int, int], None]
"""Called with (done, of)."""


@dataclass(frozen=True)
class _Read:
    """What the files of a folder hold."""

    found: list[tuple[str, Item]]
    """Each with its split."""
    problems: list[Problem]
    depth: Depth
    pictures: dict[str, NDArray[np.uint8]]
    """A small grey picture of each content."""
    remarks: tuple[str, ...]


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
    """Read `root/<class>/*`, split by content hash, or as the folders split it (`read_layout`).

    Every file is hashed and decoded once; hidden files and folders are passed over. Images of one part stay in one
    split, whatever their labels: `group` names the parts (a regular expression over file names, or a .csv table
    file,group); without it images that look alike are a part, unless `looks` is off; equal pixels always are. Where the
    folders give the splits, parts in several of them are counted and told in `remarks`; without `given_splits` they are
    not used, which `remarks` says. Equal pixels under two classes
    are left out. `good` names the class without defects (else guessed from the usual names; "none" for none).
    Raises UserError: no such folder or classes, a class missing from a split, a class with fewer than `min_per_class`
    images, a `group` that does not fit, unreadable images (unless `skip_unreadable`: then they are in `problems`).
    """
    layout = read_layout(root)
    rule = Rule(group, looks)
    read = _scan(root, layout, progress)
    if read.problems and not skip_unreadable:
        raise UserError(f"{root}: {listed(read.problems)}: mend or remove, or leave them out with --skip-unreadable")
    picture_of = same_pixels([item for _, item in read.found], read.pictures, read.depth.bits)
    found, conflicts = _without_conflicts(read.found, layout.classes, picture_of)
    items = with_parts([item for _, item in found], read.pictures, root, rule, picture_of)
    found = [(split, item) for (split, _), item in zip(found, items, strict=True)]
    given = given_splits and bool(layout.given) and not layout.unfit
    splits, moved = _assign(found, layout, picture_of, seed) if given else (split_by_part(items, FRACTIONS, seed), [])
    data = Dataset(
        root=root,
        classes=layout.classes,
        good_class=_good_class(layout.classes, good),
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        problems=(*read.problems, *conflicts, *moved),
        bits=read.depth.bits,
        remarks=(*layout.remarks, *read.remarks, *_on_copies(items, picture_of), *_on_splits(layout, given)),
    )
    _refuse_small_classes(data, min_per_class)
    kept = [item for name in SPLITS for item in data.split(name)]
    apart = alike_apart(data, read.pictures, rule)
    return replace(
        data,
        grouping=grouping_of(kept, rule, len(straddling_parts(data)), len(apart)),
        remarks=(*data.remarks, *remarks_on(data, rule, given, apart)),
    )


def _on_splits(layout: Layout, given: bool) -> tuple[str, ...]:
    if given or not layout.given:
        return layout.roles
    names = ", ".join(layout.given)
    return (
        f"the splits that the folders give ({names}) are not used: all their images are split anew, parts kept whole",
    )


def _on_copies(items: Sequence[Item], picture_of: Mapping[str, str]) -> tuple[str, ...]:
    """Equal bytes are not told: nothing is decided about them."""
    files: dict[str, dict[str, Item]] = defaultdict(dict)
    for item in items:
        files[picture_of[item.sha256]].setdefault(item.sha256, item)
    sets = [list(found.values()) for found in files.values() if len(found) > 1]
    if not sets:
        return ()
    many = f"{sum(map(len, sets))} files are {len(sets)} picture{'s' * (len(sets) > 1)} saved in other bytes"
    return (f"{many} (such as {sets[0][0].name} and {sets[0][1].name}): each kept in one split",)


def _scan(root: Path, layout: Layout, progress: ImagesRead | None) -> _Read:
    """Decode every file once."""
    files: list[tuple[str, int, Path]] = []
    problems: list[Problem] = []
    beside: list[Path] = []
    for place in layout.places:
        below = files_below(place.folder, root)
        problems += below.problems
        for path in below.files:
            if path.suffix.lower() in NOT_IMAGES:
                beside.append(path)
            else:
                files.append((place.split, place.label, path))
    found: list[tuple[str, Item]] = []
    peaks: dict[str, int] = {}
    pictures: dict[str, NDArray[np.uint8]] = {}
    preparer = Preparer(_PROBE)
    for done, (split, label, path) in enumerate(files, 1):
        name = text_of(path.relative_to(root).as_posix())
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
    masks = masks_among([(f"{split} {item.label}", item.path) for split, item in found], root)
    names = {item.path: item.name for _, item in found}
    depth = find_depth({name: peak for name, peak in peaks.items() if name not in {names[mask] for mask in masks}})
    problems += [Problem(name, reason) for name, reason in depth.unfit.items()]
    kept = [(split, item) for split, item in found if item.path not in masks and item.name not in depth.unfit]
    remarks = ((depth.remark,) if depth.remark else ()) + _on_masks(masks, names) + _on_side_files(beside, root)
    return _Read(kept, problems, depth, pictures, remarks)


def _on_masks(masks: Mapping[Path, Path], names: Mapping[Path, str]) -> tuple[str, ...]:
    if not masks:
        return ()
    mask, image = next(iter(masks.items()))
    return (
        f"{len(masks):,} file{'s' * (len(masks) > 1)} beside images of the same name, of few colours (such as "
        f"{names[mask]} of {names[image]}), are taken for masks and not read",
    )


def _on_side_files(beside: Sequence[Path], root: Path) -> tuple[str, ...]:
    if not beside:
        return ()
    endings = Counter(path.suffix.lower() for path in beside)
    each = ", ".join(f"{count:,} {ending}" for ending, count in endings.most_common())
    return (f"passed over in the class folders, no images by their endings: {each} (such as {shown(beside[0], root)})",)


def _read(path: Path, preparer: Preparer) -> tuple[str, int | None, NDArray[np.uint8]]:
    """The content hash of an image that decodes, the largest value of one of 16 bits, and its grey picture.

    Raises BadImage.
    """
    if path.suffix.lower() not in EXTENSIONS:
        what = f"{path.suffix} is not a format" if path.suffix else "its name has no ending of a format"
        raise BadImage(f"{what} that is read here: convert it to JPEG or PNG")
    encoded = read_encoded(path)
    pixels, peak = preparer.probe(encoded)
    return sha256_of(encoded), peak, grey_picture(pixels)


def _without_conflicts(
    found: list[tuple[str, Item]], classes: tuple[str, ...], picture_of: Mapping[str, str]
) -> tuple[list[tuple[str, Item]], list[Problem]]:
    labels: dict[str, set[int]] = defaultdict(set)
    for _, item in found:
        labels[picture_of[item.sha256]].add(item.label)
    kept: list[tuple[str, Item]] = []
    conflicts: list[Problem] = []
    for split, item in found:
        under = sorted(labels[picture_of[item.sha256]])
        if len(under) == 1:
            kept.append((split, item))
        else:
            named = " and ".join(f"{classes[label]}/" for label in under)
            conflicts.append(Problem(item.name, f"the same image is in {named}"))
    return kept, conflicts


def _assign(
    found: list[tuple[str, Item]], layout: Layout, picture_of: Mapping[str, str], seed: int
) -> tuple[dict[str, tuple[Item, ...]], list[Problem]]:
    """As the folders say; what the test split holds must not be trained or tuned on."""
    given = {name: [item for split, item in found if split == name] for name in SPLITS}
    moved: list[Problem] = []
    seen = {picture_of[item.sha256] for item in given["test"]}
    for name in ("val", "train"):
        for item in [item for item in given[name] if picture_of[item.sha256] in seen]:
            moved.append(Problem(item.name, "left out: the same image is in a later split"))
        given[name] = [item for item in given[name] if picture_of[item.sha256] not in seen]
        seen |= {picture_of[item.sha256] for item in given[name]}
    splits = {name: tuple(items) for name, items in given.items()}
    if not any(place.split == "val" for place in layout.places):
        splits |= split_by_part(given["train"], {"train": 0.8, "val": 0.2}, seed)
    return splits, moved


def _good_class(classes: tuple[str, ...], asked: str | None) -> str | None:
    if asked == "none":
        return None
    if asked is not None:
        asked = same(asked)
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
    of_class = Counter(item.label for item in every)
    enough = all(of_class[label] >= least for label in range(len(data.classes)))
    hint = large if enough and most > max(1, len(every) // 5) else ""
    if data.problems:
        hint += f"; left out: {listed(data.problems, 'image', most=2)}"
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
    usable = f"{images} usable image{'s' * (images != 1)}{of_parts}"
    return f"{data.classes[label]}/ has {usable} ({'/'.join(map(str, counts))} train/val/test)"
