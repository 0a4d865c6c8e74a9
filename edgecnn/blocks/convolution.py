"""A convolution with its normalisation and activation: what every block is made of."""

from __future__ import annotations

from torch import nn


def convolution(
    inputs: int,
    outputs: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.ReLU] | type[nn.ReLU6] | None = nn.ReLU,
) -> nn.Sequential:
    """(n, inputs, h, w) to (n, outputs, ⌈h / stride⌉, ⌈w / stride⌉), for odd kernels. The bias is BatchNorm's."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if activation is not None:
        layers.append(activation(inplace=True))
    return nn.Sequential(*layers)
