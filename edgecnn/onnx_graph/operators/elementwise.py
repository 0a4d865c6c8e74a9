"""Operators without weights that compute: arithmetic, activations, reductions."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from edgecnn.onnx_graph.builder import Builder, Op, Value
from edgecnn.onnx_graph.operators.inputs import Inputs, Operator, constant_of, data_of, integers_of, optional_of


def elementwise(function: Callable[..., Tensor]) -> Operator:
    def made(build: Builder, op: Op, inputs: Inputs) -> Value:
        return build.call(function, *(value for value in inputs if value is not None))

    return made


def arithmetic(function: Callable[..., Tensor]) -> Operator:
    """Of two inputs, or more two at a time; a constant of one element is a number."""

    def made(build: Builder, op: Op, inputs: Inputs) -> Value:
        values = [value for value in inputs if value is not None]
        rank = max(value.tensor.dim() for value in values if value.node is not None)
        return reduce(lambda left, right: build.call(function, number_of(left, rank), number_of(right, rank)), values)

    return made


def extreme(function: Callable[..., Tensor], limit: str) -> Operator:
    """Largest or smallest of any number of inputs; against a number it is a clamp."""

    def made(build: Builder, op: Op, inputs: Inputs) -> Value:
        result, *others = sorted((value for value in inputs if value is not None), key=lambda value: value.node is None)
        for other in others:
            number = number_of(other, result.tensor.dim())
            if isinstance(number, Value):
                result = build.call(function, result, number)
            else:
                result = build.call(torch.clamp, result, **{limit: number})
        return result

    return made


def number_of(value: Value, rank: int) -> Value | float:
    alone = value.node is None and value.tensor.numel() == 1 and value.tensor.dim() <= rank
    return float(value.tensor.item()) if alone else value


def same(build: Builder, op: Op, inputs: Inputs) -> Value:
    return data_of(inputs, 0, op)


def dropout(build: Builder, op: Op, inputs: Inputs) -> Value:
    training = optional_of(inputs, 2)
    if training is not None and bool(constant_of(training, op, "mode").any()):
        raise op.refuse("is in training mode: export the network after .eval()")
    return data_of(inputs, 0, op)


def cast(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = data_of(inputs, 0, op)
    if op.attributes["to"] != 1 or value.tensor.dtype != torch.float32:
        raise op.refuse("leaves float32: not read")
    return value


def clip(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = data_of(inputs, 0, op)

    def limit(name: str, index: int) -> float | None:
        given = optional_of(inputs, index)
        found = op.attributes.get(name) if given is None else constant_of(given, op, name).item()
        return None if found is None or abs(found) > 1e38 else float(found)

    low, high = limit("min", 1), limit("max", 2)
    if (low, high) == (0.0, 6.0):
        return build.call(F.relu6, value)
    if (low, high) == (0.0, None):
        return build.call(F.relu, value)
    return value if low is None and high is None else build.call(torch.clamp, value, low, high)


def hard_sigmoid(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = data_of(inputs, 0, op)
    alpha, beta = op.attributes.get("alpha", 0.2), op.attributes.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return build.call(F.hardsigmoid, value)
    return build.call(torch.clamp, build.call(operator.add, build.call(operator.mul, value, alpha), beta), 0.0, 1.0)


def activation(function: Callable[..., Tensor], **defaults: float) -> Operator:
    """An activation whose attributes are its arguments, in their order."""

    def made(build: Builder, op: Op, inputs: Inputs) -> Value:
        arguments = [op.attributes.get(name, default) for name, default in defaults.items()]
        return build.call(function, data_of(inputs, 0, op), *arguments)

    return made


def gelu(build: Builder, op: Op, inputs: Inputs) -> Value:
    return build.call(F.gelu, data_of(inputs, 0, op), approximate=op.attributes.get("approximate", "none"))


def softmax(function: Callable[..., Tensor]) -> Operator:
    def made(build: Builder, op: Op, inputs: Inputs) -> Value:
        value = data_of(inputs, 0, op)
        axis = op.attributes.get("axis", 1 if op.opset < 13 else -1) % value.tensor.dim()
        if op.opset < 13 and math.prod(value.tensor.shape[axis + 1 :]) != 1:
            raise op.refuse("runs over several dimensions at once, as before opset 13: not read")
        return build.call(function, value, axis)

    return made


def reduction(function: Callable[..., Tensor]) -> Operator:
    def made(build: Builder, op: Op, inputs: Inputs) -> Value:
        value = data_of(inputs, 0, op)
        rank = value.tensor.dim()
        axes = integers_of(op, inputs, "axes", 1)
        if not axes and op.attributes.get("noop_with_empty_axes", 0):
            return value
        chosen = tuple(sorted(axis % rank for axis in axes)) if axes else tuple(range(rank))
        if 0 in chosen:
            raise op.refuse("reduces the batch: not read")
        return build.call(function, value, chosen, bool(op.attributes.get("keepdims", 1)))

    return made
