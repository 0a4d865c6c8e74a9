"""Says which extra is missing before anything long begins."""

from __future__ import annotations

import os

from edgecnn.installed import need_training

__all__ = ["is_first_process", "need_training"]


def is_first_process() -> bool:
    """Whether this process speaks for all those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"
