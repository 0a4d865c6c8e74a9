"""The x86-64 processors that can be rehearsed for, by their instruction set; the emulator that is one of them."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgecnn.documents import Frozen, parse, sha256_of_file, write_atomically
from edgecnn.errors import UserError
from edgecnn.processor import INSTRUCTION_SETS, cap_to, instruction_set_here
from edgecnn.rehearse.cache import Say, made_once, need_space, read_record, sweep
from edgecnn.rehearse.debian import extract_one, fetch, named_program, release_for, version_of
from edgecnn.runtimes import get

NEEDED_MB = 150
"""Free disk space for the emulator's package while it is being unpacked."""
_DOWNLOAD_MB = 63


@dataclass(frozen=True)
class Level:
    """A processor, as good as any that has this instruction set and not the next."""

    name: str
    """Of the instruction set: see `processor`."""
    description: str
    cpu: str
    """qemu's CPU model."""


LEVELS = (
    Level("x86-64-v2", "x86-64-v2: SSE4.2, no AVX2, as Intel's Nehalem", "Nehalem"),
    # Without what qemu would only warn that it cannot emulate.
    Level(
        "x86-64-v3",
        "x86-64-v3: AVX2, no VNNI, as Intel's Haswell",
        "Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid",
    ),
)


class Emulator(Frozen):
    """emulator.json: what was unpacked."""

    version: str
    packages: dict[str, str]
    """Package file to SHA-256."""


@dataclass(frozen=True)
class Qemu:
    """An emulator of x86-64 that is there."""

    path: Path
    version: str
    packages: Mapping[str, str]


def check_host(system: str | None = None, machine: str | None = None) -> None:
    """UserError where this machine cannot rehearse for x86-64."""
    system, machine = system or platform.system(), machine or platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        raise UserError(f"{system} {machine} cannot rehearse for x86-64: it takes x86-64 Linux (a container will do)")


def native_way(level: Level, runtime: str, whole: str | None = None) -> tuple[dict[str, str], str] | None:
    """The environment in which this machine is such a processor for an engine, and that in words; None: it never is.

    `whole`: this machine's own instruction set, held back by nothing.
    """
    whole = whole or instruction_set_here((), {})
    if whole == level.name:
        return {}, f"this machine, which is {level.name}"
    order = INSTRUCTION_SETS["x86_64"]
    engine = get(runtime)
    caps = cap_to(level.name, (*engine.obeys, *engine.obeys_beside))
    if caps is None or whole not in order or order.index(whole) < order.index(level.name):
        return None
    return caps, f"this machine, held to {level.name} by {', '.join(f'{name}={value}' for name, value in caps.items())}"


def find_emulator(cache: Path) -> Qemu | None:
    """The emulator that EDGECNN_QEMU_X86_64 names, else the one in `cache`; None where there is neither."""
    named = named_program("EDGECNN_QEMU_X86_64", "qemu-x86_64")
    if named is not None:
        return Qemu(*named, {})
    folder = _folder(cache)
    if not folder.is_dir():
        return None
    record = parse(Emulator, read_record(folder / "emulator.json"), str(folder / "emulator.json"))
    return Qemu(folder / "qemu-x86_64", record.version, record.packages)


def set_up_emulator(cache: Path, offline: bool, say: Say) -> Qemu:
    """The emulator; fetched into `cache` first where there is none. UserError where that cannot be done."""
    found = find_emulator(cache)
    if found is not None:
        return found
    if offline:
        raise UserError(f"{cache}: no emulator there, and --offline forbids fetching it: run once without --offline")
    sweep(cache)
    need_space(cache, NEEDED_MB)
    release = release_for(sys.version_info[:2])
    with made_once(_folder(cache)) as folder:
        (deb,) = fetch(release, [f"{release.qemu}:amd64"], folder / "work", "an x86-64 emulator", _DOWNLOAD_MB, say)
        extract_one(deb, release.emulator_of("x86_64"), folder / "qemu-x86_64")
        packages = {deb.name.replace("%3a", ":"): sha256_of_file(deb)}
        record = Emulator(version=version_of(deb), packages=packages)
        write_atomically(folder / "emulator.json", record.model_dump_json(indent=1) + "\n")
        shutil.rmtree(folder / "work")
    return set_up_emulator(cache, True, say)


def _folder(cache: Path) -> Path:
    return cache / f"qemu-x86_64-{release_for(sys.version_info[:2]).name}"
