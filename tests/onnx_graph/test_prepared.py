"""Files as exporters and converters leave them: half precision, choices at the end, several outputs, one score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgecnn.errors import UserError
from edgecnn.onnx_graph.network import Network, load_network
from edgecnn.onnx_graph.onnx_file import input_of, read_model
from tests.onnx_graph.files import SIDE, classifier, error_against_onnx_runtime, save, weights

IMAGES = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def appended(path: Path, nodes: list[Any], results: dict[str, int], outputs: int = 3, opset: int = 20) -> Path:
    """The classifier with more behind its scores, and other results: name to element type."""
    model = onnx.load(classifier(path, outputs=outputs, opset=opset))
    model.graph.node.extend(nodes)
    del model.graph.output[:]
    shapes = {"b": ["n", 4, SIDE, SIDE], "best": ["n"] if len(nodes) == 3 else ["n", 1]}
    model.graph.output.extend(
        helper.make_tensor_value_info(name, kind, shapes.get(name, ["n", "k"])) for name, kind in results.items()
    )
    onnx.save(model, path)
    return path


def plain(folder: Path) -> Network:
    return load_network(classifier(folder / "plain.onnx"), SIDE, SIDE)


CHOICES: dict[str, tuple[list[Any], dict[str, int]]] = {
    "argmax": ([helper.make_node("ArgMax", ["scores"], ["best"], axis=1)], {"best": TensorProto.INT64}),
    "argmax, then a cast": (
        [
            helper.make_node("Softmax", ["scores"], ["p"], axis=1),
            helper.make_node("ArgMax", ["p"], ["place"], axis=1, keepdims=0),
            helper.make_node("Cast", ["place"], ["best"], to=TensorProto.INT32),
        ],
        {"best": TensorProto.INT32},
    ),
    "argmax beside the scores": (
        [helper.make_node("ArgMax", ["scores"], ["best"], axis=1)],
        {"best": TensorProto.INT64, "scores": TensorProto.FLOAT},
    ),
    "shares beside the scores": (
        [helper.make_node("Softmax", ["scores"], ["p"], axis=1)],
        {"scores": TensorProto.FLOAT, "p": TensorProto.FLOAT},
    ),
    "features beside the scores": ([], {"e": TensorProto.FLOAT, "scores": TensorProto.FLOAT}),
    "a feature map beside the scores": ([], {"scores": TensorProto.FLOAT, "b": TensorProto.FLOAT}),
}


@pytest.mark.parametrize("name", CHOICES)
def test_of_what_is_given_the_scores_are_taken(name: str, tmp_path: Path) -> None:
    nodes, results = CHOICES[name]
    path = appended(tmp_path / "m.onnx", nodes, results)
    network = load_network(path, SIDE, SIDE)
    assert len(network.remarks) == 1
    assert torch.equal(network.module(IMAGES), plain(tmp_path).module(IMAGES))
    assert error_against_onnx_runtime(path) <= 1e-5


def test_the_values_and_places_of_the_best_five_are_cut_off(tmp_path: Path) -> None:
    nodes = [helper.make_node("TopK", ["scores", "k"], ["v", "i"], axis=1)]
    path = appended(tmp_path / "m.onnx", nodes, {"v": TensorProto.FLOAT, "i": TensorProto.INT64})
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.array([2], np.int64), "k"))
    onnx.save(model, path)
    network = load_network(path, SIDE, SIDE)
    assert "(TopK): the scores before it are taken" in network.remarks[0]
    assert torch.equal(network.module(IMAGES), plain(tmp_path).module(IMAGES))


def test_outputs_of_which_none_comes_last_are_listed(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["e"], ["second"])]
    path = appended(tmp_path / "m.onnx", nodes, {"scores": TensorProto.FLOAT, "second": TensorProto.FLOAT})
    with pytest.raises(
        UserError, match=r"2 outputs \(scores, second\): expected one, the class scores: cut the others"
    ):
        load_network(path, SIDE, SIDE)


def test_what_no_output_needs_is_not_asked_for(tmp_path: Path) -> None:
    path = appended(tmp_path / "m.onnx", [helper.make_node("Det", ["b"], ["dead"])], {"scores": TensorProto.FLOAT})
    assert load_network(path, SIDE, SIDE).remarks == ()


def in_another_precision(path: Path, kind: int, whole: bool) -> Path:
    """Weights and arithmetic in it; the input too (`whole`), or cast behind the input and before the output."""
    dtype = {TensorProto.FLOAT16: np.float16, TensorProto.DOUBLE: np.float64}[kind]
    model = onnx.load(classifier(path, opset=13))
    graph = model.graph
    for tensor in graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    if whole:
        for value in (*graph.input, *graph.output):
            value.type.tensor_type.elem_type = kind
    else:
        graph.node[0].input[0] = "entering"
        graph.node.insert(0, helper.make_node("Cast", ["images"], ["entering"], to=kind))
        graph.node[-1].output[0] = "leaving"
        graph.node.append(helper.make_node("Cast", ["leaving"], ["scores"], to=TensorProto.FLOAT))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
@pytest.mark.parametrize("whole", [False, True])
def test_another_precision_is_taken_in_as_float32(kind: int, whole: bool, tmp_path: Path) -> None:
    path = in_another_precision(tmp_path / "m.onnx", kind, whole)
    network = load_network(path, SIDE, SIDE)
    name = "float16" if kind == TensorProto.FLOAT16 else "float64"
    assert network.remarks == (f"computes in {name}: taken in as float32",)
    assert {parameter.dtype for parameter in network.module.parameters()} == {torch.float32}
    torch.testing.assert_close(network.module(IMAGES), plain(tmp_path).module(IMAGES), atol=0.01, rtol=0.01)
    assert error_against_onnx_runtime(path) <= 1e-5


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 21])
@pytest.mark.parametrize("sigmoid", [True, False])
def test_one_score_for_two_classes_becomes_two(opset: int, sigmoid: bool, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    behind = [helper.make_node("Sigmoid", ["scores"], ["p"])] if sigmoid else []
    appended(path, behind, {"p" if sigmoid else "scores": TensorProto.FLOAT}, outputs=1, opset=opset)
    network = load_network(path, SIDE, SIDE)
    assert (network.outputs, network.single) == (2, True)
    scores = network.module(IMAGES)
    assert scores.shape == (3, 2)
    torch.testing.assert_close(scores[:, 0], -scores[:, 1])
    assert error_against_onnx_runtime(path) <= 1e-5


def test_one_score_that_no_linear_layer_gives_becomes_two(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["y"]),
        helper.make_node("GlobalAveragePool", ["y"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"w": weights(1, 3, 3, 3)})
    assert load_network(path, SIDE, SIDE).module(IMAGES).shape == (3, 2)
    assert error_against_onnx_runtime(path) <= 1e-5


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 15, 17, 19, 21])
def test_every_opset_is_read(opset: int, tmp_path: Path) -> None:
    assert error_against_onnx_runtime(classifier(tmp_path / "m.onnx", opset=opset, softmax=True)) <= 1e-5


def test_an_image_of_unknown_shape_is_what_its_first_layer_takes(tmp_path: Path) -> None:
    path = classifier(tmp_path / "m.ONNX", shape=["n", "c", "h", "w"])
    entry = input_of(path, read_model(path).model)
    assert (entry.layout, entry.height, entry.width) == ("nchw", None, None)
    assert error_against_onnx_runtime(path) <= 1e-5


def test_nodes_in_any_order_are_read(tmp_path: Path) -> None:
    """As ONNX Runtime's float16 converter leaves them; a circle is still damage."""
    path = classifier(tmp_path / "m.onnx", softmax=True)
    model = onnx.load(path)
    nodes = list(reversed(model.graph.node))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)
    assert torch.equal(load_network(path, SIDE, SIDE).module(IMAGES), plain(tmp_path).module(IMAGES))
    assert error_against_onnx_runtime(path) <= 1e-5
    model.graph.node[-1].input[0] = "scores"
    onnx.save(model, path)
    with pytest.raises(UserError, match="damaged ONNX model: "):
        load_network(path, SIDE, SIDE)


def test_shapes_of_a_fixed_batch_are_those_of_one_image(tmp_path: Path) -> None:
    """As Ultralytics writes its attention."""
    nodes = [
        helper.make_node("Reshape", ["images", "split"], ["a"]),
        helper.make_node("Reshape", ["a", "joined"], ["b"]),
        helper.make_node("Conv", ["b", "w"], ["y"]),
        helper.make_node("Reshape", ["y", "rows"], ["scores"]),
    ]
    shapes = {"split": [4, 3, -1], "joined": [4, 3, SIDE, SIDE], "rows": [4, -1]}
    constants = {name: np.array(shape, np.int64) for name, shape in shapes.items()}
    path = save(tmp_path / "m.onnx", nodes, {"w": weights(2, 3, 8, 8), **constants}, shape=[4, 3, SIDE, SIDE])
    assert error_against_onnx_runtime(path) <= 1e-5
    assert load_network(path, SIDE, SIDE).module(IMAGES).shape == (3, 2)


def test_padding_before_the_channels_are_moved_is_read(tmp_path: Path) -> None:
    """As Keras writes it: height and width are not the last axes there."""
    nodes = [
        helper.make_node("Pad", ["images", "pads"], ["padded"]),
        helper.make_node("Transpose", ["padded"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("Flatten", ["y"], ["scores"]),
    ]
    constants = {"pads": np.array([0, 0, 1, 0, 0, 1, 0, 0], np.int64), "w": weights(2, 3, 9, 9)}
    path = save(tmp_path / "m.onnx", nodes, constants, shape=["n", SIDE, SIDE, 3])
    assert error_against_onnx_runtime(path) <= 1e-5
