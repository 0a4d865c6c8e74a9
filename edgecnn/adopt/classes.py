"""Which class each output of a network stands for: by --labels, by the file itself, else by the folders' names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgecnn.adopt.labels import read_labels
from edgecnn.data import Dataset, Item
from edgecnn.data.names import natural, same, sorts_two_ways
from edgecnn.errors import UserError
from edgecnn.modelfiles.class_names import Named, only_count

_SHOWN = 12


@dataclass(frozen=True)
class Order:
    """The classes in the order of the outputs."""

    classes: tuple[str, ...]
    by: str
    """Who says so."""

    @property
    def words(self) -> str:
        """One line."""
        names = ", ".join(self.classes[:_SHOWN]) + (", …" if len(self.classes) > _SHOWN else "")
        return f"classes in the order of its outputs: {names} ({self.by})"


def order_of(
    source: Path,
    data: Dataset,
    outputs: int,
    labels: Path | None,
    own: Named | None,
    said: tuple[str, ...] | None = None,
) -> Order:
    """The order of the classes. `own`: names that the file itself gives; `said`: those of --preprocess.

    Raises UserError where they do not fit the outputs or the images, and where nobody says the order and the folders'
    names have two usual ones.
    """
    own = replace(own, classes=tuple(map(same, own.classes))) if own else None
    if said is not None and labels is None:
        _refuse_misfits(source, data, outputs, said, "classes in --preprocess", "or mend classes there")
        return Order(said, "--preprocess")
    if labels is not None:
        names = tuple(map(same, read_labels(labels, data.classes)))
        _refuse_misfits(source, data, outputs, names, "labels", "or mend --labels")
        if said is not None and said != names:
            raise UserError(f"{labels}: another order than classes in --preprocess: leave one of them out")
        other = own is not None and own.classes != names and set(own.classes) == set(names)
        return Order(names, f"--labels{', though the file itself says another order' if other else ''}")
    if own is not None and (set(data.classes) <= set(own.classes) or not only_count(own.classes)):
        names = own.classes
        _refuse_misfits(source, data, outputs, names, f"names in its {own.key!r}", "or give --labels FILE")
        return Order(names, f"by its own {own.key!r}")
    if len(data.classes) != outputs:
        shown = ", ".join(data.classes[:3]) + (", …" if len(data.classes) > 3 else "")
        raise UserError(
            f"{source}: has {outputs} outputs, {data.root} has {len(data.classes)} classes ({shown}): give the images "
            f"of those {outputs} classes, or --labels FILE with the {outputs} names in the order of the outputs"
        )
    if sorts_two_ways(data.classes):
        by_number = sorted(data.classes, key=natural)
        apart = next(i for i, pair in enumerate(zip(by_number, data.classes, strict=True)) if len(set(pair)) > 1)
        raise UserError(
            f"{source}: names no classes, and the folders of {data.root} have two usual orders: "
            f"{', '.join(by_number[: apart + 1])}, … (timm's) or {', '.join(data.classes[: apart + 1])}, … "
            "(torchvision's): give --labels FILE, one name a line in the order of the outputs"
        )
    return Order(data.classes, "the folders' names, sorted: the file names none; else give --labels")


def with_order(data: Dataset, classes: Sequence[str]) -> Dataset:
    """The images with their labels counting `classes`."""
    place = {number: list(classes).index(name) for number, name in enumerate(data.classes)}

    def moved(items: Sequence[Item]) -> tuple[Item, ...]:
        return tuple(replace(item, label=place[item.label]) for item in items)

    return replace(data, classes=tuple(classes), train=moved(data.train), val=moved(data.val), test=moved(data.test))


def _refuse_misfits(source: Path, data: Dataset, outputs: int, names: Sequence[str], what: str, cure: str) -> None:
    if len(names) != outputs:
        raise UserError(f"{source}: has {outputs} outputs, but there are {len(names)} {what}: one for each is needed")
    unknown = sorted(set(data.classes) - set(names))
    if unknown:
        raise UserError(
            f"{data.root}: class folder {unknown[0]}/ is not among the {len(names)} {what} "
            f"({', '.join(names[:3])}, …){_all_numbered(names, unknown)}: rename it, {cure}"
        )


def _all_numbered(names: Sequence[str], unknown: Sequence[str]) -> str:
    """What to say of names such as `0 crack`, as some programs number them."""
    bare = [re.sub(r"^\d+[\s:,;.)]+", "", name) for name in names]
    return ", which begin with numbers" if set(unknown) <= set(bare) else ""
