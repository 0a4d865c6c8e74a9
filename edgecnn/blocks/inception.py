"""The Inception module: kernels of several sizes side by side (Szegedy et al., 2014, arXiv:1409.4842)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgecnn.block_cost import InceptionWidths
from edgecnn.blocks.convolution import convolution


class Inception(nn.Module):
    """(n, inputs, h, w) to (n, widths.outputs, h, w); 1×1 reductions before the wide kernels."""

    def __init__(self, inputs: int, widths: InceptionWidths) -> None:
        super().__init__()
        self.one = convolution(inputs, widths.one)
        self.three = nn.Sequential(
            convolution(inputs, widths.three_reduced), convolution(widths.three_reduced, widths.three, 3)
        )
        self.five = nn.Sequential(
            convolution(inputs, widths.five_reduced), convolution(widths.five_reduced, widths.five, 5)
        )
        self.pooled = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), convolution(inputs, widths.pooled))

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([self.one(maps), self.three(maps), self.five(maps), self.pooled(maps)], dim=1)
