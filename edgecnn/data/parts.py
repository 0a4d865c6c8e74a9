"""Which images show one physical part: by a rule over file names, by a table, by their looks, or by content alone."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Grouping
from edgecnn.data.items import SPLITS, Dataset, Item, part_of
from edgecnn.data.looks import alike
from edgecnn.data.names import same
from edgecnn.documents import Sha256, sha256_of
from edgecnn.errors import UserError
from edgecnn.texts import hidden, read_text

TABLE = ".csv"
_SHOWN = 3


@dataclass(frozen=True)
class Rule:
    """How parts are told."""

    group: str | None = None
    """A regular expression over file names, or a .csv file with the columns file,group; None: not named."""
    looks: bool = True
    """Whether images that look alike are one part where nothing names it."""


def with_parts(
    items: Sequence[Item],
    pictures: Mapping[str, NDArray[np.uint8]],
    root: Path,
    rule: Rule,
    picture_of: Mapping[str, str],
) -> list[Item]:
    """The items, each with its part; equal pixels are one part whatever names it. `pictures`: grey, by content.

    `picture_of`: content to one that stands for all of the same pixels.

    Raises UserError: an expression that does not fit every file, a table that does not name every file once.
    """
    if rule.group is None:
        names = _by_looks(items, pictures) if rule.looks else [item.sha256 for item in items]
    elif rule.group.casefold().endswith(TABLE):
        names = _by_table(items, root, Path(rule.group))
    else:
        names = _by_expression(items, rule.group)
    return [replace(item, part=part) for item, part in zip(items, _joined(items, names, picture_of), strict=True)]


def grouping_of(items: Sequence[Item], rule: Rule, straddling: int = 0, alike_apart: int = 0) -> Grouping:
    """The record of how the items' parts were told."""
    if rule.group is None:
        by, how = ("looks", "small grey pictures that correlate") if rule.looks else ("content", "equal pixels")
    elif rule.group.casefold().endswith(TABLE):
        by, how = "table", f"{Path(rule.group).name} sha256:{sha256_of(Path(rule.group).read_bytes())}"
    else:
        by, how = "names", rule.group
    sizes = Counter(part_of(item) for item in items)
    return Grouping.model_validate(
        {
            "by": by,
            "rule": how,
            "images": len(items),
            "parts": len(sizes),
            "largest": max(sizes.values(), default=0),
            "sha256": parts_hash(items),
            "straddling": straddling,
            "alike_apart": alike_apart,
        }
    )


def parts_hash(items: Sequence[Item]) -> Sha256:
    """Identifies which contents are together, whatever the parts are called."""
    parts: dict[str, set[str]] = defaultdict(set)
    for item in items:
        parts[part_of(item)].add(item.sha256)
    return sha256_of("\n".join(sorted(" ".join(sorted(contents)) for contents in parts.values())).encode())


def remarks_on(data: Dataset, rule: Rule, given: bool, apart: Sequence[Sequence[Item]] = ()) -> tuple[str, ...]:
    """What the owner of the images should know of their parts, a line each. `given`: the folders say the splits.

    `apart`: as `alike_apart` finds them.
    """
    every = [item for name in SPLITS for item in data.split(name)]
    sizes = Counter(part_of(item) for item in every)
    several = {part: size for part, size in sizes.items() if size > 1}
    found = []
    if rule.group is not None:
        each = "" if several else ", each image one of its own"
        found.append(f"{len(every)} images of {_counted(len(sizes))} (--group{each}): none of them is in two splits")
    elif rule.looks and several:
        found.append(
            f"{sum(several.values())} images look like others, {_counted(len(several))}: each kept in one split; "
            "--group names the parts, --no-group switches this off"
        )
    straddling = straddling_parts(data)
    if given:
        found = [f"{len(every)} images of {_counted(len(sizes))} (--group)"] if rule.group is not None else []
        if straddling:
            found.append(_flattered(straddling, rule))
    if apart:
        found.append(_alike_words(apart, rule))
    return tuple(found)


def alike_apart(data: Dataset, pictures: Mapping[str, NDArray[np.uint8]], rule: Rule) -> list[list[Item]]:
    """Sets of images that look alike, are told to be of several parts, and are in several splits: one image of each.

    A wrong expression, of the shot rather than of the part, names parts that straddle no split and keep nothing apart.
    """
    if rule.group is None and rule.looks:
        return []
    placed = [(name, item) for name in SPLITS for item in data.split(name)]
    alike_with: dict[str, dict[str, Item]] = defaultdict(dict)
    for (split, item), name in zip(placed, _by_looks([item for _, item in placed], pictures), strict=True):
        alike_with[name].setdefault(split, item)
    sets = [list(images.values()) for images in alike_with.values()]
    return [images for images in sets if len({part_of(item) for item in images}) > 1]


def straddling_parts(data: Dataset) -> dict[str, list[Item]]:
    """Parts that are in several splits, with one image for each of them."""
    where: dict[str, dict[str, Item]] = defaultdict(dict)
    for name in SPLITS:
        for item in data.split(name):
            where[part_of(item)].setdefault(name, item)
    return {part: list(images.values()) for part, images in where.items() if len(images) > 1}


def _flattered(straddling: Mapping[str, Sequence[Item]], rule: Rule) -> str:
    first = next(iter(straddling.values()))
    what = "parts" if rule.group is not None else "parts, by their looks," if rule.looks else "contents"
    return (
        f"WARNING: {len(straddling)} {what} are in more than one of the given splits (such as {first[0].name} and "
        f"{first[1].name}): what one split teaches, another tests, and accuracy is flattered; give one folder of "
        "classes without splits, and they are kept apart"
    )


def _alike_words(apart: Sequence[Sequence[Item]], rule: Rule) -> str:
    one, other = apart[0][:2]
    sets = f"{len(apart)} set{'s' * (len(apart) != 1)} of images that look alike"
    such = f"in more than one split (such as {one.name} and {other.name})"
    if rule.group is None:
        return f"{sets} are {such}, as --no-group allows: where they show one part, accuracy is flattered"
    return (
        f"WARNING: {sets} have several parts by --group, and are {such}: where they show one part, accuracy is "
        "flattered: mend --group so that it names the part"
    )


def _by_looks(items: Sequence[Item], pictures: Mapping[str, NDArray[np.uint8]]) -> list[str]:
    """By content, so that names and their order change nothing."""
    contents = sorted({item.sha256 for item in items})
    if not contents:
        return []
    first = alike(np.stack([pictures[content] for content in contents]))
    part = {content: contents[place] for content, place in zip(contents, first.tolist(), strict=True)}
    return [part[item.sha256] for item in items]


def _by_expression(items: Sequence[Item], text: str) -> list[str]:
    """Searched in the file's name; in its path below the data folder where the expression has a slash."""
    try:
        expression = re.compile(same(text))
    except re.error as error:
        raise UserError(f"--group {text!r}: not a regular expression ({error}); a table's name ends in .csv") from None
    found, without = [], []
    for item in items:
        match = expression.search(same(item.name if "/" in text else item.path.name))
        part = (match[1] if expression.groups else match[0]) if match else None
        if part:
            found.append(part)
        else:
            without.append(item.name)
    if without:
        many = "no file" if len(without) == len(items) else f"{len(items) - len(without)} of {len(items)} files"
        where = "paths below the data folder" if "/" in text else "file names"
        raise UserError(
            f"--group {text!r}: finds a part in {many} (searched in {where}; not in {_listed(without)}): "
            "its first group, else the whole match, must name the part of every image"
        )
    return found


def _by_table(items: Sequence[Item], root: Path, path: Path) -> list[str]:
    rows = [(same(_below(root, file)), group) for file, group in _rows(path)]
    by_base: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_base[same(item.path.name)].append(item)
    groups: dict[str, str] = {}
    unknown, twice = [], []
    names = {same(item.name): item.name for item in items}
    for file, group in rows:
        alone = by_base.get(file, [])
        name = names.get(file) or (alone[0].name if len(alone) == 1 else None)
        if name is None and len(alone) > 1:
            raise UserError(f"{path}: {file!r} is {_listed([item.name for item in alone])}: give its path")
        if name is None:
            # An image that was left out is no mistake of the table.
            if Path(file).is_absolute() or ".." in Path(file).parts or not _is_there(root, file):
                unknown.append(file)
        elif groups.setdefault(name, group) != group:
            twice.append(name)
    if twice:
        raise UserError(f"{path}: {_listed(twice)}: in two groups: a part is in one")
    if unknown:
        unseen = next(filter(None, map(hidden, unknown)), None)
        also = f", and a name holds {unseen}, which cannot be seen" if unseen else ""
        raise UserError(f"{path}: {len(unknown)} files are not below {root} ({_listed(unknown)}){also}: mend the table")
    missing = [item.name for item in items if item.name not in groups]
    if missing:
        raise UserError(
            f"{path}: has no group for {len(missing)} of {len(items)} images ({_listed(missing)}): one row for each, "
            "file,group; a part that was photographed once has a group of its own"
        )
    return [groups[item.name] for item in items]


def _is_there(root: Path, file: str) -> bool:
    """In either spelling, whatever it holds."""
    return any((root / unicodedata.normalize(form, file)).is_file() for form in ("NFC", "NFD"))


def _below(root: Path, file: str) -> str:
    """A path from the top of the disk as one below the data folder, where it is that."""
    whole = Path(file)
    if whole.is_absolute():
        for top in (root.absolute(), root.resolve()):
            if whole.is_relative_to(top):
                return whole.relative_to(top).as_posix()
    return file


def _rows(path: Path) -> list[tuple[str, str]]:
    """(file, group) of each row. A heading, in whatever words, is a first line that begins with no file's name."""
    text = read_text(path, "a table with the columns file,group")
    try:
        rows = list(csv.reader(io.StringIO(text), strict=True, delimiter=_delimiter_of(text)))
    except csv.Error as error:
        raise UserError(f"{path}: not a table ({error}): expected the columns file,group") from None
    found = []
    for number, row in enumerate(rows, 1):
        cells = [cell.strip() for cell in row]
        is_heading = number == 1 and not Path(cells[0] if cells else "").suffix
        if not any(cells) or is_heading:
            continue
        if len(cells) != 2 or not all(cells):
            raise UserError(f"{path}: line {number}: {','.join(row)!r}: expected two columns, file,group")
        unseen = hidden(cells[1])  # of a file's name, that the file is not there tells
        if unseen:
            raise UserError(f"{path}: line {number}: {cells[1]!r} holds {unseen}, which cannot be seen: type it anew")
        found.append((cells[0].replace("\\", "/").removeprefix("./"), cells[1]))
    return found


def _delimiter_of(text: str) -> str:
    """What a spreadsheet writes between columns: a semicolon or a tab where the first line has no comma."""
    first = text.partition("\n")[0]
    return next((mark for mark in ",;\t" if mark in first), ",")


def _joined(items: Sequence[Item], names: Sequence[str], picture_of: Mapping[str, str]) -> list[str]:
    """The names, where equal pixels have two of them the least one for all that hang together."""
    other: dict[str, str] = {}

    def least(name: str) -> str:
        while name in other:
            name = other[name]
        return name

    seen: dict[str, str] = {}
    for item, name in zip(items, names, strict=True):
        low, high = sorted((least(seen.setdefault(picture_of[item.sha256], name)), least(name)))
        if low != high:
            other[high] = low
    return [least(name) for name in names]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _counted(parts: int) -> str:
    return "1 part" if parts == 1 else f"{parts} parts"
