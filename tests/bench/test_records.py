"""Tests of raw runs on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgecnn.bench.records import read_runs, write_run
from edgecnn.errors import UserError


def test_runs_come_back_as_they_were_written(tmp_path: Path, make_run) -> None:
    path = tmp_path / "new" / "folder" / "runs.jsonl"
    runs = [make_run((10.0, 11.5, 12.25)), make_run((9.0,), threads=4)]
    for run in runs:
        write_run(path, run)
    assert read_runs(path) == runs
    assert len(path.read_text().splitlines()) == 2


def test_nothing_derived_is_stored(tmp_path: Path, make_run) -> None:
    write_run(tmp_path / "runs.jsonl", make_run())
    text = (tmp_path / "runs.jsonl").read_text()
    assert not [word for word in ("p50", "p99", "verdict", "mean", "bound") if word in text]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.jsonl: no such file"):
        read_runs(tmp_path / "absent.jsonl")


def test_an_empty_file_holds_no_runs(tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_text("\n\n")
    with pytest.raises(UserError, match="no runs in it"):
        read_runs(tmp_path / "runs.jsonl")


def _cut(line: str) -> str:
    return line[: len(line) // 2]


def _extra(line: str) -> str:
    return json.dumps({**json.loads(line), "p99_ms": 1.0})


def _ragged(line: str) -> str:
    document = json.loads(line)
    document["samples"]["measured"]["infer"][0] = "fast"
    return json.dumps(document)


def _uneven(line: str) -> str:
    document = json.loads(line)
    document["samples"]["measured"]["infer"].pop()
    return json.dumps(document)


@pytest.mark.parametrize("damage", [_cut, lambda line: "\x00\x01", lambda line: line[:-1]])
def test_a_line_that_a_full_disk_cut_off_is_skipped_with_a_note(tmp_path: Path, make_run, damage) -> None:
    path = tmp_path / "runs.jsonl"
    first, second = make_run(), make_run(threads=7)
    write_run(path, first)
    path.write_text(path.read_text() + damage(path.read_text().strip()))
    write_run(path, second)
    notes: list[str] = []
    assert read_runs(path, notes.append) == [first, second]
    assert [note.partition(": ")[0] for note in notes] == [f"{path}:2"]
    assert "skipped: the line was cut off" in notes[0]


def test_nothing_but_a_cut_line_is_no_run(tmp_path: Path, make_run) -> None:
    path = tmp_path / "runs.jsonl"
    write_run(path, make_run())
    path.write_text(_cut(path.read_text()))
    with pytest.raises(UserError, match="no runs in it"):
        read_runs(path)


@pytest.mark.parametrize("damage", [_extra, _ragged, _uneven, lambda line: "[]"])
def test_a_damaged_line_is_named_by_its_number(tmp_path: Path, make_run, damage) -> None:
    path = tmp_path / "runs.jsonl"
    write_run(path, make_run())
    whole = path.read_text()
    path.write_text(whole + "\n" + damage(whole.strip()) + "\n")
    with pytest.raises(UserError, match=r"runs\.jsonl:3: ") as caught:
        read_runs(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_newer_version_is_refused(tmp_path: Path, make_run) -> None:
    path = tmp_path / "runs.jsonl"
    write_run(path, make_run(version=3))
    with pytest.raises(UserError, match="run version 3, this edgecnn reads version 2"):
        read_runs(path)


def test_runs_of_version_1_keep_the_counts_that_they_held(tmp_path: Path, make_run) -> None:
    write_run(tmp_path / "new.jsonl", make_run())
    document = json.loads((tmp_path / "new.jsonl").read_text())
    for told in (
        {"int8_layers": 53, "float_layers": 1, "layers": {"f32": 1}, "providers": ["CPU"], "operations": 3},
        {},
    ):
        (tmp_path / "old.jsonl").write_text(json.dumps({**document, "version": 1, "executed": told}) + "\n")
        (run,) = read_runs(tmp_path / "old.jsonl")
        assert run.executed is not None
        assert run.executed.int8_layers == told.get("int8_layers", 0)
        assert run.executed.float_layers == told.get("float_layers", 0)
        assert run.executed.mac_shares == {}


def test_the_committed_runs_are_read() -> None:
    files = sorted((Path(__file__).parents[2] / "benchmarks" / "results" / "desktop-cpu").glob("*.jsonl"))
    assert files
    assert all(read_runs(file) for file in files)


def test_the_one_raw_run_carries_what_a_later_reader_needs(tmp_path: Path, make_run) -> None:
    write_run(tmp_path / "runs.jsonl", make_run())
    document = json.loads((tmp_path / "runs.jsonl").read_text())
    assert set(document["samples"]["measured"]) == {"decode", "prepare", "infer", "decide"}
    assert document["subject"]["files"]
    assert {"before", "after", "host", "plan", "images", "executed", "threads"} <= set(document)
