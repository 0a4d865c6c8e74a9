"""Blocks around a depthwise convolution, which filters each channel by itself and leaves the mixing to 1×1."""

from __future__ import annotations

from torch import Tensor, nn

from edgecnn.block_cost import needs_projection
from edgecnn.blocks.convolution import convolution


def depthwise(channels: int, stride: int = 1) -> nn.Sequential:
    """One 3×3 filter for each channel: (n, channels, h, w) to (n, channels, ⌈h / stride⌉, ⌈w / stride⌉)."""
    return convolution(channels, channels, 3, stride, groups=channels, activation=nn.ReLU6)


def depthwise_separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """MobileNetV1's block: (n, inputs, h, w) to (n, outputs, ⌈h / stride⌉, ⌈w / stride⌉) (arXiv:1704.04861)."""
    return nn.Sequential(depthwise(inputs, stride), convolution(inputs, outputs, activation=nn.ReLU6))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: wide inside, narrow between blocks, where an activation would lose what it cuts off.

    (n, inputs, h, w) to (n, outputs, ⌈h / stride⌉, ⌈w / stride⌉). Added to its input only where shapes agree: there is
    no projection (Sandler et al., 2018, arXiv:1801.04381).
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, expand: int = 6) -> None:
        super().__init__()
        wide = inputs * expand
        widen = [convolution(inputs, wide, activation=nn.ReLU6)] if expand > 1 else []
        self.path = nn.Sequential(*widen, depthwise(wide, stride), convolution(wide, outputs, activation=None))
        self.added = not needs_projection(inputs, outputs, stride)

    def forward(self, maps: Tensor) -> Tensor:
        passed: Tensor = self.path(maps)
        return maps + passed if self.added else passed
