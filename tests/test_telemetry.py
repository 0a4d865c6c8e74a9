"""Nothing that edgecnn calls reports home, and nothing is left where nobody asked for it: every verb, watched."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from edgecnn import telemetry
from edgecnn.cli import verbs
from edgecnn.data.surfaces import write_demo_data
from tests.watched import Seen, skip_unless_watchable, watched

TARGET = """
name = "small"
description = "a variant of each engine that edgecnn installs with its training"
machine = "x86_64"
threads = 1
budget = "1000ms@p90"
accuracy_loss_limit = 100
calibration_images = 8
variants = [{variants}]
"""
FEW = (("onnx", "fp32", "onnxruntime"), ("openvino", "fp32", "openvino"))
ALL = (
    *FEW,
    *(("torchscript", "fp32", "pytorch"), ("torchscript", "int8", "pytorch")),
    *(("onnx", "int8", "onnxruntime"), ("openvino", "int8", "openvino")),
    *(("litert", "fp32", "litert"), ("litert", "int8", "litert"), ("ncnn", "fp32", "ncnn")),
    *(("executorch", "fp32", "executorch"), ("executorch", "int8", "executorch")),
)
NETWORK = ("--model", "edgecnn_mobilenetv2_035", "--size", "32")
TRAINING = (*NETWORK, "--recipe", "head", "--epochs", "1", "--min-per-class", "0")
COMMANDS: dict[str, Sequence[str]] = {
    "demo-data": ("demo-data", "drawn", "--images", "25"),
    "plan": ("plan", "parts", *NETWORK),
    "finetune": ("finetune", "parts", *TRAINING, "--out", "trained"),
    "export": ("export", "trained", "--target", "target.toml", "--out", "bundle"),
    "verify": ("verify", "bundle", "--data", "parts"),
    "bench": ("bench", "bundle", "--samples", "50", "--out", "bench.jsonl"),
    "report": ("report", "bundle", "--runs", "bench.jsonl", "--out", "report"),
    "rehearse": ("rehearse", "bundle", "--device", "raspberry-pi-4", "--offline"),
    "run": ("run", "parts", *TRAINING, "--target", "target.toml", "--samples", "50", "--out", "whole"),
    "embed": ("embed", "parts", *NETWORK, "--out", "embedded.npz"),
    "models": ("models",),
    "scale": ("scale", "--phi", "1"),
    "explain": ("explain", "block"),
    "doctor": ("doctor",),
}
"""Verb to a small use of it, in an order in which each finds what it takes."""
LIBRARY_USE = """
import sys
from pathlib import Path
import numpy
from edgecnn.artifact import load_bundle
from edgecnn.runtimes import open_session
folder = Path(sys.argv[1])
bundle = load_bundle(folder)
for artifact in bundle.artifacts:
    session = open_session(folder, artifact, 1)
    session.run(numpy.zeros((1, bundle.preprocess.height, bundle.preprocess.width, 3), numpy.uint8))
    session.close()
"""
CONVERT = """
import sys
from pathlib import Path
import onnx
from onnx import TensorProto, helper
import edgecnn
import nncf
import openvino
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4])
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", [value("x")], [value("y")])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), sys.argv[1])
openvino.convert_model(sys.argv[1])
from nncf.telemetry.wrapper import NNCFTelemetryStub, telemetry as reporter
assert isinstance(reporter, NNCFTelemetryStub), reporter
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the verbs work one after the other."""
    skip_unless_watchable()
    return _furnished(tmp_path_factory.mktemp("watched"), FEW)


@pytest.fixture(scope="module")
def seen(place: Path) -> Mapping[str, Seen]:
    """What each verb was seen doing."""
    return {verb: watched(["-m", "edgecnn", *words], place) for verb, words in COMMANDS.items()}


def _furnished(folder: Path, variants: Sequence[tuple[str, str, str]]) -> Path:
    write_demo_data(folder / "parts", 60, seed=0)
    rows = ", ".join(f'{{ format = "{f}", precision = "{p}", runtime = "{r}" }}' for f, p, r in variants)
    (folder / "target.toml").write_text(TARGET.format(variants=rows))
    return folder


def astray(seen: Seen, folder: Path) -> list[str]:
    """What was written outside of the folder that the command worked in, its temporary one and edgecnn's cache."""
    home, ours = folder / "home", folder / "home" / ".cache" / "edgecnn"
    allowed = (Path("/dev"), Path("/proc"))

    def fine(path: Path) -> bool:
        if path.is_relative_to(home):
            return path.is_relative_to(ours) or path in ours.parents
        return path.is_relative_to(folder) or any(path.is_relative_to(one) for one in allowed)

    return sorted(str(path) for path in seen.written if not fine(path))


def test_every_verb_is_watched() -> None:
    assert set(COMMANDS) == set(verbs.names())


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_verb_speaks_to_nobody_and_leaves_nothing_behind(verb: str, seen: Mapping[str, Seen], place: Path) -> None:
    code, output = seen[verb].code, seen[verb].output
    if verb == "rehearse":  # there is no board here, and --offline forbids fetching one
        assert (code, "no userland there" in output) == (2, True), output
    else:
        assert code in (0, 1, 3), output
    assert seen[verb].contacts == frozenset()
    assert astray(seen[verb], place) == []


def test_the_home_folder_holds_nothing_but_the_cache(seen: Mapping[str, Seen], place: Path) -> None:
    assert seen
    assert {path.relative_to(place / "home").as_posix() for path in (place / "home").glob("*/*")} <= {".cache/edgecnn"}
    assert {path.name for path in (place / "home").iterdir()} <= {".cache"}


def test_as_a_library_it_is_as_silent(seen: Mapping[str, Seen], place: Path) -> None:
    assert seen["export"].code in (0, 1)  # so small a network may answer too badly to be called done
    used = watched(["-c", LIBRARY_USE, "bundle"], place)
    assert used.code == 0, used.output
    assert used.contacts == frozenset()
    assert astray(used, place) == []


@pytest.mark.slow
def test_every_format_and_engine_is_silent(tmp_path: Path) -> None:
    skip_unless_watchable()
    _furnished(tmp_path, ALL)
    for verb in ("finetune", "export", "verify", "bench"):
        seen = watched(["-m", "edgecnn", *COMMANDS[verb]], tmp_path)
        assert seen.code in (0, 1, 3), seen.output
        assert (seen.contacts, astray(seen, tmp_path)) == (frozenset(), []), verb
    seen = watched(["-m", "edgecnn", *COMMANDS["verify"], "--explain"], tmp_path)
    assert (seen.code in (0, 1), seen.contacts, astray(seen, tmp_path)) == (True, frozenset(), []), seen.output
    seen = watched(["-c", LIBRARY_USE, "bundle"], tmp_path)
    assert (seen.code, seen.contacts, astray(seen, tmp_path)) == (0, frozenset(), []), seen.output


@pytest.mark.slow
def test_processes_of_torchrun_are_silent(tmp_path: Path) -> None:
    skip_unless_watchable()
    _furnished(tmp_path, FEW)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "edgecnn")
    seen = watched([*launcher, *COMMANDS["finetune"]], tmp_path)
    assert seen.code == 0, seen.output
    assert (seen.contacts, astray(seen, tmp_path)) == (frozenset(), [])


def test_the_watch_sees_a_library_that_reports(tmp_path: Path) -> None:
    """Without the switch, ONNX Runtime's import leaves a device's id and a queue of events."""
    skip_unless_watchable()
    unset = dict.fromkeys(telemetry.SWITCHES, "")
    seen = watched(["-c", "import onnxruntime"], tmp_path, **unset)
    if not astray(seen, tmp_path):
        pytest.skip("this onnxruntime does not report")
    assert any("onnxruntime" in path for path in astray(seen, tmp_path))


def test_the_watch_sees_a_question_for_a_name(tmp_path: Path) -> None:
    skip_unless_watchable()
    ask = "import socket\ntry: socket.getaddrinfo('nowhere.invalid', 80)\nexcept OSError: pass"
    assert any(contact.endswith(":53") for contact in watched(["-c", ask], tmp_path).contacts)


def test_the_watch_sees_a_file_in_the_home_folder_and_a_call_to_another_machine(tmp_path: Path) -> None:
    skip_unless_watchable()
    stray = (
        "import os, pathlib, socket\n"
        "pathlib.Path.home().joinpath('a', 'b').mkdir(parents=True)\n"
        "pathlib.Path.home().joinpath('left').write_text('x')\n"
        "os.chdir(pathlib.Path.home()); open('relative', 'w'); os.rename('relative', 'renamed')\n"
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))\n"
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))\n"
    )
    seen = watched(["-c", stray], tmp_path)
    home = tmp_path / "home"
    assert set(astray(seen, tmp_path)) >= {str(home / name) for name in ("a", "a/b", "left", "relative")}
    assert seen.contacts == {"192.0.2.1:9"}


def test_conversions_leave_no_trace_of_a_reporting_library(tmp_path: Path) -> None:
    """OpenVINO's and NNCF's reporting keeps its id in the home folder. Not under pytest or CI, where they hold back."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_CURRENT_TEST")}
    subprocess.run(
        [sys.executable, "-c", CONVERT, str(tmp_path / "net.onnx")],
        env={**environment, "HOME": str(home)},
        check=True,
        capture_output=True,
    )
    assert not (home / "intel").exists()


LATE = """
import onnxruntime, huggingface_hub.constants, openvino, openvino_telemetry
calls = []
real, onnxruntime.disable_telemetry_events = onnxruntime.disable_telemetry_events, lambda: calls.append("off")
reporter = openvino_telemetry.Telemetry("x", "1", "y", backend="ga4", enable_opt_in_dialog=False)
reporter.backend.send = lambda message: calls.append("sent")
def report():
    reporter.send_event("a", "b", "c", force_send=True)
    reporter.force_shutdown(10)
    return calls[-1:]
assert report() == ["sent"]
import edgecnn
assert calls == ["sent", "off"] and real() is None
assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY
assert report() == ["off"]
"""


def test_what_was_imported_first_is_silenced_too(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    environment = {name: value for name, value in os.environ.items() if name not in (*telemetry.SWITCHES, "CI")}
    dead = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    subprocess.run([sys.executable, "-c", LATE], env={**environment, **dead, "HOME": str(tmp_path)}, check=True)
