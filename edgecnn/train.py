"""Fine-tunes a network on labelled images: deterministic, and resumable after a kill at any moment."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from edgecnn.artifact import Frozen, Preprocess, sha256_of, sha256_of_file, write_atomically
from edgecnn.checkpoint import (
    CHECKPOINT,
    SPLIT,
    WEIGHTS,
    Checkpoint,
    Metrics,
    Recipe,
    RecipeName,
    read_checkpoint,
    write_checkpoint,
)
from edgecnn.cost import measure_cost
from edgecnn.data import Dataset, Item, save_split, split_hash, split_hashes
from edgecnn.errors import BadImage, UserError
from edgecnn.imaging import Images, Preparer
from edgecnn.models import Built, State, build, dropout_of, head_of, save_module
from edgecnn.transfer import choose_recipe, from_scratch, param_groups, recipe_named, train_mode, trained_stages
from edgecnn.versions import installed_versions

RUN, STATE, CACHE, HISTORY = "run.json", "state", "cache", "metrics.jsonl"
"""In the checkpoint folder: what the run is; until it ends, where it is and its prepared pixels; a line an epoch."""

_LIBRARIES = ("torch", "torchvision", "timm", "numpy", "Pillow", "simplejpeg", "safetensors")
_LR_FLOOR = 0.01
"""Share of the peak at which the cosine ends."""


class Progress(Protocol):
    """What a long run tells its caller."""

    def start(self, total: int, text: str) -> None:
        """A new part of `total` steps begins."""

    def advance(self, steps: int = 1) -> None:
        """So many steps of it are done."""

    def text(self, text: str) -> None:
        """A line worth reading."""


class TrainOptions(Frozen):
    """What to train and how. Everything here is recorded in the checkpoint."""

    model: str
    """As `edgecnn.models.build` takes it."""
    weights: str | None = None
    """hub, embedded, none, or a file; None: embedded where there are such, else hub."""
    recipe: Literal["auto"] | RecipeName = "auto"
    size: int | None = Field(default=None, ge=16, le=2048)
    """Input height and width in pixels; None: what the weights were trained with."""
    fit: Literal["stretch", "center-crop"] = "stretch"
    epochs: int | None = Field(default=None, ge=1)
    """None: the recipe's."""
    batch: int = Field(default=32, ge=2)
    lr: float | None = Field(default=None, gt=0)
    """Peak rate of the head; None: the recipe's."""
    weight_decay: float = Field(default=0.02, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    warmup: float = Field(default=1.0, ge=0)
    """Epochs over which the rate rises from 0."""
    patience: int | None = Field(default=None, ge=1)
    """Epochs without a better validation result after which training stops; None: a third of all, at least 8."""
    class_weights: Literal["sqrt", "balanced", "none"] = "sqrt"
    """Weight of a class's images in the loss: 1/√frequency, 1/frequency, or 1."""
    augment: Literal["surface", "none"] = "surface"
    """surface: flips both ways, ±10° rotation, ±10 % scale, ±5 % shift, ±15 % brightness and contrast."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Before the head; None: as the library builds the network."""
    seed: int = Field(default=0, ge=0)
    device: str = "auto"
    """auto (cuda where there is one, else cpu), or a name that torch knows."""


class Epoch(Frozen):
    """A line of metrics.jsonl."""

    epoch: int
    """From 1."""
    lr: float
    """Of the head, at the epoch's end."""
    train_loss: float
    """Mean over the epoch, as optimised: smoothed and weighted."""
    val_loss: float
    """Cross-entropy, neither smoothed nor weighted."""
    val_top1: float
    val_balanced: float
    seconds: float


@dataclass(frozen=True)
class _Start:
    """What training starts from."""

    built: Built
    preprocess: Preprocess
    recipe: Recipe
    """With the options' own numbers in it."""
    reason: str
    device: torch.device


@dataclass(frozen=True)
class _Source:
    """Labelled inputs of a network."""

    labels: Tensor
    """int64 (n,)."""
    batch: Callable[[NDArray[np.int64], int | None], Tensor]
    """Positions (b,) and the epoch to augment for (None: not at all) to the network's input."""


@dataclass(frozen=True)
class _Task:
    """What one run optimises."""

    module: nn.Module
    """The whole network: what is saved."""
    net: nn.Module
    """What a batch goes through: the whole network, or its head alone on features computed once."""
    recipe: Recipe
    options: TrainOptions
    classes: int
    train: _Source
    val: _Source
    weights: str
    """Where it started, for the record."""

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return math.ceil(len(self.train.labels) / self.options.batch)

    @property
    def patience(self) -> int:
        return self.options.patience or max(8, self.recipe.epochs // 3)


@dataclass(frozen=True)
class _Position:
    """Where a run is: all that the next epoch depends on, but the optimiser's moments, and the best so far."""

    history: tuple[Epoch, ...]
    best_epoch: int
    best: State


def fine_tune(
    data: Dataset, options: TrainOptions, out: Path, progress: Progress | None = None, *, restart: bool = False
) -> Checkpoint:
    """Train on `data.train`, stop early by `data.val`, write a checkpoint folder `out`. `data.test` is never read.

    The best epoch is kept: highest mean of the classes' recalls (equal to top-1 where classes are balanced), the lower
    validation loss among equals. AdamW, linear warm-up, cosine. The state after each epoch is on disk: the same call
    after a kill goes on and ends with the same weights. A finished run with the same options and data returns at once.

    Raises UserError: `out` holds another run or other files (`restart` replaces a run), an image changed, no
    validation images, a loss that is not finite, and what `build` raises.
    """
    progress = progress or _Silent()
    _refuse_unfit(data, options)
    identity = _identity(data, options)
    finished = _open_folder(out, identity, restart)
    if finished:
        return finished
    device = _device(options.device)
    with _deterministic(device):
        start = _start(data, options, device)
        # Not before the network is built: a wrong weights file leaves nothing behind.
        write_atomically(out / RUN, json.dumps(identity, indent=1, ensure_ascii=False) + "\n")
        task = _task(data, options, start, out / CACHE, progress)
        position = _train(task, out, progress) if start.recipe.name != "none" else _Position((), 0, {})
        task.module.load_state_dict(position.best, strict=False)
        metrics = _metrics(task, position)
    return _finish(data, options, start, metrics, out)


def augment(images: Tensor, draws: Tensor) -> Tensor:
    """float32 (n, 3, h, w) in 0..1 to the same, flipped, turned, scaled, shifted, and with other light.

    `draws`: float32 (n, 8), uniform in 0..1: all the randomness there is. One bilinear resampling, edges mirrored.
    """
    signed = 2 * draws - 1
    flip_x, flip_y = torch.sign(signed[:, 0]), torch.sign(signed[:, 1])
    angle = signed[:, 2] * math.radians(10)
    scale = 1 + 0.1 * signed[:, 3]
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    rows = [cos * flip_x, -sin * flip_y, 0.1 * signed[:, 4], sin * flip_x, cos * flip_y, 0.1 * signed[:, 5]]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    brightness = (1 + 0.15 * signed[:, 6]).view(-1, 1, 1, 1)
    contrast = (1 + 0.15 * signed[:, 7]).view(-1, 1, 1, 1)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean * brightness).clamp(0, 1)


def class_weights(labels: Tensor, classes: int, kind: Literal["sqrt", "balanced", "none"]) -> Tensor:
    """float32 (classes,): weight of each class in the loss, 1 on average over the images. Absent classes count as one
    image."""
    counts = torch.bincount(labels, minlength=classes).clamp(min=1).float()
    weights = counts ** -{"sqrt": 0.5, "balanced": 1.0, "none": 0.0}[kind]
    return weights * counts.sum() / (weights * counts).sum()


def lr_scale(step: int, steps: int, warmup: int) -> float:
    """Share of the peak rate at `step` (from 0) of `steps`: linear up over `warmup` steps, then cosine to 1 %."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return _LR_FLOOR + (1 - _LR_FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class _Silent:
    def start(self, total: int, text: str) -> None: ...

    def advance(self, steps: int = 1) -> None: ...

    def text(self, text: str) -> None: ...


# The folder of a run


def _refuse_unfit(data: Dataset, options: TrainOptions) -> None:
    if options.recipe == "none":
        return
    if len(data.train) < 2:
        raise UserError(f"{data.root}: {len(data.train)} training images: at least 2 are needed")
    if not data.val:
        raise UserError(f"{data.root}: no validation images: early stopping needs some; add images or a val/ folder")


def _identity(data: Dataset, options: TrainOptions) -> dict[str, Any]:
    """What the outcome depends on. Two runs with the same identity end with the same weights."""
    path = Path(options.weights) if options.weights else None
    return {
        **options.model_dump(mode="json"),
        "weights file": sha256_of_file(path) if path and path.is_file() else None,
        "classes": list(data.classes),
        "good class": data.good_class,
        **{f"{name} images": digest for name, digest in split_hashes(data).items()},
    }


def _open_folder(out: Path, identity: Mapping[str, Any], restart: bool) -> Checkpoint | None:
    """See that `out` is free for this run or holds it; the checkpoint if it is there already."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file (expected a folder for the checkpoint): choose another --out")
    run = out / RUN
    if restart and run.is_file():
        _remove_run(out)
    if not run.is_file():
        there = sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) if out.is_dir() else []
        if there:
            raise UserError(f"{out}: is not empty ({there[0]}) and holds no training run: choose another --out")
        return None
    _refuse_other_run(out, identity)
    if not (out / CHECKPOINT).is_file():
        return None
    _remove_working_files(out)
    return read_checkpoint(out)


def _refuse_other_run(out: Path, identity: Mapping[str, Any]) -> None:
    try:
        found: dict[str, Any] = dict(json.loads((out / RUN).read_bytes()))
    except (ValueError, TypeError):
        raise UserError(f"{out / RUN}: damaged: choose another --out, or --restart to train anew") from None
    differences = [
        f"{name} changed" if _is_digest(found.get(name)) else f"{name} {_word(found.get(name))}, now {_word(wanted)}"
        for name, wanted in identity.items()
        if found.get(name) != wanted
    ]
    if differences:
        raise UserError(
            f"{out}: holds a run with other settings ({'; '.join(differences)}): choose another --out, give the same "
            "settings, or --restart to replace it"
        )


def _word(value: object) -> str:
    return "not set" if value is None else ", ".join(value) if isinstance(value, list) else str(value)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64


def _remove_run(out: Path) -> None:
    _remove_working_files(out)
    for name in (CHECKPOINT, WEIGHTS, SPLIT, HISTORY, RUN):
        (out / name).unlink(missing_ok=True)


def _remove_working_files(out: Path) -> None:
    for name in (STATE, CACHE):
        shutil.rmtree(out / name, ignore_errors=True)
    for path in out.glob(".*.tmp"):  # of a process that was killed while writing
        path.unlink(missing_ok=True)


def _finish(data: Dataset, options: TrainOptions, start: _Start, metrics: Metrics, out: Path) -> Checkpoint:
    built = start.built
    module = built.module.to("cpu").to(memory_format=torch.contiguous_format).eval()
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
        cost=measure_cost(module, start.preprocess.height, start.preprocess.width),
        metrics=metrics,
        tools={"python": platform.python_version(), **installed_versions(_LIBRARIES)},
        leftovers=built.leftovers,
        files={name: sha256_of_file(out / name) for name in (WEIGHTS, SPLIT)},
    )
    write_checkpoint(out, checkpoint)
    _remove_working_files(out)
    return checkpoint


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    return f"{device}: {platform.machine()}, {torch.get_num_threads()} threads"


# What to train, on what


def _start(data: Dataset, options: TrainOptions, device: torch.device) -> _Start:
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
    return _Start(built, built.preprocess.model_copy(update={"fit": options.fit}), recipe, reason, device)


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


def _task(data: Dataset, options: TrainOptions, start: _Start, cache: Path, progress: Progress) -> _Task:
    module, recipe = start.built.module, start.recipe
    train_items = data.train if recipe.name != "none" else ()
    train = _pixel_source(_ordered(train_items), start, options, cache, progress)
    val = _pixel_source(_ordered(data.val), start, options, cache, progress)
    net = module
    if recipe.name == "head":
        found = [_feature_source(module, source, options.batch, progress) for source in (train, val)]
        if found[0] and found[1]:
            train, val = found[0], found[1]
            net = nn.Sequential(nn.Dropout(dropout_of(module)), head_of(module)[1])
    return _Task(module, net, recipe, options, len(data.classes), train, val, start.built.weights)


def _ordered(items: Sequence[Item]) -> list[Item]:
    """By content, so that a split's hash names the order of its images too."""
    return sorted(items, key=lambda item: (item.sha256, item.label, item.name))


def _pixel_source(
    items: Sequence[Item], start: _Start, options: TrainOptions, cache: Path, progress: Progress
) -> _Source:
    pixels = prepared(items, start.preprocess, cache, progress)
    device = start.device
    mean = torch.tensor(start.preprocess.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(start.preprocess.std, device=device).view(1, 3, 1, 1)

    def batch(positions: NDArray[np.int64], epoch: int | None) -> Tensor:
        chosen = torch.from_numpy(np.array(pixels[positions])).to(device)
        images = chosen.permute(0, 3, 1, 2).float() / 255
        if epoch is not None and options.augment == "surface":
            # Drawn for the whole epoch: an image's draws depend on (seed, epoch, position) alone.
            draws = _generator(options.seed, epoch, 1).random((len(items), 8), np.float32)[positions]
            images = augment(images, torch.from_numpy(draws).to(device))
        return ((images - mean) / std).contiguous(memory_format=torch.channels_last)

    return _Source(torch.tensor([item.label for item in items], dtype=torch.int64, device=device), batch)


def prepared(items: Sequence[Item], preprocess: Preprocess, cache: Path, progress: Progress) -> Images:
    """uint8 (n, h, w, 3): every image through the one preprocessing, kept in a file that is complete or not there."""
    if not items:
        return np.empty((0, preprocess.height, preprocess.width, 3), np.uint8)
    key = sha256_of(f"{split_hash(items)} {preprocess.model_dump_json(exclude={'mean', 'std'})}".encode())
    path = cache / f"{key}.npy"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        temporary = cache / f".{key}.{os.getpid()}.tmp"
        shape = (len(items), preprocess.height, preprocess.width, 3)
        pixels = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        preparer = Preparer(preprocess)
        progress.start(len(items), "preparing images")
        for position, item in enumerate(items):
            pixels[position] = _prepare(item, preparer)
            progress.advance()
        pixels.flush()
        temporary.replace(path)
    found: Images = np.load(path, mmap_mode="r")
    return found


def _prepare(item: Item, preparer: Preparer) -> Images:
    try:
        encoded = item.path.read_bytes()
    except OSError as error:
        raise UserError(f"{item.path}: cannot be read ({error.strerror}): give the same data folder") from None
    if sha256_of(encoded) != item.sha256:
        raise UserError(f"{item.path}: its bytes changed since the split was made: split again, and train anew")
    try:
        return preparer.prepare(encoded)
    except BadImage as error:
        raise UserError(f"{item.path}: {error}: mend or remove it") from None


def _feature_source(module: nn.Module, pixels: _Source, batch: int, progress: Progress) -> _Source | None:
    """What the frozen backbone hands to the head, (n, features), computed once and so without augmentation.

    None where logits are more than the head of that (squeezenet's head works on a map and is pooled after).
    """
    _, head = head_of(module)
    captured: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0].detach()))
    found: list[Tensor] = []
    module.eval()
    progress.start(len(pixels.labels), "computing features")
    try:
        with torch.no_grad():
            for positions in _in_order(len(pixels.labels), batch):
                captured.clear()
                logits = module(pixels.batch(positions, None))
                features = captured[0]
                if len(captured) != 1 or features.ndim != 2 or not torch.equal(head(features), logits):
                    return None
                found.append(features)
                progress.advance(len(positions))
    finally:
        handle.remove()
    every = torch.cat(found)
    return _Source(pixels.labels, lambda positions, epoch: every[torch.from_numpy(positions)])


# The loop


def _train(task: _Task, out: Path, progress: Progress) -> _Position:
    groups = param_groups(task.module, task.recipe)
    decay = task.options.weight_decay
    optimizer = torch.optim.AdamW(
        [{"params": list(g.parameters), "lr": g.lr, "weight_decay": decay if g.decays else 0.0} for g in groups]
    )
    position = _restore(task, optimizer, out / STATE)
    weights = class_weights(task.train.labels, task.classes, task.options.class_weights)
    done = len(position.history)
    progress.start(task.recipe.epochs * task.steps, f"training ({task.recipe.name})")
    progress.advance(done * task.steps)
    for epoch in range(done + 1, task.recipe.epochs + 1):
        if epoch - 1 - position.best_epoch >= task.patience and position.history:
            progress.text(f"stopped: {task.patience} epochs without a better validation result")
            break
        row = _epoch(task, optimizer, [group.lr for group in groups], weights, epoch, progress)
        best = not position.best or _better(row, position.history[position.best_epoch - 1])
        position = _Position(
            (*position.history, row),
            epoch if best else position.best_epoch,
            _trained_tensors(task) if best else position.best,
        )
        _save(task, optimizer, position, out / STATE)
        write_atomically(out / HISTORY, "".join(f"{line.model_dump_json()}\n" for line in position.history))
        progress.text(
            f"epoch {epoch}/{task.recipe.epochs}: loss {row.train_loss:.3f}, validation {row.val_loss:.3f}, "
            f"top-1 {row.val_top1:.1%}, mean recall {row.val_balanced:.1%}{' (best)' if best else ''}"
        )
    return position


def _better(row: Epoch, best: Epoch) -> bool:
    return (row.val_balanced, -row.val_loss) > (best.val_balanced, -best.val_loss)


def _epoch(
    task: _Task,
    optimizer: torch.optim.Optimizer,
    peaks: Sequence[float],
    weights: Tensor,
    epoch: int,
    progress: Progress,
) -> Epoch:
    started = time.monotonic()
    options = task.options
    # Everything random in an epoch follows from (seed, epoch): a resumed run needs no generator's state.
    torch.manual_seed(int(_generator(options.seed, epoch, 2).integers(2**62)))
    order = _generator(options.seed, epoch, 0).permutation(len(task.train.labels))
    train_mode(task.module, task.recipe)
    if task.net is not task.module:
        task.net.train()
    total, scale = 0.0, 0.0
    for number, positions in enumerate(np.array_split(order, task.steps)):
        step = (epoch - 1) * task.steps + number
        scale = lr_scale(step, task.recipe.epochs * task.steps, round(options.warmup * task.steps))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * scale
        logits = task.net(task.train.batch(positions, epoch))
        labels = task.train.labels[torch.from_numpy(positions)]
        loss = F.cross_entropy(logits, labels, weight=weights, label_smoothing=options.label_smoothing)
        if not math.isfinite(loss.item()):
            raise UserError(
                f"epoch {epoch}, batch {number + 1}: the loss is {loss.item()}: lower --lr (it was {task.recipe.lr:g}) "
                "and add --restart"
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.item() * len(positions)
        progress.advance()
    top1, balanced, val_loss = _score(task)
    return Epoch(
        epoch=epoch,
        lr=task.recipe.lr * scale,
        train_loss=total / len(order),
        val_loss=val_loss,
        val_top1=top1,
        val_balanced=balanced,
        seconds=time.monotonic() - started,
    )


def _score(task: _Task) -> tuple[float, float, float]:
    """Top-1, mean recall of the classes that occur, and cross-entropy, on the validation images."""
    task.module.eval()
    task.net.eval()
    with torch.no_grad():
        batches = _in_order(len(task.val.labels), task.options.batch)
        logits = torch.cat([task.net(task.val.batch(positions, None)) for positions in batches]).float()
    labels = task.val.labels
    right = (logits.argmax(1) == labels).double()
    recalls = [right[labels == label].mean() for label in torch.unique(labels)]
    loss = F.cross_entropy(logits, labels)
    return float(right.mean()), float(torch.stack(recalls).mean()), float(loss)


def _metrics(task: _Task, position: _Position) -> Metrics:
    top1: float | None = None
    balanced: float | None = None
    loss: float | None = None
    if position.history:
        row = position.history[position.best_epoch - 1]
        top1, balanced, loss = row.val_top1, row.val_balanced, row.val_loss
    elif len(task.val.labels):
        top1, balanced, loss = _score(task)
    return Metrics(
        val_images=len(task.val.labels),
        val_top1=top1,
        val_balanced=balanced,
        val_loss=loss,
        best_epoch=position.best_epoch,
        epochs=len(position.history),
        minutes=round(sum(row.seconds for row in position.history) / 60, 3),
    )


def _in_order(count: int, batch: int) -> list[NDArray[np.int64]]:
    return [np.arange(start, min(start + batch, count)) for start in range(0, count, batch)]


def _generator(seed: int, epoch: int, purpose: int) -> np.random.Generator:
    """Purposes: 0 the order, 1 augmentation, 2 torch's own (dropout)."""
    return np.random.default_rng([seed, epoch, purpose])


# State on disk


def _trained_tensors(task: _Task) -> State:
    """Copies of all tensors that training changes: the frozen rest follows from the weights it started with."""
    parts = {id(part) for stage in trained_stages(task.module, task.recipe) for part in stage.modules}
    loose = {id(parameter) for parameter in task.module.parameters() if parameter.requires_grad}
    changing = {
        f"{name}.{key}" if name else key
        for name, part in task.module.named_modules()
        for key, tensor in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False))
        if id(part) in parts or id(tensor) in loose
    }
    state = task.module.state_dict()
    return {key: value.detach().cpu().clone().contiguous() for key, value in state.items() if key in changing}


def _save(task: _Task, optimizer: torch.optim.Optimizer, position: _Position, folder: Path) -> None:
    """One file, written whole or not at all: the network, the best so far, the optimiser's moments, the history."""
    tensors = {f"net.{key}": value for key, value in _trained_tensors(task).items()}
    tensors |= {f"best.{key}": value for key, value in position.best.items()}
    for index, parameter in enumerate(_parameters(optimizer)):
        for key, value in optimizer.state[parameter].items():
            tensors[f"adam.{index}.{key}"] = value.detach().cpu().clone().contiguous()
    about = {
        "weights": task.weights,
        "best_epoch": position.best_epoch,
        "history": [row.model_dump() for row in position.history],
    }
    write_atomically(folder / "latest.safetensors", safetensors.torch.save(tensors, {"run": json.dumps(about)}))


def _restore(task: _Task, optimizer: torch.optim.Optimizer, folder: Path) -> _Position:
    """Where the run was when it was killed; the beginning where there is no state."""
    path = folder / "latest.safetensors"
    if not path.is_file():
        return _Position((), 0, {})
    try:
        with safe_open(path, "pt") as opened:
            about: dict[str, Any] = json.loads(opened.metadata()["run"])
            tensors: State = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path}: damaged: --restart trains anew") from None
    if about["weights"] != task.weights:
        raise UserError(
            f"{path.parent.parent}: this run began with {about['weights']}, now there is {task.weights}: "
            "--restart trains anew"
        )
    task.module.load_state_dict(_below(tensors, "net."), strict=False)
    for index, parameter in enumerate(_parameters(optimizer)):
        moments = _below(tensors, f"adam.{index}.")
        optimizer.state[parameter] = {
            key: value if key == "step" else torch.empty_like(parameter).copy_(value) for key, value in moments.items()
        }
    history = tuple(Epoch.model_validate(row) for row in about["history"])
    return _Position(history, about["best_epoch"], _below(tensors, "best."))


def _below(tensors: State, prefix: str) -> State:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


# The machine


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device {name!r} cannot be used here ({reason}): auto and cpu can") from None
    return device


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Deterministic algorithms where torch has them (it warns where not), and the caller's random state left alone."""
    memory: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS when its first handle is made
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Filling all fresh memory as well costs time, and helps only code that reads what it never wrote.
        memory.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=warned)
            memory.fill_uninitialized_memory = before[1]
