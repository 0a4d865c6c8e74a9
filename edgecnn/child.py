"""Our own code in a process of its own, where an engine may die alone: its environment, and how it died."""

from __future__ import annotations

import os
import signal
import sysconfig
from collections.abc import Mapping
from pathlib import Path

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""Read by libraries when they load, so they must be set before the child starts."""
USER_ERROR = 2
"""The child's exit code where its last line on stderr is a message for the user."""

_DEATHS = {
    "SIGILL": "the engine uses instructions that this processor lacks (SIGILL): install a build for this processor",
    "SIGKILL": "the {process} process was killed (SIGKILL), most often for lack of memory: free some",
}


def child_environment(parent: Mapping[str, str], threads: int) -> dict[str, str]:
    """The parent's environment with thread counts pinned, and with this very edgecnn importable."""
    environment = {**parent, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    package = str(Path(__file__).resolve().parents[1])
    if package not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        inherited = parent.get("PYTHONPATH")
        environment["PYTHONPATH"] = package + (os.pathsep + inherited if inherited else "")
    return environment


def death(code: int, stderr: str, process: str) -> str:
    """Why a child ended with this exit code, in one line. `process`: what it is called."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    last = lines[-1] if lines else "it left no message"
    if code == USER_ERROR:
        return last
    if code < 0:
        name = _signal_name(-code)
        died = f"the {process} process died by {name}: the engine crashed; last message: {last}"
        return _DEATHS.get(name, died).format(process=process)
    return f"the {process} process failed with exit code {code}: {last}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
