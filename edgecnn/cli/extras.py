"""Says which extra is missing before anything long begins."""

from __future__ import annotations

import importlib.util
import os

from edgecnn.errors import MissingExtra


def need_training() -> None:
    """Raises MissingExtra where a library of the `train` extra is not installed."""
    need("train", "torch", "torchvision", "timm", "safetensors", "fvcore", "lightning_fabric")


def need(extra: str, *libraries: str) -> None:
    """Raises MissingExtra for the first of `libraries` that is not installed."""
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            raise MissingExtra(library, extra)


def is_first_process() -> bool:
    """Whether this process speaks for all those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"
