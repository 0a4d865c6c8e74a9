"""Tables in narrow terminals: nothing is cut off, and each part names its rows."""

import io

import pytest
from rich.console import Console, RenderableType
from rich.table import Table

from edgecnn.cli.narrow import fitted

COLUMNS = ("variant", "logit error", "top-1, % [95 %]", "loss, points [95 %]", "loss limit", "false alarms", "verdict")
ROWS = (
    ("openvino-int8", "2.0e-01", "67.3 [52.5, 80.1]", "+0.0 [-9.0, +9.0]", "not shown (n ≈ 1,650)", "2 (2)", "PASS"),
    ("litert-fp32", "3.4e-06", "67.4 [52.5, 80.2]", "+0.1 [-7.3, +7.3]", "shown within", "3 (3)", "INCONCLUSIVE"),
)


def table() -> Table:
    made = Table(title="a title")
    for header in COLUMNS:
        made.add_column(header, no_wrap="[" in header)
    for row in ROWS:
        made.add_row(*(cell.replace("[", r"\[") for cell in row))
    return made


def printed(renderable: RenderableType, width: int) -> str:
    output = Console(width=width, file=io.StringIO())
    output.print(renderable)
    assert isinstance(output.file, io.StringIO)
    return output.file.getvalue()


@pytest.mark.parametrize("width", [50, 80, 100, 150, 200])
def test_no_cell_is_cut_off_and_no_line_is_too_long(width: int) -> None:
    text = printed(fitted(table(), Console(width=width)), width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert [cell for row in ROWS for cell in row if len(cell) < 20 and cell not in text] == []


def test_a_part_opens_with_the_column_that_names_its_rows() -> None:
    text = printed(fitted(table(), Console(width=80)), 80)
    assert text.count("litert-fp32") == text.count("┏") > 1
    assert text.count("a title") == 1


def test_what_stands_before_the_name_is_in_the_first_part_alone() -> None:
    text = printed(fitted(table(), Console(width=80), name=1), 80)
    assert text.count("litert-fp32") == 1
    assert text.count("3.4e-06") == text.count("┏") > 1


def test_a_table_that_fits_is_left_as_it_is() -> None:
    whole = table()
    assert fitted(whole, Console(width=200)) is whole


def test_sections_stay() -> None:
    made = table()
    made.add_section()
    made.add_row(*ROWS[0][:2], "–", "–", "–", "–", "–")
    assert printed(fitted(made, Console(width=80)), 80).count("├") > 1


def test_a_name_longer_than_the_terminal_is_folded() -> None:
    made = Table("variant", "verdict")
    made.columns[0].no_wrap = True
    made.add_row("n" * 70, "INCONCLUSIVE")
    text = printed(fitted(made, Console(width=60)), 60)
    assert text.count("n" * 10) >= 1
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 60
