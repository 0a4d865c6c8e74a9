"""The one folder of the user's that edgecnn, and what it calls, keep anything in from run to run."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(part: str) -> Path:
    """$EDGECNN_CACHE/part, or $XDG_CACHE_HOME/edgecnn/part (~/.cache/edgecnn/part). Not made here."""
    if named := os.environ.get("EDGECNN_CACHE"):
        return Path(named).resolve() / part
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base).resolve() / "edgecnn" / part
