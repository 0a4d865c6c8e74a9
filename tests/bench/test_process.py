"""Tests of the process around one measurement: its environment, and how its failures arrive."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgecnn.bench import child, process
from edgecnn.bench.measure import MeasurePlan
from edgecnn.child import THREAD_VARIABLES, child_environment
from edgecnn.errors import UserError

PLAN = MeasurePlan(samples=5, window=2, windows=2)


def test_threads_are_pinned_before_the_child_starts() -> None:
    environment = child_environment({"OMP_NUM_THREADS": "64", "HOME": "/home/me"}, 2)
    assert {environment[name] for name in THREAD_VARIABLES} == {"2"}
    assert environment["HOME"] == "/home/me"


def test_the_child_runs_this_edgecnn_wherever_it_is_started(tmp_path: Path) -> None:
    (tmp_path / "edgecnn.py").write_text("raise SystemExit('the wrong one')")
    code = "import edgecnn.bench.child as child; print(child.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=child_environment({}, 1),
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).samefile(child.__file__)


@pytest.mark.parametrize(
    ("code", "stderr", "message"),
    [
        (2, "a warning of the engine\nx.onnx: ONNX Runtime cannot open it\n", "x.onnx: ONNX Runtime cannot open it"),
        (1, "Traceback\nValueError: 7\n", "failed with exit code 1: ValueError: 7"),
        (1, "", "left no message"),
        (-4, "", "instructions that this processor lacks (SIGILL)"),
        (-9, "", "killed (SIGKILL)"),
        (-signal.SIGSEGV, "last words\n", "died by SIGSEGV: the engine crashed; last message: last words"),
        (-255, "", "signal 255"),
    ],
)
def test_a_death_becomes_one_line(
    monkeypatch: pytest.MonkeyPatch, bundle_folder: Path, code: int, stderr: str, message: str
) -> None:
    monkeypatch.setattr(
        process.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, code, "", stderr)
    )
    with pytest.raises(UserError) as caught:
        process.measure_in_child(bundle_folder, "onnx-fp32", None, PLAN, 1)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_users_mistake_crosses_the_process_border(bundle_folder: Path) -> None:
    with pytest.raises(UserError, match=r"^'onnx-int8' is not in the bundle: it has onnx-fp32$"):
        process.measure_in_child(bundle_folder, "onnx-int8", None, PLAN, 1)


def _job(bundle_folder: Path, tmp_path: Path, **changes: object) -> process.Job:
    job = process.Job(
        bundle=str(bundle_folder),
        variant="onnx-fp32",
        images=None,
        plan=PLAN,
        threads=1,
        out=str(tmp_path / "out" / "run.json"),
    )
    return job.model_copy(update=changes)


def test_the_child_names_an_image_that_it_cannot_read(
    bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "broken.png").write_bytes(b"not an image")
    job = tmp_path / "job.json"
    job.write_text(_job(bundle_folder, tmp_path, images=str(images)).model_dump_json())
    assert child.main([str(job)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "broken.png: not an image" in said
    assert not (tmp_path / "out").exists()


def test_a_job_of_another_shape_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.json").write_text('{"bundle": 7}')
    assert child.main([str(tmp_path / "job.json")]) == 2
    assert "job.json: bundle:" in capsys.readouterr().err


def test_one_job_makes_one_whole_run(bundle_folder: Path, tmp_path: Path) -> None:
    """In this process: the same code that the child runs."""
    run = child.run_job(_job(bundle_folder, tmp_path))
    assert run.subject.variant == "onnx-fp32"
    assert run.subject.files.keys() == {"onnx-fp32.onnx"}
    assert len(run.samples.measured.total) == 5
    assert run.executed.float_layers == 1
    assert [image.expected for image in run.images] == [decision[0] for decision in run.samples.decisions]
