"""Residual blocks: what goes in is added to what comes out (He et al., 2015, arXiv:1512.03385)."""

from __future__ import annotations

from torch import Tensor, nn

from edgecnn.block_cost import bottleneck_mid, needs_projection
from edgecnn.blocks.convolution import convolution


class Residual(nn.Module):
    """relu(path(x) + shortcut(x))."""

    def __init__(self, path: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.path = path
        self.shortcut = shortcut
        self.activation = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        summed: Tensor = self.activation(self.path(maps) + self.shortcut(maps))
        return summed


def basic(inputs: int, outputs: int, stride: int = 1) -> Residual:
    """Two 3×3 convolutions, the stride in the first: (n, inputs, h, w) to (n, outputs, ⌈h / stride⌉, ⌈w / stride⌉)."""
    path = nn.Sequential(
        convolution(inputs, outputs, 3, stride),
        convolution(outputs, outputs, 3, activation=None),
    )
    return Residual(path, shortcut(inputs, outputs, stride))


def bottleneck(inputs: int, outputs: int, stride: int = 1, mid: int | None = None) -> Residual:
    """1×1 down to `mid` channels, 3×3 with the stride, 1×1 up: shapes as `basic`. `mid` by default: outputs // 4."""
    mid = mid or bottleneck_mid(outputs)
    path = nn.Sequential(
        convolution(inputs, mid),
        convolution(mid, mid, 3, stride),
        convolution(mid, outputs, activation=None),
    )
    return Residual(path, shortcut(inputs, outputs, stride))


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The identity, or a 1×1 projection where width or size changes."""
    if needs_projection(inputs, outputs, stride):
        return convolution(inputs, outputs, 1, stride, activation=None)
    return nn.Identity()
