"""The network that a name stands for: found in timm, torchvision or EMBEDDED, and built with random weights."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import timm
import torchvision
from torch import nn

from edgecnn.artifact import Preprocess
from edgecnn.blocks import NET_SIZES, NETS
from edgecnn.errors import UserError, first_line, not_one_of
from edgecnn.models.parts import head_dropouts, head_of
from edgecnn.models.scaling import Scale, create_scaled, parse_scale

EMBEDDED = {"edgecnn_mobilenetv2_035": ("mobilenetv2_035", 96, "mobilenetv2_035_surfaces_96.safetensors")}
"""Backbones that ship with the package: our name to timm's name, input size in pixels, file in edgecnn/weights."""

_HEAD_STD = 0.01
"""Standard deviation of a new head's weights, as in torchvision's MobileNets."""

_AUXILIARY = {"googlenet", "inception_v3"}
"""torchvision networks with a second head that is used in training only: built without it."""


@dataclass(frozen=True)
class Architecture:
    """A library's network, before it is built."""

    library: Literal["timm", "torchvision", "edgecnn"]
    name: str
    tag: str = ""
    """timm's name for a set of hub weights."""
    size: int | None = None
    """Input size in pixels that our own weights were trained at; None: as the library says."""
    public: str = ""
    scale: Scale | None = None
    """Set where the name has a suffix: other multipliers than the library's own, for which no weights exist."""

    @property
    def full(self) -> str:
        return self.public or f"{self.library}:{self.name}" + (f"@{self.scale}" if self.scale else "")


def find_architecture(name: str) -> Architecture:
    """As `build` takes names, such as resnet18, timm:resnet18.a1_in1k, efficientnet_b0@phi=-1.5.

    Raises UserError: an unknown name, with close ones; a suffix that the network does not take.
    """
    plain, at, suffix = name.partition("@")
    if at:
        base = find_architecture(plain)
        return replace(base, tag="", scale=parse_scale(suffix, base.full))
    library, _, rest = name.rpartition(":")
    if name in EMBEDDED:
        timm_name, size, _ = EMBEDDED[name]
        return Architecture("timm", timm_name, size=size, public=name)
    if library not in ("", "timm", "torchvision", "edgecnn"):
        raise not_one_of("model", f"{library}:", "timm:, torchvision:, edgecnn:")
    if rest in NETS and library in ("", "edgecnn"):
        return Architecture("edgecnn", rest)
    if library == "edgecnn":
        raise not_one_of("model", name, [f"edgecnn:{known}" for known in NETS])
    architecture, _, tag = rest.partition(".")
    if library != "torchvision" and timm.is_model(rest):
        return Architecture("timm", architecture, tag)
    if library != "timm" and rest in _torchvision_names():
        return Architecture("torchvision", rest)
    raise not_one_of("model", name, _suggestions(rest, library))


def create_module(architecture: Architecture, classes: int, dropout: float | None, size: int | None) -> nn.Module:
    """The network with random weights, those of the head small."""
    module = _CREATE[architecture.library](architecture, classes, dropout, size)
    # Some of timm's networks draw the head from ±1/√classes: for few classes a loss of 6 to begin with.
    _, head = head_of(module)
    nn.init.normal_(head.weight, std=_HEAD_STD)
    if head.bias is not None:
        nn.init.zeros_(head.bias)
    return module


def preprocess_of(architecture: Architecture, size: int | None) -> Preprocess:
    """Input size, mean and standard deviation of the library's pretrained weights; the whole image, stretched."""
    mean: Sequence[float]
    std: Sequence[float]
    if architecture.library == "edgecnn":
        native, mean, std = (
            NET_SIZES[architecture.name],
            timm.data.IMAGENET_DEFAULT_MEAN,
            timm.data.IMAGENET_DEFAULT_STD,
        )
    elif architecture.library == "timm":
        name = f"{architecture.name}.{architecture.tag}" if architecture.tag else architecture.name
        config = timm.get_pretrained_cfg(name)
        native, mean, std = config.input_size[1], config.mean, config.std
    else:
        preset = torchvision.models.get_model_weights(architecture.name).DEFAULT.transforms()
        native, mean, std = preset.crop_size[0], preset.mean, preset.std
    side = size or architecture.size or int(native)
    if architecture.scale and not size:
        side = architecture.scale.side(side)
    return Preprocess(height=side, width=side, mean=_three(mean), std=_three(std))


def _suggestions(name: str, library: str) -> str:
    known = [*EMBEDDED, *NETS] if not library else []
    if library != "torchvision":
        known += timm.list_models()
    if library != "timm":
        known += [f"torchvision:{known_name}" for known_name in _torchvision_names()]
    bare = {entry.rpartition(":")[2].replace("_", ""): entry for entry in reversed(known)}
    close = difflib.get_close_matches(name.lower().replace("_", "").replace("-", ""), bare, n=5, cutoff=0.5)
    shown = ", ".join(bare[match] for match in close) if close else "mobilenetv2_100, resnet18, efficientnet_b0"
    return f"timm's {len(timm.list_models())} or torchvision's {len(_torchvision_names())} networks; close: {shown}"


def _torchvision_names() -> list[str]:
    return list(torchvision.models.list_models(module=torchvision.models))


def _create_timm(architecture: Architecture, classes: int, dropout: float | None, size: int | None) -> nn.Module:
    arguments: dict[str, Any] = {}
    if dropout is not None:
        arguments["drop_rate"] = dropout
    if architecture.scale:
        return create_scaled("timm", architecture.name, architecture.scale, num_classes=classes, **arguments)
    if size is not None and timm.get_pretrained_cfg(architecture.name).fixed_input_size:
        arguments["img_size"] = size
    try:
        module: nn.Module = timm.create_model(architecture.name, num_classes=classes, **arguments)
    except (TypeError, AssertionError, ValueError) as error:
        raise UserError(f"{architecture.full}: timm cannot build it with {arguments}: {first_line(error)}") from None
    return module


def _create_torchvision(architecture: Architecture, classes: int, dropout: float | None, size: int | None) -> nn.Module:
    arguments: dict[str, Any] = {}
    if architecture.name in _AUXILIARY:
        arguments = {"aux_logits": False, "init_weights": True}
    if size is not None and architecture.name.startswith("vit_"):
        arguments["image_size"] = size
    try:
        module = _plain_torchvision(architecture, classes, arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{architecture.full}: torchvision cannot build it: {first_line(error)}") from None
    if dropout is not None:
        _set_dropout(module, architecture, dropout)
    return module


def _create_ours(architecture: Architecture, classes: int, dropout: float | None, size: int | None) -> nn.Module:
    del size  # they take any
    module = NETS[architecture.name](classes)
    if dropout is not None:
        _set_dropout(module, architecture, dropout)
    return module


_CREATE = {"timm": _create_timm, "torchvision": _create_torchvision, "edgecnn": _create_ours}


def _plain_torchvision(architecture: Architecture, classes: int, arguments: dict[str, Any]) -> nn.Module:
    if architecture.scale:
        return create_scaled("torchvision", architecture.name, architecture.scale, num_classes=classes)
    module: nn.Module = torchvision.models.get_model(architecture.name, weights=None, num_classes=classes, **arguments)
    return module


def _set_dropout(module: nn.Module, architecture: Architecture, dropout: float) -> None:
    layers = head_dropouts(module)
    if not layers:
        raise UserError(
            f"{architecture.full} has no dropout before its head: leave --dropout out, or take it from timm:"
        )
    layers[-1].p = dropout


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
