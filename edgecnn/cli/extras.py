"""Says which extra is missing before anything long begins."""

from __future__ import annotations

import os

from edgecnn.installed import need


def need_training() -> None:
    """Raises MissingExtra where a library of the `train` extra is not installed."""
    need("train", "torch", "torchvision", "timm", "safetensors", "fvcore", "lightning-fabric")


def is_first_process() -> bool:
    """Whether this process speaks for all those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"
