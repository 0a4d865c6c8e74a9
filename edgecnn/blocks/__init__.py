"""Building blocks of convolutional networks, and small networks made of them. Needs torch; the formulas do not."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from edgecnn.block_cost import InceptionWidths, inception_widths
from edgecnn.blocks.convolution import convolution
from edgecnn.blocks.depthwise import InvertedResidual, depthwise, depthwise_separable
from edgecnn.blocks.inception import Inception
from edgecnn.blocks.nets import NET_SIZES, NETS, Net, depthwise_net, small_resnet
from edgecnn.blocks.residual import Residual, basic, bottleneck, shortcut
from edgecnn.blocks.squeeze import SqueezeExcite

__all__ = [
    "BLOCKS",
    "NETS",
    "NET_SIZES",
    "Inception",
    "InceptionWidths",
    "InvertedResidual",
    "Net",
    "Residual",
    "SqueezeExcite",
    "basic",
    "bottleneck",
    "convolution",
    "depthwise",
    "depthwise_net",
    "depthwise_separable",
    "shortcut",
    "small_resnet",
]


def _plain(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return convolution(inputs, outputs, 3, stride)


def _inception(inputs: int, outputs: int) -> nn.Module:
    return Inception(inputs, inception_widths(outputs))


def _squeeze_excite(inputs: int, reduction: int = 16) -> nn.Module:
    return SqueezeExcite(inputs, reduction)


BLOCKS: dict[str, Callable[..., nn.Module]] = {
    "plain": _plain,
    "basic": basic,
    "bottleneck": bottleneck,
    "inception": _inception,
    "depthwise-separable": depthwise_separable,
    "inverted-residual": InvertedResidual,
    "squeeze-excite": _squeeze_excite,
}
"""By the names of `edgecnn explain block`, with its options as keywords: inputs, outputs, stride, mid, …"""
