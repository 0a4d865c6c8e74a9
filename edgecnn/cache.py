"""The one folder of the user's that edgecnn, and what it calls, keep anything in from run to run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from edgecnn.errors import UserError


def cache_folder(part: str) -> Path:
    """$EDGECNN_CACHE/part, or $XDG_CACHE_HOME/edgecnn/part (~/.cache/edgecnn/part). Not made here.

    Where there is no home folder, one of this user's among the temporary files."""
    if named := os.environ.get("EDGECNN_CACHE"):
        return Path(named).resolve() / part
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(base or Path.home() / ".cache").resolve() / "edgecnn" / part
    except RuntimeError:  # no HOME, and a user that the system does not know, as in a container
        return _of_the_homeless() / part


def _of_the_homeless() -> Path:
    """A folder among the temporary files. UserError where another user has made it."""
    folder = Path(tempfile.gettempdir()).resolve() / f"edgecnn-cache-{os.getuid()}"
    if folder.exists() and folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder}: is another user's: set HOME, or name a folder with EDGECNN_CACHE")
    return folder
