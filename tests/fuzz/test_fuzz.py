"""A short hunt over every kind of input, and the hunt itself: it must see what it is there to see."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st

from edgecnn.errors import UserError
from tests.fuzz import campaign
from tests.fuzz.campaign import fuzz, hunt
from tests.fuzz.targets import TARGETS, in_one_line

SECONDS = 120


@pytest.mark.slow
@pytest.mark.parametrize("kind", TARGETS)
def test_no_input_leads_to_more_than_one_clear_line(kind: str, tmp_path: Path) -> None:
    found = fuzz(kind, SECONDS / len(TARGETS), 10_000, 1, tmp_path)
    assert found.faults == []
    assert found.inputs > 0


def _hunt(tmp_path: Path, read: Callable[[bytes], int], inputs: int = 60) -> campaign.Outcome:
    return hunt("made up", read, st.binary(max_size=4), inputs, time.monotonic() + 60, 1, tmp_path)


def test_outcomes_are_counted(tmp_path: Path) -> None:
    found = _hunt(tmp_path, lambda content: 2 if content[:1] > b"\x7f" else 0)
    assert sum(found.exit_codes.values()) == found.inputs >= 60
    assert set(found.exit_codes) == {"0", "2"}
    assert json.loads((tmp_path / "outcome.json").read_text("utf-8"))["inputs"] == found.inputs


def test_a_fault_is_found_once_with_its_smallest_input(tmp_path: Path) -> None:
    def read(content: bytes) -> int:
        if len(content) > 2:
            raise KeyError("never met")
        return 0

    found = _hunt(tmp_path, read, 2000)
    assert [(one["input"], one["seen"].split(":")[0]) for one in found.faults] == [("000000", "KeyError")]


def test_too_much_memory_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "MOST_MIB", 1)
    assert ["memory" in one["seen"] for one in _hunt(tmp_path, lambda content: 0).faults] == [True]


def test_too_long_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "LONGEST_S", 0.0)
    assert ["seconds" in one["seen"] for one in _hunt(tmp_path, lambda content: 0).faults] == [True]


def test_a_process_that_dies_is_a_fault_with_its_last_input(tmp_path: Path) -> None:
    died = fuzz("no such kind", 1, 1, 1, tmp_path)
    assert died.inputs == 0
    assert "KeyError: 'no such kind'" in died.faults[0]["seen"]


def test_a_mistake_in_several_lines_is_a_fault() -> None:
    def read() -> None:
        error = UserError()
        error.args = ("one\nand another",)
        raise error

    with pytest.raises(Exception, match="not one line"):
        in_one_line(read)


def test_layouts_are_written_as_drawn(tmp_path: Path) -> None:
    from tests.fuzz.mutations import write_layout

    leaves = [((b"a", b"0.png"), "image"), ((b"a", b"Pr\xfcf"), "broken"), ((b"b",), "fifo"), ((b"a", b"c"), "cycle")]
    write_layout(tmp_path, leaves, lambda number: bytes([number]) * 50)
    assert sorted(os.fsencode(path.name) for path in (tmp_path / "a").iterdir()) == [b"0.png", b"Pr\xfcf", b"c"]
    assert (tmp_path / "b").is_fifo()
