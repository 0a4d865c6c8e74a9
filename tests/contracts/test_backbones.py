"""What every backbone promises: it builds with our head, freezes by stages, exports to ONNX, and answers the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgecnn import formats, runtimes
from edgecnn.formats import Source
from edgecnn.models import Deployed, build, head_of, stages
from edgecnn.models.families import FAMILIES, Family, family_of
from edgecnn.transfer import RECIPES, param_groups

CLASSES = 3
TOLERANCE, ROUNDING = 1e-4, {"inception": 1e-3}
"""Of the logits' scale. Inception's with random weights are nearly constant, so that float32's rounding shows more."""


LONG_TO_EXPORT = {"resnext", "wide_resnet", "inception", "googlenet", "dinov2"}
"""Families whose export is slow even for the first member, since it has many layers: more than 10 s of tracing."""
SAME_OPERATIONS = {"efficientnet_lite", "mnasnet", "clip"}
"""Families of operations that are all in one that is tried: mobilenet_v2, resnet, vit."""


def cases(*slow_families: str) -> list[Any]:
    """Every family's first member; the others, and those of the slow families, only where minutes are at hand."""
    return [
        pytest.param(family, name, id=name, marks=() if quick else pytest.mark.slow)
        for family in FAMILIES
        for name in family.members
        for quick in (name == family.members[0] and family.name not in slow_families,)
    ]


def side_of(name: str) -> int:
    """A small input that the network takes: a multiple of the patch; inception pools until little is left."""
    if "patch" in name:
        return 2 * int(name.partition("patch")[2][:2])
    return 299 if "inception" in name else 64


def noise(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def lived_in(name: str, side: int) -> Deployed:
    """Random weights, BatchNorm statistics of noisy images: signals keep their scale."""
    torch.manual_seed(0)
    built = build(name, CLASSES, "none", size=side)
    norms = [layer for layer in built.module.modules() if isinstance(layer, nn.BatchNorm2d)]
    deployed = Deployed(built.module, built.preprocess)
    for norm in norms:
        norm.momentum = None
        norm.training = True
    with torch.no_grad():
        deployed(torch.from_numpy(noise(8, side)))
    return deployed.train()


@pytest.mark.parametrize(("family", "name"), cases())
def test_a_backbone_builds_with_our_head_and_freezes_by_stages(family: Family, name: str) -> None:
    built = build(name, CLASSES, "none", size=side_of(name))
    assert built.name == name
    assert family_of(name) == family
    assert head_of(built.module)[1].weight.shape[0] == CLASSES
    freezes_by_stages(built.module)


@pytest.mark.parametrize(("family", "name"), cases(*LONG_TO_EXPORT, *SAME_OPERATIONS))
def test_a_backbone_exports_to_onnx_and_answers_the_same(family: Family, name: str, tmp_path: Path) -> None:
    side = side_of(name)
    deployed = lived_in(name, side)
    images = noise(2, side)
    with torch.inference_mode():
        expected = deployed(torch.from_numpy(images)).numpy()
    assert expected.shape == (2, CLASSES)
    assert np.isfinite(expected).all()
    assert expected.std() > 0
    converted = formats.convert("onnx", Source(deployed, side, side, tmp_path), "fp32", tmp_path / "out")
    session = runtimes.open_file(tmp_path / "out" / converted.files[0], "onnxruntime", "fp32", 1)
    assert np.abs(session.run(images) - expected).max() / expected.std() <= ROUNDING.get(family.name, TOLERANCE)
    session.close()


def freezes_by_stages(module: nn.Module) -> None:
    found = stages(module)
    held = [id(parameter) for stage in found for parameter in stage.parameters]
    assert sorted(held) == sorted(id(parameter) for parameter in module.parameters())
    assert len(found) >= 4
    head = {id(parameter) for parameter in head_of(module)[1].parameters()}
    trained = {recipe: trained_by(module, recipe) for recipe in ("head", "last", "all")}
    assert trained["head"] == head
    assert head < trained["last"] < trained["all"]
    assert trained["all"] == set(held)


def trained_by(module: nn.Module, recipe: Any) -> set[int]:
    """What the recipe trains; its groups and `requires_grad` agree."""
    groups = param_groups(module, RECIPES[recipe])
    grouped = [id(parameter) for group in groups for parameter in group.parameters]
    assert len(set(grouped)) == len(grouped)
    assert set(grouped) == {id(parameter) for parameter in module.parameters() if parameter.requires_grad}
    return set(grouped)


def test_families_do_not_share_members() -> None:
    members = [name for family in FAMILIES for name in family.members]
    assert len(set(members)) == len(members)
    assert family_of("timm:efficientnet_b0@phi=-1").name == "efficientnet"  # type: ignore[union-attr]
    assert family_of("timm:densenet121") is None
    assert {family.name for family in FAMILIES if family.frozen_only} == {"dinov2", "clip"}
