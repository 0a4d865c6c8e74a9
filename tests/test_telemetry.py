"""Nothing that edgecnn calls reports home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CONVERT = """
import sys
from pathlib import Path
import onnx
from onnx import TensorProto, helper
from edgecnn import telemetry
telemetry.forbid()
import nncf
import openvino
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4])
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", [value("x")], [value("y")])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), sys.argv[1])
openvino.convert_model(sys.argv[1])
from nncf.telemetry.wrapper import NNCFTelemetryStub, telemetry as reporter
assert isinstance(reporter, NNCFTelemetryStub), reporter
"""


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
