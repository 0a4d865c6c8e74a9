"""Test images from a folder of their own, for weights that may have been trained on all the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgecnn.artifact import Grouping
from edgecnn.data.folders import load_folder
from edgecnn.data.items import Dataset, Item, part_of
from edgecnn.data.layout import read_layout
from edgecnn.data.parts import parts_hash
from edgecnn.errors import UserError


def with_test(data: Dataset, folder: Path, *, looks: bool = True, skip_unreadable: bool = False) -> Dataset:
    """`data` with the images of `folder/<class>/*` as its test split; its own test images join validation.

    `looks`: whether those that look alike are one part. Raises UserError: other classes than those of `data`, an image
    whose content is in `data` too.
    """
    if read_layout(folder).given:
        raise UserError(f"{folder}: holds splits: --test wants one folder with <class>/* in it, such as {folder}/test")
    found = load_folder(folder, good="none", skip_unreadable=skip_unreadable, min_per_class=0, looks=looks)
    if found.classes != data.classes:
        odd = sorted(set(found.classes) ^ set(data.classes))
        where = f"in {data.root} alone" if odd[0] in data.classes else f"not in {data.root}"
        raise UserError(f"{folder}: its classes are not those of {data.root}: {odd[0]}/ is {where}")
    every = sorted((*found.train, *found.val, *found.test), key=lambda item: item.name)
    _refuse_seen(data, folder, every)
    # Parts are numbered in each folder anew.
    test = tuple(replace(item, part=f"{folder.name}/{item.part}" if item.part else "") for item in every)
    kept = replace(data, val=(*data.val, *data.test), test=test, test_root=folder, grouping=_grouping(data, test))
    moved = f"test images: the {len(test)} of {folder}; those that {data.root} would have given join validation"
    problems, remarks = (*data.problems, *found.problems), (*data.remarks, *found.remarks, moved)
    return replace(kept, problems=problems, remarks=remarks)


def _grouping(data: Dataset, test: Sequence[Item]) -> Grouping | None:
    if data.grouping is None:
        return None
    items = (*data.train, *data.val, *data.test, *test)
    sizes = Counter(map(part_of, items))
    counts = {"images": len(items), "parts": len(sizes), "largest": max(sizes.values())}
    return data.grouping.model_copy(update={**counts, "sha256": parts_hash(items)})


def _refuse_seen(data: Dataset, folder: Path, test: Sequence[Item]) -> None:
    others = {item.sha256: item for item in (*data.train, *data.val, *data.test)}
    both = [item for item in test if item.sha256 in others]
    if both:
        raise UserError(
            f"{folder}: {len(both)} of its {len(test)} images are in {data.root} too (such as {both[0].name}, there "
            f"{others[both[0].sha256].name}): take them out of one of the two, so that no test image was trained on"
        )
