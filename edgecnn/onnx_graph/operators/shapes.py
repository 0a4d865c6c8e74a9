"""Operators that move values and compute nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import fx

from edgecnn.onnx_graph.builder import HELD, MERGES, Builder, Op, Value
from edgecnn.onnx_graph.operators.inputs import Inputs, constant_of, data_of, integers_of, optional_of


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


def for_one_image(build: Builder, value: Value, shape: Sequence[int]) -> list[int]:
    """A shape of the file's own batch as that of the one image that the graph is built with."""
    of_batch = build.batch is not None and value.tensor.shape[:1] == (1,) and list(shape[:1]) == [build.batch]
    return [1, *shape[1:]] if of_batch else list(shape)


def reshape(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = data_of(inputs, 0, op)
    wanted = for_one_image(build, value, integers_of(op, inputs, "shape", 1) or [])
    if not op.attributes.get("allowzero", 0):
        wanted = [value.tensor.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    return reshaped(build, op, value, value.tensor.reshape(wanted).shape)


def flatten(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = data_of(inputs, 0, op)
    axis = op.attributes.get("axis", 1)
    axis = axis + value.tensor.dim() if axis < 0 else axis
    before = math.prod(value.tensor.shape[:axis])
    return reshaped(build, op, value, (before, value.tensor.numel() // before))


def squeeze(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = data_of(inputs, 0, op)
    shape = value.tensor.shape
    axes = integers_of(op, inputs, "axes", 1)
    if axes is None:  # every 1 but the batch's
        axes = [axis for axis, size in enumerate(shape) if size == 1 and axis]
    gone = {axis % len(shape) for axis in axes}
    return reshaped(build, op, value, [size for axis, size in enumerate(shape) if axis not in gone])


def unsqueeze(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = data_of(inputs, 0, op)
    axes = integers_of(op, inputs, "axes", 1) or []
    rank = value.tensor.dim() + len(axes)
    sizes = iter(value.tensor.shape)
    new = {axis % rank for axis in axes}
    return reshaped(build, op, value, [1 if axis in new else next(sizes) for axis in range(rank)])


def transpose(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = data_of(inputs, 0, op)
    order = tuple(op.attributes.get("perm", reversed(range(value.tensor.dim()))))
    node = value.node
    if node is not None and node.target is torch.permute:
        # NHWC to NCHW after NCHW to NHWC is nothing.
        source, first = node.args
        assert isinstance(source, fx.Node)
        assert isinstance(first, tuple | list)
        if [first[axis] for axis in order] == list(range(len(order))):
            return Value(value.tensor.permute(order), source)
    return build.call(torch.permute, value, order)


def expand(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = data_of(inputs, 0, op)
    given = for_one_image(build, value, integers_of(op, inputs, "shape", 1) or [])
    wanted = np.broadcast_shapes(value.tensor.shape, tuple(given))
    if len(wanted) != value.tensor.dim():
        raise op.refuse("adds dimensions: not read")
    sizes = [-1 if size == had else size for size, had in zip(wanted, value.tensor.shape, strict=True)]
    return value if set(sizes) == {-1} else build.call(torch.Tensor.expand, value, sizes)


def concat(build: Builder, op: Op, inputs: Inputs) -> Value:
    return build.call(torch.cat, [value for value in inputs if value is not None], op.attributes["axis"])


def split(build: Builder, op: Op, inputs: Inputs) -> list[Value]:
    value = data_of(inputs, 0, op)
    axis = op.attributes.get("axis", 0)
    count = len(op.outputs)
    length = value.tensor.shape[axis]
    sizes = integers_of(op, inputs, "split", 1) or [
        min(math.ceil(length / count), length - i * math.ceil(length / count)) for i in range(count)
    ]
    return build.parts(torch.split, count, value, sizes, axis)


def sliced(build: Builder, op: Op, inputs: Inputs) -> Value:
    value = data_of(inputs, 0, op)
    starts, ends = integers_of(op, inputs, "starts", 1) or [], integers_of(op, inputs, "ends", 2) or []
    axes = integers_of(op, inputs, "axes", 3) or list(range(len(starts)))
    steps = integers_of(op, inputs, "steps", 4) or [1] * len(starts)
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


def gather(build: Builder, op: Op, inputs: Inputs) -> Value:
    value, index = data_of(inputs, 0, op), constant_of(optional_of(inputs, 1), op, "index")
    axis = op.attributes.get("axis", 0)
    node = value.node
    whole = node is not None and node.target is torch.flatten and MERGES in node.meta and axis == 0
    if node is not None and whole and torch.equal(index.flatten(), torch.arange(value.tensor.numel())):
        # as_strided, as torch's exporter writes it: all elements of the batch by their own position
        source = node.args[0]
        assert isinstance(source, fx.Node)
        return reshaped(build, op, Value(source.meta[HELD], source), index.shape)
    if index.dim() == 0:
        return build.call(torch.select, value, axis, int(index))
    if index.dim() == 1:
        return build.call(torch.index_select, value, axis, Value(index, None))
    raise op.refuse(f"has an index of {index.dim()} dimensions: 0 or 1 are read")
