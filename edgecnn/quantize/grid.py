"""The whole numbers that a channel's weights become: 127 to each side, or fewer where an engine adds pairs in 16 bits.

x86-64 before VNNI multiplies uint8 activations with int8 weights and adds two such products in 16 bits, which saturate:
255 × 127 + 255 × 127 does not fit, and is 49 % too small without a word. Which two is a matter of the engine. ONNX
Runtime takes neighbours of a channel's weights in the order (height, width, input channel), oneDNN (OpenVINO, PyTorch)
two neighbouring input channels at the same place; neither does it to depthwise convolutions, which are added in 32
bits. Where no two such neighbours of one sign add up to more than 128, nothing can saturate, whatever the image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgecnn.artifact import Isa
from edgecnn.errors import UserError

Grid = Literal["full", "paired"]
"""full: as many steps as int8 has. paired: so few in each channel that no pair saturates."""
LARGEST = 127
PAIR = 128
"""Largest sum of two neighbours of one sign: 255 × 128 < 2¹⁵, and 255 × 129 is more."""
_ALWAYS = PAIR // 2
"""Steps that are few enough for any two weights."""
_TINY = 1e-12
_ON_GRID = 2e-3
"""Of a step: how far rounding to float32 may take a weight that is a whole number of them."""
_PEEKED = 32
"""Weights of a channel that tell most grids apart, so that few channels are looked at whole."""


@dataclass(frozen=True)
class StoredWeight:
    """A layer's int8 weights as a file has them."""

    layer: str
    values: NDArray[np.int8]
    """(out, in / groups, kernel height, kernel width), or (out, in)."""
    groups: int = 1


def grid_for(isa: Isa) -> Grid:
    """What the weights of an engine that adds in pairs need for a target.

    Those for Arm, which adds otherwise, too: they are chosen, judged and verified on PCs of any kind.
    """
    return "full" if isa == "vnni" else "paired"


def whole_weights(weight: Tensor, grid: Grid, groups: int = 1) -> tuple[Tensor, Tensor]:
    """A layer's weights (out, …) as whole numbers (still float), and the step of each channel (out,).

    The largest weight of a channel is a whole number of steps, so that weights which are rounded already keep their
    step: they are found to lie on it, and stay as they are. Others are rounded to the nearest, on the finest step that
    leaves no pair too large.
    """
    rows = weight.detach().flatten(1).double()
    largest = rows.abs().amax(1).clamp_min(_TINY)
    pairs = neighbours(tuple(weight.shape), groups) if grid == "paired" else None
    counts = torch.full_like(largest, LARGEST) if pairs is None or not len(pairs) else _steps(rows, largest, pairs)
    steps = largest / counts
    whole = (rows / steps[:, None]).round().clamp(-LARGEST, LARGEST)
    return whole.reshape(weight.shape).to(weight.dtype), steps.to(weight.dtype)


def neighbours(shape: tuple[int, ...], groups: int = 1) -> Tensor:
    """Which weights of a channel are added in 16 bits: (pairs, 2) places in a flattened channel, first < second.

    `shape`: (out, in / groups, kernel height, kernel width), or (out, in).
    """
    out, channels, *kernel = shape
    if channels == 1 and groups == out:
        return torch.zeros((0, 2), dtype=torch.long)
    return _neighbours(channels, int(np.prod(kernel, dtype=int)))


@cache
def _neighbours(channels: int, places: int) -> Tensor:
    positions = torch.arange(channels * places).reshape(channels, places)
    even = channels // 2 * 2
    same_place = positions[:even].reshape(-1, 2, places).transpose(1, 2).reshape(-1, 2)
    in_order = positions.T.reshape(-1)
    in_order = in_order[: len(in_order) // 2 * 2].reshape(-1, 2)
    found: Tensor = torch.unique(torch.cat([same_place, in_order]).sort(1).values, dim=0)
    return found


def partners(shape: tuple[int, ...], groups: int = 1) -> Tensor:
    """Each weight of a channel to those that it is added with: (weights, 0 to 2), the number of weights where none."""
    pairs = neighbours(shape, groups)
    size = int(np.prod(shape[1:], dtype=int))
    found: list[list[int]] = [[] for _ in range(size)]
    for first, second in pairs.tolist():
        found[first].append(second)
        found[second].append(first)
    most = max(map(len, found), default=0)
    return torch.tensor([[*one, *[size] * (most - len(one))] for one in found], dtype=torch.long).reshape(size, most)


def worst_pair(whole: Tensor, pairs: Tensor) -> Tensor:
    """The largest sum, in size, of two neighbours of one sign in each channel (channels, weights): (channels,)."""
    if not len(pairs):
        return torch.zeros(len(whole), dtype=whole.dtype)
    first, second = whole[:, pairs[:, 0]], whole[:, pairs[:, 1]]
    above = first.clamp_min(0) + second.clamp_min(0)
    below = first.clamp_max(0) + second.clamp_max(0)
    return torch.maximum(above, -below).amax(1)


def refuse_saturation(stored: Iterable[StoredWeight]) -> int:
    """The largest sum of a file's pairs. UserError where one can saturate."""
    largest = 0
    for one in stored:
        whole = torch.from_numpy(one.values.astype(np.int32)).flatten(1)
        sums = worst_pair(whole, neighbours(one.values.shape, one.groups))
        here = int(sums.max()) if len(sums) else 0
        if here > PAIR:
            raise UserError(
                f"int8: {one.layer} has two weights that add up to {here}: x86 without VNNI saturates above {PAIR}"
            )
        largest = max(largest, here)
    return largest


def _steps(rows: Tensor, largest: Tensor, pairs: Tensor) -> Tensor:
    """How many steps the largest weight of each channel (channels, weights) is."""
    found = _on_a_grid(rows, largest, pairs)
    needed = PAIR * largest / worst_pair(rows, pairs).clamp_min(_TINY)
    counts = torch.where(found > 0, found, needed.floor().clamp(_ALWAYS, LARGEST))
    open_ = (found == 0).nonzero().ravel()
    while len(open_):
        # Both of a pair may be rounded up.
        whole = (rows[open_] * (counts[open_] / largest[open_])[:, None]).round()
        open_ = open_[worst_pair(whole, pairs) > PAIR]
        counts[open_] -= 1
    return counts


def _on_a_grid(rows: Tensor, largest: Tensor, pairs: Tensor) -> Tensor:
    """How many steps the largest weight of each channel is, where all are whole numbers of them and fit; else 0."""
    found = torch.zeros_like(largest)
    relative = rows / largest[:, None]
    peeked = relative[:, :: max(1, rows.shape[1] // _PEEKED)]
    for count in range(LARGEST, _ALWAYS - 1, -1):
        likely = ((found == 0) & _whole(peeked * count)).nonzero().ravel()
        if len(likely):
            values = relative[likely] * count
            fits = _whole(values) & (worst_pair(values.round(), pairs) <= PAIR)
            found[likely[fits]] = count
    return found


def _whole(values: Tensor) -> Tensor:
    return ((values - values.round()).abs() <= _ON_GRID).all(1)
