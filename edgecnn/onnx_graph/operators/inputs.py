"""What an operator is given: data, constants, and what older opsets had as attributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch import Tensor

from edgecnn.onnx_graph.builder import Builder, Op, Value

Inputs: TypeAlias = Sequence[Value | None]
Operator: TypeAlias = Callable[[Builder, Op, Inputs], Value | list[Value]]
"""Adds an ONNX node to the graph: its value, or its values."""


def constant_of(value: Value | None, op: Op, what: str) -> Tensor:
    """An input that must be a constant."""
    if value is None or value.node is not None:
        raise op.refuse(f"has no constant {what}: it is computed from the image")
    return value.tensor


def data_of(inputs: Inputs, index: int, op: Op) -> Value:
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        raise op.refuse(f"lacks its input {index}")
    return value


def optional_of(inputs: Inputs, index: int) -> Value | None:
    return inputs[index] if index < len(inputs) else None


def integers_of(op: Op, inputs: Inputs, attribute: str, index: int) -> list[int] | None:
    """Integers that newer opsets pass as input `index`, older ones as an attribute."""
    value = optional_of(inputs, index)
    if value is not None:
        return [int(number) for number in constant_of(value, op, attribute).flatten().tolist()]
    found = op.attributes.get(attribute)
    return None if found is None else [found] if isinstance(found, int) else list(found)
