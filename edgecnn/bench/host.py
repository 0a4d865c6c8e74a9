"""The machine that a run is measured on: what it is (`fingerprint`), and how it is doing (`state`).

Nothing here raises: what a system does not tell is None, so that the same record serves a Raspberry Pi, a container and
a laptop. `root` is where /proc, /sys and the device tree are found. The host's name is left out: results get published.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from edgecnn import runtimes
from edgecnn.bench import cgroup
from edgecnn.documents import Frozen
from edgecnn.installed import PREPARING, installed_versions
from edgecnn.processor import MACHINES, cpuinfo_words, machine

FLAGS = (
    *("avx2", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "avx512_bf16"),
    *("asimddp", "i8mm", "fphp", "asimdhp", "bf16", "sve"),
)
"""Processor features that decide which INT8, fp16 and bf16 kernels an engine can use (names of /proc/cpuinfo)."""
THROTTLE_BITS = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
"""Of a Raspberry Pi's `vcgencmd get_throttled`: now; the same plus 16: has happened since boot."""

_SELF_GOVERNED = ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp")
"""Drivers whose `powersave` reaches the highest clock under load: the default on most PCs."""
_FAR_BELOW = 0.5
"""Of the highest clock: with all cores busy, a processor runs at 0.6 of it and more."""
_ROOT = Path("/")
_PI_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"


class Fingerprint(Frozen):
    """What does not change while the machine is up."""

    machine: str
    """Processor architecture in Linux's words: x86_64, aarch64, …"""
    kernel_machine: str | None
    """Architecture of the kernel, where it says so; another one than `machine` means emulation."""
    board: str | None
    """The device tree's model, such as Raspberry Pi 5 Model B Rev 1.0."""
    cpu: str | None
    cores: int | None
    usable_cpus: float | None
    """Processors that this process may use: the affinity mask, lowered by the cgroup's quota."""
    flags: tuple[str, ...] | None
    """Those of FLAGS that the processor has."""
    memory_bytes: int | None
    system: str
    kernel: str
    python: str
    libraries: dict[str, str]
    """Distribution to version, of edgecnn, of what prepares an image and of every engine that is installed."""


class State(Frozen):
    """What changes from one moment to the next."""

    load_average: tuple[float, float, float] | None
    mhz: tuple[float, ...] | None
    """Per processor."""
    governor: str | None
    most_mhz: float | None = None
    """Of the fastest processor, as its kind has it. None, as `governed_by`, in runs of an older edgecnn too."""
    governed_by: str | None = None
    """The frequency driver: under some, `powersave` is no slow clock."""
    temperature_c: float | None
    """Of the hottest thermal zone."""
    pi_throttled: int | None
    """Bits of a Raspberry Pi's firmware: see THROTTLE_BITS."""
    thermal_throttles: int | None
    """Count since boot of the processor's own thermal throttling (x86)."""
    quota_throttles: int | None
    """Count of the cgroup, or of any above it, being stopped for having used up its processor quota."""
    steal_ticks: int | None
    idle_ticks: int | None
    total_ticks: int | None
    """All of the machine's time so far, in the unit of `steal_ticks` and `idle_ticks`."""
    memory_available_bytes: int | None


def fingerprint(root: Path = _ROOT) -> Fingerprint:
    """What this machine is."""
    cpuinfo = _text(root / "proc/cpuinfo") or ""
    kernel_machine = _text(root / "proc/sys/kernel/arch")
    return Fingerprint(
        machine=machine(),
        kernel_machine=MACHINES.get(kernel_machine, kernel_machine) if kernel_machine else None,
        board=_board(root),
        cpu=_cpu_model(cpuinfo),
        cores=os.cpu_count(),
        usable_cpus=usable_cpus(root),
        flags=_flags(cpuinfo),
        memory_bytes=_kibibytes(root / "proc/meminfo", "MemTotal"),
        system=platform.system(),
        kernel=platform.release(),
        python=platform.python_version(),
        libraries=installed_versions((*PREPARING, *runtimes.libraries())),
    )


def state(root: Path = _ROOT, vcgencmd: Callable[[], str | None] | None = None) -> State:
    """How this machine is doing now. Takes milliseconds: call it outside of what is timed."""
    ticks = _ticks(root)
    return State(
        load_average=_load_average(),
        mhz=_mhz(root),
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        most_mhz=_most_mhz(root),
        governed_by=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver"),
        temperature_c=_temperature(root),
        pi_throttled=_pi_throttled(root, vcgencmd or _vcgencmd),
        thermal_throttles=_thermal_throttles(root),
        quota_throttles=cgroup.stops(root),
        steal_ticks=ticks[7] if ticks and len(ticks) > 7 else None,
        idle_ticks=ticks[3] if ticks and len(ticks) > 3 else None,
        total_ticks=sum(ticks[:8]) if ticks else None,
        memory_available_bytes=_kibibytes(root / "proc/meminfo", "MemAvailable"),
    )


def slug(host: Fingerprint) -> str:
    """A folder name for results of this kind of machine, such as raspberry-pi-5-model-b-rev-1-0."""
    name = host.board or f"{host.cpu or host.system} {host.machine} {host.cores or ''}"
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", name.lower())).strip("-") or "unknown"


def throttled(before: State, after: State) -> str | None:
    """Why the processor was not at full speed between two states; None where nothing says so."""
    bits = ((before.pi_throttled or 0) | (after.pi_throttled or 0)) & 0xF
    # What has happened since boot counts where it was not yet so before.
    bits |= ((after.pi_throttled or 0) & ~(before.pi_throttled or 0)) >> 16 & 0xF
    what = [word for bit, word in THROTTLE_BITS.items() if bits >> bit & 1]
    if what:
        return f"throttled ({', '.join(what)}): cool the board and check its power supply, then measure again"
    if _grew(before.thermal_throttles, after.thermal_throttles):
        return "throttled (the processor slowed down because of its temperature): cool it, then measure again"
    return None


def slow_clock(after: State) -> str | None:
    """Why the clock was far below what the processor can do, right after a run; None where nothing says so."""
    if after.governor == "powersave" and not (after.governed_by or "").startswith(_SELF_GOVERNED):
        return "the frequency governor is powersave, which keeps the clock low: choose performance, then measure again"
    mhz, most = max(after.mhz or (0.0,)), after.most_mhz
    if not mhz or most is None or mhz >= _FAR_BELOW * most:
        return None
    return f"the clock was at {mhz:,.0f} of {most:,.0f} MHz: choose the governor performance, then measure again"


def steal_share(before: State, after: State) -> float | None:
    """Share of all processors' time between two states that other virtual machines took."""
    if None in (before.steal_ticks, after.steal_ticks, before.total_ticks, after.total_ticks):
        return None
    total = (after.total_ticks or 0) - (before.total_ticks or 0)
    return ((after.steal_ticks or 0) - (before.steal_ticks or 0)) / total if total > 0 else None


def usable_cpus(root: Path = _ROOT) -> float | None:
    """Processors that this process may use: the affinity mask, lowered by the lowest quota of its cgroup and of all
    above it (1.5 is possible)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cgroup.quota(root)
    return None if allowed is None else float(min(allowed, quota or allowed))


def _board(root: Path) -> str | None:
    model = _text(root / "proc/device-tree/model")
    return model.rstrip("\0").strip() if model else None


def _cpu_model(cpuinfo: str) -> str | None:
    names = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    if names:
        return names[1].strip()
    part = re.search(r"^CPU part\s*:\s*(\S+)$", cpuinfo, re.MULTILINE)
    return f"CPU part {part[1]}" if part else (platform.processor() or None)


def _flags(cpuinfo: str) -> tuple[str, ...] | None:
    words = cpuinfo_words(cpuinfo)
    return None if words is None else tuple(flag for flag in FLAGS if flag in words)


def _load_average() -> tuple[float, float, float] | None:
    try:
        return os.getloadavg()
    except (OSError, AttributeError):
        return None


def _mhz(root: Path) -> tuple[float, ...] | None:
    files = _numbered(root / "sys/devices/system/cpu", "cpu[0-9]*/cpufreq/scaling_cur_freq")
    khz = [value for value in map(_integer, files) if value is not None]
    if khz:
        return tuple(value / 1000 for value in khz)
    found = re.findall(r"^cpu MHz\s*:\s*([0-9.]+)$", _text(root / "proc/cpuinfo") or "", re.MULTILINE)
    return tuple(float(value) for value in found) or None


def _most_mhz(root: Path) -> float | None:
    files = _numbered(root / "sys/devices/system/cpu", "cpu[0-9]*/cpufreq/cpuinfo_max_freq")
    khz = [value for value in map(_integer, files) if value]
    return max(khz) / 1000 if khz else None


def _temperature(root: Path) -> float | None:
    zones = [_integer(path) for path in _numbered(root / "sys/class/thermal", "thermal_zone*/temp")]
    readings = [zone / 1000 for zone in zones if zone is not None and zone > 0]
    return max(readings, default=None)


def _pi_throttled(root: Path, vcgencmd: Callable[[], str | None]) -> int | None:
    told = _text(root / _PI_THROTTLED) or vcgencmd() or ""
    found = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]+)", told.strip())
    return int(found[1], 16) if found else None


def _vcgencmd() -> str | None:
    if shutil.which("vcgencmd") is None:
        return None
    try:
        done = subprocess.run(
            ["vcgencmd", "get_throttled"], capture_output=True, encoding="utf-8", timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _thermal_throttles(root: Path) -> int | None:
    files = _numbered(root / "sys/devices/system/cpu", "cpu[0-9]*/thermal_throttle/*_throttle_count")
    counts = [value for value in map(_integer, files) if value is not None]
    return sum(counts) if counts else None


def _ticks(root: Path) -> list[int] | None:
    first = (_text(root / "proc/stat") or "").split("\n", 1)[0].split()
    return [int(word) for word in first[1:]] if first[:1] == ["cpu"] else None


def _kibibytes(path: Path, name: str) -> int | None:
    found = re.search(rf"^{name}:\s*(\d+) kB$", _text(path) or "", re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _numbered(folder: Path, pattern: str) -> Iterable[Path]:
    try:
        return sorted(folder.glob(pattern), key=lambda path: [int(part) for part in re.findall(r"\d+", str(path))])
    except OSError:
        return []


def _integer(path: Path) -> int | None:
    text = _text(path) or ""
    return int(text) if re.fullmatch(r"-?\d+", text) else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except (OSError, ValueError):
        return None


def _grew(before: int | None, after: int | None) -> bool:
    return before is not None and after is not None and after > before
