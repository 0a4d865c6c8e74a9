"""stdout and stderr as they are found: in any encoding, closed, or left by their reader. The verdict outlives it."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any, TextIO

from edgecnn.errors import UserError, escaped

_SPELLED = {
    **{"–": "-", "−": "-", "…": "...", "·": "|", "×": "x", "±": "+-", "°": " deg", "“": '"', "”": '"', "’": "'"},
    **{"≤": "<=", "≥": ">=", "≈": "~", "←": "<-", "→": "->", "†": "+", "φ": "phi", "µ": "u", "²": "^2", "│": "|"},
}
"""Our own signs where the output's encoding has none of them. What users wrote is escaped, so that no two names look
alike."""
_ERRORS = "edgecnn-spelled"


def make_ready() -> None:
    """Make both fit for any text, whatever the locale; what their reader does not take is dropped, not an error."""
    _open_closed()
    codecs.register_error(_ERRORS, _spelled)
    sys.stdout, sys.stderr = _fit(sys.stdout, 1), _fit(sys.stderr, 2)


def print_json(text: str) -> None:
    """JSON on stdout, with escapes for what its encoding lacks: the same document in any locale."""
    print(text if _is_unicode(sys.stdout) else _ascii_json(text))


def drop_unwritten() -> None:
    """What a full disk did not take is not tried again when Python ends, which would change the exit code."""
    try:
        sys.stdout.flush()
    except (OSError, UserError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _open_closed() -> None:
    """Descriptors that were closed (`>&-`) lead nowhere: else the next file that is opened would be written to."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free


def _fit(stream: TextIO | None, number: int) -> TextIO:
    """The stream as it is where somebody put another one in its place, as a test does."""
    if stream is None:
        return io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="utf-8", errors="replace")
    try:
        ours = isinstance(stream, io.TextIOWrapper) and stream.fileno() == number
    except (OSError, ValueError):
        ours = False
    if not ours:
        return stream
    stream.flush()
    raw = io.BufferedWriter(_Output(number, "w", closefd=False))
    lines = number == 2 or stream.isatty()
    return io.TextIOWrapper(raw, encoding=stream.encoding, errors=_ERRORS, line_buffering=lines)


class _Output(io.FileIO):
    """A reader that has left, as `head` does, is no reason to give up the work or its exit code."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return len(data)
        except OSError as error:
            raise UserError(f"standard output: {error.strerror}: the answer is not whole") from None


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    text = "".join(_SPELLED.get(character) or escaped(character) for character in lacking)
    return text, error.end


def _is_unicode(stream: TextIO) -> bool:
    return codecs.lookup(stream.encoding or "utf-8").name.startswith("utf")


def _ascii_json(text: str) -> str:
    """Outside its strings JSON is ASCII, so each other character may be written as its escape."""
    table = {ord(one): _json_escape(one) for one in set(text) if ord(one) > 127}
    return text.translate(table)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
