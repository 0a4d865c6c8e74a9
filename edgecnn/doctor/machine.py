"""The processor with its state, memory, disk and system: what of them matters to an engine."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgecnn.documents import Frozen
from edgecnn.processor import cpuinfo_words
from edgecnn.processor import machine as machine_word

FEATURES: Mapping[str, tuple[str, ...]] = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "AMX": ("amx_int8",),
    "dot product": ("asimddp",),
    "i8mm": ("i8mm",),
    "fp16": ("asimdhp", "avx512_fp16"),
    "bf16": ("bf16", "avx512_bf16", "amx_bf16"),
}
"""What decides which kernels an engine can use, with the names that /proc/cpuinfo has for it."""
LEAST_PYTHON = (3, 11)


class Processor(Frozen):
    """The processor and its state now; None is what the system does not tell."""

    model: str | None
    board: str | None
    machine: str
    features: tuple[str, ...] | None
    """Those of FEATURES that it has."""
    int8: str
    """What they mean for int8, in one phrase."""
    logical: int | None
    affinity: int | None
    """Processors that this process may run on."""
    usable: float | None
    """The same, lowered by the cgroup's quota."""
    governor: str | None
    mhz: float | None
    """Of the fastest processor now."""
    temperature_c: float | None
    throttled: tuple[str, ...] | None
    """On a Raspberry Pi: what its firmware reports, now or since boot."""


class Machine(Frozen):
    """Memory, disk and system; sizes in bytes."""

    memory: int | None
    memory_available: int | None
    disk_free: int
    """In the current folder."""
    system: str
    libc: str
    python: str


def int8_kernels(machine: str, flags: Sequence[str] | None) -> str:
    """What a processor's features mean for int8, in one phrase. `flags`: words of /proc/cpuinfo, None for not told."""
    if flags is None:
        return "int8: not told"
    by_machine = {
        "x86_64": (
            ("amx_int8", "int8 by AMX"),
            ("avx512_vnni", "int8 by AVX-512 VNNI"),
            ("avx_vnni", "int8 by AVX-VNNI"),
            ("avx2", "AVX2 without VNNI: edgecnn's int8 for x86 is safe here, files made elsewhere may saturate"),
            ("", "no AVX2: int8 may be slower than fp32"),
        ),
        "aarch64": (
            ("i8mm", "int8 by matrix multiply (i8mm)"),
            ("asimddp", "int8 by dot product (SDOT, UDOT)"),
            ("", "no dot product: int8 by widening multiplies (SMLAL), with a smaller gain"),
        ),
    }
    table = by_machine.get(machine, (("", f"int8 on {machine}: not known"),))
    return next(phrase for flag, phrase in table if not flag or flag in flags)


def system_problems() -> list[str]:
    """Why nothing of edgecnn can work on this system."""
    found = []
    if sys.version_info < LEAST_PYTHON:
        found.append(f"Python {platform.python_version()}: at least {'.'.join(map(str, LEAST_PYTHON))} is needed")
    if sys.maxsize < 2**32:
        found.append("32-bit Python: there are no wheels of the engines for it: install a 64-bit system")
    return found


def processor_here(base_loads: bool) -> Processor:
    """The processor; its state too where numpy loads, which edgecnn.bench comes with."""
    cpuinfo = _cpuinfo()
    flags = cpuinfo_words(cpuinfo)
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    machine = machine_word()
    known = Processor(
        model=model[1].strip() if model else platform.processor() or None,
        board=None,
        machine=machine,
        features=None if flags is None else _features(flags),
        int8=int8_kernels(machine, flags),
        logical=os.cpu_count(),
        affinity=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        usable=None,
        governor=None,
        mhz=None,
        temperature_c=None,
        throttled=None,
    )
    return _with_state(known) if base_loads else known


def machine_here(base_loads: bool) -> Machine:
    """The machine; its memory too where numpy loads, which edgecnn.bench comes with."""
    library, version = platform.libc_ver()
    known = Machine(
        memory=None,
        memory_available=None,
        disk_free=shutil.disk_usage(".").free,
        system=f"{platform.system()} {platform.release()} ({platform.machine()})",
        libc=f"{library} {version}" if library else "",
        python=f"{platform.python_implementation()} {platform.python_version()}",
    )
    return _with_memory(known) if base_loads else known


def _with_state(known: Processor) -> Processor:
    """What edgecnn.bench.host tells; it comes with numpy."""
    from edgecnn.bench import host

    fingerprint, state = host.fingerprint(), host.state()
    bits = state.pi_throttled
    throttled = None
    if bits is not None:
        now = [word for bit, word in host.THROTTLE_BITS.items() if bits >> bit & 1]
        before = [f"{word} since boot" for bit, word in host.THROTTLE_BITS.items() if bits >> (bit + 16) & 1]
        throttled = (*now, *before)
    return known.model_copy(
        update={
            "model": fingerprint.cpu,
            "board": fingerprint.board,
            "usable": fingerprint.usable_cpus,
            "governor": state.governor,
            "mhz": max(state.mhz) if state.mhz else None,
            "temperature_c": state.temperature_c,
            "throttled": throttled,
        }
    )


def _with_memory(known: Machine) -> Machine:
    from edgecnn.bench import host

    available = host.state().memory_available_bytes
    return known.model_copy(update={"memory": host.fingerprint().memory_bytes, "memory_available": available})


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _features(flags: Sequence[str]) -> tuple[str, ...]:
    return tuple(feature for feature, words in FEATURES.items() if any(word in flags for word in words))
