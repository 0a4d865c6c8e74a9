"""What a user can get wrong, each with its next step: one line, no traceback, exit code 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgecnn.origin import install_command


class UserError(Exception):
    """A mistake that the user can mend. The message says what came, where, what is accepted, and what to do.

    It is one line, whatever the names and values in it hold.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class MissingExtra(UserError):
    """A library of an optional extra is not installed."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"{library} is not installed: {install_command(extra)}")
        self.library = library
        self.extra = extra


class BadImage(UserError):
    """An image that cannot be decoded, with the reason (no path: the caller knows it)."""


def not_one_of(where: str, got: object, accepted: object) -> UserError:
    """The error for a word outside a closed set: `where: 'got' is not one of a, b, c`."""
    words = ", ".join(str(word) for word in accepted) if not isinstance(accepted, str) else accepted  # type: ignore[attr-defined]
    return UserError(f"{where}: {got!r} is not one of {words}")


def must_be_file(path: Path, what: str) -> Path:
    """`path` if it is a file; else a UserError that names what was expected there."""
    if not path.is_file():
        raise UserError(f"{path}: no such file (expected {what})")
    return path


def one_line(text: str) -> str:
    """Without what would move the cursor or begin a line: names may hold line ends and terminal codes."""
    return "".join(character if character.isprintable() else escaped(character) for character in text)


def escaped(character: str) -> str:
    """As Python writes it, such as \\n or \\u202e."""
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def first_line(error: BaseException) -> str:
    """What an exception of a library says, on one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def last_line(error: BaseException) -> str:
    """The same of a library that says where it failed first, and why last, as OpenVINO does."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip()


def out_of_memory(error: BaseException) -> bool:
    """Whether memory was lacking: libraries tell it by an exception of their own (torch), or in a text alone."""
    said = ("can't allocate memory", "Cannot allocate memory", "bad_alloc", "failed to allocate memory")
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(text in str(error) for text in said)
    )


@contextmanager
def one_line_where_damaged(path: Path, what: str) -> Iterator[None]:
    """Around the mere reading of somebody's file: UserError for whatever else is raised, as readers trust a file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: damaged {what} ({type(error).__name__}: {first_line(error)})") from None
