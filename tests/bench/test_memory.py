"""Tests of the process's memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecnn.bench import memory

STATUS = "Name:\tpython\nVmPeak:\t  999 kB\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\nThreads:\t4\n"


def test_kibibytes_of_the_kernel_are_bytes_here(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text(STATUS)
    assert memory.resident_bytes(status) == 200 * 1024
    assert memory.peak_resident_bytes(status) == 300 * 1024


def test_without_proc_the_peak_comes_from_rusage_and_the_present_is_unknown(tmp_path: Path) -> None:
    assert memory.resident_bytes(tmp_path / "absent") is None
    peak = memory.peak_resident_bytes(tmp_path / "absent")
    assert peak is None or peak > 1024 * 1024


def test_without_either_it_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "resource", None)
    assert memory.peak_resident_bytes(tmp_path / "absent") is None
