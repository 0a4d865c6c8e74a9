"""What long verbs tell while they work: a line a stage, the rest in a log."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecnn.cli.live import log_beside, logged, notices, progress_bar, say
from edgecnn.errors import UserError
from edgecnn.progress import Stage


def _work(verbose: bool, log: Path) -> None:
    with logged(log, verbose):
        say(Stage("reading parts/"))
        with progress_bar() as bar:
            bar.start(3, "preparing images")
            bar.text("epoch 1/2")
        for done in range(3):
            say(Stage(f"export: number {done}", done, 3))
            say("  a rung")


def test_a_stage_is_a_line_with_the_time_and_the_log_has_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "new" / "run.log"
    _work(verbose=False, log=log)
    shown = capsys.readouterr().err.splitlines()
    assert [line[:7] for line in shown] == [" 0:00  "] * 4
    assert shown[0].endswith("reading parts/")
    assert "left)" in shown[-1]
    text = log.read_text(encoding="utf-8")
    assert all(line in text for line in (*shown, "preparing images", "epoch 1/2", "a rung"))


def test_verbose_shows_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _work(verbose=True, log=tmp_path / "run.log")
    assert "epoch 1/2" in capsys.readouterr().err


def test_a_second_run_is_added_to_the_log(tmp_path: Path) -> None:
    for _ in range(2):
        _work(verbose=False, log=tmp_path / "run.log")
    assert (tmp_path / "run.log").read_text(encoding="utf-8").count("reading parts/") == 2


def test_without_a_log_every_line_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    say(Stage("bench: one", 0, 2))
    say("a detail\nof two lines")
    assert capsys.readouterr().err.splitlines() == ["bench: one", "a detail\\nof two lines"]


def _fails(log: Path, stages: int) -> None:
    with logged(log, verbose=False):
        for number in range(stages):
            say(Stage(f"stage {number}"))
        raise UserError("no such folder")


@pytest.mark.parametrize("stages", [1, 2])
def test_a_mistake_in_the_first_stage_leaves_no_log(tmp_path: Path, stages: int) -> None:
    log = tmp_path / "new" / "run.log"
    with pytest.raises(UserError):
        _fails(log, stages)
    assert log.exists() == (stages == 2)
    assert log.parent.exists() == (stages == 2)


@pytest.mark.parametrize(("out", "log"), [("runs/parts", "parts.log"), ("bundle.v1/", "bundle.v1.log")])
def test_a_log_lies_beside_its_folder(out: str, log: str) -> None:
    assert log_beside(Path(out)).name == log


def test_what_is_to_be_read_is_shown_and_the_rest_of_many_is_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"left out: {number}.jpg" for number in range(30)]
    with logged(tmp_path / "run.log", verbose=False):
        notices(lines)
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == lines[0]
    assert len(shown) < 20
    assert shown[-1].endswith("lines more: in the log")
    assert lines[-1] in (tmp_path / "run.log").read_text(encoding="utf-8")
    notices(lines)
    assert capsys.readouterr().err.splitlines() == lines
