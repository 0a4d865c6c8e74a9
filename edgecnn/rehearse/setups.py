"""What a variant is run on for each device: an emulated board, an emulated processor, or this machine held back."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgecnn.errors import not_one_of
from edgecnn.rehearse import levels, userland
from edgecnn.rehearse.boards import BOARDS, Board
from edgecnn.rehearse.cache import Say, refuse_separators
from edgecnn.rehearse.compare import EMULATED, HELD_BACK
from edgecnn.rehearse.levels import LEVELS, Level, Qemu
from edgecnn.rehearse.process import Machine, emulated, emulated_here, native
from edgecnn.rehearse.wheels import fetch_wheels
from edgecnn.runtimes import get

Device = Board | Level
OLDEST = {"desktop-cpu": "x86-64-v3"}
"""Targets that are no one processor: the oldest that each is for."""


@dataclass(frozen=True)
class Place:
    """Where one variant runs."""

    machine: Machine
    how: str
    """In words."""
    emulated: str
    """EMULATED or HELD_BACK."""
    instruction_set: str
    """That it must turn out to have."""


@dataclass(frozen=True)
class SetUp:
    """A device that is set up."""

    emulator: str
    system: str
    packages: Mapping[str, str]
    """Debian package files to their SHA-256."""
    place: Callable[[str, Path], Place]
    """(runtime, an empty folder for as long as it runs) to where. Raises NoWheel where the engine is not to be had."""


def device(name: str) -> Device:
    """The board or processor of that name, or the oldest that a target of that name is for. UserError for any other."""
    devices: dict[str, Device] = {one.name: one for one in (*BOARDS, *LEVELS)}
    known = OLDEST.get(name, name)
    if known not in devices:
        raise not_one_of("device", name, [*devices, *OLDEST])
    return devices[known]


def check_host(which: Device) -> None:
    """UserError where this machine cannot rehearse for a device."""
    if isinstance(which, Board):
        userland.check_host()
    else:
        levels.check_host()


def set_up(which: Device, runtimes: Collection[str], cache: Path, offline: bool, say: Say) -> SetUp:
    """Make ready what variants of these runtimes need; fetched into `cache` where it is missing.

    UserError where that cannot be done, or where a folder's name cannot be handed to an emulator.
    """
    for folder in (cache, Path(tempfile.gettempdir())):
        refuse_separators(folder)
    return (
        _board(which, cache, offline, say) if isinstance(which, Board) else _level(which, runtimes, cache, offline, say)
    )


def on_level(level: Level, runtime: str, qemu: Qemu | None) -> Place | None:
    """Where a variant of an engine runs on such an x86-64 processor: natively where this machine can be one; None:
    only in an emulator, and there is none."""
    way = levels.native_way(level, runtime)
    if way is not None:
        return Place(native(way[0]), way[1], HELD_BACK, level.name)
    if qemu is None:
        return None
    machine = emulated_here(level.cpu, qemu.path)
    return Place(machine, f"qemu {qemu.version} -cpu {level.cpu.partition(',')[0]}", EMULATED, level.name)


def _level(level: Level, runtimes: Collection[str], cache: Path, offline: bool, say: Say) -> SetUp:
    needed = any(levels.native_way(level, runtime) is None for runtime in runtimes)
    qemu = levels.set_up_emulator(cache, offline, say) if needed else None

    def place(runtime: str, empty: Path) -> Place:
        found = on_level(level, runtime, qemu)
        assert found is not None
        return found

    emulator = f"qemu {qemu.version}" if qemu else "no emulator"
    return SetUp(emulator, "Python and libraries of this machine", qemu.packages if qemu else {}, place)


def _board(board: Board, cache: Path, offline: bool, say: Say) -> SetUp:
    there = userland.set_up_userland(cache, offline, say)

    def place(runtime: str, empty: Path) -> Place:
        wheels = fetch_wheels(cache, get(runtime).library, there.release, offline, say)
        machine = emulated(board, there, wheels.folders, cache, empty)
        return Place(machine, f"qemu {there.qemu_version} -cpu {board.cpu}", EMULATED, board.instruction_set)

    system = f"Debian {there.release.name}, Python {there.release.python}"
    return SetUp(f"qemu {there.qemu_version}", system, there.contents.packages, place)
