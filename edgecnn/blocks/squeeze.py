"""Squeeze-and-excite: channels weighed by what the whole image shows (Hu et al., 2017, arXiv:1709.01507)."""

from __future__ import annotations

from torch import Tensor, nn

from edgecnn.block_cost import squeeze_width


class SqueezeExcite(nn.Module):
    """(n, channels, h, w) to the same shape: each channel times a number from 0 to 1. No normalisation, but biases."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        squeezed = squeeze_width(channels, reduction)
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, maps: Tensor) -> Tensor:
        weighed: Tensor = maps * self.weigh(maps)
        return weighed
