"""Tests of outputs that one process holds, and of what killed processes leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from edgecnn.errors import UserError
from edgecnn.holding import held, remove_leftovers, temporary_folder

HOLD = """
import sys
from pathlib import Path
from edgecnn.holding import held, temporary_folder
with held(Path(sys.argv[1])), temporary_folder("try") as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""
"""Holds an output and a temporary folder until its input ends."""


def _holder(out: Path, temporary: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_second_process_says_who_holds_an_output_and_a_dead_one_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, temporary = tmp_path / "new" / "bundle", tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    process, folder = _holder(out, temporary)
    with (
        pytest.raises(UserError, match=rf"bundle: process {process.pid} \(since 2\d\d\d-.* UTC\) writes there"),
        held(out),
    ):
        pass
    with temporary_folder("mine"):
        assert folder.is_dir()  # of a process that is alive
    process.kill()
    process.communicate()
    assert folder.is_dir()
    with held(out), temporary_folder("mine"):
        assert not folder.exists()
    assert list(temporary.iterdir()) == []


def test_an_output_is_free_again_and_nothing_is_left_of_having_held_it(tmp_path: Path) -> None:
    for _ in range(2):
        with held(tmp_path / "a" / "b" / "out"):
            assert (tmp_path / "a" / "b" / ".out.lock").is_file()
        assert list(tmp_path.iterdir()) == []
    with held(tmp_path / "a" / "out"):
        (tmp_path / "a" / "out").mkdir()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]


def test_what_was_half_written_goes_when_the_output_is_held_next(tmp_path: Path) -> None:
    for name in (".out.7.tmp", ".out.8.old", ".other.7.tmp", ".out.x.tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / ".out.9.tmp").write_text("half")
    (tmp_path / "out").mkdir()
    with held(tmp_path / "out"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.7.tmp", ".out.x.tmp", "out"]


def test_an_older_whole_output_is_put_back_that_a_killed_process_had_taken_away(tmp_path: Path) -> None:
    (tmp_path / ".out.7.old").mkdir()
    (tmp_path / ".out.7.old" / "bundle.json").write_text("whole")
    (tmp_path / ".out.7.tmp").mkdir()
    with held(tmp_path / "out"):
        assert (tmp_path / "out" / "bundle.json").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_leftovers_of_processes_that_run_stay(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.communicate()
    for name in (f".rows.{gone.pid}.tmp", f".rows.{os.getpid()}.tmp", ".rows.one.tmp"):
        (tmp_path / name).write_text("half")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".rows.{os.getpid()}.tmp", ".rows.one.tmp"]


def test_other_folders_among_the_temporary_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "edgecnn-by-hand").mkdir()
    with temporary_folder("try") as folder:
        assert list(folder.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["edgecnn-by-hand"]
