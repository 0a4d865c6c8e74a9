"""TensorRT where there is no GPU: each reason why it is skipped, and what needs none."""

# ruff: noqa: F811

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgecnn import formats, runtimes
from edgecnn.errors import MissingExtra, UserError
from edgecnn.formats import Source
from edgecnn.formats import tensorrt as tensorrt_format
from edgecnn.formats.onnx import fp16_file, fp32_file
from edgecnn.runtimes import tensorrt as tensorrt_runtime
from tests.contracts.conftest import CLASSES, HEIGHT, WIDTH, eager, images, module  # noqa: F401

GPU = {"name": "NVIDIA Orin", "capability": "8.7"}


@pytest.fixture(scope="module")
def source(module: Any, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """The contract's network, exported once for all of this file: nothing in its folder may be changed."""
    return Source(module, HEIGHT, WIDTH, tmp_path_factory.mktemp("work"))


def fake_cuda(name: str = "NVIDIA Orin", minor: int = 7, count: int = 1) -> Any:
    properties = SimpleNamespace(name=name.encode() + b"\0\0", major=8, minor=minor)
    return SimpleNamespace(
        cudaGetDeviceCount=lambda: (0 if count else 100, count),
        cudaGetErrorString=lambda status: (0, b"no CUDA-capable device is detected"),
        cudaGetDeviceProperties=lambda device: (0, properties),
    )


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(fake: Any) -> None:
        package = SimpleNamespace(runtime=fake)
        monkeypatch.setitem(__import__("sys").modules, "cuda.bindings", package)

    return use


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="tensorrt is installed here")
def test_without_tensorrt_the_extra_is_named(source: Source, tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match=r"tensorrt is not installed: .*\[export-tensorrt\]"):
        formats.convert("tensorrt", source, "fp16", tmp_path / "out")
    with pytest.raises(MissingExtra, match=r"tensorrt is not installed: .*\[tensorrt\]"):
        runtimes.open_file(tmp_path / "model.engine", "tensorrt", "fp16", 1)


def test_without_a_gpu_nothing_is_built(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="no NVIDIA GPU that torch can use here") as caught:
        tensorrt_format.FORMAT.convert(source, "fp32", tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.glob("*.engine")) == []


def test_without_a_gpu_nothing_is_opened(cuda: Any, tmp_path: Path) -> None:
    cuda(fake_cuda(count=0))
    with pytest.raises(UserError, match="cannot open it: no NVIDIA GPU here .no CUDA-capable device is detected."):
        tensorrt_runtime.RUNTIME.open(tmp_path / "model.engine", "fp16", 1)


def test_an_engine_of_another_gpu_is_refused(cuda: Any, tmp_path: Path) -> None:
    (tmp_path / "engine.json").write_text(json.dumps({"gpu": GPU, "layers": []}))
    cuda(fake_cuda("NVIDIA H100", minor=0))
    with pytest.raises(UserError, match=r"built on NVIDIA Orin .8\.7., and this is NVIDIA H100 .8\.0.: export it on"):
        tensorrt_runtime.RUNTIME.open(tmp_path / "model.engine", "fp16", 1)


def test_what_lies_beside_the_engine_must_be_readable(tmp_path: Path) -> None:
    (tmp_path / "engine.json").write_text("{")
    with pytest.raises(UserError, match=r"engine\.json: TensorRT cannot open it"):
        tensorrt_runtime.RUNTIME.open(tmp_path / "model.engine", "fp16", 1)


@pytest.mark.parametrize("file", [fp32_file, fp16_file])
def test_pixels_are_converted_before_anything_else(file: Any, source: Source, eager: Any) -> None:
    import onnxruntime

    model = tensorrt_format._one_image(file(source))
    assert [node.op_type for node in model.graph.node[:2]] == ["Cast", "Transpose"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, HEIGHT, WIDTH, 3]
    picture = images(1, 400)
    (logits,) = session.run(None, {"images": picture})
    assert np.abs(logits - eager(picture)).max() < 0.01


def test_the_macs_are_counted_when_the_engine_is_built(source: Source) -> None:
    path = fp32_file(source)
    layers = dict(tensorrt_format._layers(tensorrt_format._one_image(path), path))
    assert layers["head"] == 8 * CLASSES
    assert layers["stem.0"] == 8 * 3 * 9 * HEIGHT // 2 * WIDTH // 2
    assert len(layers) == 4


def test_the_inspector_is_read() -> None:
    """The shapes of its answers in NVIDIA's documentation, of an older and of a newer release."""
    kernels: list[dict[str, Any]] = [
        {"Name": "Reformatting CopyNode for Input Tensor 0 to stem.0 + relu", "LayerType": "Reformat",
         "Inputs": [{"Format/Datatype": "Row major linear FP32"}]},
        {"Name": "stem.0 + relu", "LayerType": "CaskConvolution", "TacticName": "sm80_xmma_fprop",
         "Inputs": [{"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}]},
        {"Name": "__myl_ConvAdd", "LayerType": "kgen", "TacticName": "__myl_ConvAdd",
         "Metadata": "[ONNX Layer: depthwise.0]\x1f[ONNX Layer: node_add]\x1e[ONNX Layer: pointwise]",
         "Inputs": [{"Format/Datatype": "Half"}]},
        {"Name": "head", "LayerType": "gemm", "Inputs": [{"Format/Datatype": "Float"}]},
    ]  # fmt: skip
    declared = [("stem.0", 60), ("depthwise.0", 10), ("pointwise", 20), ("head", 5), ("lost", 5)]
    layers, untold = tensorrt_runtime.layers_ran(kernels, declared)
    assert [(one.name, one.precision, one.macs) for one in layers] == [
        ("stem.0", "fp16", 60), ("depthwise.0", "fp16", 10), ("pointwise", "fp16", 20), ("head", "fp32", 5)
    ]  # fmt: skip
    assert untold == ["lost"]
