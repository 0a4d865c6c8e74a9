"""What to try first, from facts about the data and the device: rules of thumb, each stated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic import Field

from edgecnn.checkpoint import RecipeName
from edgecnn.documents import Frozen
from edgecnn.recipes import StartingPoint, recommend

Nearness: TypeAlias = Literal["near", "far", "unknown"]
"""Whether pretrained features already tell the images apart."""

CAUTION = (
    "These are rules of thumb: `edgecnn finetune --recipe auto` compares recipes on your own images and decides by "
    "that evidence, `edgecnn bench` decides whether the device keeps its budget."
)
FEW, PLENTY = 100, 100_000
"""Training images below which labels are few, and from which training from scratch is worth a comparison."""
FEW_OF_A_CLASS = 20
"""Training images of a class below which its recall says little."""
UNBALANCED = 10.0
"""Largest class to smallest above which accuracy hides the small one."""
LARGE_SIDE = 800
"""Median longer side in pixels above which resizing may lose small defects."""
SHRINKS = 2.5
"""Times that resizing shrinks an image before it is spoken of."""
STRONG_MS = 100.0
"""Budget from which a small vision transformer is within reach of one desktop core."""


class Facts(Frozen):
    """What the rules ask about."""

    train_images: int = Field(ge=0)
    classes: int = Field(ge=1)
    smallest_class: int = Field(ge=0)
    """Training images of the rarest class."""
    largest_class: int = Field(ge=0)
    domain: Nearness = "unknown"
    start: StartingPoint = StartingPoint()
    median_side: float | None = Field(default=None, gt=0)
    """Longer side of the files in pixels."""
    least_side: int | None = Field(default=None, gt=0)
    """Shortest side of any file in pixels."""
    input_size: int = Field(gt=0)
    machine: Literal["x86_64", "aarch64"] = "x86_64"
    target: str = "desktop-cpu"
    budget_ms: float = Field(default=30.0, gt=0)


class Rule(Frozen):
    """A rule that fired."""

    name: str
    text: str
    source: str | None = None


class Advice(Frozen):
    """What to try first, and why."""

    recipe: RecipeName
    backbones: tuple[str, ...]
    """Names for --model, the likeliest first."""
    rules: tuple[Rule, ...]
    """The first chose the recipe, the second the backbones."""
    caution: str = CAUTION


@dataclass(frozen=True)
class _Device:
    """A row of the latency rule."""

    machine: Literal["x86_64", "aarch64"]
    target: str
    """Part of the target's name; empty: any."""
    at_most_ms: float
    backbones: tuple[str, ...]
    why: str
    source: str


_MOBILE = "arXiv:1801.04381, arXiv:1905.02244, arXiv:2404.10518"
DEVICES: tuple[_Device, ...] = (
    _Device("aarch64", "pi-5", 30, ("mobilenetv4_conv_small", "mobilenetv3_large_100", "efficientnet_lite0"),
            "has INT8 dot products: plain convolutions and ReLU quantise well", _MOBILE),
    _Device("aarch64", "", 30, ("mobilenetv3_small_100", "mobilenetv2_050", "mobilenetv4_conv_small"),
            "a small core: tens of millions of multiply-accumulates, not hundreds", _MOBILE),
    _Device("aarch64", "", math.inf, ("mobilenetv2_100", "mobilenetv3_large_100", "efficientnet_lite0"),
            "a small core with time: MobileNet at full width, EfficientNet without what quantises badly", _MOBILE),
    _Device("x86_64", "", 30, ("mobilenetv3_large_100", "mobilenetv2_100", "efficientnet_b0", "resnet18"),
            "a tight budget for one desktop core: MobileNets first, ResNet-18 where INT8 is fast",
            "arXiv:1905.02244, arXiv:1905.11946, arXiv:1512.03385"),
    _Device("x86_64", "", math.inf, ("resnet50", "efficientnet_b0", "convnext_tiny", "resnet18"),
            "a desktop core with time: stronger features", "arXiv:1512.03385, arXiv:1905.11946, arXiv:2201.03545"),
)  # fmt: skip
"""The first row that fits holds. Names as timm has them."""


def advise(facts: Facts) -> Advice:
    """The recipe and backbones by the stated rules, with every rule that fired."""
    chosen = recommend(facts.train_images, facts.start)
    first = Rule(name=chosen.rule, text=chosen.text, source=chosen.source)
    device = _device(facts)
    budget = f"{facts.target} at ≤ {facts.budget_ms:g} ms"
    rules = (first, Rule(name="device", text=f"{budget}: {device.why}", source=device.source), *_besides(facts))
    return Advice(recipe=chosen.recipe, backbones=device.backbones, rules=rules)


def _device(facts: Facts) -> _Device:
    return next(
        row
        for row in DEVICES
        if row.machine == facts.machine and row.target in facts.target and facts.budget_ms <= row.at_most_ms
    )


def _besides(facts: Facts) -> Iterator[Rule]:
    """Rules that change neither recipe nor backbones, but what to do with them."""
    yield from _by_size(facts)
    yield from _by_classes(facts)
    yield from _by_resolution(facts)


def _by_size(facts: Facts) -> Iterator[Rule]:
    if facts.train_images < FEW:
        strong = facts.machine == "x86_64" and facts.budget_ms >= STRONG_MS
        where = (
            "vit_small_patch14_dinov2 or vit_base_patch32_clip_224 is within reach of this target"
            if strong
            else "DINOv2 or CLIP is beyond this target's budget, so use it to label more images, not to deploy"
        )
        text = (
            f"few labels (< {FEW}): frozen strong features with a linear probe or nearest neighbours are hard to "
            f"beat; {where}"
        )
        yield Rule(name="few labels", text=text, source="arXiv:2304.07193, arXiv:2103.00020")
    if facts.train_images >= PLENTY and facts.domain != "near" and not facts.start.random:
        text = f"≥ {PLENTY:,} images and a domain that is {facts.domain}: --recipe scratch is worth a comparison"
        yield Rule(name="scratch", text=text, source="He et al., 2018, arXiv:1811.08883")


def _by_classes(facts: Facts) -> Iterator[Rule]:
    if facts.smallest_class < FEW_OF_A_CLASS:
        text = (
            f"the smallest class has {facts.smallest_class} training images (< {FEW_OF_A_CLASS}): its recall will rest "
            "on a handful of test images; collect more of it before anything else"
        )
        yield Rule(name="small class", text=text)
    ratio = facts.largest_class / max(1, facts.smallest_class)
    if ratio > UNBALANCED:
        text = (
            f"imbalance {ratio:.1f}:1 (> {UNBALANCED:.0f}): keep --class-weights sqrt (the default) or try balanced; "
            "judge by mean recall and each class's recall, not by accuracy"
        )
        yield Rule(name="imbalance", text=text, source="Cui et al., 2019, arXiv:1901.05555")


def _by_resolution(facts: Facts) -> Iterator[Rule]:
    if facts.median_side is not None and facts.median_side > LARGE_SIDE:
        shrinks = facts.median_side / facts.input_size
        if shrinks >= SHRINKS:
            text = (
                f"files of {facts.median_side:.0f} px in a {facts.input_size} px input: a defect shrinks {shrinks:.1f} "
                f"times, one of 20 px to {20 / shrinks:.0f} px; where defects are small take --size "
                f"{_larger(facts)}, an EfficientNet made for its size, or tiles of the image"
            )
            yield Rule(name="high resolution", text=text, source="arXiv:1905.11946, arXiv:2202.06934")
    if facts.least_side is not None and facts.median_side is not None and facts.median_side < facts.input_size / 1.5:
        text = (
            f"files of {facts.median_side:.0f} px are enlarged to {facts.input_size} px, which adds work and no "
            f"detail: a smaller --size may be as good and is faster"
        )
        yield Rule(name="low resolution", text=text)


def _larger(facts: Facts) -> int:
    """Twice the input, in steps of 32, no more than the files have."""
    return int(min(2 * facts.input_size, facts.median_side or 0)) // 32 * 32
