"""Tests of what every verb that writes does with a place where it cannot, before it reads or trains anything."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from edgecnn import disk
from edgecnn.checkpoint import CHECKPOINT
from edgecnn.holding import held, temporary_folder
from tests.bench.conftest import write_tiny_bundle
from tests.conftest import call
from tests.training import write_images

MODEL = ("--model", "edgecnn_mobilenetv2_035")
FOLDERS: dict[str, Callable[[Path], Sequence[object]]] = {
    "finetune": lambda root: ("finetune", root / "images", *MODEL, "--out"),
    "run": lambda root: ("run", root / "images", *MODEL, "--out"),
    "export": lambda root: ("export", root / "run", "--target", "desktop-cpu", "--out"),
    "export of a file": lambda root: ("export", root / "net.onnx", "--data", root / "images", "--out"),
    "demo-data": lambda root: ("demo-data",),
    "report": lambda root: ("report", root / "bundle", "--runs", root / "runs.jsonl", "--out"),
}
"""Verbs that write a folder, to their words but the folder."""
FILES: dict[str, tuple[str, Callable[[Path], Sequence[object]]]] = {
    "bench": (".jsonl", lambda root: ("bench", root / "bundle", "--samples", "5", "--out")),
    "embed": (".npz", lambda root: ("embed", root / "images", *MODEL, "--out")),
    "embed --page": (".html", lambda root: ("embed", root / "images", *MODEL, "--out", root / "f.npz", "--page")),
    "rehearse": (".json", lambda root: ("rehearse", root / "bundle", "--device", "raspberry-pi-5", "--out")),
}
"""Verbs that write a file, to its ending and their words but the file."""
READING = {"finetune", "run", "export of a file"}
"""Of FOLDERS: those that read a folder of images."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    write_images(folder / "images", (1, 1, 1))
    write_tiny_bundle(folder / "bundle")
    (folder / "run").mkdir()
    (folder / "run" / CHECKPOINT).write_text("{}")
    (folder / "net.onnx").write_bytes(b"never read")
    return folder


def _refused(words: Sequence[object], out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a verb ends, exit code 2; nothing but a heading of progress stands before it."""
    assert call(*words, out) == 2
    said = capsys.readouterr()
    assert said.out == ""
    *before, line = said.err.strip().splitlines()
    assert before in ([], ["drawing"])
    return line


@pytest.mark.parametrize("verb", [*FOLDERS, *FILES])
def test_an_output_that_another_process_writes_is_refused_at_once(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    ending, words = ("", FOLDERS[verb]) if verb in FOLDERS else FILES[verb]
    out = tmp_path / f"out{ending}"
    with held(out):
        line = _refused(words(root), out, capsys)
    assert f"{out}: process {os.getpid()} (since 20" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", [*FOLDERS, *FILES])
@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "is full"), (errno.EROFS, "Read-only file system: name another place")]
)
def test_a_disk_that_takes_nothing_is_told_first(
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    number: int,
    words: str,
) -> None:
    def refuse(file: int, size: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(disk, "reserve", refuse)
    ending, given = ("", FOLDERS[verb]) if verb in FOLDERS else FILES[verb]
    assert words in _refused(given(root), tmp_path / "new" / f"out{ending}", capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", FOLDERS)
def test_a_folder_that_holds_something_else_is_refused_first(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    if verb == "report":
        pytest.skip("writes its two pages into any folder")
    (tmp_path / "out" / "train").mkdir(parents=True)
    (tmp_path / "out" / "train" / "thesis.tex").write_text("mine")
    assert str(tmp_path / "out") in _refused(FOLDERS[verb](root), tmp_path / "out", capsys)
    (tmp_path / "file").write_text("mine")
    assert "file" in _refused(FOLDERS[verb](root), tmp_path / "file", capsys)
    assert (tmp_path / "file").read_text() == (tmp_path / "out" / "train" / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("verb", ["bench", "embed"])
def test_a_file_that_holds_something_else_is_refused_first(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    ending, words = FILES[verb]
    (tmp_path / f"out{ending}").write_text('{"mine": 1}\n')
    assert f"out{ending}: holds" in _refused(words(root), tmp_path / f"out{ending}", capsys)
    assert (tmp_path / f"out{ending}").read_text() == '{"mine": 1}\n'


@pytest.mark.parametrize("verb", sorted(READING))
def test_a_folder_among_the_images_is_refused_first(root: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    before = sorted(root.rglob("*"))
    line = _refused(FOLDERS[verb](root), root / "images" / "run", capsys)
    assert "lies inside" in line
    assert sorted(root.rglob("*")) == before


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of another system does not tell of a parent's end")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_bench_that_is_killed_leaves_no_child_and_what_it_left_is_removed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edgecnn", "bench", str(root / "bundle"), "--samples", "1000000", "--out", "runs.jsonl"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    )
    child = _child_of(process)
    process.send_signal(number)
    assert process.wait() == (128 + number if number == signal.SIGTERM else -number)
    while Path(f"/proc/{child}").exists():
        time.sleep(0.01)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with held(tmp_path / "runs.jsonl"), temporary_folder("bench"):
        pass
    assert list(tmp_path.iterdir()) == []


def _child_of(process: subprocess.Popen[bytes]) -> str:
    while True:
        assert process.poll() is None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children:
            return children[0]
        time.sleep(0.01)
