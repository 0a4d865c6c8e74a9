"""An .onnx file as a torch network: named layers, any batch, what is taken off; what is refused, in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from edgecnn.errors import UserError
from edgecnn.onnx_graph.network import load_network
from tests.onnx_graph.files import (
    INT,
    SIDE,
    SPEC,
    classifier,
    error_against_onnx_runtime,
    pixels_inside,
    save,
    weights,
    written,
)


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
    assert network.ends == ("softmax",)
    image = torch.randn(2, 3, SIDE, SIDE)
    assert torch.equal(network.module(image), plain.module(image))
    assert error_against_onnx_runtime(path) <= 1e-5


def test_a_fixed_batch_of_several_is_taken_in(tmp_path: Path) -> None:
    path = classifier(tmp_path / "m.onnx", shape=[4, 3, SIDE, SIDE])
    assert error_against_onnx_runtime(path) <= 1e-5


@pytest.mark.parametrize("ends", [("Softmax", "Softmax"), ("Sigmoid",), ("LogSoftmax",), ("Sigmoid", "Flatten")])
def test_whatever_turns_scores_into_shares_is_taken_off(ends: tuple[str, ...], tmp_path: Path) -> None:
    plain = load_network(classifier(tmp_path / "plain.onnx"), SIDE, SIDE)
    path = tmp_path / "m.onnx"
    model = onnx.load(classifier(path))
    model.graph.node[-1].output[0] = "e0"
    for number, kind in enumerate(ends):
        output = "scores" if number + 1 == len(ends) else f"e{number + 1}"
        model.graph.node.append(helper.make_node(kind, [f"e{number}"], [output]))
    onnx.save(model, path)
    network = load_network(path, SIDE, SIDE)
    names = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}
    assert network.ends == tuple(names[kind] for kind in ends if kind in names)
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


def in_training_mode(path: Path) -> Path:
    """As older opsets say it: the statistics are results too."""
    model = onnx.load(classifier(path, opset=13))
    model.graph.node[1].output.extend(["mean", "var", "saved mean", "saved var"])
    onnx.save(model, path)
    return path


def training_dropout(path: Path) -> Path:
    nodes = [
        *refused("Dropout", "images", "ratio", "training", outputs=("dropped",)),
        helper.make_node("Flatten", ["dropped"], ["scores"]),
    ]
    return save(path, nodes, {"ratio": np.float32(0.5), "training": np.array(True)})


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
    "text": (written(b"hello, this is a text"), "not an ONNX model"),
    "empty": (written(b""), r"is empty \(0 bytes\): copy or download it again; expected an ONNX model"),
    "zip": (written(b"PK\x03\x04" + bytes(100)), "is a zip file, as PyTorch writes it, damaged or cut off"),
    "pointer": (
        written(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "a Git LFS pointer, not the file",
    ),
    "page": (written(b"<html><body>Sign in"), r"is a web page \(HTML\), not the file itself: download the raw file"),
    "tflite": (written(b"\x1c\0\0\0TFL3" + bytes(64)), "is a TFLite model"),
    "two inputs": (lambda path: classifier(path, inputs=("images", "more")), r"2 inputs \(images, more\)"),
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
    "training mode": (in_training_mode, r"BatchNormalization \(node 'b'\) is in training mode: export .* \.eval\(\)"),
    "dropout in training mode": (training_dropout, r"Dropout \(node 'culprit'\) is in training mode: export"),
    "softmax of one score": (
        lambda path: classifier(path, outputs=1, softmax=True),
        "is a softmax over one score, which says nothing",
    ),
    "another size": (
        lambda path: classifier(path, shape=["n", 3, 16, 16]),
        "size: 8×8, but the file takes 16×16|takes 16×16 pixels, the preprocessing gives 8×8",
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
