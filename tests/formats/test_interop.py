"""What edgecnn writes opens in stock engines, in a process that has no edgecnn: the same logits as eager PyTorch."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgecnn import formats
from edgecnn.adopt.folder import adopt
from edgecnn.artifact import Preprocess
from edgecnn.data import Dataset
from edgecnn.formats import Source
from edgecnn.metadata import SelfDescription, describe, read_onnx, read_tflite
from edgecnn.models import Deployed, build, head_of, load_module
from tests.conftest import picture

MODEL, SIDE, NAMES = "edgecnn:resnet_small_32", 64, ("good", "scratch", "dent")
SPEC = Preprocess(height=SIDE, width=SIDE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))

_LOAD = "import sys, json, numpy as np\nimages = np.load(sys.argv[2])\n"
_PRINT = """
assert "edgecnn" not in sys.modules
assert "torch" not in sys.modules
print(json.dumps(np.asarray(rows).tolist()))
"""

STOCK = {
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
rows = session.run(None, {session.get_inputs()[0].name: images})[0]
""",
    "openvino": """
import openvino
core = openvino.Core()
model = core.compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
rows = np.concatenate([model(image[None])[0] for image in images])
""",
    "litert": """
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(model_path=sys.argv[1])
interpreter.allocate_tensors()
given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
rows = []
for image in images:
    interpreter.set_tensor(given["index"], image[None])
    interpreter.invoke()
    rows.append(interpreter.get_tensor(made["index"])[0])
""",
}
"""Format to the code that a stranger writes, with the engine's own documentation beside him."""

ENGINES = {"onnx": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert"}


@pytest.fixture(scope="module")
def module() -> Any:
    torch.manual_seed(0)
    built = build(MODEL, len(NAMES), "none", size=SIDE)
    with torch.no_grad():  # a new head is almost flat
        torch.nn.init.normal_(head_of(built.module)[1].weight, std=0.5)
    return Deployed(built.module, SPEC)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.stack([picture(seed, SIDE, SIDE) for seed in range(3)])


@pytest.fixture(scope="module")
def eager(module: Any, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return module(torch.from_numpy(images)).numpy()


@pytest.fixture(scope="module")
def written(module: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Format to its fp32 file, each converted once."""
    made: dict[str, Path] = {}
    work = tmp_path_factory.mktemp("work")

    def write(name: str) -> Path:
        if name not in formats.names():
            pytest.skip(f"no format {name}")
        if importlib.util.find_spec(ENGINES[name]) is None:
            pytest.skip(f"{ENGINES[name]} is not installed")
        if name not in made:
            out = tmp_path_factory.mktemp(name)
            source = Source(module, SIDE, SIDE, work, describe(NAMES, SPEC, MODEL))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the converters' own
                made[name] = out / formats.convert(name, source, "fp32", out).files[0]
        return made[name]

    return write


@pytest.mark.parametrize("name", STOCK)
def test_a_stock_engine_answers_as_eager(
    name: str, written: Any, images: np.ndarray, eager: np.ndarray, tmp_path: Path
) -> None:
    path = written(name)
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-I", "-c", _LOAD + STOCK[name] + _PRINT, str(path), str(tmp_path / "images.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    logits = np.array(json.loads(done.stdout.splitlines()[-1]), np.float32)
    assert logits.shape == eager.shape
    assert float(np.abs(logits - eager).max() / eager.std()) < 1e-4


def test_openvinos_own_benchmark_runs_the_file(written: Any, tmp_path: Path) -> None:
    path = written("openvino")
    program = shutil.which("benchmark_app", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("benchmark_app is not in this OpenVINO")
    command = [program, "-m", str(path), "-d", "CPU", "-niter", "2", "-nireq", "1", "-hint", "none"]
    command += ["-shape", f"[1,{SIDE},{SIDE},3]"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Throughput" in done.stdout


@pytest.mark.parametrize(("name", "read"), [("onnx", read_onnx), ("litert", read_tflite)])
def test_the_file_says_its_classes_and_preprocessing(name: str, read: Any, written: Any) -> None:
    assert read(written(name)) == SelfDescription(MODEL, NAMES, SPEC)


def test_our_own_onnx_file_can_be_taken_in_again(
    written: Any, images: np.ndarray, eager: np.ndarray, data: Dataset, tmp_path: Path
) -> None:
    path = written("onnx")
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(data.classes))
    taken = adopt(path, data, tmp_path / "run", labels=labels)
    assert taken.preprocess == SPEC
    checkpoint, network = load_module(tmp_path / "run")
    with torch.inference_mode():
        again = Deployed(network, checkpoint.preprocess)(torch.from_numpy(images)).numpy()
    assert float(np.abs(again - eager).max() / eager.std()) < 1e-5


@pytest.mark.shared
@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
@pytest.mark.parametrize("name", ["squeezenet1_1", pytest.param("mobilenet_v2", marks=pytest.mark.slow)])
def test_what_torch_exports_by_itself_is_taken_in(name: str, exporter: str, shared: Path, tmp_path: Path) -> None:
    """Plain torch.onnx.export of ImageNet weights, batch 1, NCHW: taken in, and converted, as the network itself."""
    import safetensors.torch
    import torchvision

    from edgecnn.onnx_graph.network import load_network

    network = torchvision.models.get_model(name, weights=None).eval()
    network.load_state_dict(safetensors.torch.load_file(shared / "weights" / name / f"{name}.safetensors"))
    path = tmp_path / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own
        torch.onnx.export(network, (torch.zeros(1, 3, 224, 224),), path, dynamo=exporter == "dynamo", verbose=False)
    adopted = load_network(path, 224, 224).module
    batch = torch.from_numpy(np.stack([picture(seed, 224, 224) for seed in range(4)])).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        difference = float((adopted(batch) - network(batch)).abs().max() / network(batch).std())
    assert difference < 1e-5
