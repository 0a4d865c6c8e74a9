"""A recipe put to a network: what is frozen, at which rate the rest is trained, when it thaws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from edgecnn import recipes
from edgecnn.checkpoint import Recipe, RecipeName
from edgecnn.errors import UserError
from edgecnn.models import EMBEDDED, Stage, stages
from edgecnn.models.architecture import find_architecture
from edgecnn.models.families import family_of
from edgecnn.recipes import StartingPoint

RECIPES: dict[RecipeName, Recipe] = {
    known.name: Recipe(
        name=known.name,
        thawed=known.thawed,
        lr=known.lr,
        stem_lr=known.stem_lr,
        epochs=known.epochs,
        thaw_by=known.thaw_by,
    )
    for known in recipes.RECIPES
}
"""The table as a checkpoint records it. For a network's own rates: `recipe_for`."""

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


def starting_point(model: str, weights: str) -> StartingPoint:
    """What the rule asks. `weights`: as recorded, or as asked for; only none matters."""
    full = find_architecture(model).full
    family = family_of(full)
    return StartingPoint(
        random=weights == "none",
        embedded=full in EMBEDDED,
        features_only=family is not None and family.frozen_only,
    )


def recipe_for(name: str, start: StartingPoint) -> Recipe:
    """A recipe of the table with the rates for these weights: for random ones the stem learns as fast as the head."""
    known = recipes.named(name)
    recipe = RECIPES[known.name]
    if start.random:
        return recipe.model_copy(update={"stem_lr": 1.0})
    if start.embedded and known.embedded:
        lr, stem_lr = known.embedded
        return recipe.model_copy(update={"lr": lr, "stem_lr": stem_lr})
    return recipe


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
