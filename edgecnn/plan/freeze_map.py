"""The freeze map: which stages of this very network each recipe trains, and at which learning rate."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from edgecnn.checkpoint import Recipe, RecipeName
from edgecnn.documents import Frozen
from edgecnn.models import stages
from edgecnn.recipes import RECIPES, StartingPoint
from edgecnn.transfer import param_groups, recipe_for

COMPARED: tuple[RecipeName, ...] = tuple(known.name for known in RECIPES if known.letter)
"""Those that are taught under a letter; the last trains every layer."""


class StageRow(Frozen):
    """A stage, from input to output."""

    name: str
    parameters: int
    lr: Mapping[RecipeName, float | None]
    """Peak rate under each recipe; None: frozen."""


class Trained(Frozen):
    """What a recipe trains."""

    recipe: RecipeName
    trainable: int
    frozen: int
    """Parameters."""
    stages: int
    """Trained ones, with the head."""

    @property
    def share(self) -> float:
        """Of all parameters."""
        return self.trainable / max(1, self.trainable + self.frozen)


class FreezeMap(Frozen):
    """Recipes side by side."""

    stages: tuple[StageRow, ...]
    recipes: tuple[Trained, ...]


def freeze_map(module: nn.Module, start: StartingPoint) -> FreezeMap:
    """Rates and counts from the very groups that the optimiser gets. Leaves `requires_grad` as the last recipe sets
    it."""
    every = stages(module)
    rates = {name: _rates(module, recipe_for(name, start)) for name in COMPARED}
    rows = tuple(
        StageRow(
            name=stage.name,
            parameters=sum(parameter.numel() for parameter in stage.parameters),
            lr={name: _rate(rates[name], stage.parameters) for name in COMPARED},
        )
        for stage in every
    )
    return FreezeMap(stages=rows, recipes=tuple(_trained(name, rows, module, rates[name]) for name in COMPARED))


def _rates(module: nn.Module, recipe: Recipe) -> dict[int, float]:
    """Learning rate of each trained parameter, by its id."""
    groups = param_groups(module, recipe)
    return {id(parameter): group.lr for group in groups for parameter in group.parameters}


def _rate(rates: Mapping[int, float], parameters: tuple[nn.Parameter, ...]) -> float | None:
    """The highest in a stage."""
    return max((rates[id(parameter)] for parameter in parameters if id(parameter) in rates), default=None)


def _trained(name: RecipeName, rows: tuple[StageRow, ...], module: nn.Module, rates: Mapping[int, float]) -> Trained:
    parameters = list(module.parameters())
    trainable = sum(parameter.numel() for parameter in parameters if id(parameter) in rates)
    return Trained(
        recipe=name,
        trainable=trainable,
        frozen=sum(parameter.numel() for parameter in parameters) - trainable,
        stages=sum(row.lr[name] is not None for row in rows),
    )
