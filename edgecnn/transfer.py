"""Recipes of fine-tuning: what is frozen, at which rate the rest is trained, and which recipe fits the data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from edgecnn.checkpoint import Recipe, RecipeName
from edgecnn.errors import not_one_of
from edgecnn.models import EMBEDDED, Stage, stages

RECIPES: dict[RecipeName, Recipe] = {
    "none": Recipe(name="none", thawed=0.0, lr=0.0, stem_lr=1.0, epochs=0),
    "head": Recipe(name="head", thawed=0.0, lr=5e-3, stem_lr=1.0, epochs=60),
    "last": Recipe(name="last", thawed=0.35, lr=1e-3, stem_lr=0.1, epochs=15),
    "all": Recipe(name="all", thawed=1.0, lr=1e-3, stem_lr=0.1, epochs=20),
}
"""none: the weights as they are, with their own head. head: a new head on frozen features. last: the head and the last
third of the backbone. all: every layer, the stem at a tenth of the head's rate (discriminative rates: Howard and Ruder,
2018, arXiv:1801.06146)."""

EMBEDDED_RECIPE = RECIPES["all"].model_copy(update={"lr": 3e-3, "stem_lr": 0.5})
"""`all` for an embedded backbone: what it was trained on is narrow, so its stem has more to learn."""

FEW, MANY = 100, 5_000
"""Training images below which only the head is trained, and from which every layer is."""
EMBEDDED_ENOUGH = 200
"""Training images from which every layer of an embedded backbone is trained."""

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate and a weight decay."""

    name: str
    parameters: tuple[nn.Parameter, ...]
    lr: float
    """Peak; the schedule scales it."""
    decays: bool
    """False for biases and normalisation, which weight decay only hurts."""


def recipe_named(name: str) -> Recipe:
    """A recipe of the table. UserError for a name that is not there."""
    for known, recipe in RECIPES.items():
        if known == name:
            return recipe
    raise not_one_of("recipe", name, ["auto", *RECIPES])


def choose_recipe(train_images: int, model: str, weights: str) -> tuple[Recipe, str]:
    """The recipe for `auto`, with the reason. A stated rule, not a search: name a recipe to overrule it.

    Random weights → all (nothing to keep). An embedded backbone with at least 200 training images → all (small enough
    to be cheap, and what it was trained on is narrow). Else by training images: under 100 → head, under 5,000 → last,
    else all.
    """
    if weights == "none":
        return from_scratch(RECIPES["all"]), "the weights are random: there is nothing to keep frozen"
    if model in EMBEDDED and train_images >= EMBEDDED_ENOUGH:
        reason = f"{model} is small and narrowly trained, and {train_images:,} images are enough for it all"
        return EMBEDDED_RECIPE, reason
    if train_images < FEW:
        return RECIPES["head"], f"{train_images:,} training images are fewer than {FEW}: more layers would overfit"
    if train_images < MANY:
        return RECIPES["last"], f"{train_images:,} training images lie between {FEW} and {MANY:,}"
    return RECIPES["all"], f"{train_images:,} training images are at least {MANY:,}"


def from_scratch(recipe: Recipe) -> Recipe:
    """The same recipe for random weights: the stem has as much to learn as the head."""
    return recipe.model_copy(update={"stem_lr": 1.0})


def trained_stages(module: nn.Module, recipe: Recipe) -> list[Stage]:
    """The stages that the recipe trains, in order; the head is the last."""
    every = stages(module)
    backbone = len(every) - 1
    if recipe.name == "none":
        return []
    return every[backbone - round(recipe.thawed * backbone) :]


def param_groups(module: nn.Module, recipe: Recipe) -> list[Group]:
    """Set `requires_grad` for the recipe and return the groups to optimise, from the first trained stage to the head.

    A stage at share d of the way from head to stem trains at lr × stem_lr^d, whatever number of stages the library
    divides the network into. Groups without weight decay follow those with it.
    """
    depth = max(1, len(stages(module)) - 1)
    trained = trained_stages(module, recipe)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    plain = {
        id(parameter) for layer in module.modules() if isinstance(layer, _NORMS) for parameter in layer.parameters()
    }
    groups: list[Group] = []
    for position, stage in enumerate(trained):
        lr = recipe.lr * recipe.stem_lr ** ((len(trained) - 1 - position) / depth)
        for parameter in stage.parameters:
            parameter.requires_grad_(True)
        exempt = [parameter.ndim <= 1 or id(parameter) in plain for parameter in stage.parameters]
        for decays in (True, False):
            chosen = tuple(parameter for parameter, no in zip(stage.parameters, exempt, strict=True) if no != decays)
            if chosen:
                groups.append(Group(stage.name, chosen, lr, decays))
    return groups


def train_mode(module: nn.Module, recipe: Recipe) -> None:
    """Training mode for what is trained. Frozen stages stay in eval mode: their BatchNorm keeps its statistics."""
    trained = {id(part) for stage in trained_stages(module, recipe) for part in stage.modules}
    frozen = {id(part) for stage in stages(module) for part in stage.modules} - trained
    module.train(bool(trained))
    for part in module.modules():
        if id(part) in frozen:
            part.training = False
