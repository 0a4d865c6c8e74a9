"""Where a run is, on disk after every epoch: what a killed run goes on from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from edgecnn.documents import Frozen, write_atomically
from edgecnn.errors import UserError
from edgecnn.models import State
from edgecnn.train.task import Task
from edgecnn.transfer import trained_stages


class Epoch(Frozen):
    """A line of metrics.jsonl."""

    epoch: int
    """From 1."""
    stages: int = 0
    """Trained in this epoch."""
    lr: float
    """Of the head, at the epoch's end."""
    train_loss: float
    """Mean over the epoch, as optimised: smoothed, weighted and mixed."""
    train_top1: float | None = None
    """Of the batches as they were trained on; None where images were mixed."""
    val_loss: float
    """Cross-entropy, neither smoothed nor weighted."""
    val_top1: float
    val_balanced: float
    seconds: float


@dataclass(frozen=True)
class Position:
    """Where a run is: all that the next epoch depends on, but the optimiser's moments, and the best so far."""

    history: tuple[Epoch, ...]
    best_epoch: int
    best: State
    average: State = field(default_factory=dict)
    """Empty without EMA."""


def trained_tensors(task: Task) -> State:
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


def save_state(task: Task, optimizer: torch.optim.Optimizer, position: Position, folder: Path) -> None:
    """One file, written whole or not at all: the network, the best so far, the optimiser's moments, the history."""
    tensors = {f"net.{key}": value for key, value in trained_tensors(task).items()}
    tensors |= {f"best.{key}": value for key, value in position.best.items()}
    tensors |= {f"average.{key}": value for key, value in position.average.items()}
    for index, parameter in enumerate(_parameters(optimizer)):
        for key, value in optimizer.state[parameter].items():
            tensors[f"adam.{index}.{key}"] = value.detach().cpu().clone().contiguous()
    about = {
        "weights": task.weights,
        "best_epoch": position.best_epoch,
        "history": [row.model_dump() for row in position.history],
    }
    write_atomically(folder / "latest.safetensors", safetensors.torch.save(tensors, {"run": json.dumps(about)}))


def restore_state(task: Task, optimizer: torch.optim.Optimizer, folder: Path) -> Position:
    """Where the run was when it was killed; the beginning where there is no state."""
    path = folder / "latest.safetensors"
    if not path.is_file():
        return Position((), 0, {})
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
    return Position(history, about["best_epoch"], _below(tensors, "best."), _below(tensors, "average."))


def _below(tensors: State, prefix: str) -> State:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
