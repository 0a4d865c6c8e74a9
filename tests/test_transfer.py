"""Recipes freeze what they say, at the rates they say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgecnn.models import EMBEDDED, build, head_of, stages
from edgecnn.recipes import StartingPoint, named
from edgecnn.transfer import RECIPES, param_groups, recipe_for, starting_point, train_mode

NETS = ["timm:mobilenetv2_035", "torchvision:resnet18", "torchvision:squeezenet1_1", "timm:convnext_atto"]


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build(name, 3, "none").module


def trained(module: nn.Module) -> set[int]:
    return {id(parameter) for parameter in module.parameters() if parameter.requires_grad}


@pytest.mark.parametrize("name", NETS)
def test_head_trains_the_classifier_alone(name: str) -> None:
    module = network(name)
    groups = param_groups(module, RECIPES["head"])
    _, head = head_of(module)
    assert trained(module) == {id(parameter) for parameter in head.parameters()}
    assert {group.lr for group in groups} == {RECIPES["head"].lr}


@pytest.mark.parametrize("name", NETS)
def test_last_trains_the_end_of_the_backbone_and_the_head(name: str) -> None:
    module = network(name)
    param_groups(module, RECIPES["last"])
    flags = [
        {parameter.requires_grad for parameter in stage.parameters} for stage in stages(module) if stage.parameters
    ]
    assert all(len(flag) == 1 for flag in flags)
    order = [flag.pop() for flag in flags]
    assert order == sorted(order)
    assert not order[0]
    assert sum(order) >= 2


@pytest.mark.parametrize("name", NETS)
def test_all_trains_everything_slower_towards_the_stem(name: str) -> None:
    module = network(name)
    groups = param_groups(module, RECIPES["all"])
    held = [id(parameter) for group in groups for parameter in group.parameters]
    assert sorted(held) == sorted(id(parameter) for parameter in module.parameters())
    rates = [group.lr for group in groups]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(RECIPES["all"].lr * RECIPES["all"].stem_lr)
    assert rates[-1] == RECIPES["all"].lr


def test_last_and_all_give_a_stage_the_same_share_of_the_rate() -> None:
    module = network(NETS[0])
    of_last = {group.name: group.lr / RECIPES["last"].lr for group in param_groups(module, RECIPES["last"])}
    of_all = {group.name: group.lr / RECIPES["all"].lr for group in param_groups(module, RECIPES["all"])}
    assert of_last == pytest.approx({name: of_all[name] for name in of_last})


@pytest.mark.parametrize("name", NETS)
def test_norms_and_biases_do_not_decay(name: str) -> None:
    module = network(name)
    exempt = {id(p) for group in param_groups(module, RECIPES["all"]) if not group.decays for p in group.parameters}
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.LayerNorm):
            assert {id(parameter) for parameter in layer.parameters()} <= exempt
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert id(layer.weight) not in exempt
            assert layer.bias is None or id(layer.bias) in exempt


def test_frozen_batchnorm_keeps_its_statistics() -> None:
    module = network("torchvision:resnet18")
    recipe = RECIPES["last"]
    param_groups(module, recipe)
    train_mode(module, recipe)
    before = {key: value.clone() for key, value in module.state_dict().items() if "running" in key}
    module(torch.randn(4, 3, 32, 32))
    after = module.state_dict()
    changed = {key.partition(".")[0] for key, value in before.items() if not torch.equal(value, after[key])}
    assert changed == {"layer4"}


def test_none_trains_nothing() -> None:
    module = network(NETS[0])
    assert param_groups(module, RECIPES["none"]) == []
    train_mode(module, RECIPES["none"])
    assert not trained(module)
    assert not any(part.training for part in module.modules())


def test_random_weights_train_at_one_rate() -> None:
    module = network(NETS[0])
    start = starting_point(NETS[0], "none")
    assert len({group.lr for group in param_groups(module, recipe_for("all", start))}) == 1
    assert len({group.lr for group in param_groups(module, recipe_for("all", StartingPoint()))}) > 1


def test_an_embedded_backbone_has_rates_of_its_own() -> None:
    name = next(iter(EMBEDDED))
    assert recipe_for("all", starting_point(name, "embedded")).lr == named("all").embedded[0]  # type: ignore[index]
    assert recipe_for("last", starting_point(name, "embedded")) == RECIPES["last"]
    assert recipe_for("all", starting_point(NETS[0], "hub:x")) == RECIPES["all"]


@pytest.mark.parametrize(
    ("model", "weights", "start"),
    [
        (NETS[0], "hub:x", StartingPoint()),
        (NETS[0], "none", StartingPoint(random=True)),
        (next(iter(EMBEDDED)), "embedded:x", StartingPoint(embedded=True)),
        ("vit_small_patch14_dinov2", "hub:x", StartingPoint(features_only=True)),
    ],
)
def test_what_training_starts_from(model: str, weights: str, start: StartingPoint) -> None:
    assert starting_point(model, weights) == start
