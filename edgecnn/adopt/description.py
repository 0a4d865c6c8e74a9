"""The preprocessing and the labels that a network was trained with, as its owner writes them down: pre.toml, labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from edgecnn.artifact import Preprocess
from edgecnn.documents import checked
from edgecnn.errors import UserError
from edgecnn.modelfiles.class_names import listed
from edgecnn.texts import hidden, read_text, read_toml

_FOREIGN = {
    ("colour", "color", "channels", "channel_order", "bgr"): (
        "images are prepared as RGB: swap the input channels of the first layer's weights, and mean and std with them"
    ),
    ("scale", "rescale", "divide", "scale_factor"): (
        "pixels are divided by 255 before mean and std: put any other scale into those two (pixels 0..255 as they are: "
        "mean = [0, 0, 0], std = [0.00392157, 0.00392157, 0.00392157])"
    ),
    ("size", "input_size", "shape"): "write height and width",
    ("layout", "dtype"): "is read from the model file",
    ("interpolation", "antialias", "resize_shorter", "resize_size", "resize_shortest_edge"): (
        "there is one resize, bilinear with antialiasing; resizing the shorter side to 256 and cropping 224 is "
        'fit = "center-crop", crop = 0.875'
    ),
}
"""What other descriptions say and the runtime cannot do, or does otherwise."""


def read_preprocess(path: Path | None, known: Mapping[str, Any], missing: str) -> Preprocess:
    """The preprocessing of a strict TOML file with the fields of `Preprocess`, over what is `known` without it.

    Mean and std must come from one of the two: a wrong default would pass unseen. `missing` is the beginning of the
    error where they do not. Raises UserError with everything that is wrong in the file.
    """
    given = _toml(path) if path else {}
    where = path.name if path else missing
    foreign = _foreign(given)
    fields = {key: value for key, value in given.items() if key not in foreign}
    wrong = [f"{key}: {why}" for key, why in foreign.items()]
    values = {**known, **fields}
    wrong += [f"{name}: is missing" for name in ("height", "width", "mean", "std") if name not in values]
    complete = {"height": 1, "width": 1, **values}
    try:
        found = checked(Preprocess, complete, where)
    except UserError as error:
        wrong.append(str(error).removeprefix(f"{where}: "))
    else:
        wrong += _unlikely(found)
    if not wrong:
        return found
    advice = "" if path else ": give --preprocess FILE.toml with height, width, mean, std, and fit and crop if it crops"
    raise UserError(f"{where}: {'; '.join(wrong)}{advice}")


def read_labels(path: Path, folders: Collection[str] = ()) -> tuple[str, ...]:
    """Class names, one a line, in the order of the network's outputs; or a JSON list, or dictionary of numbers.

    `folders`: names that are the images' own, whatever is in them. UserError as of `read_text`; an empty line, a name
    that is there twice or holds what cannot be seen.
    """
    text = read_text(path, "class names, one a line, in the order of the outputs")
    as_json = listed(text) if text.lstrip()[:1] in ("{", "[") else None
    names = list(as_json) if as_json else [line.strip() for line in text.split("\n")]
    while names and not names[-1]:
        names.pop()
    if not names or "" in names:
        which = f"line {names.index('') + 1} is empty" if names else "empty"
        raise UserError(f"{path}: {which}: one class a line, in the order of the outputs")
    for number, name in enumerate(names, 1):
        unseen = None if name in folders else hidden(name)
        if unseen:
            raise UserError(f"{path}: line {number}: {name!r} holds {unseen}, which cannot be seen: type it anew")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path}: {twice[0]!r} is there twice: one class a line, each once")
    return tuple(names)


def _toml(path: Path) -> dict[str, Any]:
    document = read_toml(path, "a .toml file with height, width, mean, std")
    # TOML has lists where the model has tuples.
    return {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}


def _foreign(given: Mapping[str, Any]) -> dict[str, str]:
    return {key: why for key in given for words, why in _FOREIGN.items() if key in words}


def _unlikely(found: Preprocess) -> list[str]:
    wrong = []
    if max(found.mean) > 1 or min(found.mean) < -1:
        wrong.append(f"mean: {list(found.mean)} is not of pixels 0..1: divide mean and std by 255")
    if min(found.std) <= 0:
        wrong.append(f"std: {list(found.std)} must be positive")
    return wrong
