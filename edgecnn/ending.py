"""Processes that end together: a child with its parent, however that ends.

Linux; elsewhere a child whose parent was killed runs to its end.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

_PR_SET_PDEATHSIG = 1
_BOUND = f"""
import os, sys
try:
    import ctypes
    ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, 9)
except (ImportError, OSError, AttributeError):
    pass
if os.getppid() != int(sys.argv[1]):
    os.kill(os.getpid(), 9)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{{sys.argv[2]}}: {{error.strerror}}")
"""


def end_with(parent: int) -> None:
    """Have the kernel end this process with `parent`, however that ends.

    Otherwise a bench that is killed leaves its child measuring, which disturbs whatever is measured next.
    """
    if sys.platform != "linux":
        return
    with suppress(ImportError, OSError, AttributeError):  # a Python without ctypes, a C library without prctl
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was told
        os.kill(os.getpid(), signal.SIGKILL)


def bound(command: Sequence[str]) -> list[str]:
    """The same command of a program that is not ours, such that it ends with this process.

    A small Python asks the kernel for that and becomes the program: what `preexec_fn` would do is not safe where an
    engine has threads.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _BOUND, str(os.getpid()), *command]


def end_in_order() -> None:
    """Let a request to end (TERM, HUP) end this process as an error does: its children and temporary folders go.

    Not where torchrun started it: a process that waits for another one would never hear of it.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # What is ignored, as HUP by nohup, stays so.
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            with suppress(ValueError):  # not the main thread
                signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends at once
    raise SystemExit(128 + number)
