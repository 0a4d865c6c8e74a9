"""What convolutional blocks cost by formula: weights and multiply-accumulates, layer by layer, without building one.

As in lectures and papers, only the weights of convolutions are counted: no biases, no normalisation, and neither
activations, additions nor pooling are multiply-accumulates. What a built block holds is in `edgecnn.blocks.measured`.
In the formulas M and N are input and output channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

PROJECTION = "projection"
"""Name of the layer in a shortcut whose ends differ in shape."""


class At(NamedTuple):
    """Height and width in pixels of the map that goes into a block."""

    height: int = 1
    width: int = 1

    def after(self, stride: int) -> At:
        """The map that comes out, padded by half the kernel: ⌈height / stride⌉, ⌈width / stride⌉."""
        return At(-(-self.height // stride), -(-self.width // stride))


@dataclass(frozen=True)
class Layer:
    """A convolution."""

    name: str
    inputs: int
    outputs: int
    kernel: int
    """Height and width."""
    groups: int
    """Equal to `inputs` in a depthwise convolution."""
    out: At
    """The map that it writes."""

    @property
    def weights(self) -> int:
        return self.kernel**2 * self.inputs * self.outputs // self.groups

    @property
    def macs(self) -> int:
        """Every weight is used once for each pixel that is written."""
        return self.weights * self.out.height * self.out.width


@dataclass(frozen=True)
class InceptionWidths:
    """Channels of an Inception module's branches."""

    one: int
    """1×1."""
    three_reduced: int
    three: int
    five_reduced: int
    five: int
    pooled: int
    """1×1 after the pooling."""

    @property
    def outputs(self) -> int:
        return self.one + self.three + self.five + self.pooled


def weights(layers: Sequence[Layer]) -> int:
    """Of all layers."""
    return sum(layer.weights for layer in layers)


def macs(layers: Sequence[Layer]) -> int:
    """Multiply-accumulates of all layers for one image."""
    return sum(layer.macs for layer in layers)


def path(layers: Sequence[Layer]) -> list[Layer]:
    """The layers without the shortcut's projection."""
    return [layer for layer in layers if layer.name != PROJECTION]


def plain(inputs: int, outputs: int, at: At, stride: int = 1, kernel: int = 3) -> list[Layer]:
    """k²·M·N: the convolution that the blocks are compared with."""
    return [Layer(f"{kernel}×{kernel}", inputs, outputs, kernel, 1, at.after(stride))]


def basic(inputs: int, outputs: int, at: At, stride: int = 1) -> list[Layer]:
    """9·M·N + 9·N², and M·N where the shortcut is a projection (He et al., 2015, arXiv:1512.03385)."""
    out = at.after(stride)
    return [
        Layer("3×3", inputs, outputs, 3, 1, out),
        Layer("3×3", outputs, outputs, 3, 1, out),
        *_shortcut(inputs, outputs, out, stride),
    ]


def bottleneck(inputs: int, outputs: int, at: At, stride: int = 1, mid: int | None = None) -> list[Layer]:
    """M·B + 9·B² + B·N, and M·N where the shortcut is a projection. B is `mid`, by default N/4. Stride in the 3×3."""
    mid, out = mid or bottleneck_mid(outputs), at.after(stride)
    return [
        Layer("1×1 reduces", inputs, mid, 1, 1, at),
        Layer("3×3", mid, mid, 3, 1, out),
        Layer("1×1 restores", mid, outputs, 1, 1, out),
        *_shortcut(inputs, outputs, out, stride),
    ]


def inception(inputs: int, widths: InceptionWidths, at: At) -> list[Layer]:
    """Four branches side by side, the wide kernels behind a 1×1 (Szegedy et al., 2014, arXiv:1409.4842)."""
    return [
        Layer("1×1", inputs, widths.one, 1, 1, at),
        Layer("1×1 reduces", inputs, widths.three_reduced, 1, 1, at),
        Layer("3×3", widths.three_reduced, widths.three, 3, 1, at),
        Layer("1×1 reduces", inputs, widths.five_reduced, 1, 1, at),
        Layer("5×5", widths.five_reduced, widths.five, 5, 1, at),
        Layer("1×1 after pooling", inputs, widths.pooled, 1, 1, at),
    ]


def depthwise_separable(inputs: int, outputs: int, at: At, stride: int = 1) -> list[Layer]:
    """9·M + M·N: 1/N + 1/9 of the plain convolution (Howard et al., 2017, arXiv:1704.04861)."""
    out = at.after(stride)
    return [
        Layer("3×3 depthwise", inputs, inputs, 3, inputs, out),
        Layer("1×1 pointwise", inputs, outputs, 1, 1, out),
    ]


def inverted_residual(inputs: int, outputs: int, at: At, stride: int = 1, expand: int = 6) -> list[Layer]:
    """M·E + 9·E + E·N with E = expand·M; without the first where expand is 1 (Sandler et al., arXiv:1801.04381)."""
    wide, out = inputs * expand, at.after(stride)
    layers = [
        Layer("1×1 expands", inputs, wide, 1, 1, at),
        Layer("3×3 depthwise", wide, wide, 3, wide, out),
        Layer("1×1 linear", wide, outputs, 1, 1, out),
    ]
    return layers if expand > 1 else layers[1:]


def squeeze_excite(channels: int, reduction: int = 16) -> list[Layer]:
    """2·C·S with S = C/reduction, once for each image: it sees the mean of each map (Hu et al., arXiv:1709.01507)."""
    squeezed, once = squeeze_width(channels, reduction), At(1, 1)
    return [
        Layer("1×1 squeezes", channels, squeezed, 1, 1, once),
        Layer("1×1 excites", squeezed, channels, 1, 1, once),
    ]


def needs_projection(inputs: int, outputs: int, stride: int) -> bool:
    """Whether a residual's shortcut cannot be the identity: width or size changes."""
    return stride != 1 or inputs != outputs


def bottleneck_mid(outputs: int) -> int:
    """ResNet's: a quarter of what comes out."""
    return max(1, outputs // 4)


def inception_widths(outputs: int) -> InceptionWidths:
    """Shares of GoogLeNet's module 3a, which has 256 outputs. `outputs` must be a multiple of 16."""
    if outputs % 16:
        raise ValueError(f"{outputs} outputs cannot be shared among the branches: take a multiple of 16")
    unit = outputs // 16
    return InceptionWidths(4 * unit, 6 * unit, 8 * unit, unit, 2 * unit, 2 * unit)


def squeeze_width(channels: int, reduction: int) -> int:
    """Channels between squeeze and excitation."""
    return max(1, channels // reduction)


def _shortcut(inputs: int, outputs: int, out: At, stride: int) -> list[Layer]:
    return [Layer(PROJECTION, inputs, outputs, 1, 1, out)] if needs_projection(inputs, outputs, stride) else []
