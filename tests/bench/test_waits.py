"""Tests of the time without a processor, on file trees and on this very process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgecnn.bench.waits import Waits, ready_between, stops_between, waits


def _threads(root: Path, **told: str) -> Path:
    for name, text in told.items():
        folder = root / "proc/self/task" / name.removeprefix("t")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "schedstat").write_text(text)
    return root


def test_the_waits_of_all_threads_add_up(tmp_path: Path) -> None:
    before = waits(_threads(tmp_path, t1="900 100 5\n", t2="40 7 1\n"))
    after = waits(_threads(tmp_path, t1="1900 350 9\n", t2="60 17 3\n", t3="10 30 1\n"))
    assert ready_between(before, after) == 250 + 10 + 30


@pytest.mark.parametrize("text", ["0 0 0", "", "many"])
def test_a_kernel_that_does_not_count_is_not_told(tmp_path: Path, text: str) -> None:
    found = waits(_threads(tmp_path, t1=text))
    assert found.ready_ns is None
    assert ready_between(found, found) is None


def test_stops_are_those_between() -> None:
    assert stops_between(Waits(None, 3), Waits(None, 10)) == 7
    assert stops_between(Waits(None, None), Waits(None, 10)) is None


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells")
def test_this_very_process_is_read() -> None:
    before = waits()
    found = ready_between(before, waits())
    assert found is None or found >= 0
