"""What one run optimises: a network by a recipe, whole or what follows its frozen part, on training and validation."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from edgecnn.artifact import Preprocess
from edgecnn.checkpoint import Recipe
from edgecnn.data import Dataset, Item
from edgecnn.models import Built, build
from edgecnn.recipes import AUTO, recommend
from edgecnn.train.cut import Cut, cut
from edgecnn.train.options import TrainOptions
from edgecnn.train.progress import ProgressBar
from edgecnn.train.sources import Source, frozen_source, pixel_source, prepared
from edgecnn.transfer import recipe_for, starting_point, trained_stages

_VIEWS, _SEEN = 6, 2_000
"""Augmented variants of an image that a recipe with a frozen part trains on, where nobody says how many: at least so
many, and for few images enough to see so many different pictures."""


@dataclass(frozen=True)
class Start:
    """What training starts from."""

    built: Built
    preprocess: Preprocess
    recipe: Recipe
    """With the options' own numbers in it."""
    reason: str
    fabric: Fabric

    @property
    def device(self) -> torch.device:
        return self.fabric.device


@dataclass(frozen=True)
class Task:
    """What one run optimises."""

    module: nn.Module
    """The whole network: what is saved."""
    net: nn.Module
    """What a batch goes through: the whole network, or the tail that follows what was computed once."""
    recipe: Recipe
    options: TrainOptions
    classes: int
    train: Source
    val: Source
    weights: str
    """Where it started, for the record."""
    fabric: Fabric

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return math.ceil(len(self.train.labels) / self.options.batch)

    @property
    def patience(self) -> int:
        return self.options.patience or max(8, self.recipe.epochs // 3)


def start_of(data: Dataset, options: TrainOptions, fabric: Fabric, settled: tuple[Recipe, str] | None = None) -> Start:
    """The network with its weights on its device, and its settled recipe. Seeds torch: a new head is random."""
    torch.manual_seed(options.seed)
    built = build(
        options.model,
        len(data.classes),
        "none" if options.recipe == "scratch" else options.weights,
        keep_head=options.recipe == "none",
        dropout=options.dropout,
        size=options.size,
        weights_key=options.weights_key,
    )
    built.module.to(fabric.device).to(memory_format=torch.channels_last)
    recipe, reason = settled or _settle_recipe(len(data.train), options, built)
    preprocess = built.preprocess.model_copy(update={"fit": options.fit, "bits": data.bits})
    return Start(built, preprocess, with_options(recipe, options), reason, fabric)


def task_of(data: Dataset, options: TrainOptions, start: Start, cache: Path, progress: ProgressBar) -> Task:
    """Inputs for the network; for its tail alone where what comes before is frozen and can be computed once."""
    module, recipe = start.built.module, start.recipe
    train_items = ordered(data.train if recipe.name != "none" else ())
    sources = []
    for items in (train_items, ordered(data.val)):
        with start.fabric.rank_zero_first():
            pixels = prepared(items, start.preprocess, cache, progress)
        sources.append(pixel_source(pixels, [i.label for i in items], start.preprocess, start.device, options))
    half = None if options.views == 0 or not train_items else cut_for(module, recipe, sources[0])
    net: nn.Module = module
    if half:
        folder = cache / key_of(half, start, options, data)
        stored = computed_once(half, sources, options, recipe, folder, progress)
        net, sources = (half.tail, list(stored)) if stored else (net, sources)
    train, val = sources
    return Task(module, net, recipe, options, len(data.classes), train, val, start.built.weights, start.fabric)


def cut_for(module: nn.Module, recipe: Recipe, pixels: Source) -> Cut | None:
    """The network cut where the recipe's frozen part ends, checked on two images; None where it cannot be."""
    return cut(module, recipe, pixels.batch(np.arange(min(2, len(pixels.labels))), None))


def computed_once(
    half: Cut, sources: Sequence[Source], options: TrainOptions, recipe: Recipe, folder: Path, progress: ProgressBar
) -> tuple[Source, Source] | None:
    """Training and validation inputs of the tail. Fewer views than wanted where they would take too much disk; None
    where even one would."""
    train, val = sources
    one = half.front(train.batch(np.arange(1), None)).numel() * 4 / 2**30
    count, val_count = len(train.labels), len(val.labels)
    augmented = views_of(recipe, count, options)
    wanted = max(1, augmented)
    views = min(wanted, int((options.disk_gib / one - val_count) / max(1, count)))
    if views < 1:
        progress.text(f"what is frozen does not fit into {options.disk_gib:g} GiB (--disk-gib): it runs in every epoch")
        return None
    if views < wanted:
        progress.text(f"{views} of {wanted} augmented views fit into {options.disk_gib:g} GiB (--disk-gib)")
    shown: list[int | None] = [*range(1, views + 1)] if augmented else [None]
    progress.text(
        f"computed once: everything before {half.name}, {len(shown)} view{'s' * (len(shown) > 1)} of {count} images, "
        f"{1024 * one * (count * len(shown) + val_count):.0f} MiB"
    )
    return (
        frozen_source(half, train, shown, folder / "train", options, progress),
        frozen_source(half, val, [None], folder / "val", options, progress),
    )


def views_of(recipe: Recipe, images: int, options: TrainOptions | None = None) -> int:
    """Augmented views of each of so many training images for which the frozen part is computed; 0: one, unaugmented."""
    asked = options.views if options else None
    if (not recipe.thawed and asked is None) or (options and options.augment == "none"):
        return 0
    return min(asked or max(_VIEWS, _SEEN // max(1, images)), recipe.epochs)


def with_options(recipe: Recipe, options: TrainOptions) -> Recipe:
    """The recipe with the options' own numbers in it."""
    if recipe.name == "none":
        return recipe
    given = {name: value for name in ("epochs", "lr", "decay") if (value := getattr(options, name)) is not None}
    return recipe.model_copy(update={**given, "decay_by": options.decay_by})


def ordered(items: Sequence[Item]) -> list[Item]:
    """By content, so that a split's hash names the order of its images too."""
    return sorted(items, key=lambda item: (item.sha256, item.label, item.name))


def _settle_recipe(images: int, options: TrainOptions, built: Built) -> tuple[Recipe, str]:
    """The recipe and why it is the one."""
    start = starting_point(built.name, built.weights)
    if options.recipe != AUTO:
        return recipe_for(options.recipe, start), "asked for"
    rule = recommend(images, start)
    return recipe_for(rule.recipe, start), rule.text


def key_of(half: Cut, start: Start, options: TrainOptions, data: Dataset) -> str:
    """What the stored values depend on: images, preprocessing, augmentation, and every number before the cut."""
    images = [[(item.sha256, item.label) for item in ordered(items)] for items in (data.train, data.val)]
    about = (images, start.preprocess.model_dump_json(), options.augment, options.seed, half.name, str(half.module))
    digest = hashlib.sha256(repr(about).encode())
    trained = {
        tensor.data_ptr()
        for stage in trained_stages(half.module, start.recipe)
        for part in stage.modules
        for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False))
    }
    for name, tensor in half.module.state_dict().items():
        if tensor.data_ptr() not in trained:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
