"""The process that is rehearsed, in the emulator and natively: `python -m edgecnn.rehearse.inside JOB.json`."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import re
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn import runtimes
from edgecnn.documents import parse, sha256_of, write_atomically
from edgecnn.errors import UserError
from edgecnn.imaging import Images, prepare
from edgecnn.installed import PREPARING, installed_versions, module_of
from edgecnn.rehearse.instructions import BEGIN, END
from edgecnn.rehearse.job import IMAGE_DONE, PHASES, USER_ERROR, Answer, Job
from edgecnn.runtimes import Session

_MOST_CORES = 4
_READ, _WRITE, _EXECUTE = 1, 2, 4


@dataclass(frozen=True)
class Mapping:
    """A line of /proc/self/maps."""

    low: int
    high: int
    protection: int
    path: str
    """Empty: anonymous memory, where engines put the code that they generate."""


def main(arguments: list[str]) -> int:
    """Run the job that the one argument names. Exit code 0, or 2 for a user's mistake."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:_MOST_CORES])
    try:
        job = parse(Job, Path(arguments[0]).read_bytes(), arguments[0])
        write_atomically(Path(job.out), run_job(job).model_dump_json())
    except UserError as error:
        print(error, file=sys.stderr)
        return USER_ERROR
    return 0


def run_job(job: Job) -> Answer:
    """Prepare the images, open the model, run the images one by one."""
    images = np.stack([prepare(Path(path).read_bytes(), job.preprocess) for path in job.images])
    print(PHASES[0], flush=True)
    with runtimes.open_file(Path(job.model), job.runtime, job.precision, job.threads) as session:
        print(PHASES[1], flush=True)
        rows = []
        for index in range(len(images)):
            rows.append(session.run(images[index : index + 1]).copy())
            print(IMAGE_DONE, flush=True)
        logits = np.ascontiguousarray(np.concatenate(rows), "<f4")
        if job.log:
            _mark(session, images[:1], job)
        code = engine_mappings(module_of(runtimes.get(job.runtime).library))
        return Answer(
            logits=logits.tobytes().hex(),
            pixels=tuple(sha256_of(image.tobytes()) for image in images),
            versions=_versions(runtimes.get(job.runtime).library),
            instruction_set=runtimes.instruction_set(job.runtime),
            engine_code=tuple((one.low, one.high) for one in code),
            peak_rss_mib=_peak_rss_mib(),
        )


def mappings(text: str) -> Iterator[Mapping]:
    """The lines of /proc/self/maps."""
    for line in text.splitlines():
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) ([r-])([w-])([x-])\S* \S+ \S+ \S+\s*(.*)", line)
        if found:
            bits = zip(found.groups()[2:5], (_READ, _WRITE, _EXECUTE), strict=True)
            protection = sum(bit for letter, bit in bits if letter != "-")
            yield Mapping(int(found[1], 16), int(found[2], 16), protection, found[6])


def engine_mappings(module: str) -> list[Mapping]:
    """Executable memory of the engine: its wheel's libraries and generated code, not those of NumPy or the system."""
    found = importlib.util.find_spec(module)
    places = list(found.submodule_search_locations or [found.origin or ""]) if found else []
    folders = [f"{os.path.realpath(place)}{end}" for place in places for end in ("/", ".libs/")]
    return [
        one
        for one in mappings(Path("/proc/self/maps").read_text(encoding="utf-8"))
        if one.protection & _EXECUTE
        and (not one.path or any(os.path.realpath(one.path).startswith(folder) for folder in folders))
    ]


def _mark(session: Session, image: Images, job: Job) -> None:
    """Run one image once more, between two marks in the emulator's log.

    The emulator logs code when it translates it, which it does once. So the engine's code is made writable for a
    moment, at which the emulator forgets its translations: what it translates between the marks is what one image
    executes, without what was executed to load the model and to pack its weights.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for one in engine_mappings(module_of(runtimes.get(job.runtime).library)):
        for protection in (_READ | _WRITE | _EXECUTE, one.protection):
            libc.mprotect(ctypes.c_void_p(one.low), ctypes.c_size_t(one.high - one.low), protection)
    log = os.open(job.log or os.devnull, os.O_WRONLY)
    try:
        os.write(log, BEGIN + b"\n")
        session.run(image)
        os.write(log, END + b"\n")
    finally:
        os.close(log)


def _versions(library: str) -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine()}
    wanted = (*PREPARING, library)
    return {**found, **dict.fromkeys(wanted, "unknown"), **installed_versions(wanted)}


def _peak_rss_mib() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    return int(found[1]) / 1024 if found else 0.0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
