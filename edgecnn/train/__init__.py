"""Fine-tunes a network on labelled images: deterministic, and resumable after a kill at any moment."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import torch

from edgecnn.blame.doubts import doubts
from edgecnn.checkpoint import SPLIT, WEIGHTS, Checkpoint, Metrics, Recipe, read_checkpoint, write_checkpoint
from edgecnn.cost import measure_cost
from edgecnn.data import Dataset, save_split, split_hashes
from edgecnn.data.names import sorts_two_ways
from edgecnn.documents import sha256_of_file, write_atomically
from edgecnn.errors import UserError
from edgecnn.installed import installed_versions
from edgecnn.models import Deployed, save_module
from edgecnn.progress import Stage
from edgecnn.train.augmentation import augment
from edgecnn.train.evidence import Evidence, gather, read_evidence, worth_comparing
from edgecnn.train.folder import CACHE, EVIDENCE, HISTORY, RUN, STATE, identity_of, open_folder, remove_working_files
from edgecnn.train.loop import class_weights, lr_scale, metrics_of, one_cycle, train
from edgecnn.train.options import TrainOptions
from edgecnn.train.progress import ProgressBar, Silent
from edgecnn.train.repeatable import deterministic, usable_device
from edgecnn.train.sources import prepared
from edgecnn.train.state import Epoch, Position
from edgecnn.train.task import Start, start_of, task_of
from edgecnn.train.workers import launch

__all__ = [
    "CACHE",
    "HISTORY",
    "RUN",
    "STATE",
    "Epoch",
    "Evidence",
    "ProgressBar",
    "TrainOptions",
    "augment",
    "class_weights",
    "fine_tune",
    "lr_scale",
    "one_cycle",
    "prepared",
    "read_evidence",
]

_LIBRARIES = ("torch", "torchvision", "timm", "numpy", "Pillow", "simplejpeg", "safetensors")


def fine_tune(
    data: Dataset,
    options: TrainOptions,
    out: Path,
    progress: ProgressBar | None = None,
    *,
    restart: bool = False,
    cache: Path | None = None,
) -> Checkpoint:
    """Train on `data.train`, stop early by `data.val`, write a checkpoint folder `out`. `data.test` is never read, but
    with recipe `none`, which chooses nothing: its weights, taken as they are, are held against every labelled image.

    The best epoch is kept: highest mean of the classes' recalls (equal to top-1 where classes are balanced), the lower
    validation loss among equals. AdamW, linear warm-up, cosine. The state after each epoch is on disk: the same call
    after a kill goes on and ends with the same weights. A finished run with the same options and data returns at once.

    Raises UserError: `out` holds another run or other files (`restart` replaces a run), an image changed, no
    validation images, a loss that is not finite, and what `build` raises.
    """
    _refuse_unfit(data, options)
    device = usable_device(options.device)
    fabric = launch(device, options)
    first = fabric.is_global_zero
    if options.batch < 2 * fabric.world_size:
        raise UserError(
            f"--batch {options.batch}: {fabric.world_size} processes share it: at least {2 * fabric.world_size}"
        )
    progress = progress if progress and first else Silent()
    identity = identity_of(data, options)
    finished = open_folder(out, identity, restart) if first else None
    if fabric.broadcast(finished is not None):
        return finished or read_checkpoint(out)
    with deterministic(device):
        start = start_of(data, options, fabric)
        for remark in start.built.remarks:
            progress.text(f"weights: {remark}")
        # Not before the network is built: a wrong weights file leaves nothing behind.
        if first:
            write_atomically(out / RUN, json.dumps(identity, indent=1, ensure_ascii=False) + "\n")
        if worth_comparing(options):
            if fabric.world_size == 1:
                start = _by_evidence(data, options, start, cache or out / CACHE, out, progress)
            else:
                progress.text(f"several processes do not compare recipes: {start.recipe.name}, {start.reason}")
        recipe = start.recipe
        if recipe.name != "none":
            progress.text(Stage(f"training: recipe {recipe.name}, at most {recipe.epochs} epochs"))
        task = task_of(data, options, start, cache or out / CACHE, progress)
        position = train(task, out, progress) if start.recipe.name != "none" else Position((), 0, {})
        task.module.load_state_dict(position.best, strict=False)
        metrics = metrics_of(task, position)
    if first:
        _finish(data, options, start, metrics, out)
    fabric.barrier()
    return read_checkpoint(out)


def _by_evidence(
    data: Dataset, options: TrainOptions, start: Start, cache: Path, out: Path, progress: ProgressBar
) -> Start:
    """The start with the recipe that did best on the data itself."""

    def build(recipe: Recipe) -> Start:
        asked = options.model_copy(update={"recipe": recipe.name, "epochs": None, "decay": None})
        return start_of(data, asked, start.fabric, (recipe, ""))

    progress.text(Stage(f"comparing recipes on held-out folds, about {options.minutes:g} min"))
    evidence, recipe = gather(data, options, build, cache, out, progress)
    for symptom in evidence.symptoms:
        progress.text(symptom)
    return start_of(data, options.model_copy(update={"recipe": recipe.name}), start.fabric, (recipe, evidence.reason))


def _refuse_unfit(data: Dataset, options: TrainOptions) -> None:
    if options.recipe == "none":
        if sorts_two_ways(data.classes):
            raise UserError(
                f"{data.root}: its folders' names have two usual orders, by number and as text: which one has the "
                "head? say it with `edgecnn export WEIGHTS --model … --labels FILE`"
            )
        return
    if len(data.train) < 2:
        raise UserError(f"{data.root}: {len(data.train)} training images: at least 2 are needed")
    if not data.val:
        raise UserError(f"{data.root}: no validation images: early stopping needs some; add images or a val/ folder")


def _finish(data: Dataset, options: TrainOptions, start: Start, metrics: Metrics, out: Path) -> None:
    built = start.built
    module = built.module.to("cpu").to(memory_format=torch.contiguous_format).eval()
    cost = measure_cost(module, start.preprocess.height, start.preprocess.width)
    given = Deployed(module, start.preprocess).answers if options.recipe == "none" else None
    every = (*data.train, *data.val, *data.test)
    write_atomically(out / WEIGHTS, save_module(module))
    save_split(data, out / SPLIT)
    checkpoint = Checkpoint(
        model=built.name,
        classes=data.classes,
        good_class=data.good_class,
        preprocess=start.preprocess,
        weights=built.weights,
        batchnorm_eps=built.batchnorm_eps,
        recipe=start.recipe,
        reason=start.reason,
        options=options.model_dump(mode="json"),
        seed=options.seed,
        device=_describe(start.device),
        splits=split_hashes(data),
        grouping=data.grouping,
        cost=cost,
        metrics=metrics,
        tools={"python": platform.python_version(), **installed_versions(_LIBRARIES)},
        leftovers=built.leftovers,
        doubts=doubts(given, start.preprocess, data.classes, every, cost.macs) if given else (),
        files={name: sha256_of_file(out / name) for name in (WEIGHTS, SPLIT, EVIDENCE) if (out / name).is_file()},
    )
    write_checkpoint(out, checkpoint)
    remove_working_files(out)


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    return f"{device}: {platform.machine()}, {torch.get_num_threads()} threads"
