"""The instruction set that an engine works with here, as far as it decides what int8 arithmetic gives.

int8 products are exact with VNNI and with Arm's dot products. Without VNNI an x86 engine adds them in pairs of 16 bits,
which saturates where the weights were not made for it; without AVX2 it takes yet other kernels. So a variant that
decides well on one of these sets says nothing of another.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}
"""Other systems' names of what Linux calls so."""

_ROOT = Path("/")
# Architecture to (instruction set, words of /proc/cpuinfo: all of one of the groups must be there), the best first.
_SETS: Mapping[str, tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]] = {
    "x86_64": (
        ("x86-64-vnni", (("avx512_vnni",), ("avx_vnni",))),
        ("x86-64-avx512", (("avx512f", "avx512bw"),)),
        ("x86-64-v3", (("avx2", "fma"),)),
        ("x86-64-v2", (("ssse3", "sse4_1"),)),
        ("x86-64", ((),)),
    ),
    "aarch64": (
        ("aarch64-i8mm", (("i8mm",),)),
        ("aarch64-dotprod", (("asimddp",),)),
        ("aarch64", ((),)),
    ),
}
INSTRUCTION_SETS: Mapping[str, tuple[str, ...]] = {
    machine: tuple(name for name, _ in reversed(rows)) for machine, rows in _SETS.items()
}
"""Architecture to the names of its instruction sets, the poorest first: each has what those before it have."""

# Variable to {value: the best instruction set that an engine which obeys it still uses}. oneDNN's documentation, "CPU
# Dispatcher Control"; ATen's `cpu/README.md`. A value that is not listed holds nothing back.
_ONEDNN = {
    "SSE41": "x86-64-v2",
    "AVX": "x86-64-v2",
    "AVX2": "x86-64-v3",
    "AVX512_CORE": "x86-64-avx512",
}
CAPS: Mapping[str, Mapping[str, str]] = {
    "ONEDNN_MAX_CPU_ISA": _ONEDNN,
    "DNNL_MAX_CPU_ISA": _ONEDNN,
    "ATEN_CPU_CAPABILITY": {"DEFAULT": "x86-64-v2", "AVX2": "x86-64-v3"},
}
_LEAVES: Mapping[str, tuple[int, int, int]] = {
    "ssse3": (0, 2, 9),
    "fma": (0, 2, 12),
    "sse4_1": (0, 2, 19),
    "avx2": (1, 1, 5),
    "avx512f": (1, 1, 16),
    "avx512bw": (1, 1, 30),
    "avx512_vnni": (1, 2, 11),
    "avx_vnni": (6, 0, 4),
}
"""Word of /proc/cpuinfo to where glibc has it (`sys/platform/x86.h`): leaf, register of eax ebx ecx edx, bit."""


def machine() -> str:
    """This process's architecture in Linux's words: arm64 (macOS) is aarch64, AMD64 (Windows) is x86_64."""
    return MACHINES.get(platform.machine().lower(), platform.machine().lower())


def cpuinfo_words(text: str) -> tuple[str, ...] | None:
    """The processor's features as /proc/cpuinfo lists them; None where it does not."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return tuple(found[1].split()) if found else None


def instruction_set_of(architecture: str, words: Collection[str]) -> str | None:
    """The instruction set of a processor with these features; None for an architecture that is not known."""
    for name, groups in _SETS.get(architecture, ()):
        if any(set(group) <= set(words) for group in groups):
            return name
    return None


def capped(name: str, variables: Sequence[str], environment: Mapping[str, str]) -> str:
    """`name`, or the lower instruction set to which these environment variables hold an engine that obeys them."""
    order = next((sets for sets in INSTRUCTION_SETS.values() if name in sets), ())
    caps = [CAPS[variable].get(environment.get(variable, "").upper()) for variable in variables]
    return min([name, *(cap for cap in caps if cap in order)], key=order.index) if order else name


def cap_to(name: str, variables: Sequence[str]) -> dict[str, str] | None:
    """The environment that holds an engine which obeys these variables to an instruction set; None where none does."""
    found = {}
    for variable in variables:
        value = next((value for value, cap in CAPS[variable].items() if cap == name), None)
        if value is not None and variable != "DNNL_MAX_CPU_ISA":  # the older name of the first
            found[variable] = value if variable != "ATEN_CPU_CAPABILITY" else value.lower()
    return found or None


def instruction_set_here(
    obeys: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
    root: Path = _ROOT,
    confirmed: Callable[[str], bool | None] | None = None,
) -> str | None:
    """The instruction set that an engine which obeys these environment variables uses here; None: the system does not
    tell (macOS, Windows).

    `confirmed`: whether the processor itself tells of a feature. Within an emulator /proc/cpuinfo is the host's, so
    glibc, which asks the processor, has the last word.
    """
    try:
        words = cpuinfo_words((root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    if words is None:
        return None
    tells = confirmed or confirmed_by_processor
    found = instruction_set_of(machine(), [word for word in words if tells(word) is not False])
    return None if found is None else capped(found, obeys, environment)


class _Leaf(ctypes.Structure):
    _fields_ = [("cpuid", ctypes.c_uint * 4), ("active", ctypes.c_uint * 4)]


def confirmed_by_processor(word: str) -> bool | None:
    """Whether an x86 processor says by CPUID that it has a feature; None where that cannot be asked."""
    place = _LEAVES.get(word)
    if place is None or machine() != "x86_64":
        return None
    try:
        ask = ctypes.CDLL(None).__x86_get_cpuid_feature_leaf
    except (AttributeError, OSError, TypeError):  # glibc before 2.33, another C library
        return None
    ask.argtypes, ask.restype = [ctypes.c_uint], ctypes.POINTER(_Leaf)
    leaf, register, bit = place
    answer = ask(leaf)
    return bool(answer.contents.active[register] >> bit & 1) if answer else None
