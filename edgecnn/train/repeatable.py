"""What makes a run repeatable: a device that works, deterministic algorithms, a generator for each purpose."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from edgecnn.errors import UserError, first_line


def usable_device(name: str) -> torch.device:
    """The device of that name, auto being cuda where there is one. Raises UserError where it does not work."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error)
        raise UserError(f"device {name!r} cannot be used here ({reason}): auto and cpu can") from None
    return device


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Deterministic algorithms where torch has them (it warns where not), and the caller's random state left alone."""
    memory: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS when its first handle is made
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Filling all fresh memory as well costs time, and helps only code that reads what it never wrote.
        memory.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=warned)
            memory.fill_uninitialized_memory = before[1]


def generator(seed: int, epoch: int, purpose: int) -> np.random.Generator:
    """Purposes: 0 the order, 1 augmentation, 2 torch's own (dropout)."""
    return np.random.default_rng([seed, epoch, purpose])
