"""Recipes of fine-tuning: what is frozen, at which rate the rest is trained, when it thaws, and which recipe fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from edgecnn.checkpoint import Recipe, RecipeName
from edgecnn.errors import UserError, not_one_of
from edgecnn.models import EMBEDDED, Stage, stages
from edgecnn.models.architecture import find_architecture
from edgecnn.models.families import family_of

RECIPES: dict[RecipeName, Recipe] = {
    "none": Recipe(name="none", thawed=0.0, lr=0.0, stem_lr=1.0, epochs=0),
    "head": Recipe(name="head", thawed=0.0, lr=5e-3, stem_lr=1.0, epochs=60),
    "last": Recipe(name="last", thawed=0.17, lr=1e-3, stem_lr=0.1, epochs=25),
    "all": Recipe(name="all", thawed=1.0, lr=1e-3, stem_lr=0.1, epochs=15),
    "progressive": Recipe(name="progressive", thawed=1.0, lr=1e-3, stem_lr=0.1, epochs=15, thaw_by=0.5),
    "scratch": Recipe(name="scratch", thawed=1.0, lr=3e-3, stem_lr=1.0, epochs=25),
}
"""none: the weights as they are, with their own head. head (A): a new head on frozen features. last (B): the head and
the last sixth of the backbone. all (C): every layer, the stem at a tenth of the head's rate (discriminative rates).
progressive: all, thawed from the head down over the first half (both: Howard and Ruder, 2018, arXiv:1801.06146).
scratch: every layer from random weights, whatever weights were given: what transfer has to beat."""

LETTERS: dict[str, RecipeName] = {"A": "head", "B": "last", "C": "all"}
"""The names under which the three recipes are taught."""

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
    """A recipe of the table, by name or letter. UserError for a name that is not there."""
    for known, recipe in RECIPES.items():
        if known == LETTERS.get(name, name):
            return recipe
    raise not_one_of("recipe", name, ["auto", *RECIPES, *LETTERS])


def choose_recipe(train_images: int, model: str, weights: str) -> tuple[Recipe, str]:
    """The recipe by a stated rule, with the reason, where no time is given to compare recipes on the data.

    Random weights → scratch. DINOv2 and CLIP → head. An embedded backbone with at least 200 training images → all
    (small enough to be cheap, and what it was trained on is narrow). Else by training images: under 100 → head,
    under 5,000 → last, else all.
    """
    if weights == "none":
        return RECIPES["scratch"], "the weights are random: there is nothing to keep frozen"
    if fixed_features(model):
        return RECIPES["head"], f"the features of {model} are used as they are: few images cannot better them"
    if model in EMBEDDED and train_images >= EMBEDDED_ENOUGH:
        reason = f"{model} is small and narrowly trained, and {train_images:,} images are enough for it all"
        return EMBEDDED_RECIPE, reason
    if train_images < FEW:
        return RECIPES["head"], f"{train_images:,} training images are fewer than {FEW}: more layers would overfit"
    if train_images < MANY:
        return RECIPES["last"], f"{train_images:,} training images lie between {FEW} and {MANY:,}"
    return RECIPES["all"], f"{train_images:,} training images are at least {MANY:,}"


def fixed_features(model: str) -> bool:
    """Whether the network's family is meant for its features alone (DINOv2, CLIP)."""
    family = family_of(find_architecture(model).full)
    return family is not None and family.frozen_only


def from_scratch(recipe: Recipe) -> Recipe:
    """The same recipe for random weights: the stem has as much to learn as the head."""
    return recipe.model_copy(update={"stem_lr": 1.0})


def thawed_at(recipe: Recipe, epoch: int | None) -> float:
    """Share of the backbone's stages that is trained in an epoch (from 1); None: at the end."""
    if epoch is None or not recipe.thaw_by:
        return recipe.thawed
    return recipe.thawed * min(1.0, (epoch - 1) / max(1, round(recipe.thaw_by * recipe.epochs)))


def trained_stages(module: nn.Module, recipe: Recipe, epoch: int | None = None) -> list[Stage]:
    """The stages that the recipe trains in an epoch (None: at its end), in order; the head is the last."""
    every = stages(module)
    backbone = len(every) - 1
    if recipe.name == "none":
        return []
    return every[backbone - round(thawed_at(recipe, epoch) * backbone) :]


def freeze(module: nn.Module, recipe: Recipe, epoch: int | None = None) -> None:
    """Set `requires_grad` of every parameter as the recipe wants it in an epoch (None: at its end)."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    for stage in trained_stages(module, recipe, epoch):
        for parameter in stage.parameters:
            parameter.requires_grad_(True)


def param_groups(module: nn.Module, recipe: Recipe) -> list[Group]:
    """Freeze what the recipe freezes and return the groups to optimise, from the first trained stage to the head.

    A stage at share d of the way from head to stem trains at lr × stem_lr^d, whatever number of stages the library
    divides the network into; with `decay` r at lr × r^(stages after it), or r^(layers after it) as timm counts them.
    Groups without weight decay follow those with it.
    """
    freeze(module, recipe)
    if recipe.decay_by == "layer" and recipe.name != "none":
        return _layer_groups(module, recipe)
    depth = max(1, len(stages(module)) - 1)
    trained = trained_stages(module, recipe)
    plain = _undecayed(module)
    groups: list[Group] = []
    for position, stage in enumerate(trained):
        after = len(trained) - 1 - position
        lr = recipe.lr * (recipe.stem_lr ** (after / depth) if recipe.decay is None else recipe.decay**after)
        for decays in (True, False):
            chosen = tuple(parameter for parameter in stage.parameters if (id(parameter) not in plain) == decays)
            if chosen:
                groups.append(Group(stage.name, chosen, lr, decays))
    return groups


def train_mode(
    module: nn.Module, recipe: Recipe, epoch: int | None = None, batchnorm: Literal["train", "frozen"] = "train"
) -> None:
    """Training mode for what is trained. Frozen stages stay in eval mode: their BatchNorm keeps its statistics.

    `batchnorm` frozen: that of trained stages too, for batches too small to have statistics of their own.
    """
    trained = {id(part) for stage in trained_stages(module, recipe, epoch) for part in stage.modules}
    frozen = {id(part) for stage in stages(module) for part in stage.modules} - trained
    module.train(bool(trained))
    for part in module.modules():
        still = batchnorm == "frozen" and isinstance(part, nn.modules.batchnorm._BatchNorm)
        if id(part) in frozen or still:
            part.training = False


def _layer_groups(module: nn.Module, recipe: Recipe) -> list[Group]:
    """As timm numbers layers (BEiT's layer-wise decay: Bao et al., 2021, arXiv:2106.08254)."""
    from timm.optim import param_groups_layer_decay

    if not hasattr(module, "group_matcher"):
        raise UserError(
            f"--decay-by layer: {type(module).__name__} does not say what its layers are (timm's networks do): take it "
            "from timm:, or decay by stage"
        )
    rows = param_groups_layer_decay(module, weight_decay=1.0, layer_decay=recipe.decay or 0.75)
    return [
        Group(f"layer group {number}", tuple(row["params"]), recipe.lr * row["lr_scale"], row["weight_decay"] > 0)
        for number, row in enumerate(rows)
    ]


def _undecayed(module: nn.Module) -> set[int]:
    """Biases and normalisation."""
    norms = {id(part) for layer in module.modules() if isinstance(layer, _NORMS) for part in layer.parameters()}
    return norms | {id(parameter) for parameter in module.parameters() if parameter.ndim <= 1}
