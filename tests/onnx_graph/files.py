"""Small .onnx files, written operation by operation, and how far a network built from one is from ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgecnn.adopt.agreement import agreement
from edgecnn.artifact import Preprocess
from edgecnn.onnx_graph.network import load_network
from edgecnn.onnx_graph.onnx_file import input_of, read_model
from tests.conftest import picture

SIDE = 8
SPEC = Preprocess(height=SIDE, width=SIDE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
RNG = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def save(path: Path, nodes: list[Any], constants: dict[str, np.ndarray], **about: Any) -> Path:
    """An .onnx file: input `images` (n, 3, 8, 8), output `scores`."""
    element = about.get("element", TensorProto.FLOAT)
    shape = about.get("shape", ["n", 3, SIDE, SIDE])
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, element, shape) for name in about.get("inputs", ("images",))],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "k"])
            for name in about.get("results", ("scores",))
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", about.get("opset", 20))]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=about.get("ir", 10))
    helper.set_model_props(model, about.get("described", {}))
    onnx.save(model, path)
    return path


def error_against_onnx_runtime(path: Path, spec: Preprocess = SPEC) -> float:
    images = np.stack([picture(seed, spec.height, spec.width) for seed in range(5)])
    network = load_network(path, spec.height, spec.width)
    return agreement(path, input_of(path, read_model(path).model), network, images, spec)


INT = np.int64


def classifier(path: Path, outputs: int = 3, softmax: bool = False, **about: Any) -> Path:
    """Convolution, BatchNorm, pooling, linear: (n, 3, 8, 8) to (n, outputs)."""
    rng = np.random.default_rng(1)
    constants = {
        "stem.conv.weight": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "bn.weight": rng.normal(size=4).astype(np.float32),
        "bn.bias": rng.normal(size=4).astype(np.float32),
        "bn.mean": rng.normal(size=4).astype(np.float32),
        "bn.var": np.abs(rng.normal(size=4)).astype(np.float32) + 0.1,
        "head.weight": rng.normal(size=(outputs, 4)).astype(np.float32),
        "head.bias": rng.normal(size=outputs).astype(np.float32),
    }
    last = "logits" if softmax else "scores"
    nodes = [
        helper.make_node("Conv", ["images", "stem.conv.weight"], ["a"], pads=[1, 1, 1, 1], name="first"),
        helper.make_node("BatchNormalization", ["a", "bn.weight", "bn.bias", "bn.mean", "bn.var"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "head.weight", "head.bias"], [last], transB=1),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["scores"], axis=1))
    return save(path, nodes, constants, **about)


def half(path: Path) -> Path:
    """The classifier with weights and arithmetic in float16, floats outside, as ONNX Runtime's converter leaves it."""
    model = onnx.load(classifier(path, opset=13))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    model.graph.node[0].input[0] = "entering"
    model.graph.node.insert(0, helper.make_node("Cast", ["images"], ["entering"], to=TensorProto.FLOAT16))
    model.graph.node[-1].output[0] = "leaving"
    model.graph.node.append(helper.make_node("Cast", ["leaving"], ["scores"], to=TensorProto.FLOAT))
    onnx.save(model, path)
    return path


def chosen(path: Path) -> Path:
    """The classifier with an ArgMax at its end."""
    model = onnx.load(classifier(path))
    model.graph.node.append(helper.make_node("ArgMax", ["scores"], ["best"], axis=1))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("best", TensorProto.INT64, ["n", 1]))
    onnx.save(model, path)
    return path


def pixels_inside(path: Path, **about: Any) -> Path:
    """As edgecnn itself exports: uint8 NHWC pixels, normalised in the graph."""
    nodes = [
        helper.make_node("Transpose", ["images"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["t"], ["f"], to=1),
        helper.make_node("Div", ["f", "k"], ["unit"]),
        helper.make_node("Sub", ["unit", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["x"]),
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("GlobalAveragePool", ["y"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
    ]
    constants = {
        "k": np.float32(255),
        "mean": np.array(SPEC.mean, np.float32).reshape(1, 3, 1, 1),
        "std": np.array(SPEC.std, np.float32).reshape(1, 3, 1, 1),
        "w": np.random.default_rng(2).normal(size=(3, 3, 3, 3)).astype(np.float32),
    }
    return save(path, nodes, constants, element=TensorProto.UINT8, shape=["n", SIDE, SIDE, 3], **about)


def written(content: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return make
