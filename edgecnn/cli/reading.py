"""How labelled images are read from a folder: the options that several verbs take alike, and the reading itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.cli.options import Good, Group, MinPerClass, NoGroup, Skip
from edgecnn.errors import UserError
from edgecnn.progress import Stage

if TYPE_CHECKING:
    from edgecnn.cli.live import Bar
    from edgecnn.data import Dataset

READING: dict[str, tuple[Any, Any]] = {
    "good": (Good, None),
    "skip_unreadable": (Skip, False),
    "min_per_class": (MinPerClass, 5),
    "group": (Group, None),
    "no_group": (NoGroup, False),
}
"""Option to type and default. `seed` counts here too."""


def read_labelled(data: Path, seed: int, reading: Mapping[str, Any], bar: Bar, given_splits: bool = True) -> Dataset:
    """The images with their splits; what was left out, and what there is to say of their parts, on stderr."""
    from edgecnn.cli.live import notices
    from edgecnn.data import load_folder

    options = {**reading, "looks": looks_of(reading["group"], reading["no_group"])}
    options.pop("no_group")
    bar.start(1, Stage(f"reading {data}"))
    dataset = load_folder(data, progress=bar.count, seed=seed, given_splits=given_splits, **options)
    notices(dataset.lines)
    return dataset


def looks_of(group: str | None, no_group: bool) -> bool:
    """Whether images that look alike are one part. UserError where parts are named and switched off at once."""
    if group is not None and no_group:
        raise UserError(f"--group {group!r} names the parts, --no-group says there are none: leave one of them out")
    return not no_group
