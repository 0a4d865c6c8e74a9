"""A small set of images to train on, options for a run of seconds, and a progress that remembers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from edgecnn.checkpoint import read_checkpoint
from edgecnn.train import TrainOptions

CLASSES = ("dark", "light", "striped")


def write_images(root: Path, counts: Sequence[int] = (12, 12, 12)) -> None:
    """Small grey squares: dark, light, or striped."""
    rng = np.random.default_rng(0)
    for name, count in zip(CLASSES, counts, strict=True):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.normal({"dark": 60, "light": 190, "striped": 120}[name], 12, (40, 40, 3))
            if name == "striped":
                pixels[:, ::4] += 90
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / name / f"{number}.png")


def options(**changes: object) -> TrainOptions:
    values = {"model": "timm:mobilenetv2_035", "weights": "none", "size": 32, "epochs": 3, "batch": 12, "device": "cpu"}
    return TrainOptions.model_validate({**values, **changes})


def weights_hash(folder: Path) -> str:
    return read_checkpoint(folder).files["weights.safetensors"]


class Recorder:
    def __init__(self) -> None:
        self.parts: list[tuple[int, str]] = []
        self.done = 0
        self.lines: list[str] = []

    def start(self, total: int, text: str) -> None:
        self.parts.append((total, text))
        self.done = 0

    def advance(self, steps: int = 1, status: str = "") -> None:
        self.done += steps

    def text(self, text: str) -> None:
        self.lines.append(text)
