"""The convolutions and matrix products of an ONNX file, read without the onnx package: a device does not have it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]
Field: TypeAlias = tuple[int, int | memoryview]
"""(number, value) of a protobuf message: a memoryview where it has a length."""

# Field numbers of onnx.proto: ModelProto.graph, GraphProto.node, NodeProto.*.
_GRAPH, _NODE = 7, 1
_INPUT, _OUTPUT, _NAME, _OP = 1, 2, 3, 4
_VARINT, _FIXED64, _SIZED, _FIXED32 = 0, 1, 2, 5

_ACTIVATION_AND_WEIGHT = {
    "Conv": (0, 1),
    "ConvTranspose": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
    "QGemm": (0, 3),
}
"""Operations that are layers: the places of their two factors among the inputs."""
_ALWAYS_INT8 = {"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QGemm"}


@dataclass(frozen=True)
class Node:
    """An operation of the file."""

    name: str
    """Its first output's where it has none."""
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """A convolution, linear layer or matrix product of the file."""

    name: str
    macs: int
    """Multiply-accumulates."""
    int8: bool
    """Whether the file asks for int8: both factors come from a DequantizeLinear, or the operation is an integer one."""
    output: Shape


def read_nodes(path: Path) -> list[Node]:
    """The nodes of an ONNX file in its order. The file must be one that an engine has opened: it is not checked."""
    graph = next(value for number, value in _fields(memoryview(path.read_bytes())) if number == _GRAPH)
    assert isinstance(graph, memoryview)
    return [_node(value) for number, value in _fields(graph) if number == _NODE and isinstance(value, memoryview)]


def layers_of(nodes: Sequence[Node], shapes: Mapping[int, tuple[Sequence[Shape], Sequence[Shape]]]) -> list[Layer]:
    """The layers among the nodes. `shapes`: index of a node to the shapes of its inputs and outputs, for one image."""
    dequantized = {name for node in nodes if node.op == "DequantizeLinear" for name in node.outputs}
    layers = []
    for index, node in enumerate(nodes):
        if node.op in _ACTIVATION_AND_WEIGHT and index in shapes:
            inputs, outputs = shapes[index]
            first, second = _ACTIVATION_AND_WEIGHT[node.op]
            int8 = node.op in _ALWAYS_INT8 or set(node.inputs[:2]) <= dequantized
            layers.append(Layer(node.name, _macs(node.op, inputs[first], inputs[second], outputs[0]), int8, outputs[0]))
    return layers


def layer_behind(tensor: str, nodes: Sequence[Node]) -> str | None:
    """Name of the layer whose value a tensor is, but for what follows it such as an activation; None where none is."""
    makers = {name: node for node in nodes for name in node.outputs}
    for _ in range(8):  # an engine fuses an activation or a few more into a layer, not half the network
        node = makers.get(tensor)
        if node is None or node.op in _ACTIVATION_AND_WEIGHT:
            return node.name if node else None
        tensor = node.inputs[0] if node.inputs else ""
    return None


def _macs(op: str, activation: Shape, weight: Shape, output: Shape) -> int:
    if op == "ConvTranspose":
        return math.prod(activation) * math.prod(weight[1:])
    if "Conv" in op:
        return math.prod(output) * math.prod(weight[1:])
    if "Gemm" in op:  # the activation may be transposed
        return math.prod(activation) * output[-1]
    return math.prod(output) * activation[-1]


def _node(message: memoryview) -> Node:
    texts: dict[int, list[str]] = {_INPUT: [], _OUTPUT: [], _NAME: [], _OP: []}
    for number, value in _fields(message):
        if number in texts and isinstance(value, memoryview):
            texts[number].append(str(value, "utf-8"))
    name = "".join(texts[_NAME]) or "".join(texts[_OUTPUT][:1])
    op = "".join(texts[_OP])
    return Node(name, op, tuple(texts[_INPUT]), tuple(texts[_OUTPUT]))


def _fields(message: memoryview) -> Iterator[Field]:
    """The fields of a protobuf message. https://protobuf.dev/programming-guides/encoding"""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == _SIZED:
            size, place = _varint(message, place)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"no protobuf message: wire type {kind}")
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
