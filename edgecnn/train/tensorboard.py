"""A run's curves for TensorBoard, where it is asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgecnn.errors import MissingExtra
from edgecnn.train.state import Epoch

FOLDER = "tensorboard"
"""In the run folder: `tensorboard --logdir runs`."""


@contextmanager
def scalars(out: Path | None, done: int) -> Iterator[Callable[[Epoch], None]]:
    """What writes an epoch's figures into `out`; nothing where that is None. Epochs after `done` are overwritten."""
    if out is None:
        yield lambda row: None
        return
    if importlib.util.find_spec("tensorboard") is None:
        raise MissingExtra("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(out / FOLDER), purge_step=done + 1)
    try:
        yield lambda row: _write(writer.add_scalar, row)
    finally:
        writer.close()


def _write(add: Callable[[str, float, int], None], row: Epoch) -> None:
    for name, value in row.model_dump(exclude={"epoch"}).items():
        if value is not None:
            add(name.replace("_", "/", 1), value, row.epoch)
