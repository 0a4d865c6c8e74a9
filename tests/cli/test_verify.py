"""Verifying again: exit codes of `edgecnn verify`, by what the answers cost and by what the engine ran."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgecnn.artifact import Bundle, Choice, inventory, load_bundle, write_bundle
from edgecnn.documents import sha256_of_file
from edgecnn.parity import REFERENCE_FILE, Reference, prepare_files, save_reference
from edgecnn.runtimes import open_session
from tests.cli.test_cli import call
from tests.conftest import encode, picture
from tests.rehearse.bundle import SPEC, write_bundle_to_rehearse

IMAGES = 40
INT8 = "onnx-int8"


@dataclass(frozen=True)
class Case:
    """A bundle, its test images, and what onnx-int8 answers to them here."""

    folder: Path
    bundle: Bundle
    data: Path
    logits: np.ndarray

    def trained(self, logits: np.ndarray, **changes: object) -> None:
        """The trained network gives these logits, and is right of every image; the bundle has these `changes`."""
        paths = sorted(self.data.iterdir())
        names, hashes = tuple(path.name for path in paths), tuple(map(sha256_of_file, paths))
        labels = logits.argmax(1).astype(np.int64)
        save_reference(Reference(names, hashes, labels, logits), self.folder / REFERENCE_FILE)
        write_bundle(self.folder, self.bundle.model_copy(update={"files": inventory(self.folder), **changes}))


@pytest.fixture
def case(tmp_path: Path) -> Case:
    folder, data = write_bundle_to_rehearse(tmp_path / "bundle"), tmp_path / "parts"
    data.mkdir()
    for seed in range(IMAGES):
        (data / f"{seed:02d}.png").write_bytes(encode(picture(seed, 48, 64)))
    bundle = load_bundle(folder)
    with open_session(folder, bundle.artifact(INT8), 1) as session:
        pixels = prepare_files(sorted(data.iterdir()), SPEC)
        logits = np.concatenate([session.run(image[None]) for image in pixels])
    return Case(folder, bundle, data, logits)


def verified(
    case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, dict[str, object], str]:
    """Exit code, the row of --json, what is printed for people."""
    words = ("verify", case.folder, "--data", case.data, "--variant", INT8)
    code = call(monkeypatch, *words)
    printed = " ".join(capsys.readouterr().out.split())
    assert call(monkeypatch, *words, "--json") == code
    (row,) = json.loads(capsys.readouterr().out)
    return code, row, printed


def test_what_is_not_shown_to_be_beyond_passes(
    case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case.trained(case.logits)
    code, row, _ = verified(case, monkeypatch, capsys)
    assert (code, row["passed"], row["check"]["judged"]["shown"]) == (0, True, "not shown")  # type: ignore[index]


def test_a_variant_that_is_shown_beyond_the_limit_fails(
    case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trained network decides every image otherwise, and is right."""
    case.trained(np.roll(case.logits, 1, axis=1))
    code, row, printed = verified(case, monkeypatch, capsys)
    assert (code, row["passed"], row["check"]["judged"]["shown"]) == (1, False, "shown beyond")  # type: ignore[index]
    assert f"{INT8}: loses 100.0 points of accuracy on {IMAGES} images (limit 1)" in printed


def test_a_strict_target_fails_what_is_not_shown(
    case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case.trained(case.logits, not_shown="refuse")
    code, row, printed = verified(case, monkeypatch, capsys)
    assert (code, row["passed"], row["check"]["judged"]["shown"]) == (1, False, "not shown")  # type: ignore[index]
    assert "not shown to be within 1" in printed


@pytest.mark.parametrize(("require", "code"), [("int8>=10%", 0), ("fp16>=90%", 1), ("int8>=10%,fp32<=0%,bf16>=5%", 1)])
def test_what_the_target_requires_of_the_engine_is_asked_again(
    case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], require: str, code: int
) -> None:
    """Whatever it ran on the exporting machine: by what it runs here."""
    case.trained(case.logits, require=require)
    found, row, printed = verified(case, monkeypatch, capsys)
    assert (found, row["passed"]) == (code, code == 0)
    if code:
        assert "ran 0 % of the MACs, required >= " in printed


BROKEN = {
    "raise ImportError('libgomp.so.1: cannot open shared object file')": "libgomp.so.1: cannot open shared object file",
    "import os, signal; os.kill(os.getpid(), signal.SIGILL)": "the engine uses instructions that this processor lacks",
    "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)": "died by SIGSEGV",
    "raise RuntimeError('this model needs version 99')": "this model needs version 99",
}


@pytest.mark.parametrize("code", BROKEN)
def test_a_broken_engine_costs_its_own_row_alone(
    case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, code: str
) -> None:
    """Whatever it dies of; and it is skipped, which is not a failure."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "ncnn.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"), prepend=os.pathsep)
    monkeypatch.setattr("edgecnn.runtimes.is_installed", lambda library: True)
    fp32 = case.bundle.artifact("onnx-fp32")
    other = case.bundle.artifact(INT8).model_copy(update={"runtime": "ncnn"})
    with open_session(case.folder, fp32, 1) as session:
        logits = session.run(prepare_files(sorted(case.data.iterdir()), SPEC))
    case.trained(logits, artifacts=(other, fp32))
    assert call(monkeypatch, "verify", case.folder, "--data", case.data) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert BROKEN[code] in printed
    assert "skipped" in printed
    assert " no " not in printed.partition("onnx-int8:")[0]
    chosen = Choice(variant=INT8, reason="the fastest")
    case.trained(logits, artifacts=(other, fp32), choice=chosen)
    assert call(monkeypatch, "verify", case.folder, "--data", case.data, "--json") == 3
    rows = json.loads(capsys.readouterr().out)
    assert [row["passed"] for row in rows] == [None, True]
