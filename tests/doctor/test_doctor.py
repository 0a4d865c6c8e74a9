"""The doctor: it finds what is missing, survives what dies, and tells it as lines and as JSON."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecnn import formats, runtimes
from edgecnn.artifact import Choice, Doubt, load_bundle, write_bundle
from edgecnn.cli.verbs import in_order, names
from edgecnn.doctor import Diagnosis, examine, import_in_child, lines
from edgecnn.doctor.libraries import numbers
from edgecnn.doctor.machine import int8_kernels
from edgecnn.origin import install_command
from tests.cli.test_cli import call
from tests.rehearse.bundle import write_bundle_to_rehearse


def _loads(module: str) -> None:
    """A probe that finds every module well."""


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """without(distribution, module): as if it were not installed."""
    find, version = importlib.util.find_spec, importlib.metadata.version

    def hide(distribution: str, hidden: str) -> None:
        def version_of(name: str) -> str:
            if name == distribution:
                raise importlib.metadata.PackageNotFoundError(name)
            return version(name)

        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == hidden else find(name))
        monkeypatch.setattr(importlib.metadata, "version", version_of)

    return hide


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """module(source) to the name of a module that a child process can import."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(source: str) -> str:
        (tmp_path / "engine_under_test.py").write_text(source)
        return "engine_under_test"

    return write


def test_every_runtime_format_and_verb_is_examined() -> None:
    diagnosis = examine(in_order(), _loads)
    assert [engine.runtime for engine in diagnosis.engines] == runtimes.names()
    assert [converter.format for converter in diagnosis.converters] == formats.names()
    assert sorted(verb.name for verb in diagnosis.verbs) == names()
    assert diagnosis.exit_code == 0
    areas = [area for area, _, _ in lines(diagnosis)]
    assert {"processor", "int8", "memory", "disk", "system", "libc", *(f"edgecnn {verb}" for verb in names())} <= set(
        areas
    )


def test_json_round_trip() -> None:
    diagnosis = examine(in_order(), _loads)
    assert Diagnosis.model_validate_json(diagnosis.model_dump_json()) == diagnosis


def test_a_missing_engine_names_the_command(without: Callable[[str, str], None]) -> None:
    without("openvino", "openvino")
    diagnosis = examine(in_order(), _loads)
    engine = next(engine for engine in diagnosis.engines if engine.runtime == "openvino")
    assert engine.library.version is None
    assert ("engine openvino", "openvino: not installed", install_command("openvino")) in lines(diagnosis)
    assert diagnosis.exit_code == 0
    ready = {verb.name: verb.ready for verb in diagnosis.verbs}
    assert ready["bench"]
    assert not ready["export"]


def test_a_missing_extra_stops_its_verbs(without: Callable[[str, str], None]) -> None:
    without("jinja2", "jinja2")
    verbs = {verb.name: verb for verb in examine(in_order(), _loads).verbs}
    assert verbs["report"].fix == install_command("report")
    assert "report" in (verbs["run"].fix or "")
    assert verbs["demo-data"].ready


def test_a_broken_base_is_exit_code_1_and_stops_every_verb() -> None:
    diagnosis = examine(in_order(), lambda name: "import dies with SIGILL" if name == "numpy" else None)
    assert diagnosis.exit_code == 1
    assert diagnosis.problems == ("numpy: import dies with SIGILL",)
    assert not any(verb.ready for verb in diagnosis.verbs)
    assert not diagnosis.engines
    assert ("base", "numpy: import dies with SIGILL") in [line[:2] for line in lines(diagnosis)]


def test_an_engine_that_dies_is_told_and_is_no_fault_of_the_base() -> None:
    diagnosis = examine(in_order(), lambda name: "import dies with SIGILL" if name == "openvino" else None)
    assert diagnosis.exit_code == 0
    finding, fix = next(line[1:] for line in lines(diagnosis) if line[0] == "engine openvino")
    assert "import dies with SIGILL" in finding
    assert "pip install" in fix


def test_an_old_library_is_no_use(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.9" if name == "simplejpeg" else version(name))
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["simplejpeg>=1.10", "torch>=2; extra == 'train'"])
    assert examine(in_order(), _loads).problems == ("simplejpeg: 1.9 is older than 1.10",)


def test_from_a_folder_that_was_never_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    diagnosis = examine(in_order(), _loads)
    assert diagnosis.exit_code == 0
    assert lines(diagnosis)[0][2].startswith(f"{install_command()}: ")


@pytest.mark.parametrize("name", ["SIGILL", "SIGSEGV", "SIGABRT"])
def test_a_child_that_dies_is_named_by_its_signal(module: Callable[[str], str], name: str) -> None:
    number = int(getattr(signal, name))
    assert f"dies with {name}" in (import_in_child(module(f"import os; os.kill(os.getpid(), {number})")) or "")


def test_a_child_that_raises_gives_its_last_line(module: Callable[[str], str]) -> None:
    problem = import_in_child(module("raise ImportError('libfoo.so.1: cannot open')"))
    assert problem == "import fails: ImportError: libfoo.so.1: cannot open"


def test_a_child_that_hangs_is_given_up(module: Callable[[str], str]) -> None:
    name = module("import time; time.sleep(60)")
    assert import_in_child(name, timeout_s=0.5) == "import takes more than 0.5 s"


def test_a_child_that_loads(module: Callable[[str], str]) -> None:
    assert import_in_child(module("print('noise')")) is None


def test_nothing_heavy_is_loaded_before_it_was_tried() -> None:
    code = (
        "import sys, edgecnn.doctor; print({'numpy', 'torch', 'PIL', 'simplejpeg', 'onnxruntime'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("machine", "flags", "phrase"),
    [
        ("x86_64", ("avx2", "avx512_vnni"), "AVX-512 VNNI"),
        ("x86_64", ("avx2", "avx_vnni"), "AVX-VNNI"),
        ("x86_64", ("avx2",), "AVX2 without VNNI"),
        ("x86_64", (), "no AVX2"),
        ("aarch64", ("asimddp",), "dot product (SDOT"),
        ("aarch64", ("asimddp", "i8mm"), "i8mm"),
        ("aarch64", (), "no dot product"),
        ("riscv64", (), "not known"),
        ("x86_64", None, "not told"),
    ],
)
def test_int8_in_one_phrase(machine: str, flags: tuple[str, ...] | None, phrase: str) -> None:
    assert phrase in int8_kernels(machine, flags)


@pytest.mark.parametrize(
    ("version", "release"),
    [("2.35", (2, 35, 0)), ("2.14.1+cpu", (2, 14, 1)), ("0.1.5.post2", (0, 1, 5)), ("x", (0, 0, 0))],
)
def test_numbers_of_a_version(version: str, release: tuple[int, ...]) -> None:
    assert numbers(version) == release


def test_a_bundles_variants_are_told_beforehand(tmp_path: Path) -> None:
    folder = write_bundle_to_rehearse(tmp_path / "bundle")
    here = runtimes.instruction_set("onnxruntime")
    whole = load_bundle(folder)
    fp32, int8 = whole.artifacts
    proven = int8.model_copy(update={"proven_on": ("elsewhere", here), "variant": "onnx-int8-proven"})
    absent = int8.model_copy(update={"runtime": "abacus", "variant": "onnx-int8-abacus"})
    artifacts = (fp32.model_copy(update={"proven_on": ("elsewhere",)}), int8, proven, absent)
    write_bundle(folder, whole.model_copy(update={"artifacts": artifacts}))
    diagnosis = examine(in_order(), _loads, folder)
    assert diagnosis.bundle is not None
    variants = diagnosis.bundle.variants
    assert [one.proven for one in variants] == [False, False, True, False]
    assert [one.engine is None for one in variants] == [True, True, True, False]
    told = {area: (finding, fix) for area, finding, fix in lines(diagnosis) if area.startswith("variant ")}
    assert "only on elsewhere" in told["variant onnx-fp32"][0]
    assert f"not proven on {here} (on no instruction set)" in told["variant onnx-int8"][0]
    assert "edgecnn verify" in told["variant onnx-int8"][1]
    assert told["variant onnx-int8-proven"] == (f"onnxruntime is here; proven on {here}", "")
    assert "unknown to this edgecnn" in told["variant onnx-int8-abacus"][0]
    assert Diagnosis.model_validate_json(diagnosis.model_dump_json()) == diagnosis


def answered(
    folder: Path, chosen: str | None, runtimes_of: dict[str, str], machine: str = platform.machine(), **change: object
) -> Diagnosis:
    """The diagnosis of a bundle of these variants."""
    whole = load_bundle(folder)
    artifacts = [
        whole.artifacts[0].model_copy(update={"variant": variant, "runtime": runtime})
        for variant, runtime in runtimes_of.items()
    ]
    choice = None if chosen is None else Choice(variant=chosen, reason="drawn")
    update = {"artifacts": tuple(artifacts), "choice": choice, "machine": machine, **change}
    write_bundle(folder, whole.model_copy(update=update))
    return examine(in_order(), _loads, folder)


def test_the_first_line_says_whether_this_machine_can_run_the_bundle(
    tmp_path: Path, without: Callable[[str, str], None]
) -> None:
    folder = write_bundle_to_rehearse(tmp_path / "bundle")
    both = {"litert-int8": "litert", "onnx-int8": "onnxruntime"}
    without("ai-edge-litert", "ai_edge_litert")
    here = f"this machine can run {folder}: "
    command = f"for litert-int8: ai-edge-litert: not installed: {install_command('litert')}"
    found = answered(folder, "onnx-int8", both)
    assert found.bundle is not None
    assert found.bundle.answer == (f"{here}onnx-int8 (the bundle's choice)", command)
    found = answered(folder, None, both)
    assert found.bundle is not None
    assert found.bundle.answer[0] == f"{here}onnx-int8 (none is chosen yet: edgecnn bench)"
    found = answered(folder, "litert-int8", both)
    assert found.bundle is not None
    assert found.bundle.answer == (
        f"this machine cannot run {folder} as chosen, litert-int8: ai-edge-litert: not installed; it can run onnx-int8",
        command,
    )
    assert found.exit_code == 0
    found = answered(folder, "litert-int8", {"litert-int8": "litert"}, machine="abacus")
    assert found.bundle is not None
    assert found.bundle.answer == (
        f"this machine cannot run {folder}: no variant that may be used has its engine here (it is for abacus "
        f"machines, and this one is {platform.machine()})",
        command,
    )
    assert found.exit_code == 1


def test_a_network_in_doubt_is_run_nowhere(tmp_path: Path) -> None:
    folder = write_bundle_to_rehearse(tmp_path / "bundle")
    doubt = Doubt(stage="answers", words="all are dark")
    found = answered(folder, None, {"onnx-int8": "onnxruntime"}, doubts=(doubt,))
    assert found.bundle is not None
    assert found.bundle.answer == (f"this machine cannot run {folder}: the network itself is in doubt",)


def test_the_first_line_of_the_command_is_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_bundle_to_rehearse(tmp_path / "bundle")
    assert call(monkeypatch, "doctor", folder) == 0
    assert capsys.readouterr().out.startswith(f"this machine can run {folder}: onnx-fp32, onnx-int8 (none is chosen")


def test_a_broken_base_runs_no_bundle(tmp_path: Path) -> None:
    diagnosis = examine(in_order(), lambda name: "import dies with SIGILL" if name == "numpy" else None, tmp_path)
    assert diagnosis.bundle is not None
    assert diagnosis.bundle.answer == (f"this machine cannot run {tmp_path}: numpy: import dies with SIGILL",)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["doctor"], 0, install_command("train")),
        (["finetune", ".", "--out", "never"], 2, f"torch is not installed: {install_command('train')}"),
        (["run", ".", "--only", "onnx"], 2, "not installed: torch, torchvision, timm, safetensors, fvcore, "),
        (["run", ".", "--only", "onnx"], 2, f"lightning-fabric (for training): {install_command('train')}"),
        (["export", ".", "--out", "never"], 2, f"(for training): {install_command('train')}"),
    ],
)
def test_the_base_install_says_what_it_lacks(words: list[str], code: int, said: str, tmp_path: Path) -> None:
    """In a process in which no library of the extra `train` can be imported, as in one where none is installed."""
    hidden = ("torch", "torchvision", "timm", "safetensors", "fvcore", "lightning_fabric", "onnx", "onnxslim", "nncf")
    start = (
        f"import sys; sys.modules.update(dict.fromkeys({hidden!r}))\n"
        "from edgecnn.cli import main\n"
        f"sys.argv = ['edgecnn', *{words!r}]\n"
        "main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", start], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert said in " ".join((done.stdout + done.stderr).split())
