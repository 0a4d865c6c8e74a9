"""One variant in a process of its own: engines disturb each other, and only so is peak memory one engine's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from edgecnn.bench.measure import MeasurePlan
from edgecnn.bench.records import Run
from edgecnn.child import USER_ERROR, child_environment, death
from edgecnn.disk import FullDisk
from edgecnn.documents import Frozen, parse, write_atomically
from edgecnn.errors import UserError
from edgecnn.holding import temporary_folder
from edgecnn.proof import DecidesOtherwise

FULL_DISK = 5
"""The child's exit code where there was no room for its run; its last line names the disk."""
DECIDES_OTHERWISE = 4
"""The child's exit code where the variant must not be used on this processor; its last line says why."""


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
        if done.returncode == FULL_DISK:
            raise FullDisk(death(USER_ERROR, done.stderr, "measuring"))
        if done.returncode == DECIDES_OTHERWISE:
            raise DecidesOtherwise(death(USER_ERROR, done.stderr, "measuring"))
        if done.returncode != 0:
            raise UserError(death(done.returncode, done.stderr, "measuring"))
        return parse(Run, Path(job.out).read_bytes(), "the child's run")
