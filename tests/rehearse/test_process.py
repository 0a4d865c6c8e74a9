"""The rehearsed process: what it is, how it ends, what it answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecnn import rehearse as rehearsing
from edgecnn.rehearse import process
from edgecnn.rehearse.debian import BOOKWORM
from edgecnn.rehearse.inside import engine_mappings, mappings
from edgecnn.rehearse.instructions import Log
from edgecnn.rehearse.process import Ended, death, emulated, emulated_here, execute, native, run
from edgecnn.rehearse.setups import device
from edgecnn.rehearse.userland import Contents, Userland
from tests.rehearse.bundle import write_bundle_to_rehearse
from tests.rehearse.test_instructions import SDOT

MAPS = """00400000-00916000 r-xp 00000000 fe:00 246                                /board/usr/bin/python3.11
55092b0000-5509371000 r-xp 00010000 fe:00 25 /sp/the engine/lib.so
5509371000-5509372000 rw-p 00010000 fe:00 25 /sp/the engine/lib.so
5528d36000-5528df6000 rwxp 00000000 00:00 0
not a line
"""


def test_the_lines_of_proc_maps() -> None:
    found = list(mappings(MAPS))
    assert [one.protection for one in found] == [5, 5, 3, 7]
    assert [one.path for one in found] == ["/board/usr/bin/python3.11", *["/sp/the engine/lib.so"] * 2, ""]
    assert (found[1].low, found[1].high) == (0x55092B0000, 0x5509371000)


def test_an_engines_code_is_its_own() -> None:
    paths = {one.path for one in engine_mappings("numpy") if one.path}
    assert paths
    assert all("numpy" in path for path in paths)
    assert engine_mappings("no_such_engine") == [one for one in engine_mappings("no_such_engine") if not one.path]


def ended(code: int | None, stderr: str = "", last: int | None = None) -> Ended:
    log = Log()
    log.last = last
    return Ended(code, (), stderr, log)


@pytest.mark.parametrize(
    ("how", "failure", "words"),
    [
        (ended(None), "timed out", ["60 s"]),
        (ended(2, "edgecnn: x\nmodel.onnx: cannot be opened"), "refused", ["model.onnx: cannot be opened"]),
        (ended(1, "Traceback\nImportError: no libfoo.so"), "crashed", ["exit code 1", "no libfoo.so"]),
        (ended(-4, "qemu: uncaught target signal 4", SDOT), "crashed", ["SIGILL", "sdot 0x4e829420"]),
        (ended(-11, "qemu: uncaught target signal 11"), "crashed", ["SIGSEGV", "no message"]),
        (ended(-9), "crashed", ["SIGKILL", "memory"]),
        (ended(-50), "crashed", ["signal 50"]),
    ],
)
def test_every_way_of_dying_has_a_name(how: Ended, failure: str, words: list[str]) -> None:
    found, reason = death(how, 60)
    assert found == failure
    for word in words:
        assert word in reason


def test_a_process_that_hangs_is_stopped(tmp_path: Path) -> None:
    found = execute(native(), ["-c", "import time; print('x', flush=True); time.sleep(60)"], tmp_path, 0.5)
    assert found.code is None


def test_a_process_that_dies_by_a_signal(tmp_path: Path) -> None:
    found = execute(native(), ["-c", "import os; os.kill(os.getpid(), 4)"], tmp_path, 60)
    assert found.code == -4


def test_the_rehearsed_process_answers_natively(tmp_path: Path) -> None:
    from edgecnn.artifact import load_bundle

    folder = write_bundle_to_rehearse(tmp_path / "bundle")
    bundle = load_bundle(folder)
    job = rehearsing.Job(
        model=str(folder / "onnx-fp32.onnx"),
        runtime="onnxruntime",
        precision="fp32",
        threads=1,
        preprocess=bundle.preprocess,
        images=tuple(str(folder / one.file) for one in bundle.golden),
        out="",
        log=None,
    )
    seen: list[int] = []
    ran = run(native(), job, 120, seen.append)
    assert ran.reason is None
    assert ran.answer is not None
    assert seen == [1, 2, 3]
    assert ran.answer.pixels == tuple(one.pixels_sha256 for one in bundle.golden)
    logits = np.frombuffer(bytes.fromhex(ran.answer.logits), "<f4").reshape(3, -1)
    assert np.array_equal(logits, np.array([one.logits for one in bundle.golden], np.float32))

    broken = run(native(), job.model_copy(update={"model": str(folder / "labels.txt")}), 120)
    assert broken.failure == "refused"
    assert "labels.txt" in (broken.reason or "")


def test_the_emulated_python_sees_no_library_of_this_machine(tmp_path: Path) -> None:
    contents = Contents(release="bookworm", python="3.11", qemu="7.2", packages={})
    root = tmp_path / "cache/bookworm/root"
    (root / "usr").mkdir(parents=True)
    (tmp_path / "board").mkdir()
    machine = emulated(
        device("raspberry-pi-5"),
        Userland(root, tmp_path / "qemu", "7.2", BOOKWORM, contents),
        [tmp_path / "wheel"],
        tmp_path / "cache",
        tmp_path / "board",
    )
    search = next(word for word in machine.command if word.startswith("PYTHONPATH=")).partition("=")[2].split(":")
    assert [path.name for path in Path(search[0]).iterdir()] == ["edgecnn"]
    assert (Path(search[0]) / "edgecnn").resolve() == Path(process.__file__).resolve().parents[1]
    assert search[1:] == [str(tmp_path / "wheel")]
    assert "PYTHONPATH" not in machine.environment


def test_what_chooses_instructions_here_is_not_told_to_an_emulated_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("OPENBLAS_CORETYPE", "Haswell"), ("ONEDNN_MAX_CPU_ISA", "AVX2"), ("KEPT", "1")):
        monkeypatch.setenv(name, value)
    found = emulated_here("Nehalem", Path("qemu")).environment
    assert "KEPT" in found
    assert not {"OPENBLAS_CORETYPE", "ONEDNN_MAX_CPU_ISA"} & set(found)
    assert native().environment["OPENBLAS_CORETYPE"] == "Haswell"
