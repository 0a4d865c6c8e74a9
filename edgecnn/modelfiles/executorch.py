"""The account beside an ExecuTorch program: what its compiler knows and its engine cannot tell."""

from __future__ import annotations

from typing import TypedDict


class CompiledLayer(TypedDict):
    """A convolution or linear layer, in the order of execution."""

    name: str
    macs: int
    precision: str
    """fp32 or int8, as intended."""


class Account(TypedDict):
    """All of it, as it lies in the file."""

    height: int
    width: int
    partitions: int
    """Parts that a delegate runs."""
    portable_operations: dict[str, int]
    """Kind to number of those outside of it."""
    layers: list[CompiledLayer]
