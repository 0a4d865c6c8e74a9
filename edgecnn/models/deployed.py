"""The network as it is exported: its preprocessing inside, uint8 pixels in, logits out."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecnn.artifact import Preprocess

_BATCH = 32
"""Images that are answered at once: what they take in memory stays small."""


class Deployed(nn.Module):
    """The network as it is exported: uint8 (n, h, w, 3) RGB in, logits float32 (n, classes) out. Stays in eval mode."""

    mean: Tensor
    std: Tensor

    def __init__(self, module: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.module = module
        mean = torch.tensor(preprocess.mean).view(1, 3, 1, 1)
        std = torch.tensor(preprocess.std).view(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> Deployed:
        """Training mode would change what is exported: the mode is eval whatever is asked."""
        del mode
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (n, h, w, 3) RGB to logits (n, classes)."""
        pixels = images.permute(0, 3, 1, 2).to(torch.float32)
        logits: Tensor = self.module((pixels / 255 - self.mean) / self.std)
        return logits

    def answers(self, pixels: NDArray[np.generic]) -> NDArray[np.float32]:
        """The same for arrays, however many images; float32 pixels need not be whole numbers from 0 to 255."""
        with torch.inference_mode():
            batches = torch.split(torch.from_numpy(np.ascontiguousarray(pixels)), _BATCH)
            logits: NDArray[np.float32] = torch.cat([self(batch) for batch in batches]).numpy()
        return logits
