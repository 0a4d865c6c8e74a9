"""The epochs of a run: AdamW under a warmed-up cosine, scored on the validation images after each."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgecnn.artifact import write_atomically
from edgecnn.checkpoint import Metrics
from edgecnn.errors import UserError
from edgecnn.train.folder import HISTORY, STATE
from edgecnn.train.progress import Progress
from edgecnn.train.repeatable import generator
from edgecnn.train.sources import in_order
from edgecnn.train.state import Epoch, Position, restore_state, save_state, trained_tensors
from edgecnn.train.task import Task
from edgecnn.transfer import param_groups, train_mode

_LR_FLOOR = 0.01
"""Share of the peak at which the cosine ends."""


def train(task: Task, out: Path, progress: Progress) -> Position:
    """From where the run was to its last epoch, or until `patience` epochs brought nothing better."""
    groups = param_groups(task.module, task.recipe)
    decay = task.options.weight_decay
    optimizer = torch.optim.AdamW(
        [{"params": list(g.parameters), "lr": g.lr, "weight_decay": decay if g.decays else 0.0} for g in groups]
    )
    position = restore_state(task, optimizer, out / STATE)
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
        position = Position(
            (*position.history, row),
            epoch if best else position.best_epoch,
            trained_tensors(task) if best else position.best,
        )
        save_state(task, optimizer, position, out / STATE)
        write_atomically(out / HISTORY, "".join(f"{line.model_dump_json()}\n" for line in position.history))
        progress.text(
            f"epoch {epoch}/{task.recipe.epochs}: loss {row.train_loss:.3f}, validation {row.val_loss:.3f}, "
            f"top-1 {row.val_top1:.1%}, mean recall {row.val_balanced:.1%}{' (best)' if best else ''}"
        )
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


def _better(row: Epoch, best: Epoch) -> bool:
    return (row.val_balanced, -row.val_loss) > (best.val_balanced, -best.val_loss)


def _epoch(
    task: Task,
    optimizer: torch.optim.Optimizer,
    peaks: Sequence[float],
    weights: Tensor,
    epoch: int,
    progress: Progress,
) -> Epoch:
    started = time.monotonic()
    options = task.options
    # Everything random in an epoch follows from (seed, epoch): a resumed run needs no generator's state.
    torch.manual_seed(int(generator(options.seed, epoch, 2).integers(2**62)))
    order = generator(options.seed, epoch, 0).permutation(len(task.train.labels))
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


def _score(task: Task) -> tuple[float, float, float]:
    """Top-1, mean recall of the classes that occur, and cross-entropy, on the validation images."""
    task.module.eval()
    task.net.eval()
    with torch.no_grad():
        batches = in_order(len(task.val.labels), task.options.batch)
        logits = torch.cat([task.net(task.val.batch(positions, None)) for positions in batches]).float()
    labels = task.val.labels
    right = (logits.argmax(1) == labels).double()
    recalls = [right[labels == label].mean() for label in torch.unique(labels)]
    loss = F.cross_entropy(logits, labels)
    return float(right.mean()), float(torch.stack(recalls).mean()), float(loss)
