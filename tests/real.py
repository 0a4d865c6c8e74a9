"""A real network on real images, for tests that skip where there are none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from edgecnn.formats import Source
from edgecnn.imaging import prepare
from edgecnn.judge import Yardstick
from edgecnn.models import Deployed, build
from edgecnn.quantize.flat import flatten
from edgecnn.quantize.ladder import TuningSet

MACS = 300_774_272
"""Of MobileNetV2 at 224 pixels."""


@dataclass(frozen=True)
class RealNetwork:
    """MobileNetV2 with ImageNet weights and classes."""

    source: Source
    tuning: TuningSet
    """Calibration images, and others with the eager network's logits."""

    @property
    def images(self) -> np.ndarray:
        """Those with logits: uint8 (n, 224, 224, 3)."""
        return self.tuning.validation

    @property
    def logits(self) -> np.ndarray:
        """(n, 1000)."""
        return self.tuning.validation_logits


def mobilenet_v2(shared: Path, work: Path, calibration: int = 40, images: int = 100) -> RealNetwork:
    """Skips where the weights or the images are absent."""
    weights = shared / "weights" / "mobilenet_v2" / "mobilenet_v2.safetensors"
    folder = shared / "data" / "imagenet_val1300" / "data"
    if not weights.is_file() or not folder.is_dir():
        pytest.skip("no MobileNetV2 weights or ImageNet images")
    built = build("torchvision:mobilenet_v2", 1000, weights=weights, keep_head=True)
    spec = built.preprocess
    files = sorted(folder.iterdir())[: calibration + images]
    batch = np.stack([prepare(path.read_bytes(), spec) for path in files])
    module = Deployed(built.module, spec).eval()
    with torch.inference_mode():
        logits = np.concatenate([module(torch.from_numpy(part)).numpy() for part in np.array_split(batch, 8)])
    source = Source(flatten(module, spec.height, spec.width), spec.height, spec.width, work)
    known = batch[calibration:], logits[calibration:].argmax(1), logits[calibration:]
    return RealNetwork(source, TuningSet(batch[:calibration], *known, Yardstick(1.0), 1))
