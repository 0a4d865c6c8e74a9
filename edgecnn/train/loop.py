"""The epochs of a run: AdamW under a warmed-up cosine, scored on the validation images after each."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from edgecnn.checkpoint import Metrics
from edgecnn.documents import write_atomically
from edgecnn.errors import UserError, out_of_memory
from edgecnn.train.average import Average
from edgecnn.train.folder import HISTORY, STATE
from edgecnn.train.progress import ProgressBar
from edgecnn.train.repeatable import generator
from edgecnn.train.sources import in_order
from edgecnn.train.state import Epoch, Position, restore_state, save_state, trained_tensors
from edgecnn.train.task import Task
from edgecnn.train.tensorboard import scalars
from edgecnn.train.workers import sum_gradients
from edgecnn.transfer import freeze, param_groups, train_mode, trained_stages

_LR_FLOOR = 0.01
"""Share of the peak at which the cosine ends."""


def train(task: Task, out: Path | None, progress: ProgressBar) -> Position:
    """From where the run was to its last epoch, or until `patience` epochs brought nothing better.

    `out`: the folder that keeps the state after each epoch; None: nothing is kept.
    """
    groups = param_groups(task.module, task.recipe)
    decay = task.options.weight_decay
    optimizer = torch.optim.AdamW(
        [{"params": list(g.parameters), "lr": g.lr, "weight_decay": decay if g.decays else 0.0} for g in groups],
        fused=True,
    )
    position = restore_state(task, optimizer, out / STATE) if out else Position((), 0, {})
    average = None
    if task.options.ema:
        average = Average(task.module, task.options.ema, position.average or trained_tensors(task))
    run = _Run(task, optimizer, tuple(group.lr for group in groups), average, progress)
    done = len(position.history)
    progress.start(task.recipe.epochs * task.steps, f"training ({task.recipe.name})")
    progress.advance(done * task.steps)
    with scalars(out if task.options.tensorboard and task.fabric.is_global_zero else None, done) as write:
        for epoch in range(done + 1, task.recipe.epochs + 1):
            if epoch - 1 - position.best_epoch >= task.patience and position.history:
                progress.text(f"stopped: {task.patience} epochs without a better validation result")
                break
            position = _after(run, position, epoch)
            if out and task.fabric.is_global_zero:
                save_state(task, optimizer, position, out / STATE)
                lines = "".join(f"{line.model_dump_json()}\n" for line in position.history)
                write_atomically(out / HISTORY, lines)
            task.fabric.barrier()
            write(position.history[-1])
    return position


def metrics_of(task: Task, position: Position) -> Metrics:
    """Those of the best epoch; of the network as it is where nothing was trained."""
    top1: float | None = None
    balanced: float | None = None
    loss: float | None = None
    if position.history:
        row = position.history[position.best_epoch - 1]
        top1, balanced, loss = row.val_top1, row.val_balanced, row.val_loss
    elif len(task.val.labels):
        score = _score(task)
        top1, balanced, loss = score["val_top1"], score["val_balanced"], score["val_loss"]
    return Metrics(
        val_images=len(task.val.labels),
        val_top1=top1,
        val_balanced=balanced,
        val_loss=loss,
        best_epoch=position.best_epoch,
        epochs=len(position.history),
        minutes=round(sum(row.seconds for row in position.history) / 60, 3),
    )


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


def one_cycle(step: int, steps: int) -> tuple[float, float]:
    """Share of the peak rate and first momentum at `step` (from 0) of `steps`: from 1/25 up over the first 30 %, then
    down to 1/10,000 of that, both as half cosines; the momentum goes from 0.95 to 0.85 and back."""
    rise = max(1.0, 0.3 * steps - 1)
    done = step / rise if step < rise else (step - rise) / max(1.0, steps - 1 - rise)
    along = 0.5 * (1 - math.cos(math.pi * min(1.0, done)))
    if step < rise:
        return 0.04 + 0.96 * along, 0.95 - 0.10 * along
    return 1 - along * (1 - 4e-6), 0.85 + 0.10 * along


def mix(images: Tensor, labels: Tensor, classes: int, mixup: float, cutmix: float) -> tuple[Tensor, Tensor]:
    """Inputs (n, …) and labels int64 (n,) to inputs and targets: shares (n, classes) where images were mixed.

    CutMix needs maps, (n, c, h, w); what is computed once may be vectors, which MixUp alone can mix.
    """
    kinds = [v2.MixUp(alpha=mixup, num_classes=classes)] if mixup else []
    if cutmix and images.ndim == 4:
        kinds.append(v2.CutMix(alpha=cutmix, num_classes=classes))
    if not kinds or len(labels) < 2:
        return images, labels
    mixed, targets = kinds[int(torch.randint(len(kinds), ()))](images, labels)
    return mixed, targets


@dataclass(frozen=True)
class _Run:
    """What the epochs of a run share."""

    task: Task
    optimizer: torch.optim.Optimizer
    peaks: tuple[float, ...]
    """Learning rates of the optimiser's groups."""
    average: Average | None
    progress: ProgressBar


def _after(run: _Run, position: Position, epoch: int) -> Position:
    """Where the run is after one more epoch."""
    task, started = run.task, time.monotonic()
    row = _epoch(run, epoch)
    with run.average.in_place() if run.average else nullcontext():
        row = row.model_copy(update={**_score(task), "seconds": time.monotonic() - started})
        best = not position.best or _better(row, position.history[position.best_epoch - 1])
        kept = trained_tensors(task) if best else position.best
    run.progress.text(
        f"epoch {epoch}/{task.recipe.epochs}: loss {row.train_loss:.3f}, validation {row.val_loss:.3f}, "
        f"top-1 {row.val_top1:.1%}, mean recall {row.val_balanced:.1%}{' (best)' if best else ''}"
    )
    average = {key: value.clone() for key, value in run.average.state.items()} if run.average else {}
    return Position((*position.history, row), epoch if best else position.best_epoch, kept, average)


def _better(row: Epoch, best: Epoch) -> bool:
    return (row.val_balanced, -row.val_loss) > (best.val_balanced, -best.val_loss)


def _epoch(run: _Run, epoch: int) -> Epoch:
    """One pass over the training images; the validation figures and the time are left at 0."""
    task, options = run.task, run.task.options
    # Everything random in an epoch follows from (seed, epoch): a resumed run needs no generator's state.
    torch.manual_seed(int(generator(options.seed, epoch, 2).integers(2**62)))
    order = generator(options.seed, epoch, 0).permutation(len(task.train.labels))
    freeze(task.module, task.recipe, epoch)
    task.net.train()
    train_mode(task.module, task.recipe, epoch, options.batchnorm)
    tally = _Tally()
    batches = np.array_split(order, task.steps)
    for number, positions in enumerate(batches):
        scale = _set_rates(run, epoch, number)
        _step(run, positions, epoch, number, tally)
        run.progress.advance(
            1, f"epoch {epoch}: loss {tally.loss / tally.seen:.3f}, {tally.right / tally.seen:.0%} right"
        )
    if tally.single > len(batches) // 4 and len(torch.unique(task.train.labels)) > 1 and epoch == 1:
        run.progress.text(f"{tally.single} of {len(batches)} batches hold one class only: raise --batch")
    return Epoch(
        epoch=epoch,
        stages=len(trained_stages(task.module, task.recipe, epoch)),
        lr=task.recipe.lr * scale,
        train_loss=tally.loss / len(order),
        train_top1=None if options.mixup or options.cutmix else tally.right / len(order),
        val_loss=0.0,
        val_top1=0.0,
        val_balanced=0.0,
        seconds=0.0,
    )


@dataclass
class _Tally:
    """Sums over the images of an epoch so far."""

    loss: float = 0.0
    right: int = 0
    seen: int = 0
    single: int = 0
    """Batches with one class only."""

    def __str__(self) -> str:
        return f"loss {self.loss / self.seen:.3f}, {self.right / self.seen:.0%} right"


def _set_rates(run: _Run, epoch: int, number: int) -> float:
    """Sets every group's rate (and under 1cycle its first momentum) for a step; returns the share of the peak."""
    task, options = run.task, run.task.options
    step, steps = (epoch - 1) * task.steps + number, task.recipe.epochs * task.steps
    if options.schedule == "1cycle":
        scale, momentum = one_cycle(step, steps)
    else:
        scale, momentum = lr_scale(step, steps, round(options.warmup * task.steps)), 0.9
    for group, peak in zip(run.optimizer.param_groups, run.peaks, strict=True):
        group["lr"], group["betas"] = peak * scale, (momentum, 0.999)
    return scale


def _step(run: _Run, positions: NDArray[np.int64], epoch: int, number: int, tally: _Tally) -> None:
    """One batch: this process takes its share of the images, and all processes their common step."""
    task, options, fabric = run.task, run.task.options, run.task.fabric
    mine = positions[fabric.global_rank :: fabric.world_size]
    all_labels = task.train.labels[torch.from_numpy(positions)]
    labels = task.train.labels[torch.from_numpy(mine)]
    weights = class_weights(task.train.labels, task.classes, options.class_weights)
    try:
        inputs, targets = mix(task.train.batch(mine, epoch), labels, task.classes, options.mixup, options.cutmix)
        with fabric.autocast():
            logits = task.net(inputs)
        total = F.cross_entropy(
            logits.float(), targets, weight=weights, label_smoothing=options.label_smoothing, reduction="sum"
        )
        # The mean over the whole batch, weighted as in PyTorch, whatever process has which image.
        loss = total / weights[all_labels].sum()
        run.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        _explain(error, task, len(mine))
        raise
    sum_gradients(fabric, run.optimizer)
    both = torch.stack([loss.detach().double(), (logits.argmax(1) == labels).sum().double()])
    summed = fabric.all_reduce(both, reduce_op="sum") if fabric.world_size > 1 else both
    assert isinstance(summed, Tensor)
    mean, right = summed.tolist()
    if not math.isfinite(mean):
        raise UserError(
            f"epoch {epoch}, batch {number + 1}: the loss is {mean}: lower --lr (it was {task.recipe.lr:g}) "
            "and add --restart"
        )
    run.optimizer.step()
    if run.average:
        run.average.update()
    tally.loss += mean * len(positions)
    tally.right += int(right)
    tally.seen += len(positions)
    tally.single += int(len(torch.unique(all_labels)) == 1)


def _explain(error: RuntimeError, task: Task, images: int) -> None:
    """Raises UserError where the machine had too little memory for a step."""
    if out_of_memory(error):
        raise UserError(
            f"{task.fabric.device}: out of memory with {images} images in a step: lower --batch (such as "
            f"{max(2, task.options.batch // 2)}) or --size, or train fewer stages (--recipe last, head); the same "
            "command goes on where it was if the folder's settings are the same, else add --restart"
        ) from None


def _score(task: Task) -> dict[str, float]:
    """Top-1, mean recall of the classes that occur, and cross-entropy, on the validation images."""
    task.module.eval()
    task.net.eval()
    with torch.no_grad(), task.fabric.autocast():
        batches = in_order(len(task.val.labels), task.options.batch)
        logits = torch.cat([task.net(task.val.batch(positions, None)) for positions in batches]).float()
    labels = task.val.labels
    right = (logits.argmax(1) == labels).double()
    recalls = [right[labels == label].mean() for label in torch.unique(labels)]
    loss = F.cross_entropy(logits, labels)
    balanced = float(torch.stack(recalls).mean())
    return {"val_top1": float(right.mean()), "val_balanced": balanced, "val_loss": float(loss)}
