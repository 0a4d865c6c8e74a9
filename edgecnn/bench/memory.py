"""The memory that this process takes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident_bytes(status: Path = _STATUS) -> int | None:
    """Resident memory now; None where the system does not tell."""
    return _field(status, "VmRSS")


def peak_resident_bytes(status: Path = _STATUS) -> int | None:
    """Largest resident memory so far; None where the system does not tell.

    Linux's VmHWM comes first: `ru_maxrss` survives exec, so that a child reports its parent's peak where that is
    larger.
    """
    return _field(status, "VmHWM") or _maxrss()


def _field(status: Path, name: str) -> int | None:
    try:
        lines = status.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        if words[:1] == [f"{name}:"] and len(words) == 3 and words[1].isdigit():
            return int(words[1]) * 1024
    return None


def _maxrss() -> int | None:
    try:
        resource = importlib.import_module("resource")
    except ImportError:  # Windows
        return None
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else peak * 1024
