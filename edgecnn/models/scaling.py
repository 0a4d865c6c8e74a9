"""Larger and smaller versions of a network as part of its name: name@phi=-1.5 (compound) or name@width=0.6."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import timm.models.efficientnet as timm_efficientnet
import timm.models.mobilenetv3 as timm_mobilenetv3
import torchvision
from torch import nn

from edgecnn.errors import UserError, not_one_of

Kind: TypeAlias = Literal["phi", "width"]

DEPTH, WIDTH, RESOLUTION = 1.2, 1.1, 1.15
"""α, β, γ of EfficientNet (Tan and Le, 2019, arXiv:1905.11946, section 3.3). MACs grow with depth · width² ·
resolution², and α·β²·γ² = 1.92 ≈ 2: about 2^φ times the base network's. (The published B1 to B7 round these by hand:
B1 is width 1.0, depth 1.1, 240 px, not φ = 1.)"""

PHI_LIMITS = (-10.0, 8.0)
WIDTH_LIMITS = (0.1, 4.0)

_SIDE_STEP = 8
"""Pixels that a scaled input side is a multiple of."""


@dataclass(frozen=True)
class Scale:
    """Multipliers of the base network."""

    kind: Kind
    value: float

    def __str__(self) -> str:
        return f"{self.kind}={self.value:g}"

    @property
    def depth(self) -> float:
        """Of the blocks in each stage; rounded up to whole blocks, as EfficientNet's reference code does."""
        return float(DEPTH**self.value) if self.kind == "phi" else 1.0

    @property
    def width(self) -> float:
        """Of the channels; rounded to multiples of 8."""
        return float(WIDTH**self.value) if self.kind == "phi" else self.value

    @property
    def resolution(self) -> float:
        """Of the input's side; rounded to a multiple of 8 pixels."""
        return float(RESOLUTION**self.value) if self.kind == "phi" else 1.0

    def side(self, native: int) -> int:
        """Input side in pixels for a base network of `native` pixels."""
        if self.kind == "width" or self.value == 0:
            return native
        return max(4 * _SIDE_STEP, round(native * self.resolution / _SIDE_STEP) * _SIDE_STEP)


@dataclass(frozen=True)
class _Recipe:
    """How a library builds the base network at other multipliers."""

    generate: Callable[..., nn.Module]
    deepens: bool = False
    """Whether it has a depth multiplier too, which φ needs."""
    arguments: Mapping[str, Any] = field(default_factory=dict)


_TF = {"bn_eps": 1e-3, "pad_type": "same"}

_TIMM: dict[str, _Recipe] = {
    "efficientnet_b0": _Recipe(timm_efficientnet._gen_efficientnet, True),
    "tf_efficientnet_b0": _Recipe(timm_efficientnet._gen_efficientnet, True, _TF),
    "efficientnet_lite0": _Recipe(timm_efficientnet._gen_efficientnet_lite, True),
    "tf_efficientnet_lite0": _Recipe(timm_efficientnet._gen_efficientnet_lite, True, _TF),
    "mobilenetv1_100": _Recipe(timm_efficientnet._gen_mobilenet_v1, True),
    "mobilenetv2_100": _Recipe(timm_efficientnet._gen_mobilenet_v2, True),
    "mobilenetv3_small_100": _Recipe(timm_mobilenetv3._gen_mobilenet_v3, True),
    "mobilenetv3_large_100": _Recipe(timm_mobilenetv3._gen_mobilenet_v3, True),
    "mobilenetv4_conv_small": _Recipe(timm_mobilenetv3._gen_mobilenet_v4),
    "mobilenetv4_conv_medium": _Recipe(timm_mobilenetv3._gen_mobilenet_v4),
    "mnasnet_100": _Recipe(timm_efficientnet._gen_mnasnet_b1),
    "semnasnet_100": _Recipe(timm_efficientnet._gen_mnasnet_a1),
}
"""At width and depth 1 each is the named network itself."""

_TORCHVISION: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v2": lambda width, **rest: torchvision.models.MobileNetV2(width_mult=width, **rest),
    "mobilenet_v3_small": lambda width, **rest: torchvision.models.mobilenet_v3_small(width_mult=width, **rest),
    "mobilenet_v3_large": lambda width, **rest: torchvision.models.mobilenet_v3_large(width_mult=width, **rest),
    "mnasnet1_0": lambda width, **rest: torchvision.models.MNASNet(alpha=width, **rest),
}


def scalable_names(kind: Kind) -> list[str]:
    """Networks that take @phi=… or @width=…, with their library."""
    ours = [f"timm:{name}" for name, recipe in _TIMM.items() if kind == "width" or recipe.deepens]
    return ours + ([f"torchvision:{name}" for name in _TORCHVISION] if kind == "width" else [])


def parse_scale(text: str, full: str) -> Scale:
    """What stands behind the @ of a name, for the network `full` (timm:efficientnet_b0). UserError where it is bad."""
    where = f"model {full}@{text}"
    word, _, number = text.partition("=")
    kind = next((known for known in _MEANING if known == word), None)
    if kind is None:
        raise not_one_of(where, word, "phi=…, width=… (such as @phi=-1.5, @width=0.6)")
    low, high = PHI_LIMITS if kind == "phi" else WIDTH_LIMITS
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise UserError(f"{where}: {number!r} is not a number from {low:g} to {high:g}")
    if full not in scalable_names(kind):
        raise not_one_of(f"{where}: model with a multiplier of {_MEANING[kind]}", full, scalable_names(kind))
    return Scale(kind, round(value, 4) + 0.0)  # the name shows 6 digits; -0.0 becomes 0.0


def create_scaled(library: str, name: str, scale: Scale, **arguments: Any) -> nn.Module:
    """The network with random weights at the scale's multipliers; `arguments` are the library's own."""
    if library == "torchvision":
        return _TORCHVISION[name](scale.width, **arguments)
    recipe = _TIMM[name]
    depth = {"depth_multiplier": scale.depth} if recipe.deepens else {}
    return recipe.generate(name, channel_multiplier=scale.width, **depth, **recipe.arguments, **arguments)


_MEANING: dict[Kind, str] = {"phi": "depth, width and resolution", "width": "width"}
