"""One variant in a process of its own: engines disturb each other, and only so is peak memory one engine's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from edgecnn.bench.measure import MeasurePlan
from edgecnn.bench.records import Run
from edgecnn.documents import Frozen, parse, write_atomically
from edgecnn.errors import UserError
from edgecnn.holding import temporary_folder
from edgecnn.proof import DecidesOtherwise

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
DECIDES_OTHERWISE = 4
"""The child's exit code where the variant must not be used on this processor; its last line says why."""

_DEATHS = {
    "SIGILL": "the engine uses instructions that this processor lacks (SIGILL): install a build for this processor",
    "SIGKILL": "the measuring process was killed (SIGKILL), most often for lack of memory: free some",
}


class Job(Frozen):
    """What a child is to measure."""

    bundle: str
    """Folder."""
    variant: str | None
    """None: the null session."""
    images: str | None
    """Folder; None: the bundle's golden images."""
    plan: MeasurePlan
    threads: int
    out: str
    """Where the child writes the run's JSON, whole or not at all."""
    parent: int | None = None
    """Process that waits for it, and with which it ends; None: nobody does."""


def measure_in_child(
    bundle_folder: Path, variant: str | None, images: Path | None, plan: MeasurePlan, threads: int
) -> Run:
    """Measure in a fresh interpreter. UserError with the child's own message, or with how it died.

    DecidesOtherwise where the variant must not be used on this processor.
    """
    with temporary_folder("bench") as folder:
        job = Job(
            bundle=str(bundle_folder.resolve()),
            variant=variant,
            images=str(images.resolve()) if images else None,
            plan=plan,
            threads=threads,
            out=str(folder / "run.json"),
            parent=os.getpid(),
        )
        job_path = folder / "job.json"
        write_atomically(job_path, job.model_dump_json())
        done = subprocess.run(
            [sys.executable, "-P", "-m", "edgecnn.bench.child", str(job_path)],
            env=child_environment(os.environ, threads),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode == DECIDES_OTHERWISE:
            raise DecidesOtherwise(_failure(USER_ERROR, done.stderr))
        if done.returncode != 0:
            raise UserError(_failure(done.returncode, done.stderr))
        return parse(Run, Path(job.out).read_bytes(), "the child's run")


def child_environment(parent: Mapping[str, str], threads: int) -> dict[str, str]:
    """The parent's environment with thread counts pinned, and with this very edgecnn importable."""
    environment = {**parent, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    package = str(Path(__file__).resolve().parents[2])
    if package not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        inherited = parent.get("PYTHONPATH")
        environment["PYTHONPATH"] = package + (os.pathsep + inherited if inherited else "")
    return environment


def _failure(code: int, stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    last = lines[-1] if lines else "it left no message"
    if code == USER_ERROR:
        return last
    if code < 0:
        name = _signal_name(-code)
        return _DEATHS.get(name, f"the measuring process died by {name}: the engine crashed; last message: {last}")
    return f"the measuring process failed with exit code {code}: {last}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
