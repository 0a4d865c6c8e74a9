"""What one run optimises: a network by a recipe, whole or its head alone, on training and validation inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from edgecnn.artifact import Preprocess
from edgecnn.checkpoint import Recipe
from edgecnn.data import Dataset, Item
from edgecnn.models import Built, build, dropout_of, head_of
from edgecnn.train.options import TrainOptions
from edgecnn.train.progress import Progress
from edgecnn.train.sources import Source, feature_source, pixel_source
from edgecnn.transfer import choose_recipe, from_scratch, recipe_named


@dataclass(frozen=True)
class Start:
    """What training starts from."""

    built: Built
    preprocess: Preprocess
    recipe: Recipe
    """With the options' own numbers in it."""
    reason: str
    device: torch.device


@dataclass(frozen=True)
class Task:
    """What one run optimises."""

    module: nn.Module
    """The whole network: what is saved."""
    net: nn.Module
    """What a batch goes through: the whole network, or its head alone on features computed once."""
    recipe: Recipe
    options: TrainOptions
    classes: int
    train: Source
    val: Source
    weights: str
    """Where it started, for the record."""

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return math.ceil(len(self.train.labels) / self.options.batch)

    @property
    def patience(self) -> int:
        return self.options.patience or max(8, self.recipe.epochs // 3)


def start_of(data: Dataset, options: TrainOptions, device: torch.device) -> Start:
    """The network with its weights on `device`, and its settled recipe. Seeds torch: a new head is random."""
    torch.manual_seed(options.seed)
    built = build(
        options.model,
        len(data.classes),
        options.weights,
        keep_head=options.recipe == "none",
        dropout=options.dropout,
        size=options.size,
    )
    built.module.to(device).to(memory_format=torch.channels_last)
    recipe, reason = _settle_recipe(len(data.train), options, built)
    return Start(built, built.preprocess.model_copy(update={"fit": options.fit}), recipe, reason, device)


def task_of(data: Dataset, options: TrainOptions, start: Start, cache: Path, progress: Progress) -> Task:
    """Inputs for the network; for its head alone where the recipe trains no more and the head is all that follows."""
    module, recipe = start.built.module, start.recipe
    train_items = data.train if recipe.name != "none" else ()
    train = pixel_source(_ordered(train_items), start.preprocess, start.device, options, cache, progress)
    val = pixel_source(_ordered(data.val), start.preprocess, start.device, options, cache, progress)
    net = module
    if recipe.name == "head":
        found = [feature_source(module, source, options.batch, progress) for source in (train, val)]
        if found[0] and found[1]:
            train, val = found[0], found[1]
            net = nn.Sequential(nn.Dropout(dropout_of(module)), head_of(module)[1])
    return Task(module, net, recipe, options, len(data.classes), train, val, start.built.weights)


def _settle_recipe(images: int, options: TrainOptions, built: Built) -> tuple[Recipe, str]:
    """The recipe with the options' own numbers in it, and why it is the one."""
    if options.recipe == "auto":
        recipe, reason = choose_recipe(images, built.name, built.weights)
    else:
        recipe, reason = recipe_named(options.recipe), "asked for"
        if options.recipe == "all" and built.weights == "none":
            recipe = from_scratch(recipe)
    given = {name: value for name in ("epochs", "lr") if (value := getattr(options, name)) is not None}
    return recipe if recipe.name == "none" else recipe.model_copy(update=given), reason


def _ordered(items: Sequence[Item]) -> list[Item]:
    """By content, so that a split's hash names the order of its images too."""
    return sorted(items, key=lambda item: (item.sha256, item.label, item.name))
