"""Variations of training images that leave a surface's class as it is."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


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
