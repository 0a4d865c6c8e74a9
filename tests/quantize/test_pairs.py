"""Which two weights an engine adds in 16 bits on this processor: none but those that `grid.neighbours` names.

One output channel for each pair of a layer's weights, all others zero, the image as bright as can be: a channel whose
answer is half of what it should be has found a pair. A processor with VNNI finds none.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from edgecnn.quantize.grid import neighbours

STEP = 254.0
WHOLE = 2 * 127 * 255
SHAPES = [(3, 3, 1), (16, 1, 1), (5, 1, 1), (6, 3, 1), (1, 3, 8), (4, 3, 4), (3, 1, 4)]
"""(input channels of a group, kernel, groups)."""


def model(weight: np.ndarray, groups: int, shape: tuple[int, ...]) -> bytes:
    onnx = pytest.importorskip("onnx")
    make, array = onnx.helper, onnx.numpy_helper.from_array
    constants = {
        "one": np.float32(1), "zero": np.uint8(0), "step": np.float32(STEP), "weight": weight,
        "ones": np.ones(len(weight), np.float32), "zeros": np.zeros(len(weight), np.int8),
    }  # fmt: skip
    nodes = [
        make.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
        make.make_node("DequantizeLinear", ["q", "one", "zero"], ["d"]),
        make.make_node("DequantizeLinear", ["weight", "ones", "zeros"], ["w"], axis=0),
        make.make_node("Conv", ["d", "w"], ["y"], group=groups),
        make.make_node("QuantizeLinear", ["y", "step", "zero"], ["yq"]),
        make.make_node("DequantizeLinear", ["yq", "step", "zero"], ["out"]),
    ]
    ends = [[make.make_tensor_value_info(name, 1, size)] for name, size in (("x", shape), ("out", None))]
    graph = make.make_graph(nodes, "pairs", *ends, [array(np.asarray(v), name) for name, v in constants.items()])
    made: bytes = make.make_model(graph, opset_imports=[make.make_opsetid("", 13)], ir_version=8).SerializeToString()
    return made


def by_onnxruntime(weight: np.ndarray, groups: int, x: np.ndarray) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model(weight, groups, x.shape), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def by_openvino(weight: np.ndarray, groups: int, x: np.ndarray) -> Any:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    network = core.compile_model(core.read_model(model(weight, groups, x.shape)), "CPU", {"INFERENCE_NUM_THREADS": 1})
    return network(x)[0]


def by_torch(weight: np.ndarray, groups: int, x: np.ndarray) -> Any:
    from edgecnn.runtimes.pytorch import exact_int8

    zeros = torch.zeros(len(weight), dtype=torch.long)
    with exact_int8():
        stored = torch._make_per_channel_quantized_tensor(torch.from_numpy(weight), zeros.double() + 1, zeros, 0)
        packed = torch.ops.quantized.conv2d_prepack(stored, None, [1, 1], [0, 0], [1, 1], groups)
        given = torch.quantize_per_tensor(torch.from_numpy(x), 1.0, 0, torch.quint8)
        return torch.ops.quantized.conv2d.new(given, packed, STEP, 0).dequantize().numpy()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("run", [by_onnxruntime, by_openvino, by_torch])
@pytest.mark.parametrize(("channels", "kernel", "groups"), SHAPES)
def test_only_neighbours_are_added_in_sixteen_bits(
    run: Callable[..., Any], channels: int, kernel: int, groups: int
) -> None:
    size = channels * kernel**2
    pairs = list(combinations(range(size), 2))
    weight = np.zeros((-(-len(pairs) // (8 * groups)) * 8 * groups, size), np.int8)
    for row, pair in enumerate(pairs):
        weight[row, list(pair)] = 127
    weight = weight.reshape(-1, channels, kernel, kernel)
    answers = run(weight, groups, np.full((1, channels * groups, 6, 6), 255, np.float32))
    least = answers.reshape(len(weight), -1).min(1)[: len(pairs)]
    cut_off = {pair for pair, answer in zip(pairs, least, strict=True) if answer < 0.9 * WHOLE}
    assert cut_off <= set(map(tuple, neighbours(weight.shape, groups).tolist()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("run", [by_onnxruntime, by_openvino, by_torch])
def test_depthwise_convolutions_are_added_in_more(run: Callable[..., Any]) -> None:
    weight = np.full((16, 1, 3, 3), 127, np.int8)
    answers = run(weight // 9 * 2, 16, np.full((1, 16, 6, 6), 255, np.float32))
    assert np.abs(answers - 9 * 28 * 255).max() <= STEP
    weight[:, :, 1:] = weight[:, :, 0, 2] = 0
    assert run(weight, 16, np.full((1, 16, 6, 6), 255, np.float32)).min() > 0.9 * WHOLE
