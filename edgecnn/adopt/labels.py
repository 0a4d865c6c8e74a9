"""Class names as their owner writes them down, in the order of a network's outputs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from edgecnn.errors import UserError
from edgecnn.modelfiles.class_names import listed
from edgecnn.texts import hidden, read_text


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
