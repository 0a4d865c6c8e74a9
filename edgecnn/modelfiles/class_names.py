"""The names that a model file gives to its outputs, whoever wrote it: Ultralytics, timm, Hugging Face, a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgecnn.texts import literal

_KEYS = (
    "edgecnn.classes",
    "names",  # Ultralytics
    "label_names",  # timm on the hub
    "class_names",
    "classes",
    "labels",
    "id2label",  # Hugging Face
    "idx_to_class",
    "class_to_idx",  # torchvision's ImageFolder
    "class_map",
)
_WITHIN = ("pretrained_cfg", "hyper_parameters", "args", "config", "meta")
"""Where they may be a level further down."""


@dataclass(frozen=True)
class Named:
    """Names in the order of the outputs, and the key that they were found under."""

    classes: tuple[str, ...]
    key: str


def class_names(held: Mapping[str, object], outputs: int) -> Named | None:
    """The names among what a file holds besides its tensors; None where none fit so many outputs."""
    for key in _KEYS:
        classes = listed(held.get(key))
        if classes is not None and len(classes) == outputs:
            return Named(classes, key)
    for key in _WITHIN:
        inner = held.get(key)
        inner = literal(inner) if isinstance(inner, str) else inner
        inner = vars(inner) if hasattr(inner, "__dict__") and not isinstance(inner, Mapping) else inner
        found = class_names(inner, outputs) if isinstance(inner, Mapping) else None
        if found:
            return Named(found.classes, f"{key}.{found.key}")
    return None


def only_count(classes: Sequence[str]) -> bool:
    """Whether names only number the outputs: 0, 1, 2 or class_1, class_2."""
    words = ("", "class", "class_", "class ", "label_")
    return any(
        [name.lower() for name in classes] == [f"{word}{number + first}" for number in range(len(classes))]
        for word in words
        for first in (0, 1)
    )


def listed(value: object) -> tuple[str, ...] | None:
    """A list of names, a dictionary of number to name or name to number, or either as text."""
    value = literal(value) if isinstance(value, str) else value
    if isinstance(value, Mapping):
        pairs = list(value.items())
        if all(_number(name) is not None and not isinstance(name, str) for _, name in pairs):
            pairs = [(number, name) for name, number in pairs]
        by_number = {_number(number): name for number, name in pairs}
        if set(by_number) != set(range(len(pairs))):
            return None
        value = [by_number[number] for number in range(len(pairs))]
    if not isinstance(value, list | tuple) or not value or not all(isinstance(one, str) and one for one in value):
        return None
    return tuple(value) if len(set(value)) == len(value) else None


def _number(value: object) -> int | None:
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
