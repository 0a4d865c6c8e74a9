"""What the tests of formats and of their int8 do with any small network: ask it, compare answers, tune by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from edgecnn.judge import Yardstick
from edgecnn.quantize.ladder import TuningSet


def eager(module: Any, batch: np.ndarray) -> np.ndarray:
    """What a network that takes uint8 pixels answers in PyTorch."""
    with torch.inference_mode():
        answers: np.ndarray = module(torch.from_numpy(batch)).numpy()
    return answers


def error(logits: np.ndarray, reference: np.ndarray) -> float:
    """The largest, in units of the reference's spread."""
    return float(np.abs(logits - reference).max() / reference.std())


def tuning_by(module: Any, images: Callable[..., np.ndarray], calibration: int, validation: int) -> TuningSet:
    """So many images each, labelled as the network itself decides."""
    shown = images(validation, 100)
    logits = eager(module, shown)
    return TuningSet(images(calibration), shown, logits.argmax(1), logits, Yardstick(1.0), 1)
