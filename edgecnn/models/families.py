"""The named families of backbones: the one list that the catalogue and the contract test go through."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Networks of one design, the first the cheapest."""

    name: str
    members: tuple[str, ...]
    """As `edgecnn.models.build` takes them, with their library."""
    frozen_only: bool = False
    """Features as they are: train only the head (recipe `head`). Their pretraining is worth more than what a small set
    of images can teach them, and they have not been fine-tuned here."""


_SMALL_REGNETS = ("002", "004", "006", "008")

FAMILIES = (
    Family("resnet", tuple(f"timm:resnet{depth}" for depth in (18, 34, 50, 101, 152))),
    Family("resnext", ("timm:resnext50_32x4d", "timm:resnext101_32x8d")),
    Family("wide_resnet", ("timm:wide_resnet50_2", "timm:wide_resnet101_2")),
    Family("googlenet", ("torchvision:googlenet",)),
    Family("inception", ("torchvision:inception_v3",)),
    Family("mobilenet_v1", ("timm:mobilenetv1_100", "timm:mobilenetv1_100h", "timm:mobilenetv1_125")),
    Family(
        "mobilenet_v2",
        (
            *(f"timm:mobilenetv2_{width}" for width in ("035", "050", "075", "100")),
            "torchvision:mobilenet_v2",
            *(f"timm:mobilenetv2_{width}" for width in ("110d", "140", "120d")),
        ),
    ),
    Family(
        "mobilenet_v3",
        (
            *(f"timm:mobilenetv3_small_{width}" for width in ("050", "075", "100")),
            "timm:tf_mobilenetv3_small_100",
            "torchvision:mobilenet_v3_small",
            *(f"timm:mobilenetv3_large_{width}" for width in ("075", "100")),
            "torchvision:mobilenet_v3_large",
        ),
    ),
    Family(
        "mobilenet_v4",
        tuple(f"timm:mobilenetv4_conv_{size}" for size in ("small_035", "small_050", "small", "medium", "large")),
    ),
    Family(
        "efficientnet",
        (
            *(f"timm:efficientnet_b{phi}" for phi in range(6)),
            # timm has no weights for its own B6 and B7.
            *(f"timm:tf_efficientnet_b{phi}" for phi in (6, 7)),
        ),
    ),
    Family("efficientnet_lite", tuple(f"timm:tf_efficientnet_lite{phi}" for phi in range(5))),
    Family("mnasnet", tuple(f"torchvision:mnasnet{width}" for width in ("0_5", "0_75", "1_0", "1_3"))),
    Family("shufflenet_v2", tuple(f"torchvision:shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0"))),
    Family("regnet", tuple(f"timm:regnet{kind}_{size}" for size in _SMALL_REGNETS for kind in "xy")),
    Family("convnext", tuple(f"timm:convnext_{size}" for size in ("atto", "femto", "pico", "nano", "tiny"))),
    Family("vit", tuple(f"timm:vit_{size}_patch16_224" for size in ("tiny", "small", "base"))),
    Family(
        "dinov2",
        tuple(f"timm:vit_{size}_dinov2" for size in ("small_patch14", "small_patch14_reg4", "base_patch14")),
        frozen_only=True,
    ),
    Family(
        "clip",
        tuple(f"timm:vit_{size}_clip_224" for size in ("xsmall_patch16", "medium_patch32", "base_patch32")),
        frozen_only=True,
    ),
    Family("edgecnn", tuple(f"edgecnn:{name}" for name in ("resnet_small_32", "depthwise_025_96", "depthwise_050_96"))),
)


def family_of(name: str) -> Family | None:
    """The family of a network with its library (timm:resnet18, or a scaled timm:efficientnet_b0@phi=-1)."""
    plain = name.partition("@")[0]
    return next((family for family in FAMILIES if plain in family.members), None)
