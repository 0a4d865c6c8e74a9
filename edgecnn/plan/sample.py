"""A few training images, prepared once: what the measurements of a plan run on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgecnn.artifact import Preprocess
from edgecnn.data import Dataset, Item, calibration_items
from edgecnn.errors import BadImage, UserError
from edgecnn.imaging import Images, Preparer


@dataclass(frozen=True)
class Sample:
    """Images of the train split, the classes in turn, no image twice."""

    pixels: Images
    labels: tuple[int, ...]
    preprocess: Preprocess
    prepare_ms: float
    """Reading, decoding and resizing of one image, on average."""

    def inputs(self, start: int, stop: int, device: torch.device) -> Tensor:
        """float32 (n, 3, h, w), normalised, channels last."""
        mean = torch.tensor(self.preprocess.mean, device=device).view(1, 3, 1, 1)
        std = torch.tensor(self.preprocess.std, device=device).view(1, 3, 1, 1)
        images = torch.from_numpy(self.pixels[start:stop]).to(device).permute(0, 3, 1, 2).float() / 255
        return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def take_sample(data: Dataset, preprocess: Preprocess, most: int) -> Sample:
    """At most `most` images through the one preprocessing. UserError where one cannot be read."""
    items = _unique(calibration_items(data, most))
    preparer = Preparer(preprocess)
    started = time.perf_counter()
    pixels = np.stack([np.array(_prepare(item, preparer)) for item in items])
    spent_ms = 1000 * (time.perf_counter() - started)
    return Sample(pixels, tuple(item.label for item in items), preprocess, spent_ms / len(items))


def _unique(items: Sequence[Item]) -> list[Item]:
    return list({item.sha256: item for item in items}.values())


def _prepare(item: Item, preparer: Preparer) -> Images:
    try:
        return preparer.prepare(item.path.read_bytes())
    except OSError as error:
        raise UserError(f"{item.path}: cannot be read ({error.strerror}): give the same data folder") from None
    except BadImage as error:
        raise UserError(f"{item.path}: {error}: mend or remove it") from None
