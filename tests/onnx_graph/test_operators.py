"""Every operator that is read answers as ONNX Runtime computes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from edgecnn.onnx_graph.operators import OPERATORS
from tests.onnx_graph.files import INT, SIDE, error_against_onnx_runtime, save, weights

Case = tuple[dict[str, Any], tuple[np.ndarray | str, ...]]
X = "x"
POSITIVE = "positive"

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
