"""Labelled inputs of a network: pixels prepared once, or the features of a frozen backbone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecnn.artifact import Preprocess, sha256_of
from edgecnn.data import Item, split_hash
from edgecnn.errors import BadImage, UserError
from edgecnn.imaging import Images, Preparer
from edgecnn.models import head_of
from edgecnn.train.augmentation import augment
from edgecnn.train.options import TrainOptions
from edgecnn.train.progress import Progress
from edgecnn.train.repeatable import generator


@dataclass(frozen=True)
class Source:
    """Labelled inputs of a network."""

    labels: Tensor
    """int64 (n,)."""
    batch: Callable[[NDArray[np.int64], int | None], Tensor]
    """Positions (b,) and the epoch to augment for (None: not at all) to the network's input."""


def pixel_source(
    items: Sequence[Item],
    preprocess: Preprocess,
    device: torch.device,
    options: TrainOptions,
    cache: Path,
    progress: Progress,
) -> Source:
    """Prepared images, augmented where an epoch is given, normalised: float32 (b, 3, h, w), channels last."""
    pixels = prepared(items, preprocess, cache, progress)
    mean = torch.tensor(preprocess.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(preprocess.std, device=device).view(1, 3, 1, 1)

    def batch(positions: NDArray[np.int64], epoch: int | None) -> Tensor:
        chosen = torch.from_numpy(np.array(pixels[positions])).to(device)
        images = chosen.permute(0, 3, 1, 2).float() / 255
        if epoch is not None and options.augment == "surface":
            # Drawn for the whole epoch: an image's draws depend on (seed, epoch, position) alone.
            draws = generator(options.seed, epoch, 1).random((len(items), 8), np.float32)[positions]
            images = augment(images, torch.from_numpy(draws).to(device))
        return ((images - mean) / std).contiguous(memory_format=torch.channels_last)

    return Source(torch.tensor([item.label for item in items], dtype=torch.int64, device=device), batch)


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


def feature_source(module: nn.Module, pixels: Source, batch: int, progress: Progress) -> Source | None:
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
            for positions in in_order(len(pixels.labels), batch):
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
    return Source(pixels.labels, lambda positions, epoch: every[torch.from_numpy(positions)])


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
