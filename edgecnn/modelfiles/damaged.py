"""What somebody else's file leads its reader to when it is damaged: one line that says so, whatever was raised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgecnn.errors import UserError, first_line


@contextmanager
def one_line_where_damaged(path: Path, what: str) -> Iterator[None]:
    """Around reading alone. Raises UserError for whatever else is raised inside: readers trust what a file says."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: damaged {what} ({type(error).__name__}: {first_line(error)})") from None
