"""A table in a terminal that is too narrow for it: parts below each other, each with the column that names the row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table

_READABLE = 18
"""Characters below which a column of text is not squeezed, but for the words that are longer."""
_BORDERS = 3
"""Of each column: a line and two blanks."""


@dataclass(frozen=True, slots=True)
class _Need:
    """Characters of a column's content."""

    least: int
    most: int


def fitted(table: Table, output: Console, name: int = 0) -> RenderableType:
    """The table as it is where it fits `output`, or has no lines; else in parts that do, none of its words cut off.

    `name`: the column that names the row. It opens every part; what stands before it, the first one alone.
    """
    if table.box is None:
        return table
    needs = [_need(column, output) for column in table.columns]
    if _width([need.most for need in needs]) <= output.width:
        return table
    parts: list[list[int]] = [list(range(name + 1))]
    for index in range(name + 1, len(needs)):
        if parts[-1][-1] > name and _width([needs[i].least for i in [*parts[-1], index]]) > output.width:
            parts.append([name])
        parts[-1].append(index)
    titles = [table.title, *([None] * (len(parts) - 1))]
    return Group(*(_part(table, part, needs, title, output.width) for part, title in zip(parts, titles, strict=True)))


def _need(column: Column, output: Console) -> _Need:
    found = [Measurement.get(output, output.options, cell) for cell in (column.header, *column.cells)]
    most = max(cell.maximum for cell in found)
    least = most if column.no_wrap else min(most, max(_READABLE, *(cell.minimum for cell in found)))
    return _Need(least, most)


def _width(columns: Sequence[int]) -> int:
    return sum(columns) + _BORDERS * len(columns) + 1


def _part(table: Table, indexes: Sequence[int], needs: Sequence[_Need], title: object, width: int) -> Table:
    widths = _shared([needs[index] for index in indexes], width)
    part = Table(title=title, title_justify="left", title_style="bold", box=table.box, show_header=table.show_header)  # type: ignore[arg-type]
    cells = []
    for index, wide in zip(indexes, widths, strict=True):
        column = table.columns[index]
        part.add_column(column.header, justify=column.justify, style=column.style, width=wide, overflow="fold")
        cells.append(list(column.cells))
    for row, content in zip(table.rows, zip(*cells, strict=True), strict=True):
        part.add_row(*content, end_section=row.end_section, style=row.style)
    return part


def _shared(needs: Sequence[_Need], width: int) -> list[int]:
    """Each column's least, and of what is left as much as each can use, the modest first."""
    widths = [need.least for need in needs]
    spare = width - _width(widths)
    modest = sorted(range(len(needs)), key=lambda index: needs[index].most - needs[index].least)
    for done, index in enumerate(modest):
        more = max(0, min(needs[index].most - needs[index].least, spare // (len(modest) - done)))
        widths[index] += more
        spare -= more
    if spare < 0:  # the name and one column are wider than the terminal: the widest of them is folded
        widest = widths.index(max(widths))
        widths[widest] = max(_READABLE, widths[widest] + spare)
    return widths
