"""Fuzz one kind of input in a process of its own, within limits of time and memory: what came of how many inputs.

`python -m tests.fuzz.campaign KIND SECONDS INPUTS SEED FOLDER` is that process. It writes FOLDER/outcome.json after
each batch, and FOLDER/last before each input, so that a crash leaves the input that led to it. What went wrong is
shrunk by hypothesis to the smallest input that does it; the hunt then goes on without that fault.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

LONGEST_S = 30.0
"""No input may take longer."""
HANGS_S = 120.0
"""What is still running then is ended: it is in no state to be told so by Python."""
MOST_MIB = 2048
"""Nor more memory, together with the libraries that are loaded."""
BATCH = 500
_ROOT = Path(__file__).parents[2]


@dataclass
class Outcome:
    """What came of the inputs of one kind."""

    kind: str
    inputs: int = 0
    exit_codes: dict[str, int] = field(default_factory=dict)
    slowest_s: float = 0.0
    peak_mib: int = 0
    seconds: float = 0.0
    faults: list[dict[str, str]] = field(default_factory=list)
    """Each with what was seen and the smallest input that led to it."""


def fuzz(kind: str, seconds: float, inputs: int, number: int, folder: Path) -> Outcome:
    """The outcome of a process of its own; a fault of its own kind where that died or hung."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "tests.fuzz.campaign", kind, str(seconds), str(inputs), str(number), str(folder)]
    died = subprocess.run(words, cwd=_ROOT, capture_output=True, text=True, errors="replace")
    path = folder / "outcome.json"
    found = Outcome(kind) if not path.is_file() else Outcome(**json.loads(path.read_text("utf-8")))
    if died.returncode != 0:
        last = folder / "last"
        content = last.read_bytes() if last.is_file() else b""
        found.faults.append(
            {"seen": f"exit code {died.returncode}: {died.stderr[-1500:]}", "input": content[:20000].hex()}
        )
    return found


def hunt(
    kind: str, read: Callable[[Any], int], inputs: Any, most: int, until: float, number: int, folder: Path
) -> Outcome:
    """In this process: batches until so many inputs were read, or the time is up."""
    found, known, began, of_before = Outcome(kind), set[str](), time.monotonic(), _ended_kib()

    def one(content: Any) -> None:
        (folder / "last").write_bytes(content if isinstance(content, bytes) else repr(content).encode())
        _reset_peak()
        faulthandler.dump_traceback_later(HANGS_S, exit=True)
        start = time.monotonic()
        try:
            code = read(content)
        except Exception as error:
            if _fault_of(error) in known:
                return
            raise
        finally:
            faulthandler.cancel_dump_traceback_later()
            took, peak = time.monotonic() - start, _peak_mib(of_before)
            found.inputs += 1
            found.slowest_s, found.peak_mib = max(found.slowest_s, took), max(found.peak_mib, peak)
        found.exit_codes[str(code)] = found.exit_codes.get(str(code), 0) + 1
        for what, beyond in (("seconds", took > LONGEST_S), ("memory", peak > MOST_MIB)):
            if beyond and what not in known:
                raise OverflowError(what)

    batch = 0
    while found.inputs < most and time.monotonic() < until:
        batch += 1
        quiet = settings(
            max_examples=min(BATCH, most - found.inputs),
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            print_blob=False,
            report_multiple_bugs=False,
            derandomize=False,
        )
        try:
            seed(1000 * number + batch)(quiet(given(inputs)(one)))()
        except Exception as error:
            fault = str(error) if isinstance(error, OverflowError) else _fault_of(error)
            known.add(fault)
            found.faults.append({"seen": _seen(error), "input": _last(folder)})
        found.seconds = round(time.monotonic() - began, 1)
        (folder / "outcome.json").write_text(json.dumps(asdict(found)), "utf-8")
    return found


def _last(folder: Path) -> str:
    return (folder / "last").read_bytes()[:20000].hex()


def _fault_of(error: BaseException) -> str:
    """Faults are one where their kind and the line that raises are."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if str(_ROOT / "edgecnn") in frame.filename] or list(frames)
    where = f"{type(error).__name__} {ours[-1].filename}:{ours[-1].lineno}"
    return hashlib.sha256(where.encode()).hexdigest()


def _seen(error: Exception) -> str:
    """What was raised and by which of our lines; of what did not happen again, the first time."""
    if isinstance(error, ExceptionGroup) and isinstance(error.exceptions[0], Exception):
        return f"not every time: {_seen(error.exceptions[0])}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if str(_ROOT / "edgecnn") in frame.filename]
    where = " < ".join(f"{Path(frame.filename).relative_to(_ROOT)}:{frame.lineno}" for frame in reversed(frames[-4:]))
    return f"{type(error).__name__}: {str(error)[:500]} ({where})"


def _reset_peak() -> None:
    for process in ("self", *_children()):
        with suppress(OSError):  # it has ended
            Path(f"/proc/{process}/clear_refs").write_text("5", "ascii")


def _peak_mib(of_before: int) -> int:
    """Of this process and its children together; of those that ended, the largest of all inputs.

    `of_before`: the largest that had ended before the hunt, which is none of its children.
    """
    together, ended = sum(map(_peak_kib_of, ("self", *_children()))), _ended_kib()
    return max(together, ended if ended > of_before else 0) // 1024


def _ended_kib() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def _peak_kib_of(process: str) -> int:
    with suppress(OSError):
        lines = Path(f"/proc/{process}/status").read_text("utf-8").splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
    return 0


def _children() -> list[str]:
    found: list[str] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            found += path.read_text("ascii").split()
    return found


def main(arguments: list[str]) -> None:
    """Hunt for what the arguments say."""
    kind, seconds, inputs, number, place = arguments
    from tests.fuzz.targets import TARGETS

    folder = Path(place)
    made = TARGETS[kind](folder)
    os.chdir(folder)
    until = time.monotonic() + float(seconds)
    hunt(kind, made.read, made.inputs, int(inputs), until, int(number), folder)


if __name__ == "__main__":
    main(sys.argv[1:])
