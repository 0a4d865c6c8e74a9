"""The fine-tuned network on disk: weights.safetensors and the checkpoint.json that describes and proves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from edgecnn import recipes
from edgecnn.artifact import Cost, Doubt, Grouping, Preprocess, Seen
from edgecnn.documents import Frozen, Sha256, read_document, sha256_of_file, write_document
from edgecnn.errors import UserError

CHECKPOINT_VERSION = 2
"""Raised when a checkpoint written by this version can no longer be read by an older one."""

CHECKPOINT = "checkpoint.json"
WEIGHTS = "weights.safetensors"
SPLIT = "split.json"


def _among(known: Callable[[str], str]) -> AfterValidator:
    def check(word: str) -> str:
        try:
            return known(word)
        except UserError as error:
            raise PydanticCustomError("recipe", "{text}", {"text": str(error).partition(": ")[2]}) from None

    return AfterValidator(check)


RecipeName: TypeAlias = Annotated[str, _among(lambda word: recipes.named(word).name)]
"""One of `edgecnn.recipes.names()`."""
RecipeChoice: TypeAlias = Annotated[str, _among(recipes.choice)]
"""The same, or auto."""


class Recipe(Frozen):
    """What is trained, and how hard. The table of them is `edgecnn.recipes.RECIPES`."""

    name: RecipeName
    thawed: float = Field(ge=0, le=1)
    """Share of the backbone's stages, counted from the head, that is trained beside the head."""
    lr: float = Field(ge=0)
    """Peak learning rate of the head (AdamW)."""
    stem_lr: float = Field(gt=0, le=1)
    """Learning rate at the stem relative to the head's; it falls geometrically over the stages between them."""
    epochs: int = Field(ge=0)
    thaw_by: float = Field(default=0.0, ge=0, le=1)
    """Share of the epochs over which `thawed` is reached, a stage at a time from the head. 0: from the first epoch."""
    decay: float | None = Field(default=None, gt=0, le=1)
    """Learning rate of a stage (or layer) relative to the one after it; None: `stem_lr` spread over the stages."""
    decay_by: Literal["stage", "layer"] = "stage"


class Leftovers(Frozen):
    """Tensors that did not travel from the weights to the network: nothing is left out silently."""

    missing: tuple[str, ...] = ()
    """In the network, not in the weights: freshly initialised (the new head)."""
    unexpected: tuple[str, ...] = ()
    """In the weights, not in the network: dropped (the old head)."""


class Metrics(Frozen):
    """How training went. Measured on the validation split, of the epoch whose weights were kept."""

    val_images: int
    val_top1: float | None
    """None where the validation split is empty (only recipe `none` allows that)."""
    val_balanced: float | None
    """Mean of the classes' recalls: what early stopping goes by."""
    val_loss: float | None
    """Cross-entropy in nats, unsmoothed and unweighted."""
    best_epoch: int
    """Counted from 1; 0 where nothing was trained."""
    epochs: int
    """Epochs that ran."""
    minutes: float
    """Sum over the epochs, of whatever processes ran them."""


class Checkpoint(Frozen):
    """checkpoint.json."""

    version: int = CHECKPOINT_VERSION
    model: str
    """With its library: timm:mobilenetv2_100, torchvision:mobilenet_v2."""
    classes: tuple[str, ...] = Field(min_length=1)
    good_class: str | None
    preprocess: Preprocess
    weights: str
    """Where training started: hub:…, file:… with hash, embedded:…, or none (random)."""
    batchnorm_eps: float | None = None
    """Set where the weights want another BatchNorm epsilon than the network is built with."""
    recipe: Recipe
    reason: str
    """Why this recipe."""
    options: Mapping[str, Any] = Field(default_factory=dict)
    """Every option that training ran with."""
    seed: int
    device: str
    """Where it was trained; another device or number of threads gives other last bits."""
    splits: Mapping[str, Sha256]
    """train, val, test: `edgecnn.data.split_hash` of each."""
    grouping: Grouping | None = None
    """How images of one part were kept in one split; None where nobody looked."""
    cost: Cost
    metrics: Metrics
    tools: Mapping[str, str]
    """Library to version."""
    leftovers: Leftovers
    notes: tuple[str, ...] = ()
    """Of a network that was taken in: what was assumed, what was left out."""
    doubts: tuple[Doubt, ...] = ()
    """Of weights that were taken as they are: where they do not fit the labelled images."""
    test_seen: Seen = "no"
    files: Mapping[str, Sha256]
    """Every file that belongs to the checkpoint but checkpoint.json itself."""


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write checkpoint.json, last of all files: a folder that has one is complete."""
    write_document(folder / CHECKPOINT, checkpoint)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder; every hash is checked before a tensor is read.

    Raises UserError: no checkpoint there, written by a newer version, or a file missing or changed.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise UserError(f"{folder}: no {CHECKPOINT} there (expected a run folder, made by `edgecnn finetune`)")
    checkpoint = read_document(path, Checkpoint, CHECKPOINT_VERSION, "copy the folder or train again")
    for name, expected in checkpoint.files.items():
        _check_file(folder, name, expected)
    return checkpoint


def _check_file(folder: Path, name: str, expected: Sha256) -> None:
    if Path(name).name != name:
        raise UserError(f"{folder}: file name {name!r} leaves the checkpoint: refused")
    path = folder / name
    if not path.is_file():
        raise UserError(f"{folder}: {name} is missing: copy the folder or train again")
    if sha256_of_file(path) != expected:
        raise UserError(f"{folder}: {name} is damaged (its hash differs): copy the folder or train again")
