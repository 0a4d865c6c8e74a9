"""What slides over height and width: padding, pooling, resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from edgecnn.onnx_graph.builder import Builder, Op, Value
from edgecnn.onnx_graph.operators.inputs import Inputs, constant_of, data_of, integers_of, optional_of


def padding_of(
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


def padded(
    build: Builder, value: Value, before: list[int], after: list[int], filling: float
) -> tuple[Value, tuple[int, int]]:
    """The value and the padding that is left for the layer itself: what is uneven is padded here."""
    if before == after:
        return value, (before[0], before[1])
    return build.call(F.pad, value, (before[1], after[1], before[0], after[0]), value=filling), (0, 0)


def max_pool(build: Builder, op: Op, inputs: Inputs) -> Value:
    value, kernel, stride, dilation = window_of(op, inputs)
    before, after = padding_of(op, value.tensor.shape[2:], kernel, stride, dilation)
    value, padding = padded(build, value, before, after, -math.inf)
    ceil = bool(op.attributes.get("ceil_mode", 0))
    return build.call(F.max_pool2d, value, kernel, stride, padding, dilation, ceil_mode=ceil)


def average_pool(build: Builder, op: Op, inputs: Inputs) -> Value:
    value, kernel, stride, dilation = window_of(op, inputs)
    if dilation != (1, 1):
        raise op.refuse("is dilated: not read")
    before, after = padding_of(op, value.tensor.shape[2:], kernel, stride, dilation)
    counted = bool(op.attributes.get("count_include_pad", 0))
    if before != after and not counted:
        raise op.refuse(f"has uneven padding {before} and {after} that it does not count: not read")
    value, padding = padded(build, value, before, after, 0.0)
    ceil = bool(op.attributes.get("ceil_mode", 0))
    return build.call(F.avg_pool2d, value, kernel, stride, padding, ceil_mode=ceil, count_include_pad=counted)


def window_of(op: Op, inputs: Inputs) -> tuple[Value, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    kernel = tuple(op.attributes["kernel_shape"])
    if len(kernel) != 2:
        raise op.refuse(f"has {len(kernel)} spatial dimensions: only 2 are read")
    return data_of(inputs, 0, op), kernel, pair_of(op, "strides"), pair_of(op, "dilations")


def pair_of(op: Op, attribute: str) -> tuple[int, int]:
    rows, columns = op.attributes.get(attribute, (1, 1))
    return rows, columns


def global_average(build: Builder, op: Op, inputs: Inputs) -> Value:
    return build.call(F.adaptive_avg_pool2d, data_of(inputs, 0, op), 1)


def global_max(build: Builder, op: Op, inputs: Inputs) -> Value:
    return build.call(torch.amax, data_of(inputs, 0, op), (2, 3), True)


def pad(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = data_of(inputs, 0, op)
    rank = value.tensor.dim()
    pads = integers_of(op, inputs, "pads", 1) or []
    axes = integers_of(op, inputs, "axes", 3) or list(range(rank))
    filling = optional_of(inputs, 2)
    number = float(constant_of(filling, op, "filling")) if filling is not None else op.attributes.get("value", 0.0)
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(
        op.attributes.get("mode", "constant")
    )
    if mode is None:
        raise op.refuse(f"has mode {op.attributes['mode']!r}: read are constant, reflect, edge")
    by_axis = {axis % rank: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    first = min((axis for axis, both in by_axis.items() if any(both)), default=rank - 2)
    if first == 0 or (first < rank - 2 and mode != "constant"):
        raise op.refuse("pads the batch, or the channels with more than a constant: not read")
    flat = [number for axis in range(rank - 1, min(first, rank - 2) - 1, -1) for number in by_axis.get(axis, (0, 0))]
    if not any(flat):
        return value
    if mode == "constant":
        return build.call(F.pad, value, tuple(flat), value=number)
    return build.call(F.pad, value, tuple(flat), mode)


def resize(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = data_of(inputs, 0, op)
    scales = optional_of(inputs, 1 if op.kind == "Upsample" or op.opset < 11 else 2)
    sizes = optional_of(inputs, 3)
    height, width = value.tensor.shape[2:]
    if sizes is not None:
        size = tuple(int(number) for number in constant_of(sizes, op, "sizes").tolist()[-2:])
    else:
        by = constant_of(scales, op, "scales").tolist()[-2:]
        size = (math.floor(height * by[0]), math.floor(width * by[1]))
    mode = op.attributes.get("mode", "nearest")
    where = op.attributes.get("coordinate_transformation_mode", "half_pixel" if op.opset >= 11 else "asymmetric")
    if mode == "nearest" and (size[0] % height, size[1] % width) == (0, 0):
        return build.call(F.interpolate, value, size, mode="nearest")
    if mode == "linear" and where in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return build.call(F.interpolate, value, size, mode="bilinear", align_corners=where == "align_corners")
    raise op.refuse(f"resizes by {mode}, {where}: read are whole nearest steps and linear")
