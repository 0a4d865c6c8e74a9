"""Variations of training images that leave their class as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

DRAWS = 8
"""Uniform numbers that vary one image."""


def augment(images: Tensor, draws: Tensor, kind: Literal["surface", "natural", "none"] = "surface") -> Tensor:
    """float32 (n, 3, h, w) in 0..1 to the same, varied; what the kinds do stands in `TrainOptions.augment`.

    `draws`: float32 (n, 8), uniform in 0..1: all the randomness there is. One bilinear resampling, edges mirrored.
    """
    return images if kind == "none" else _KINDS[kind](images, 2 * draws - 1)


def _surface(images: Tensor, signed: Tensor) -> Tensor:
    """Flipped, turned, scaled, shifted, and with other light."""
    flip_x, flip_y = torch.sign(signed[:, 0]), torch.sign(signed[:, 1])
    angle = signed[:, 2] * math.radians(10)
    scale = 1 + 0.1 * signed[:, 3]
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    rows = [cos * flip_x, -sin * flip_y, 0.1 * signed[:, 4], sin * flip_x, cos * flip_y, 0.1 * signed[:, 5]]
    images = _resample(images, rows)
    return _light(images, 0.15 * signed[:, 6], 0.15 * signed[:, 7])


def _natural(images: Tensor, signed: Tensor) -> Tensor:
    """A part of the image, mirrored or not, with other light and colour."""
    flip = torch.sign(signed[:, 0])
    width, height = 0.82 + 0.18 * signed[:, 1], 0.82 + 0.18 * signed[:, 2]
    nothing = torch.zeros_like(flip)
    rows = [width * flip, nothing, (1 - width) * signed[:, 3], nothing, height, (1 - height) * signed[:, 4]]
    images = _resample(images, rows)
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * (1 + 0.25 * signed[:, 5]).view(-1, 1, 1, 1)
    return _light(images, 0.25 * signed[:, 6], 0.25 * signed[:, 7])


_KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"surface": _surface, "natural": _natural}


def _resample(images: Tensor, rows: list[Tensor]) -> Tensor:
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _light(images: Tensor, brighter: Tensor, steeper: Tensor) -> Tensor:
    """Mean times 1 + `brighter`, deviations from it times 1 + `steeper`, both (n,)."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    brightness, contrast = (1 + brighter).view(-1, 1, 1, 1), (1 + steeper).view(-1, 1, 1, 1)
    return ((images - mean) * contrast + mean * brightness).clamp(0, 1)
