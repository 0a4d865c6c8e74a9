"""Small networks made of the blocks, for inputs and targets that are tiny."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from edgecnn.blocks.convolution import convolution
from edgecnn.blocks.depthwise import depthwise_separable
from edgecnn.blocks.residual import basic

_MOBILENET = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
"""Output channels and stride of MobileNetV1's blocks (arXiv:1704.04861, table 1)."""


class Net(nn.Module):
    """Stem, blocks one after the other, and a linear head on the mean of each map: (n, 3, h, w) to (n, classes)."""

    def __init__(self, stem: nn.Module, blocks: Sequence[nn.Module], channels: int, classes: int) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(channels, classes))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def features(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) to the last maps (n, channels, h', w')."""
        maps: Tensor = self.blocks(self.stem(images))
        return maps

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(self.features(images), 1).flatten(1))
        return logits


def small_resnet(classes: int, blocks_per_stage: int = 1) -> Net:
    """CIFAR's ResNet of 6·blocks_per_stage + 2 layers: 16, 32 and 64 channels, (n, 3, 32, 32) to maps (n, 64, 8, 8).

    One block in each stage is ResNet-8, MLPerf Tiny's network for image classification; three are the ResNet-20 of
    arXiv:1512.03385, but with projections.
    """
    blocks, inputs = [], 16
    for outputs, stride in ((16, 1), (32, 2), (64, 2)):
        for position in range(blocks_per_stage):
            blocks.append(basic(inputs, outputs, stride if position == 0 else 1))
            inputs = outputs
    return Net(convolution(3, 16, 3), blocks, inputs, classes)


def depthwise_net(classes: int, width: float) -> Net:
    """MobileNetV1 with `width` times its channels; width 0.25 at 96×96 is MLPerf Tiny's for visual wake words."""
    inputs = scaled(32, width)
    stem, blocks = convolution(3, inputs, 3, stride=2, activation=nn.ReLU6), []
    for channels, stride in _MOBILENET:
        outputs = scaled(channels, width)
        blocks.append(depthwise_separable(inputs, outputs, stride))
        inputs = outputs
    return Net(stem, blocks, inputs, classes)


def scaled(channels: int, width: float) -> int:
    """`channels` × `width`, rounded to a multiple of 8 as SIMD registers like it, and at least 8."""
    return max(8, round(channels * width / 8) * 8)


NETS: dict[str, Callable[[int], nn.Module]] = {
    "resnet_small_32": small_resnet,
    "depthwise_025_96": partial(depthwise_net, width=0.25),
    "depthwise_050_96": partial(depthwise_net, width=0.5),
}
"""Number of classes to a network with random weights."""

NET_SIZES: dict[str, int] = {"resnet_small_32": 32, "depthwise_025_96": 96, "depthwise_050_96": 96}
"""Height and width in pixels that each is meant for; they take others."""
