"""Layers with weights: they become modules under the names that they had."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgecnn.onnx_graph.builder import Builder, Op, Value
from edgecnn.onnx_graph.operators.inputs import Inputs, constant_of, data_of, optional_of
from edgecnn.onnx_graph.operators.windows import padded, padding_of, pair_of


def convolution(build: Builder, op: Op, inputs: Inputs) -> Value:
    value, weight = data_of(inputs, 0, op), constant_of(optional_of(inputs, 1), op, "weights")
    bias = optional_of(inputs, 2)
    if weight.dim() != 4:
        raise op.refuse(f"has {weight.dim() - 2} spatial dimensions: only 2 are read")
    kernel = (weight.shape[2], weight.shape[3])
    stride = pair_of(op, "strides")
    dilation = pair_of(op, "dilations")
    groups = op.attributes.get("group", 1)
    before, after = padding_of(op, value.tensor.shape[2:], kernel, stride, dilation)
    value, padding = padded(build, value, before, after, 0.0)
    layer = nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], kernel, stride, padding, dilation, groups, bias is not None
    )
    fill(layer, weight, None if bias is None else constant_of(bias, op, "bias"))
    return build.layer(path_of(op, 1), layer, value)


def batch_norm(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = data_of(inputs, 0, op)
    scale, shift, mean, variance = (constant_of(optional_of(inputs, index), op, "parameters") for index in range(1, 5))
    # Before opset 14 it has no such attribute: in training mode it gives its statistics beside its result.
    if op.attributes.get("training_mode", 0) or sum(bool(name) for name in op.outputs) > 1:
        raise op.refuse("is in training mode: export the network after .eval()")
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}.get(value.tensor.dim())
    if kind is None:
        raise op.refuse(f"has {value.tensor.dim()} dimensions: 2 to 4 are read")
    layer = kind(len(scale), eps=op.attributes.get("epsilon", 1e-5))
    fill(layer, scale, shift)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(variance)
    return build.layer(path_of(op, 1), layer, value)


def gemm(build: Builder, op: Op, inputs: Inputs) -> Value:
    value, weight = data_of(inputs, 0, op), constant_of(optional_of(inputs, 1), op, "weights")
    if op.attributes.get("transA", 0):
        raise op.refuse("transposes what it computes from the image: not read")
    weight = weight if op.attributes.get("transB", 0) else weight.T
    bias = optional_of(inputs, 2)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    shift = None
    if bias is not None:
        shift = (constant_of(bias, op, "bias") * op.attributes.get("beta", 1.0)).flatten().expand(weight.shape[0])
    fill(layer, weight * op.attributes.get("alpha", 1.0), shift)
    return build.layer(path_of(op, 1), layer, value)


def matmul(build: Builder, op: Op, inputs: Inputs) -> Value:
    value, other = data_of(inputs, 0, op), data_of(inputs, 1, op)
    if other.node is not None or other.tensor.dim() != 2 or value.node is None:
        return build.call(torch.matmul, value, other)
    layer = nn.Linear(other.tensor.shape[0], other.tensor.shape[1], bias=False)
    fill(layer, other.tensor.T, None)
    return build.layer(path_of(op, 1), layer, value)


def fill(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    with torch.no_grad():
        layer.get_parameter("weight").copy_(weight)
        if bias is not None:
            layer.get_parameter("bias").copy_(bias)


def path_of(op: Op, index: int) -> str:
    """The module that a weight was of, from its name: features.0.0.weight; else the node's name."""
    owner, dot, last = op.inputs[index].rpartition(".")
    named = dot and last == "weight" and not owner.startswith("onnx::")
    return owner if named else op.name.replace(".", "_")


def prelu(build: Builder, op: Op, inputs: Inputs) -> Value:
    value, slope = data_of(inputs, 0, op), constant_of(optional_of(inputs, 1), op, "slope")
    layer = nn.PReLU(slope.numel())
    fill(layer, slope.flatten(), None)
    return build.layer(path_of(op, 1), layer, value)


def layer_norm(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = data_of(inputs, 0, op)
    axis = op.attributes.get("axis", -1) % value.tensor.dim()
    shift = optional_of(inputs, 2)
    eps = op.attributes.get("epsilon", 1e-5)
    return build.call(F.layer_norm, value, tuple(value.tensor.shape[axis:]), data_of(inputs, 1, op), shift, eps)


def instance_norm(build: Builder, op: Op, inputs: Inputs) -> Value:
    value, scale, shift = (data_of(inputs, index, op) for index in range(3))
    return build.call(F.instance_norm, value, weight=scale, bias=shift, eps=op.attributes.get("epsilon", 1e-5))


def local_response_norm(build: Builder, op: Op, inputs: Inputs) -> Value:
    attributes = op.attributes
    numbers = (attributes.get("alpha", 1e-4), attributes.get("beta", 0.75), attributes.get("bias", 1.0))
    return build.call(F.local_response_norm, data_of(inputs, 0, op), attributes["size"], *numbers)
