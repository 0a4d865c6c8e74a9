"""What a table of a report is made of, the same for HTML and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One cell: what it says, and what is said below it in small."""

    text: str
    below: str = ""
    shade: float = 0.0
    """0 to 1, for a heat map."""


@dataclass(frozen=True)
class Row:
    """One row, as long as the table has columns."""

    cells: tuple[Cell, ...]
    kind: str = ""
    """chosen, muted or nothing."""
    outcome: str = ""
    """PASS, FAIL or INCONCLUSIVE: of the last cell."""


@dataclass(frozen=True)
class Table:
    """Columns, under groups where these have names."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    groups: tuple[tuple[str, int], ...] = ()
    """(name, columns that it spans), in order."""


def text_rows(rows: Sequence[Sequence[str]]) -> tuple[Row, ...]:
    """Rows of plain cells."""
    return tuple(texts(*row) for row in rows)


def texts(*words: str) -> Row:
    """A row of plain cells."""
    return Row(tuple(Cell(word) for word in words))
