"""Somebody else's network taken in: operators as ONNX Runtime computes them, every mistake one line, nothing half."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgecnn.adopt.agreement import agreement
from edgecnn.adopt.description import read_labels, read_preprocess
from edgecnn.adopt.folder import ADOPTED, adopt
from edgecnn.artifact import Preprocess
from edgecnn.checkpoint import CHECKPOINT, read_checkpoint
from edgecnn.cli import main
from edgecnn.data import Dataset, load_split, split_hashes
from edgecnn.errors import UserError
from edgecnn.metadata import describe
from edgecnn.models import build, load_module
from edgecnn.onnx_graph.network import load_network
from edgecnn.onnx_graph.onnx_file import input_of, read_model
from edgecnn.onnx_graph.operators import OPERATORS
from tests.conftest import picture
from tests.training import CLASSES, write_images

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
    return agreement(path, input_of(path, read_model(path)), network, images, spec)


Case = tuple[dict[str, Any], tuple[np.ndarray | str, ...]]
X = "x"
POSITIVE = "positive"
INT = np.int64

CASES: dict[str, list[Case]] = {
    "Abs": [({}, (X,))],
    "Add": [({}, (X, weights(3, 1, 1))), ({}, (np.float32(3), X)), ({}, (X, X))],
    "AveragePool": [
        ({"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, (X,)),
        ({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, (X,)),
        ({"kernel_shape": [2, 2], "pads": [0, 0, 1, 1], "count_include_pad": 1}, (X,)),
        ({"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, (X,)),
        ({"kernel_shape": [2, 3]}, (X,)),
    ],
    "BatchNormalization": [({"epsilon": 1e-3}, (X, weights(3), weights(3), weights(3), np.abs(weights(3)) + 0.1))],
    "Cast": [({"to": 1}, (X,))],
    "Clip": [
        ({}, (X, np.float32(0), np.float32(6))),
        ({}, (X, np.float32(-0.5), np.float32(0.5))),
        ({}, (X, np.float32(0))),
        ({}, (X, "", np.float32(0.3))),
        ({}, (X,)),
    ],
    "Concat": [({"axis": 1}, (X, X)), ({"axis": -1}, (X, POSITIVE))],
    "Conv": [
        ({"pads": [1, 1, 1, 1], "strides": [2, 2]}, (X, weights(4, 3, 3, 3), weights(4))),
        ({"pads": [0, 0, 1, 1]}, (X, weights(4, 3, 3, 3))),
        ({"group": 3, "dilations": [2, 2]}, (X, weights(6, 1, 3, 3))),
        ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (X, weights(4, 3, 3, 3))),
        ({"auto_pad": "SAME_LOWER", "strides": [2, 2]}, (X, weights(4, 3, 3, 3))),
        ({"auto_pad": "VALID"}, (X, weights(4, 3, 1, 5))),
    ],
    "Div": [({}, (X, np.float32(7))), ({}, (np.float32(2), POSITIVE)), ({}, (X, np.abs(weights(1, 3, 1, 1)) + 1))],
    "Dropout": [({}, (X,))],
    "Elu": [({"alpha": 0.7}, (X,))],
    "Erf": [({}, (X,))],
    "Exp": [({}, (X,))],
    "Expand": [({}, (X, np.array([1, 3, SIDE, SIDE], INT)))],
    "Flatten": [({}, (X,)), ({"axis": -3}, (X,))],
    "Gather": [({"axis": 1}, (X, np.array(2, INT))), ({"axis": 3}, (X, np.array([0, 5, 5], INT)))],
    "Gelu": [({}, (X,)), ({"approximate": "tanh"}, (X,))],
    "Gemm": [
        ({"transB": 1, "alpha": 0.5, "beta": 2.0}, ("flat", weights(5, 192), weights(5))),
        ({}, ("flat", weights(192, 5))),
        ({}, ("flat", weights(192, 5), weights(1))),
    ],
    "GlobalAveragePool": [({}, (X,))],
    "GlobalMaxPool": [({}, (X,))],
    "HardSigmoid": [({"alpha": 1 / 6, "beta": 0.5}, (X,)), ({}, (X,))],
    "HardSwish": [({}, (X,))],
    "Identity": [({}, (X,))],
    "InstanceNormalization": [({"epsilon": 1e-3}, (X, weights(3), weights(3)))],
    "LRN": [({"size": 3, "alpha": 0.1, "beta": 0.5, "bias": 2.0}, (X,))],
    "LayerNormalization": [
        ({"axis": -1}, (X, weights(SIDE), weights(SIDE))),
        ({"axis": 1}, (X, weights(3, SIDE, SIDE))),
    ],
    "LeakyRelu": [({"alpha": 0.2}, (X,)), ({}, (X,))],
    "Log": [({}, (POSITIVE,))],
    "LogSoftmax": [({"axis": 1}, (X,))],
    "MatMul": [({}, (X, weights(SIDE, 5))), ({}, (X, POSITIVE)), ({}, ("flat", weights(192, 5)))],
    "Max": [({}, (X, np.float32(0.1))), ({}, (X, POSITIVE)), ({}, (weights(3, 1, 1), X))],
    "MaxPool": [
        ({"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, (X,)),
        ({"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, (X,)),
        ({"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}, (X,)),
        ({"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}, (X,)),
    ],
    "Min": [({}, (X, np.float32(0.1))), ({}, (X, POSITIVE))],
    "Mish": [({}, (X,))],
    "Mul": [({}, (X, np.float32(7))), ({}, (X, X)), ({}, (weights(3, 1, 1), X))],
    "Neg": [({}, (X,))],
    "PRelu": [({}, (X, weights(3, 1, 1)))],
    "Pad": [
        ({}, (X, np.array([0, 0, 1, 2, 0, 0, 0, 1], INT), np.float32(0.5))),
        ({"mode": "reflect"}, (X, np.array([0, 0, 1, 2, 0, 0, 0, 1], INT))),
        ({"mode": "edge"}, (X, np.array([1, 2], INT), "", np.array([3], INT))),
        ({}, (X, np.zeros(8, INT))),
    ],
    "Pow": [({}, (POSITIVE, np.float32(1.5))), ({}, (X, np.float32(2)))],
    "Reciprocal": [({}, (POSITIVE,))],
    "ReduceMax": [({"keepdims": 0}, (X, np.array([2, 3], INT)))],
    "ReduceMean": [({}, (X, np.array([-1, -2], INT))), ({"keepdims": 0}, (X, np.array([1], INT)))],
    "ReduceMin": [({}, (X, np.array([1], INT)))],
    "ReduceSum": [({"keepdims": 0}, (X, np.array([2, 3], INT)))],
    "Relu": [({}, (X,))],
    "Reshape": [({}, (X, np.array([0, -1], INT))), ({}, (X, np.array([-1, SIDE, 3, SIDE], INT)))],
    "Resize": [
        ({"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"},
         (X, "", np.array([1, 1, 2, 2], np.float32))),
        ({"mode": "linear"}, (X, "", "", np.array([1, 3, 11, 13], INT))),
        ({"mode": "linear", "coordinate_transformation_mode": "align_corners"},
         (X, "", "", np.array([1, 3, 4, 12], INT))),
    ],
    "Sigmoid": [({}, (X,))],
    "Slice": [
        ({}, (X, np.array([1, 2], INT), np.array([3, 2**60], INT), np.array([1, 3], INT))),
        ({}, (X, np.array([-1], INT), np.array([-(2**60)], INT), np.array([2], INT), np.array([-2], INT))),
        ({}, (X, np.array([0], INT), np.array([-1], INT), np.array([3], INT), np.array([3], INT))),
    ],
    "Softmax": [({"axis": 1}, (X,)), ({}, (X,))],
    "Softplus": [({}, (X,))],
    "Split": [({"axis": 1}, (X, np.array([1, 2], INT))), ({"axis": 3, "num_outputs": 2}, (X,))],
    "Sqrt": [({}, (POSITIVE,))],
    "Squeeze": [({}, ("pooled", np.array([2, 3], INT))), ({}, ("pooled",))],
    "Sub": [({}, (np.float32(1), X)), ({}, (X, weights(3, 1, 1)))],
    "Sum": [({}, (X, POSITIVE, np.float32(1)))],
    "Tanh": [({}, (X,))],
    "Transpose": [({"perm": [0, 2, 3, 1]}, (X,)), ({"perm": [0, 3, 1, 2]}, (X,))],
    "Unsqueeze": [({}, (X, np.array([1, -1], INT)))],
    "Upsample": [({"mode": "nearest"}, (X, np.array([1, 1, 2, 2], np.float32)))],
}  # fmt: skip
"""Operator to uses of it: attributes, and inputs that are arrays or names of what `around` makes."""
OPSET = {"Upsample": 9}


def around(kind: str, case: Case) -> tuple[list[Any], dict[str, np.ndarray]]:
    """A network whose second layer is the operator: none of its inputs is the image itself."""
    attributes, given = case
    constants = {f"c{i}": np.asarray(value) for i, value in enumerate(given) if not isinstance(value, str)}
    names = [value if isinstance(value, str) else f"c{i}" for i, value in enumerate(given)]
    outputs = ["y", "z"] if kind == "Split" else ["y"]
    nodes = [
        helper.make_node("Relu", ["images"], ["r"]),
        helper.make_node("Sub", ["images", "r"], ["x"]),
        helper.make_node("Exp", ["images"], ["positive"]),
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node(kind, names, outputs, name="it", **attributes),
    ]
    nodes += [helper.make_node("Add", ["y", "c9"], ["w"])]
    constants["c9"] = np.float32(0.25)
    nodes += [helper.make_node("Flatten", ["w"], ["scores"])]
    return nodes, constants


@pytest.mark.parametrize("kind", OPERATORS)
def test_an_operator_answers_as_in_onnx_runtime(kind: str, tmp_path: Path) -> None:
    assert CASES[kind], "every operator has a case"
    for number, case in enumerate(CASES[kind]):
        nodes, constants = around(kind, case)
        path = save(tmp_path / f"{number}.onnx", nodes, constants, opset=OPSET.get(kind, 20))
        assert error_against_onnx_runtime(path) <= 1e-5, case


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


@pytest.mark.parametrize("batch", [1, "n"])
def test_layers_keep_their_names_and_any_batch_runs(batch: Any, tmp_path: Path) -> None:
    path = classifier(tmp_path / "m.onnx", shape=[batch, 3, SIDE, SIDE])
    assert error_against_onnx_runtime(path) <= 1e-5
    module = load_network(path, SIDE, SIDE).module
    assert set(module.state_dict()) >= {"stem.conv.weight", "bn.running_var", "head.bias"}
    program = torch.export.export(
        module, (torch.zeros(2, 3, SIDE, SIDE),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
    )
    assert program.module()(torch.zeros(5, 3, SIDE, SIDE)).shape == (5, 3)


def test_a_softmax_at_the_end_is_taken_off(tmp_path: Path) -> None:
    plain = load_network(classifier(tmp_path / "plain.onnx"), SIDE, SIDE)
    path = classifier(tmp_path / "m.onnx", softmax=True)
    network = load_network(path, SIDE, SIDE)
    assert network.softmax == "softmax"
    image = torch.randn(2, 3, SIDE, SIDE)
    assert torch.equal(network.module(image), plain.module(image))
    assert error_against_onnx_runtime(path) <= 1e-5


def test_a_matrix_product_and_its_bias_are_one_layer(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["product"], name="fc"),
        helper.make_node("Add", ["product", "b"], ["scores"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"w": weights(192, 4), "b": weights(4)})
    assert error_against_onnx_runtime(path) <= 1e-5
    layers = [layer for layer in load_network(path, SIDE, SIDE).module.modules() if isinstance(layer, torch.nn.Linear)]
    assert [layer.bias is not None for layer in layers] == [True]


def test_shapes_that_are_computed_from_the_image_are_followed(tmp_path: Path) -> None:
    """As the older exporter writes view(x.size(0), -1)."""
    nodes = [
        helper.make_node("Shape", ["images"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["size"]),
        helper.make_node("Unsqueeze", ["size", "first"], ["rows"]),
        helper.make_node("Concat", ["rows", "rest"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["images", "wanted"], ["scores"]),
    ]
    constants = {"zero": np.array(0, INT), "first": np.array([0], INT), "rest": np.array([-1], INT)}
    assert error_against_onnx_runtime(save(tmp_path / "m.onnx", nodes, constants)) == 0


def test_channels_last_float_input(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["images"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("Flatten", ["y"], ["scores"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"w": weights(2, 3, 3, 3)}, shape=["n", SIDE, SIDE, 3])
    assert error_against_onnx_runtime(path) <= 1e-5
    targets = [str(node.target) for node in load_network(path, SIDE, SIDE).module.graph.nodes]
    assert not any("permute" in target for target in targets)


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


def test_normalisation_inside_the_file_is_read_from_its_graph(tmp_path: Path) -> None:
    path = pixels_inside(tmp_path / "m.onnx")
    network = load_network(path, SIDE, SIDE)
    assert network.normalisation is not None
    assert (network.normalisation.mean, network.normalisation.std) == (SPEC.mean, SPEC.std)
    assert error_against_onnx_runtime(path) <= 1e-5


# What is refused


def refused(kind: str, *inputs: str, outputs: tuple[str, ...] = ("scores",), **attributes: Any) -> list[Any]:
    return [helper.make_node(kind, list(inputs), list(outputs), name="culprit", **attributes)]


def quantised(path: Path) -> Path:
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "s"], ["q"], name="culprit"),
        helper.make_node("DequantizeLinear", ["q", "s"], ["scores"]),
    ]
    return save(path, nodes, {"s": np.float32(0.1)})


def without_its_data(path: Path) -> Path:
    classifier(path)
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    (path.parent / "m.onnx.data").unlink()
    return path


def written(content: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return make


BAD_ONNX: dict[str, tuple[Callable[[Path], Path], str]] = {
    "unsupported op": (
        lambda path: save(
            path,
            [
                helper.make_node("ConvTranspose", ["images", "w"], ["y"], name="up"),
                helper.make_node("GridSample", ["y", "y"], ["scores"], name="warp"),
            ],
            {"w": weights(3, 3, 2, 2)},
        ),
        r"ConvTranspose \(node 'up'\), GridSample \(node 'warp'\): not among the \d+ operators",
    ),
    "another domain": (
        lambda path: with_domain(path),
        r"com.microsoft.FusedConv \(node 'culprit'\)",
    ),
    "external data missing": (without_its_data, "its weights are in m.onnx.data, which is not beside it"),
    "newer IR": (lambda path: classifier(path, ir=99), "IR version 99, the installed onnx .* reads up to"),
    "newer opset": (lambda path: classifier(path, opset=99), "opset 99, read are 7 to"),
    "old opset": (lambda path: classifier(path, opset=6), "opset 6, read are 7 to"),
    "int8": (quantised, r"already quantised \(QuantizeLinear, node 'culprit'\)"),
    "float16": (lambda path: classifier(path, element=TensorProto.FLOAT16), "is float16: give the float32 file"),
    "text": (written(b"hello, this is a text"), "not an ONNX model"),
    "empty": (written(b""), "not an ONNX model"),
    "zip": (written(b"PK\x03\x04" + bytes(100)), "not an ONNX model"),
    "two inputs": (lambda path: classifier(path, inputs=("images", "more")), r"2 inputs \(images, more\)"),
    "two outputs": (lambda path: classifier(path, results=("scores", "c")), r"2 outputs \(scores, c\): expected one"),
    "one channel": (lambda path: classifier(path, shape=["n", 1, SIDE, SIDE]), r"'images' is \('\?', 1, 8, 8\)"),
    "not a row of scores": (lambda path: save(path, refused("Relu", "images"), {}), "one row of scores for an image"),
    "mixes the batch": (
        lambda path: save(path, refused("Reshape", "images", "s"), {"s": np.array([-1, 3], INT)}),
        "expected \\(n, classes\\)",
    ),
    "mixes the batch within": (
        lambda path: save(
            path,
            [
                helper.make_node("Reshape", ["images", "s"], ["rows"], name="culprit"),
                helper.make_node("Relu", ["rows"], ["r"]),
                helper.make_node("Reshape", ["r", "back"], ["scores"]),
            ],
            {"s": np.array([-1, 3], INT), "back": np.array([1, -1], INT)},
        ),
        r"Reshape \(node 'culprit'\) mixes the images of a batch",
    ),
    "three dimensions": (
        lambda path: save(
            path,
            [
                helper.make_node("Unsqueeze", ["images", "a"], ["x"]),
                helper.make_node("Conv", ["x", "w"], ["scores"], name="culprit"),
            ],
            {"a": np.array([2], INT), "w": weights(2, 3, 1, 3, 3)},
        ),
        r"Conv \(node 'culprit'\) has 3 spatial dimensions",
    ),
    "another size": (
        lambda path: classifier(path, shape=["n", 3, 16, 16]),
        "height and width in --preprocess|takes 16×16 pixels, the preprocessing gives 8×8",
    ),
}


def with_domain(path: Path) -> Path:
    node = helper.make_node("FusedConv", ["images"], ["scores"], name="culprit", domain="com.microsoft")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", "k"])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.mark.parametrize("name", BAD_ONNX)
def test_a_bad_onnx_file_is_one_line(name: str, tmp_path: Path) -> None:
    make, message = BAD_ONNX[name]
    path = make(tmp_path / "m.onnx")
    with pytest.raises(UserError, match=message) as caught:
        load_network(path, SIDE, SIDE)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_answer_than_onnx_runtimes_is_not_taken_in(tmp_path: Path) -> None:
    path = classifier(tmp_path / "m.onnx")
    network = load_network(path, SIDE, SIDE)
    with torch.no_grad():
        next(network.module.parameters()).mul_(1.001)
    images = np.stack([picture(seed, SIDE, SIDE) for seed in range(3)])
    with pytest.raises(UserError, match="answers otherwise than in ONNX Runtime"):
        agreement(path, input_of(path, read_model(path)), network, images, SPEC)


# pre.toml and labels


def toml(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


GOOD_TOML = "height = 8\nwidth = 8\nmean = [0.5, 0.4, 0.3]\nstd = [0.2, 0.25, 0.3]\n"


def test_a_description_is_read_over_what_is_known(tmp_path: Path) -> None:
    assert read_preprocess(toml(tmp_path / "p.toml", GOOD_TOML), {}, "m") == SPEC
    partly = read_preprocess(toml(tmp_path / "p.toml", 'fit = "center-crop"\ncrop = 0.5'), SPEC.model_dump(), "m")
    assert partly == SPEC.model_copy(update={"fit": "center-crop", "crop": 0.5})


def test_all_that_is_wrong_in_a_description_is_one_line(tmp_path: Path) -> None:
    path = toml(
        tmp_path / "p.toml", 'heigth = 8\ncolour = "bgr"\nscale = 1.0\nwidth = "8"\nmean = [123.0, 117.0, 104.0]'
    )
    with pytest.raises(UserError) as caught:
        read_preprocess(path, {}, "m")
    text = str(caught.value)
    assert "\n" not in text
    for part in ("p.toml: ", "heigth: extra", "colour: images are prepared as RGB", "scale: pixels are divided by 255"):
        assert part in text
    for part in ("width: ", "height: missing", "std: missing"):
        assert part in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD_TOML.replace("0.5,", "127.5,"), "not of pixels 0..1: divide mean and std by 255"),
        (GOOD_TOML.replace("0.25", "0.0"), "must be positive"),
        ("height = [", "not valid TOML"),
    ],
)
def test_an_unlikely_description_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_preprocess(toml(tmp_path / "p.toml", text), {}, "m")


def test_a_missing_mean_is_never_guessed() -> None:
    with pytest.raises(UserError, match="mean: missing; std: missing: give --preprocess FILE.toml"):
        read_preprocess(None, {"height": 8, "width": 8}, "m.onnx: says nothing")


def test_labels(tmp_path: Path) -> None:
    assert read_labels(toml(tmp_path / "l", "a\nb c\n\n")) == ("a", "b c")
    for text, message in (("", "empty"), ("a\n\nb", "line 2 is empty"), ("a\nb\na", "'a' is there twice")):
        with pytest.raises(UserError, match=message):
            read_labels(toml(tmp_path / "l", text))


# The run folder


@pytest.fixture
def pre(tmp_path: Path) -> Path:
    return toml(tmp_path / "pre.toml", GOOD_TOML)


def test_an_onnx_file_becomes_a_run_folder(data: Dataset, pre: Path, tmp_path: Path) -> None:
    path = classifier(tmp_path / "my net.onnx", softmax=True)
    lines: list[str] = []
    taken = adopt(path, data, tmp_path / "run", preprocess=pre, progress=lines.append)
    assert any("softmax" in note for note in taken.notes)
    assert any("as in ONNX Runtime on 16 images" in note for note in taken.notes)
    checkpoint, module = load_module(tmp_path / "run")
    assert checkpoint == taken.checkpoint == read_checkpoint(tmp_path / "run")
    assert (checkpoint.model, checkpoint.recipe.name, checkpoint.classes) == ("onnx:my-net", "none", CLASSES)
    assert checkpoint.preprocess == SPEC
    assert set(checkpoint.files) == {"model.onnx", "split.json"}
    assert checkpoint.metrics.val_images == len(data.val)
    assert checkpoint.cost.macs == 4 * 27 * SIDE * SIDE + 12
    assert dict(checkpoint.splits) == split_hashes(load_split(None, tmp_path / "run" / "split.json"))
    image = torch.randn(2, 3, SIDE, SIDE)
    assert torch.equal(module(image), load_network(path, SIDE, SIDE).module(image))


def test_the_second_time_nothing_is_done(data: Dataset, pre: Path, tmp_path: Path) -> None:
    path, run = classifier(tmp_path / "m.onnx"), tmp_path / "run"
    first = adopt(path, data, run, preprocess=pre)
    before = {file: file.stat().st_mtime_ns for file in run.iterdir()}
    lines: list[str] = []
    assert adopt(path, data, run, preprocess=pre, progress=lines.append) == first
    assert {file: file.stat().st_mtime_ns for file in run.iterdir()} == before
    assert "already taken in" in lines[0]
    pre.write_text(GOOD_TOML + "crop = 0.9\nfit = 'center-crop'\n")
    assert adopt(path, data, run, preprocess=pre).checkpoint.preprocess.crop == 0.9
    (run / "model.onnx").write_bytes(b"damaged")
    assert adopt(path, data, run, preprocess=pre).checkpoint == load_module(run)[0]


def test_external_data_is_taken_into_the_folder(data: Dataset, pre: Path, tmp_path: Path) -> None:
    path = classifier(tmp_path / "m.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    adopt(path, data, tmp_path / "run", preprocess=pre)
    identity = json.loads((tmp_path / "run" / ADOPTED).read_text())["identity"]
    assert set(identity["external data"]) == {"m.onnx.data"}
    (tmp_path / "m.onnx.data").unlink()
    assert load_module(tmp_path / "run")[1](torch.zeros(1, 3, SIDE, SIDE)).shape == (1, 3)


def test_our_own_file_says_its_preprocessing_and_the_order_of_its_classes(data: Dataset, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"fit": "center-crop", "crop": 0.75})
    order = ("striped", "dark", "light")
    path = pixels_inside(tmp_path / "m.onnx", described=describe(order, spec, "x"))
    checkpoint = adopt(path, data, tmp_path / "run").checkpoint
    assert (checkpoint.preprocess, checkpoint.classes) == (spec, order)
    split = load_split(None, tmp_path / "run" / "split.json")
    assert {item.name.partition("/")[0] for item in split.test if item.label == 0} == {"striped"}


def test_pixels_inside_contradicting_the_description_are_refused(data: Dataset, pre: Path, tmp_path: Path) -> None:
    path = pixels_inside(tmp_path / "m.onnx")
    assert adopt(path, data, tmp_path / "run", preprocess=pre).checkpoint.preprocess == SPEC
    with pytest.raises(UserError, match="are not those inside the .onnx file"):
        adopt(path, data, tmp_path / "other", preprocess=toml(pre, GOOD_TOML.replace("0.4", "0.1")))
    assert not (tmp_path / "other").exists()


def test_labels_may_be_more_than_the_images_have(data: Dataset, pre: Path, tmp_path: Path) -> None:
    path = classifier(tmp_path / "m.onnx", outputs=5)
    labels = toml(tmp_path / "labels.txt", "striped\nrust\nlight\ndent\ndark\n")
    checkpoint = adopt(path, data, tmp_path / "run", preprocess=pre, labels=labels).checkpoint
    assert checkpoint.classes == ("striped", "rust", "light", "dent", "dark")
    split = load_split(None, tmp_path / "run" / "split.json")
    assert {item.label for item in split.train} == {0, 2, 4}


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return build("timm:mobilenetv2_035", 3, "none").module.eval()


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_state_dict_becomes_a_run_folder(ending: str, network: Any, data: Dataset, tmp_path: Path) -> None:
    import safetensors.torch

    path = tmp_path / f"weights{ending}"
    if ending == ".pth":
        torch.save({"epoch": 3, "state_dict": network.state_dict()}, path)
    else:
        safetensors.torch.save_file(network.state_dict(), path)
    spec = toml(tmp_path / "pre.toml", "height = 64\nwidth = 48\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]")
    taken = adopt(path, data, tmp_path / "run", model="mobilenetv2_035", preprocess=spec)
    checkpoint, module = load_module(tmp_path / "run")
    assert (checkpoint.model, checkpoint.recipe.name) == ("timm:mobilenetv2_035", "none")
    assert (checkpoint.preprocess.height, checkpoint.preprocess.width) == (64, 48)
    assert checkpoint.leftovers.missing == ()
    assert taken.notes == ("head of 3 classes",)
    image = torch.randn(1, 3, 64, 48)
    assert torch.equal(module(image), network(image))


def test_without_a_description_the_librarys_own_is_taken_and_said(network: Any, data: Dataset, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pth")
    taken = adopt(tmp_path / "w.pth", data, tmp_path / "run", model="mobilenetv2_035")
    assert taken.checkpoint.preprocess.fit == "center-crop"
    assert taken.checkpoint.preprocess.crop == 0.875
    assert "prepared as timm does (224×224, central square of 0.875" in taken.notes[1]


# The command line


def call(*words: object) -> int:
    """Exit code of `edgecnn …` in this process."""
    before, sys.argv = sys.argv, ["edgecnn", *map(str, words)]
    try:
        main()
    except SystemExit as left:
        return int(left.code or 0)
    finally:
        sys.argv = before
    return 0


def pickled(path: Path) -> Path:
    torch.save(torch.nn.Linear(2, 2), path)
    return path


def torchscript(path: Path) -> Path:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(path)
    return path


def exported(path: Path) -> Path:
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), path)
    return path


def misnamed_program(path: Path) -> Path:
    exported(path.with_suffix(".pt2")).rename(path)
    return path


def of_another_network(path: Path) -> Path:
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 3)).state_dict(), path)
    return path


MODEL = ("--model", "timm:mobilenetv2_035")
PRE = ("--preprocess", "pre.toml")
BAD_CALLS: dict[str, tuple[str, Callable[[Path], Path], tuple[str, ...], str]] = {
    "pickled module": ("w.pt", pickled, MODEL, "holds Python objects or code, not only tensors: refused"),
    "torchscript": ("w.pt", torchscript, MODEL, "a TorchScript program, not tensors: save its state_dict"),
    "torch.export": ("w.pt2", exported, MODEL, "a torch.export program"),
    "torch.export, misnamed": ("w.pt", misnamed_program, MODEL, "a torch.export program"),
    "no weights": ("w.pth", written(b"hello"), MODEL, "not a readable PyTorch file"),
    "another network": ("w.pth", of_another_network, MODEL, "no head in it|tensors fit"),
    "no model named": ("w.pth", of_another_network, (), "which network are these weights of? give --model"),
    "another ending": ("w.h5", written(b"x"), MODEL, "ending: '.h5' is not one of .onnx"),
    "no such file": ("absent.onnx", lambda path: path, PRE, "no such file or folder"),
    "onnx with a model": ("m.onnx", classifier, MODEL, "an .onnx file has its own network: leave --model"),
    "no preprocessing": ("m.onnx", classifier, (), "says nothing of its preprocessing: mean: missing; std: missing"),
    "no such description": ("m.onnx", classifier, ("--preprocess", "absent.toml"), "absent.toml: no such file"),
    "wrong class count": (
        "m.onnx", lambda path: classifier(path, outputs=7), PRE,
        "has 7 outputs, parts has 3 classes (dark, light, striped): give"
    ),
    "wrong label count": (
        "m.onnx", classifier, (*PRE, "--labels", "two.txt"), "has 3 outputs, but there are 2 labels"
    ),
    "unknown folder": (
        "m.onnx", classifier, (*PRE, "--labels", "other.txt"), "class folder dark/ is not among the 3 labels"
    ),
    "data missing": ("m.onnx", classifier, (*PRE, "--data", "absent"), "absent: no such folder"),
    **{f"onnx: {name}": ("m.onnx", make, PRE, message) for name, (make, message) in BAD_ONNX.items()},
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_images(folder / "parts", (5, 5, 5))
    toml(folder / "pre.toml", GOOD_TOML)
    toml(folder / "two.txt", "dark\nlight\n")
    toml(folder / "other.txt", "a\nlight\nstriped\n")
    return folder


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_mistake_is_one_line_and_leaves_nothing(
    name: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, make, words, message = BAD_CALLS[name]
    source = make(tmp_path / file)
    monkeypatch.chdir(place)
    given = words if "--data" in words else ("--data", "parts", *words)
    out = tmp_path / "out" / "bundle"
    assert call("export", source, *given, "--out", out) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("edgecnn: ")
    assert re.search(
        message if "\\" in message or "|" in message or ".*" in message else re.escape(message), error
    ) or ("has 7 outputs" in error)
    assert not (tmp_path / "out").exists()


def test_data_must_be_given_with_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("export", classifier(tmp_path / "m.onnx"), "--out", tmp_path / "b") == 2
    assert "--data is missing" in capsys.readouterr().err


def test_a_run_folder_takes_no_description(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("export", tmp_path, "--out", tmp_path / "b", "--model", "x", "--labels", "y") == 2
    assert "a run folder has its own: leave --model, --labels out" in capsys.readouterr().err


def test_a_folder_of_something_else_is_kept(data: Dataset, pre: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("x")
    with pytest.raises(UserError, match="was not made by `edgecnn export`"):
        adopt(classifier(tmp_path / "m.onnx"), data, tmp_path / "run", preprocess=pre)
    assert (tmp_path / "run" / "precious").read_text() == "x"


def test_a_folder_of_a_newer_version_is_refused(data: Dataset, pre: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    adopt(classifier(tmp_path / "m.onnx"), data, run, preprocess=pre)
    document = json.loads((run / CHECKPOINT).read_text())
    (run / CHECKPOINT).write_text(json.dumps({**document, "version": 99}))
    with pytest.raises(UserError, match="version 99, this edgecnn reads version"):
        load_module(run)
    assert json.loads((run / ADOPTED).read_text())["notes"]
