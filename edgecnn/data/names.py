"""Names of files and classes: which can be written down, which are the same, and in which orders they are sorted."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

_BREAKING = frozenset({"Zl", "Zp", "Cc"})
"""Unicode's categories of what ends a line or steers a terminal."""
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They turn the direction of what follows."""


def text_of(name: str) -> str:
    """A name as the system gives it, in UTF-8 whatever the locale; what is not UTF-8 stays as it is."""
    try:
        return os.fsencode(name).decode()
    except UnicodeError:
        return name


def same(name: str) -> str:
    """What two spellings of one name have in common: ü is one character (NFC) or two (NFD, as macOS writes)."""
    return unicodedata.normalize("NFC", text_of(name))


def unfit_name(name: str) -> str | None:
    """Why a name cannot be written down in one line; None where it can."""
    try:
        text = os.fsencode(name).decode()
    except UnicodeError:
        return "its name is not UTF-8: rename it"
    if any(unicodedata.category(letter) in _BREAKING or letter in _TURNING for letter in text):
        return "its name holds a line break or another control character: rename it"
    return None


def printable(name: str) -> str:
    """A name in one line: what is no text, or would break or turn the line, as \\x1b or \\u202e."""
    try:
        raw = os.fsencode(name)
    except UnicodeError:
        raw = name.encode(errors="backslashreplace")
    return "".join(map(_escaped, raw.decode(errors="backslashreplace")))


def twins(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Names that differ by what hardly shows: case, spaces at their ends, wide or invisible letters."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        wide = unicodedata.normalize("NFKC", name).casefold()
        alike["".join(letter for letter in wide if unicodedata.category(letter) != "Cf").strip()].append(name)
    return [tuple(found) for found in alike.values() if len(found) > 1]


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """Sorts names by the numbers in them, as timm does: 2 before 10, part9 before part10, whatever the case."""
    parts = re.findall(r"\d+|\D+", name.lower())
    return tuple((int(part), "") if part.isdecimal() else (0, part) for part in parts)


def sorts_two_ways(names: Sequence[str]) -> bool:
    """Whether these names stand otherwise sorted by number (timm) than sorted as text (torchvision)."""
    return sorted(names, key=natural) != sorted(names)


def _escaped(letter: str) -> str:
    if unicodedata.category(letter) not in _BREAKING and letter not in _TURNING:
        return letter
    return letter.encode("unicode_escape").decode()
