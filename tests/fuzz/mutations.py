"""How inputs are spoilt: bytes cut, flipped and copied about; values of documents exchanged; folders of odd names."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

_PLACE = st.integers(0, 2**32 - 1)
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_ODD_TEXTS = (
    "",
    " ",
    "\ufeff",
    "\u200b",
    "é",
    "e\u0301",
    "\x00",
    "a\nb",
    "../x",
    "[red]",
    "9" * 400,
    "nan",
    "1e999",
    "-0",
)
_ODD_VALUES = (None, True, False, 0, -1, 2**31, 2**63, 2**200, 0.0, -1.5, float("nan"), float("inf"), [], {}, [[]])
_STEMS = (
    "a",
    "b1",
    "b10",
    "b2",
    ".hidden",
    "._a",
    "train",
    "test",
    "val",
    "Thumbs",
    "mask",
    "é",
    "e\u0301",
    "[x]",
    "a b",
)
_STEMS_OF_BYTES = (b"Pr\xfcf", b"\xff\xfe")
_ENDINGS = (".png", ".jpg", ".JPG", ".txt", ".db", ".xcf", "", ".png.png")

Edit = Callable[[bytes], bytes]


def _at(content: bytes, place: int) -> int:
    return place % (len(content) + 1)


def _put(place: int, new: bytes, over: int) -> Edit:
    """`new` in the place of `over` bytes."""

    def edit(content: bytes) -> bytes:
        start = _at(content, place)
        return content[:start] + new + content[start + over :]

    return edit


def _cut(place: int) -> Edit:
    return lambda content: content[: _at(content, place)]


def _copy(place: int, length: int, to: int) -> Edit:
    def edit(content: bytes) -> bytes:
        start, there = _at(content, place), _at(content, to)
        return content[:there] + content[start : start + length] + content[there:]

    return edit


def _little(number: int, width: int) -> bytes:
    return (number % 256**width).to_bytes(width, "little")


_EDITS: st.SearchStrategy[Edit] = st.one_of(
    st.builds(_put, _PLACE, st.binary(min_size=1, max_size=1), st.just(1)),
    st.builds(_put, _PLACE, st.builds(_little, st.sampled_from(_NUMBERS), st.sampled_from((1, 2, 4, 8))), st.just(4)),
    st.builds(_put, _PLACE, st.just(b""), st.sampled_from((1, 4, 64, 1024))),
    st.builds(_put, _PLACE, st.binary(max_size=16), st.just(0)),
    st.builds(_copy, _PLACE, st.sampled_from((1, 8, 64, 4096)), _PLACE),
    st.builds(_cut, _PLACE),
)


def spoilt(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of `seeds` after at most six edits."""

    def apply(seed: bytes, edits: list[Edit]) -> bytes:
        for edit in edits:
            seed = edit(seed)
        return seed

    return st.builds(apply, st.sampled_from(seeds), st.lists(_EDITS, max_size=6))


def documents(seeds: Sequence[bytes], write: Callable[[Any], bytes]) -> st.SearchStrategy[bytes]:
    """One of `seeds`, JSON, with at most four of its values exchanged, taken out or put in; as `write` spells it."""

    @st.composite
    def one(draw: st.DrawFn) -> bytes:
        document = json.loads(draw(st.sampled_from(seeds)))
        for _ in range(draw(st.integers(0, 4))):
            _change(draw, document)
        return write(document)

    return one()


def _change(draw: st.DrawFn, document: Any) -> None:
    """Go down to some place in it, and change what is there."""
    while isinstance(document, (dict, list)) and document:
        keys = sorted(document) if isinstance(document, dict) else range(len(document))
        key = draw(st.sampled_from(list(keys)))
        inner = document[key]
        if isinstance(inner, (dict, list)) and inner and draw(st.booleans()):
            document = inner
            continue
        what = draw(st.sampled_from(("value", "value", "gone", "twice")))
        if what == "gone":
            del document[key]
        elif what == "twice" and isinstance(document, list):
            document.insert(key, copy.deepcopy(inner))
        elif what == "twice":
            document[f"{key}x"] = copy.deepcopy(inner)
        else:
            document[key] = copy.deepcopy(draw(st.sampled_from((*_ODD_TEXTS, *_ODD_VALUES))))
        return


def to_json(document: Any) -> bytes:
    return json.dumps(document).encode()


def to_toml(document: Any) -> bytes:
    """A document of keys and values; tables inside are written in one line."""
    if not isinstance(document, dict):
        return _toml(document).encode("utf-8", "surrogatepass")
    return "".join(f"{json.dumps(key)} = {_toml(value)}\n" for key, value in document.items()).encode()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value).lower() if isinstance(value, (bool, float)) else json.dumps(value)


Leaf = tuple[tuple[bytes, ...], str]
"""Path below the root, and what is there: image, broken, nothing, folder, link, cycle, dangling, fifo."""
_NAMES = st.one_of(
    st.builds(lambda stem, ending: (stem + ending).encode(), st.sampled_from(_STEMS), st.sampled_from(_ENDINGS)),
    st.builds(lambda stem, ending: stem + ending.encode(), st.sampled_from(_STEMS_OF_BYTES), st.sampled_from(_ENDINGS)),
)
_FOLDERS = st.one_of(st.sampled_from([stem.encode() for stem in _STEMS]), st.sampled_from(_STEMS_OF_BYTES))
_KINDS = ("image",) * 8 + ("broken", "nothing", "folder", "link", "cycle", "dangling", "fifo")


def layouts() -> st.SearchStrategy[list[Leaf]]:
    """Folders with a few dozen files in them, usually of two or three classes."""
    place = st.tuples(st.lists(_FOLDERS, max_size=3), _NAMES).map(lambda drawn: (*drawn[0], drawn[1]))
    odd = st.lists(st.tuples(place, st.sampled_from(_KINDS)), max_size=12)
    tops = st.sampled_from(
        ((), (b"train", b"test"), (b"train", b"val"), (b"train", b"val", b"test"), (b"Training", b"valid"))
    )

    def whole(splits: tuple[bytes, ...], classes: list[bytes], each: int, more: list[Leaf]) -> list[Leaf]:
        tops = [(split,) for split in splits] or [()]
        plain = [((*top, name, b"%d.png" % n), "image") for top in tops for name in classes for n in range(each)]
        return [*plain, *more]

    return st.builds(whole, tops, st.lists(_FOLDERS, max_size=3, unique=True), st.integers(0, 7), odd)


def write_layout(root: Path, leaves: Sequence[Leaf], image: Callable[[int], bytes]) -> None:
    """Make it. A leaf whose place is taken is left out; every image is another one."""
    root.mkdir(parents=True, exist_ok=True)
    for number, (parts, kind) in enumerate(leaves):
        path = root.joinpath(*map(os.fsdecode, parts))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_leaf(path, root, kind, image(number))
        except (FileExistsError, NotADirectoryError):
            continue


def _write_leaf(path: Path, root: Path, kind: str, content: bytes) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind in ("link", "cycle", "dangling"):
        path.symlink_to({"link": path.parent / "0.png", "cycle": root, "dangling": Path("nowhere")}[kind])
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        with path.open("xb") as stream:
            stream.write({"image": content, "broken": content[:40], "nothing": b""}[kind])
