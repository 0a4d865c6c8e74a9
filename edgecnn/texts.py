"""Text that people write, labels, targets, tables: read as UTF-8 on every machine, what cannot be seen in it named."""

from __future__ import annotations

import ast
import json
import re
import tomllib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgecnn.errors import UserError, first_line
from edgecnn.filekinds import kind_of

_LARGEST = 64 * 2**20
"""Bytes of a file that somebody wrote."""
_LONGEST = 1_000_000
"""Characters of a value in a file's metadata."""
_JOINERS = "\u200c\u200d"
"""They shape letters in Persian and Hindi, and join emoji."""
_EMPTY_LETTERS = "\u034f\u115f\u1160\u2800\u3164\uffa0"
"""Letters that show nothing."""
_TOML_TABLE = re.compile(r"\s*\[")
_TOML_KEY = re.compile(r"\s*([\w.\"'-]+)\s*=")


def read_text(path: Path, what: str) -> str:
    r"""The text of a UTF-8 file, with or without a byte order mark, its lines ended by \n whoever wrote it.

    UserError where it is no file, too large, something else than text, or in another encoding. `what`: was expected.
    """
    try:
        if not path.is_file():
            raise UserError(f"{path}: no such file (expected {what})")
        size = path.stat().st_size
        if size > _LARGEST:
            raise UserError(f"{path}: {size / 2**20:,.0f} MiB, more than anybody writes: expected {what}")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f"{str(path)!r}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    kind = kind_of(path) if data else None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if kind:
            raise _not_text(path, kind.words, kind.cure, what) from None
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}: line {line} is not UTF-8 text (byte {data[error.start]:#04x}): save it as UTF-8; expected {what}"
        ) from None
    if kind and kind.name not in ("xml", "archive", "image"):  # a text may begin with BZh
        raise _not_text(path, kind.words, kind.cure, what)
    if "\0" in text:
        raise _not_text(path, "no text file (it holds zero bytes)", "", what)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """A TOML document. UserError as of `read_text`, and where it is not valid or a word in it holds what is unseen."""
    text = read_text(path, what)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        place = re.search(r"at line (\d+)", str(error))
        at = int(place[1]) if place else 0
        unseen = hidden(text.split("\n")[at - 1]) if at else None
        also = f": line {at} holds {unseen}, which cannot be seen: type it anew" if unseen else ""
        twice = _given_twice(text.split("\n")[:at]) if "overwrite" in str(error) else None
        raise UserError(f"{path}: not valid TOML: {twice or first_line(error)}{also}") from None
    lines = text.split("\n")
    for word in _words(document):
        unseen = hidden(word)
        number = next((number for number, line in enumerate(lines, 1) if unseen and word in line), None)
        if number:  # as it stands in the file: who writes it as an escape means it
            raise UserError(f"{path}: line {number}: {word!r} holds {unseen}, which cannot be seen: type it anew")
    return document


def literal(text: str) -> object:
    """The value of JSON, or of a literal of Python (Ultralytics writes str(dict)); None for anything else.

    Nothing is executed.
    """
    if len(text) > _LONGEST:
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            found: object = parse(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        return found
    return None


def hidden(text: str) -> str | None:
    """The first character that shows nothing, or looks like a plain space and is none, such as "U+00A0 NO-BREAK SPACE".

    Joiners between letters of a script that needs them are none.
    """
    for place, one in enumerate(text):
        if one in _JOINERS and _joins(text, place):
            continue
        category = unicodedata.category(one)
        unseen = category in ("Cf", "Zl", "Zp") or (category == "Zs" and one != " ") or one in _EMPTY_LETTERS
        if unseen or (category == "Cc" and one not in "\t\n"):
            return f"U+{ord(one):04X} {unicodedata.name(one, 'CONTROL CHARACTER')}"
    return None


def _given_twice(lines: list[str]) -> str | None:
    """Which key is there twice, where its second value ends with the last of `lines`; None where that is not seen."""
    first: dict[str, int] = {}
    key, number = "", 0
    for at, line in enumerate(lines, 1):
        found = _TOML_KEY.match(line)
        if found:
            key, number = found[1], at
            first.setdefault(key, at)
        elif _TOML_TABLE.match(line):
            first.clear()
    if first.get(key, number) == number:
        return None
    return f"line {number}: the key {key} is there already, in line {first[key]}: keep one of them"


def _joins(text: str, place: int) -> bool:
    around = (text[place - 1 : place], text[place + 1 : place + 2])
    return all(side and not side.isascii() and unicodedata.category(side)[0] in "LMS" for side in around)


def _words(value: Any) -> Iterator[str]:
    """Every key and string of a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _words(item)
    elif isinstance(value, list):
        for item in value:
            yield from _words(item)


def _not_text(path: Path, words: str, cure: str, what: str) -> UserError:
    return UserError(f"{path}: is {words}{f': {cure}' if cure else ''}; expected {what}")
