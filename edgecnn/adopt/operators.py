"""ONNX's operators that image classifiers are made of, each as torch computes it. One entry of `OPERATORS` each."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgecnn.adopt.builder import HELD, MERGES, Builder, Op, Value

Inputs: TypeAlias = Sequence[Value | None]
Operator: TypeAlias = Callable[[Builder, Op, Inputs], Value | list[Value]]


def reshaped(build: Builder, op: Op, value: Value, shape: Sequence[int]) -> Value:
    """`value` in another shape; the first dimension is the batch, whatever size it had when the file was written."""
    shape = tuple(shape)
    if shape == tuple(value.tensor.shape):
        return value
    if value.tensor.shape[0] == 1 and shape[0] == 1 and len(shape) > 1:
        if len(shape) == 2:
            return build.call(torch.flatten, value, 1)
        return build.call(torch.reshape, value, (-1, *shape[1:]))
    made = build.call(torch.flatten, value) if len(shape) == 1 else build.call(torch.reshape, value, shape)
    assert made.node is not None
    made.node.meta[MERGES] = f"{op.kind} (node {op.name!r})"
    return made


def _given(value: Value | None, op: Op, what: str) -> Tensor:
    """An input that must be a constant."""
    if value is None or value.node is not None:
        raise op.refuse(f"has no constant {what}: it is computed from the image")
    return value.tensor


def _data(inputs: Inputs, index: int, op: Op) -> Value:
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        raise op.refuse(f"lacks its input {index}")
    return value


def _optional(inputs: Inputs, index: int) -> Value | None:
    return inputs[index] if index < len(inputs) else None


def _numbers(op: Op, inputs: Inputs, attribute: str, index: int) -> list[int] | None:
    """Integers that newer opsets pass as input `index`, older ones as an attribute."""
    value = _optional(inputs, index)
    if value is not None:
        return [int(number) for number in _given(value, op, attribute).flatten().tolist()]
    found = op.attributes.get(attribute)
    return None if found is None else [found] if isinstance(found, int) else list(found)


# Layers with weights


def _convolution(build: Builder, op: Op, inputs: Inputs) -> Value:
    value, weight = _data(inputs, 0, op), _given(_optional(inputs, 1), op, "weights")
    bias = _optional(inputs, 2)
    if weight.dim() != 4:
        raise op.refuse(f"has {weight.dim() - 2} spatial dimensions: only 2 are read")
    kernel = (weight.shape[2], weight.shape[3])
    stride = _pair(op, "strides")
    dilation = _pair(op, "dilations")
    groups = op.attributes.get("group", 1)
    before, after = _padding(op, value.tensor.shape[2:], kernel, stride, dilation)
    value, padding = _padded(build, value, before, after, 0.0)
    layer = nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], kernel, stride, padding, dilation, groups, bias is not None
    )
    _fill(layer, weight, None if bias is None else _given(bias, op, "bias"))
    return build.layer(_path(op, 1), layer, value)


def _batch_norm(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = _data(inputs, 0, op)
    scale, shift, mean, variance = (_given(_optional(inputs, index), op, "parameters") for index in range(1, 5))
    if op.attributes.get("training_mode", 0):
        raise op.refuse("is in training mode: export the network after .eval()")
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}.get(value.tensor.dim())
    if kind is None:
        raise op.refuse(f"has {value.tensor.dim()} dimensions: 2 to 4 are read")
    layer = kind(len(scale), eps=op.attributes.get("epsilon", 1e-5))
    _fill(layer, scale, shift)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(variance)
    return build.layer(_path(op, 1), layer, value)


def _gemm(build: Builder, op: Op, inputs: Inputs) -> Value:
    value, weight = _data(inputs, 0, op), _given(_optional(inputs, 1), op, "weights")
    if op.attributes.get("transA", 0):
        raise op.refuse("transposes what it computes from the image: not read")
    weight = weight if op.attributes.get("transB", 0) else weight.T
    bias = _optional(inputs, 2)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    shift = None
    if bias is not None:
        shift = (_given(bias, op, "bias") * op.attributes.get("beta", 1.0)).flatten().expand(weight.shape[0])
    _fill(layer, weight * op.attributes.get("alpha", 1.0), shift)
    return build.layer(_path(op, 1), layer, value)


def _matmul(build: Builder, op: Op, inputs: Inputs) -> Value:
    value, other = _data(inputs, 0, op), _data(inputs, 1, op)
    if other.node is not None or other.tensor.dim() != 2 or value.node is None:
        return build.call(torch.matmul, value, other)
    layer = nn.Linear(other.tensor.shape[0], other.tensor.shape[1], bias=False)
    _fill(layer, other.tensor.T, None)
    return build.layer(_path(op, 1), layer, value)


def _fill(layer: Any, weight: Tensor, bias: Tensor | None) -> None:
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)


def _path(op: Op, index: int) -> str:
    """The module that a weight was of, from its name: features.0.0.weight; else the node's name."""
    owner, dot, last = op.inputs[index].rpartition(".")
    named = dot and last == "weight" and not owner.startswith("onnx::")
    return owner if named else op.name.replace(".", "_")


# Padding and pooling


def _padding(
    op: Op, sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Rows and columns to add before and after."""
    automatic = op.attributes.get("auto_pad", "NOTSET")
    if automatic == "NOTSET":
        pads = list(op.attributes.get("pads", [0] * 4))
        return pads[:2], pads[2:]
    if automatic == "VALID":
        return [0, 0], [0, 0]
    less, more = [], []
    for size, width, step, spread in zip(sizes, kernel, stride, dilation, strict=True):
        total = max((math.ceil(size / step) - 1) * step + (width - 1) * spread + 1 - size, 0)
        less.append(total // 2)
        more.append(total - total // 2)
    return (less, more) if automatic == "SAME_UPPER" else (more, less)


def _padded(
    build: Builder, value: Value, before: list[int], after: list[int], filling: float
) -> tuple[Value, tuple[int, int]]:
    """The value and the padding that is left for the layer itself: what is uneven is padded here."""
    if before == after:
        return value, (before[0], before[1])
    return build.call(F.pad, value, (before[1], after[1], before[0], after[0]), value=filling), (0, 0)


def _max_pool(build: Builder, op: Op, inputs: Inputs) -> Value:
    value, kernel, stride, dilation = _window(op, inputs)
    before, after = _padding(op, value.tensor.shape[2:], kernel, stride, dilation)
    value, padding = _padded(build, value, before, after, -math.inf)
    ceil = bool(op.attributes.get("ceil_mode", 0))
    return build.call(F.max_pool2d, value, kernel, stride, padding, dilation, ceil_mode=ceil)


def _average_pool(build: Builder, op: Op, inputs: Inputs) -> Value:
    value, kernel, stride, dilation = _window(op, inputs)
    if dilation != (1, 1):
        raise op.refuse("is dilated: not read")
    before, after = _padding(op, value.tensor.shape[2:], kernel, stride, dilation)
    counted = bool(op.attributes.get("count_include_pad", 0))
    if before != after and not counted:
        raise op.refuse(f"has uneven padding {before} and {after} that it does not count: not read")
    value, padding = _padded(build, value, before, after, 0.0)
    ceil = bool(op.attributes.get("ceil_mode", 0))
    return build.call(F.avg_pool2d, value, kernel, stride, padding, ceil_mode=ceil, count_include_pad=counted)


def _window(op: Op, inputs: Inputs) -> tuple[Value, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    kernel = tuple(op.attributes["kernel_shape"])
    if len(kernel) != 2:
        raise op.refuse(f"has {len(kernel)} spatial dimensions: only 2 are read")
    return _data(inputs, 0, op), kernel, _pair(op, "strides"), _pair(op, "dilations")


def _pair(op: Op, attribute: str) -> tuple[int, int]:
    rows, columns = op.attributes.get(attribute, (1, 1))
    return rows, columns


def _global_average(build: Builder, op: Op, inputs: Inputs) -> Value:
    return build.call(F.adaptive_avg_pool2d, _data(inputs, 0, op), 1)


def _global_max(build: Builder, op: Op, inputs: Inputs) -> Value:
    return build.call(torch.amax, _data(inputs, 0, op), (2, 3), True)


def _pad(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = _data(inputs, 0, op)
    rank = value.tensor.dim()
    pads = _numbers(op, inputs, "pads", 1) or []
    axes = _numbers(op, inputs, "axes", 3) or list(range(rank))
    filling = _optional(inputs, 2)
    number = float(_given(filling, op, "filling")) if filling is not None else op.attributes.get("value", 0.0)
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(
        op.attributes.get("mode", "constant")
    )
    if mode is None:
        raise op.refuse(f"has mode {op.attributes['mode']!r}: read are constant, reflect, edge")
    by_axis = {axis % rank: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    if any(any(by_axis.get(axis, (0, 0))) for axis in range(rank - 2)):
        raise op.refuse("pads the batch or the channels: only height and width are read")
    flat = [number for axis in (rank - 1, rank - 2) for number in by_axis.get(axis, (0, 0))]
    if not any(flat):
        return value
    if mode == "constant":
        return build.call(F.pad, value, tuple(flat), value=number)
    return build.call(F.pad, value, tuple(flat), mode)


def _resize(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = _data(inputs, 0, op)
    scales = _optional(inputs, 1 if op.kind == "Upsample" or op.opset < 11 else 2)
    sizes = _optional(inputs, 3)
    height, width = value.tensor.shape[2:]
    if sizes is not None:
        size = tuple(int(number) for number in _given(sizes, op, "sizes").tolist()[-2:])
    else:
        by = _given(scales, op, "scales").tolist()[-2:]
        size = (math.floor(height * by[0]), math.floor(width * by[1]))
    mode = op.attributes.get("mode", "nearest")
    where = op.attributes.get("coordinate_transformation_mode", "half_pixel" if op.opset >= 11 else "asymmetric")
    if mode == "nearest" and (size[0] % height, size[1] % width) == (0, 0):
        return build.call(F.interpolate, value, size, mode="nearest")
    if mode == "linear" and where in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return build.call(F.interpolate, value, size, mode="bilinear", align_corners=where == "align_corners")
    raise op.refuse(f"resizes by {mode}, {where}: read are whole nearest steps and linear")


# Shapes


def _reshape(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = _data(inputs, 0, op)
    wanted = _numbers(op, inputs, "shape", 1) or []
    if not op.attributes.get("allowzero", 0):
        wanted = [value.tensor.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    return reshaped(build, op, value, value.tensor.reshape(wanted).shape)


def _flatten(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = _data(inputs, 0, op)
    axis = op.attributes.get("axis", 1) % (value.tensor.dim() + 1)
    before = math.prod(value.tensor.shape[:axis])
    return reshaped(build, op, value, (before, value.tensor.numel() // before))


def _squeeze(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = _data(inputs, 0, op)
    shape = value.tensor.shape
    axes = _numbers(op, inputs, "axes", 1)
    if axes is None:  # every 1 but the batch's
        axes = [axis for axis, size in enumerate(shape) if size == 1 and axis]
    gone = {axis % len(shape) for axis in axes}
    return reshaped(build, op, value, [size for axis, size in enumerate(shape) if axis not in gone])


def _unsqueeze(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = _data(inputs, 0, op)
    axes = _numbers(op, inputs, "axes", 1) or []
    rank = value.tensor.dim() + len(axes)
    sizes = iter(value.tensor.shape)
    new = {axis % rank for axis in axes}
    return reshaped(build, op, value, [1 if axis in new else next(sizes) for axis in range(rank)])


def _transpose(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = _data(inputs, 0, op)
    order = tuple(op.attributes.get("perm", reversed(range(value.tensor.dim()))))
    node = value.node
    if node is not None and node.target is torch.permute:
        # NHWC to NCHW after NCHW to NHWC is nothing.
        first: Any = node.args[1]
        if [first[axis] for axis in order] == list(range(len(order))):
            source: Any = node.args[0]
            return Value(value.tensor.permute(order), source)
    return build.call(torch.permute, value, order)


def _expand(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = _data(inputs, 0, op)
    wanted = np.broadcast_shapes(value.tensor.shape, tuple(_numbers(op, inputs, "shape", 1) or ()))
    if len(wanted) != value.tensor.dim():
        raise op.refuse("adds dimensions: not read")
    sizes = [-1 if size == had else size for size, had in zip(wanted, value.tensor.shape, strict=True)]
    return value if set(sizes) == {-1} else build.call(torch.Tensor.expand, value, sizes)


def _concat(build: Builder, op: Op, inputs: Inputs) -> Value:
    return build.call(torch.cat, [value for value in inputs if value is not None], op.attributes["axis"])


def _split(build: Builder, op: Op, inputs: Inputs) -> list[Value]:
    value = _data(inputs, 0, op)
    axis = op.attributes.get("axis", 0)
    count = len(op.outputs)
    length = value.tensor.shape[axis]
    sizes = _numbers(op, inputs, "split", 1) or [
        min(math.ceil(length / count), length - i * math.ceil(length / count)) for i in range(count)
    ]
    return build.parts(torch.split, count, value, sizes, axis)


def _slice(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = _data(inputs, 0, op)
    starts, ends = _numbers(op, inputs, "starts", 1) or [], _numbers(op, inputs, "ends", 2) or []
    axes = _numbers(op, inputs, "axes", 3) or list(range(len(starts)))
    steps = _numbers(op, inputs, "steps", 4) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        length = value.tensor.shape[axis]
        chosen = range(length)[slice(start, end, step) if step > 0 or end > -length - 1 else slice(start, None, step)]
        if len(chosen) == length and step == 1:
            continue
        if step == 1:
            value = build.call(torch.narrow, value, axis, chosen.start, len(chosen))
        else:
            value = build.call(torch.index_select, value, axis, Value(torch.tensor(list(chosen)), None))
    return value


def _gather(build: Builder, op: Op, inputs: Inputs) -> Value:
    value, index = _data(inputs, 0, op), _given(_optional(inputs, 1), op, "index")
    axis = op.attributes.get("axis", 0)
    node = value.node
    whole = node is not None and node.target is torch.flatten and MERGES in node.meta and axis == 0
    if node is not None and whole and torch.equal(index.flatten(), torch.arange(value.tensor.numel())):
        # as_strided, as torch's exporter writes it: all elements of the batch by their own position
        source: Any = node.args[0]
        return reshaped(build, op, Value(source.meta[HELD], source), index.shape)
    if index.dim() == 0:
        return build.call(torch.select, value, axis, int(index))
    if index.dim() == 1:
        return build.call(torch.index_select, value, axis, Value(index, None))
    raise op.refuse(f"has an index of {index.dim()} dimensions: 0 or 1 are read")


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def made(build: Builder, op: Op, inputs: Inputs) -> Value:
        value = _data(inputs, 0, op)
        rank = value.tensor.dim()
        axes = _numbers(op, inputs, "axes", 1)
        if not axes and op.attributes.get("noop_with_empty_axes", 0):
            return value
        chosen = tuple(sorted(axis % rank for axis in axes)) if axes else tuple(range(rank))
        if 0 in chosen:
            raise op.refuse("reduces the batch: not read")
        return build.call(function, value, chosen, bool(op.attributes.get("keepdims", 1)))

    return made


# Elementwise


def _elementwise(function: Callable[..., Tensor]) -> Operator:
    def made(build: Builder, op: Op, inputs: Inputs) -> Value:
        return build.call(function, *(value for value in inputs if value is not None))

    return made


def _arithmetic(function: Callable[..., Any]) -> Operator:
    """Of two inputs, or more two at a time; a constant of one element is a number."""

    def made(build: Builder, op: Op, inputs: Inputs) -> Value:
        values = [value for value in inputs if value is not None]
        rank = max(value.tensor.dim() for value in values if value.node is not None)
        return reduce(lambda left, right: build.call(function, _number(left, rank), _number(right, rank)), values)

    return made


def _extreme(function: Callable[..., Tensor], limit: str) -> Operator:
    """Largest or smallest of any number of inputs; against a number it is a clamp."""

    def made(build: Builder, op: Op, inputs: Inputs) -> Value:
        result, *others = sorted((value for value in inputs if value is not None), key=lambda value: value.node is None)
        for other in others:
            number = _number(other, result.tensor.dim())
            if isinstance(number, Value):
                result = build.call(function, result, number)
            else:
                result = build.call(torch.clamp, result, **{limit: number})
        return result

    return made


def _number(value: Value, rank: int) -> Value | float:
    alone = value.node is None and value.tensor.numel() == 1 and value.tensor.dim() <= rank
    return float(value.tensor.item()) if alone else value


def _same(build: Builder, op: Op, inputs: Inputs) -> Value:
    return _data(inputs, 0, op)


def _cast(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = _data(inputs, 0, op)
    if op.attributes["to"] != 1 or value.tensor.dtype != torch.float32:
        raise op.refuse("leaves float32: not read")
    return value


def _clip(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = _data(inputs, 0, op)

    def limit(name: str, index: int) -> float | None:
        given = _optional(inputs, index)
        found = op.attributes.get(name) if given is None else _given(given, op, name).item()
        return None if found is None or abs(found) > 1e38 else float(found)

    low, high = limit("min", 1), limit("max", 2)
    if (low, high) == (0.0, 6.0):
        return build.call(F.relu6, value)
    if (low, high) == (0.0, None):
        return build.call(F.relu, value)
    return value if low is None and high is None else build.call(torch.clamp, value, low, high)


def _hard_sigmoid(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = _data(inputs, 0, op)
    alpha, beta = op.attributes.get("alpha", 0.2), op.attributes.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return build.call(F.hardsigmoid, value)
    return build.call(torch.clamp, build.call(operator.add, build.call(operator.mul, value, alpha), beta), 0.0, 1.0)


def _with(function: Callable[..., Tensor], **defaults: float) -> Operator:
    """An activation whose attributes are its arguments, in their order."""

    def made(build: Builder, op: Op, inputs: Inputs) -> Value:
        arguments = [op.attributes.get(name, default) for name, default in defaults.items()]
        return build.call(function, _data(inputs, 0, op), *arguments)

    return made


def _prelu(build: Builder, op: Op, inputs: Inputs) -> Value:
    value, slope = _data(inputs, 0, op), _given(_optional(inputs, 1), op, "slope")
    layer = nn.PReLU(slope.numel())
    _fill(layer, slope.flatten(), None)
    return build.layer(_path(op, 1), layer, value)


def _gelu(build: Builder, op: Op, inputs: Inputs) -> Value:
    return build.call(F.gelu, _data(inputs, 0, op), approximate=op.attributes.get("approximate", "none"))


def _softmax(function: Callable[..., Tensor]) -> Operator:
    def made(build: Builder, op: Op, inputs: Inputs) -> Value:
        value = _data(inputs, 0, op)
        axis = op.attributes.get("axis", 1 if op.opset < 13 else -1) % value.tensor.dim()
        if op.opset < 13 and math.prod(value.tensor.shape[axis + 1 :]) != 1:
            raise op.refuse("runs over several dimensions at once, as before opset 13: not read")
        return build.call(function, value, axis)

    return made


def _layer_norm(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = _data(inputs, 0, op)
    axis = op.attributes.get("axis", -1) % value.tensor.dim()
    shift = _optional(inputs, 2)
    eps = op.attributes.get("epsilon", 1e-5)
    return build.call(F.layer_norm, value, tuple(value.tensor.shape[axis:]), _data(inputs, 1, op), shift, eps)


def _instance_norm(build: Builder, op: Op, inputs: Inputs) -> Value:
    value, scale, shift = (_data(inputs, index, op) for index in range(3))
    return build.call(F.instance_norm, value, weight=scale, bias=shift, eps=op.attributes.get("epsilon", 1e-5))


def _local_response_norm(build: Builder, op: Op, inputs: Inputs) -> Value:
    attributes = op.attributes
    numbers = (attributes.get("alpha", 1e-4), attributes.get("beta", 0.75), attributes.get("bias", 1.0))
    return build.call(F.local_response_norm, _data(inputs, 0, op), attributes["size"], *numbers)


OPERATORS: dict[str, Operator] = {
    "Abs": _elementwise(torch.abs),
    "Add": _arithmetic(operator.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _convolution,
    "Div": _arithmetic(operator.truediv),
    "Dropout": _same,
    "Elu": _with(F.elu, alpha=1.0),
    "Erf": _elementwise(torch.erf),
    "Exp": _elementwise(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _elementwise(F.hardswish),
    "Identity": _same,
    "InstanceNormalization": _instance_norm,
    "LRN": _local_response_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _with(F.leaky_relu, alpha=0.01),
    "Log": _elementwise(torch.log),
    "LogSoftmax": _softmax(F.log_softmax),
    "MatMul": _matmul,
    "Max": _extreme(torch.maximum, "min"),
    "MaxPool": _max_pool,
    "Min": _extreme(torch.minimum, "max"),
    "Mish": _elementwise(F.mish),
    "Mul": _arithmetic(operator.mul),
    "Neg": _elementwise(torch.neg),
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": _arithmetic(operator.pow),
    "Reciprocal": _elementwise(torch.reciprocal),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _elementwise(F.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": _elementwise(torch.sigmoid),
    "Slice": _slice,
    "Softmax": _softmax(F.softmax),
    "Softplus": _elementwise(F.softplus),
    "Split": _split,
    "Sqrt": _elementwise(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _arithmetic(operator.sub),
    "Sum": _arithmetic(operator.add),
    "Tanh": _elementwise(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": _resize,
}
"""ONNX's name to what builds it."""
