"""The interpreter of TFLite files, of either package that has one: neither has types that a checker reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray


class TensorDetail(TypedDict):
    """What the interpreter tells of a tensor."""

    index: int
    name: str
    dtype: type[np.generic]
    shape: NDArray[np.int32]
    shape_signature: NDArray[np.int32]
    """-1 where a size is open."""
    quantization: tuple[float, int]
    """(scale, zero point); (0, 0) where it has none."""


class OperationDetail(TypedDict):
    """What it tells of an operation: indices of tensors, -1 where an optional one is left out."""

    index: int
    op_name: str
    inputs: NDArray[np.int32]
    outputs: NDArray[np.int32]


class Interpreter(Protocol):
    """A file that is open."""

    def allocate_tensors(self) -> None: ...
    def invoke(self) -> None: ...
    def get_input_details(self) -> list[TensorDetail]: ...
    def get_output_details(self) -> list[TensorDetail]: ...
    def get_tensor_details(self) -> list[TensorDetail]: ...
    def _get_ops_details(self) -> list[OperationDetail]: ...
    def get_tensor(self, index: int) -> NDArray[np.number]: ...
    def set_tensor(self, index: int, values: NDArray[np.generic]) -> None: ...
    def resize_tensor_input(self, index: int, shape: Sequence[int]) -> None: ...
