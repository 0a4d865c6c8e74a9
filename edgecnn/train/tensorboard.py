"""A run's curves for TensorBoard, where it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgecnn.installed import need
from edgecnn.train.folder import CURVES
from edgecnn.train.state import Epoch


@contextmanager
def scalars(out: Path | None, done: int) -> Iterator[Callable[[Epoch], None]]:
    """What writes an epoch's figures into `out`; nothing where that is None. Epochs after `done` are overwritten."""
    if out is None:
        yield lambda row: None
        return
    need("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(out / CURVES), purge_step=done + 1)
    try:
        yield lambda row: _write(writer.add_scalar, row)
    finally:
        writer.close()


def _write(add: Callable[[str, float, int], None], row: Epoch) -> None:
    for name, value in row.model_dump(exclude={"epoch"}).items():
        if value is not None:
            add(name.replace("_", "/", 1), value, row.epoch)
