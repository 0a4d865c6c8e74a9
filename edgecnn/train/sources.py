"""Labelled inputs of a network: pixels prepared once, or what its frozen part makes of them, computed once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgecnn.artifact import Preprocess
from edgecnn.data import Item
from edgecnn.disk import reserve
from edgecnn.documents import sha256_of
from edgecnn.errors import BadImage, UserError
from edgecnn.holding import remove_leftovers
from edgecnn.imaging import Images, Preparer
from edgecnn.train.augmentation import DRAWS, augment
from edgecnn.train.cut import Cut
from edgecnn.train.options import TrainOptions
from edgecnn.train.progress import ProgressBar
from edgecnn.train.repeatable import generator


@dataclass(frozen=True)
class Source:
    """Labelled inputs of a network."""

    labels: Tensor
    """int64 (n,)."""
    batch: Callable[[NDArray[np.int64], int | None], Tensor]
    """Positions (b,) and the epoch to augment for (None: not at all) to the network's input."""


def pixel_source(
    pixels: Images, labels: Sequence[int], preprocess: Preprocess, device: torch.device, options: TrainOptions
) -> Source:
    """Prepared images, augmented where an epoch is given, normalised: float32 (b, 3, h, w), channels last."""
    mean = torch.tensor(preprocess.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(preprocess.std, device=device).view(1, 3, 1, 1)

    def batch(positions: NDArray[np.int64], epoch: int | None) -> Tensor:
        chosen = torch.from_numpy(np.array(pixels[positions])).to(device)
        images = chosen.permute(0, 3, 1, 2).float() / 255
        if epoch is not None:
            # Drawn for the whole epoch: an image's draws depend on (seed, epoch, position) alone.
            draws = generator(options.seed, epoch, 1).random((len(pixels), DRAWS), np.float32)[positions]
            images = augment(images, torch.from_numpy(draws).to(device), options.augment)
        return ((images - mean) / std).contiguous(memory_format=torch.channels_last)

    return Source(torch.tensor(labels, dtype=torch.int64, device=device), batch)


def prepared(items: Sequence[Item], preprocess: Preprocess, cache: Path, progress: ProgressBar) -> Images:
    """uint8 (n, h, w, 3): every image through the one preprocessing, kept in a file that is complete or not there."""
    if not items:
        return np.empty((0, preprocess.height, preprocess.width, 3), np.uint8)
    order = " ".join(item.sha256 for item in items)  # a file of the same images in another order is another file
    key = sha256_of(f"{order} {preprocess.model_dump_json(exclude={'mean', 'std'})}".encode())
    path = cache / f"{key}.npy"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        remove_leftovers(cache)
        temporary = cache / f".{key}.{os.getpid()}.tmp"
        shape = (len(items), preprocess.height, preprocess.width, 3)
        pixels = _mapped(temporary, np.uint8, shape)
        preparer = Preparer(preprocess)
        progress.start(len(items), "preparing images")
        for position, item in enumerate(items):
            pixels[position] = _prepare(item, preparer)
            progress.advance()
        pixels.flush()
        temporary.replace(path)
    found: Images = np.load(path, mmap_mode="r")
    return found


def frozen_source(
    half: Cut,
    pixels: Source,
    views: Sequence[int | None],
    folder: Path,
    options: TrainOptions,
    progress: ProgressBar,
) -> Source:
    """What the frozen part gives for each of `views` of every image, computed once and kept in `folder`.

    A view is the epoch whose augmentation it has, or None for none. In epoch e the images are seen in view e, the
    views in turn. A file is complete or not there, so that a killed run goes on with the next view.
    """
    stored = [_stored(half, pixels, view, folder, options.batch, progress) for view in views]

    def give(positions: NDArray[np.int64], epoch: int | None) -> Tensor:
        rows = stored[0 if epoch is None else (epoch - 1) % len(stored)]
        values = torch.from_numpy(np.array(rows[positions])).to(pixels.labels.device)
        return values.permute(0, 3, 1, 2) if values.ndim == 4 else values

    return Source(pixels.labels, give)


def subset(source: Source, chosen: NDArray[np.int64]) -> Source:
    """The inputs at `chosen` positions alone."""
    return Source(
        source.labels[torch.from_numpy(chosen)], lambda positions, epoch: source.batch(chosen[positions], epoch)
    )


def _stored(
    half: Cut, pixels: Source, view: int | None, folder: Path, batch: int, progress: ProgressBar
) -> NDArray[np.float32]:
    """float32 (n, features) or (n, h, w, c)."""
    path = folder / f"{'plain' if view is None else view}.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        count = len(pixels.labels)
        progress.start(count, f"computing what is frozen{'' if view is None else f', view {view}'}")
        temporary = folder / f".{path.stem}.{os.getpid()}.tmp"
        rows: np.memmap[Any, Any] | None = None
        for positions in in_order(count, batch):
            given = half.front(pixels.batch(positions, view)).float().cpu()
            values = (given.permute(0, 2, 3, 1) if given.ndim == 4 else given).numpy()
            if rows is None:
                rows = _mapped(temporary, np.float32, (count, *values.shape[1:]))
            rows[positions] = values
            progress.advance(len(positions))
        if rows is not None:
            rows.flush()
        temporary.replace(path)
    found: NDArray[np.float32] = np.load(path, mmap_mode="r")
    return found


def _mapped(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A new .npy file, mapped; the disk has room for all of it. OSError, and no file, where it has not."""
    try:
        rows = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        with path.open("r+b") as stream:
            reserve(stream.fileno(), path.stat().st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        error.filename = str(path)
        raise
    return rows


def in_order(count: int, batch: int) -> list[NDArray[np.int64]]:
    """Positions 0 … count - 1 in batches, the last one shorter."""
    return [np.arange(start, min(start + batch, count)) for start in range(0, count, batch)]


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
