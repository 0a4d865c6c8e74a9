"""Tests of what is known of the machine, on file trees like those of real ones."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

import pytest

from edgecnn.bench import host

PI_CPUINFO = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0b

Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""
PC_CPUINFO = """processor\t: 0
model name\t: AMD EPYC 9B45 64-Core Processor
cpu MHz\t\t: 3000.123
flags\t\t: fpu avx2 avx512_vnni avx512_bf16 avx_vnni
processor\t: 1
cpu MHz\t\t: 2999.5
"""
PI = {
    "proc/cpuinfo": PI_CPUINFO,
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/sys/kernel/arch": "aarch64\n",
    "proc/meminfo": "MemTotal:        8245120 kB\nMemFree: 1 kB\nMemAvailable:    7000000 kB\n",
    "proc/stat": "cpu  100 1 50 9000 10 0 5 7 3 0\ncpu0 1 2 3\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpu10/cpufreq/scaling_cur_freq": "1500000\n",
    "sys/devices/system/cpu/cpu2/cpufreq/scaling_cur_freq": "1800000\n",
    "sys/class/thermal/thermal_zone0/temp": "61350\n",
    "sys/class/thermal/thermal_zone1/temp": "not a number\n",
}


def _tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_raspberry_pi_is_recognised(tmp_path: Path) -> None:
    found = host.fingerprint(_tree(tmp_path, PI))
    assert found.board == "Raspberry Pi 5 Model B Rev 1.0"
    assert found.kernel_machine == "aarch64"
    assert found.flags == ("asimddp", "fphp", "asimdhp")
    assert found.memory_bytes == 8245120 * 1024
    assert host.slug(found) == "raspberry-pi-5-model-b-rev-1-0"


def test_a_raspberry_pis_state_is_read(tmp_path: Path) -> None:
    found = host.state(_tree(tmp_path, PI), vcgencmd=lambda: "throttled=0x50005\n")
    assert found.mhz == (2400.0, 1800.0, 1500.0)
    assert found.governor == "ondemand"
    assert found.temperature_c == 61.35
    assert found.pi_throttled == 0x50005
    assert (found.steal_ticks, found.idle_ticks) == (7, 9000)
    assert found.total_ticks == 100 + 1 + 50 + 9000 + 10 + 0 + 5 + 7
    assert found.memory_available_bytes == 7000000 * 1024


def test_the_firmware_file_saves_starting_vcgencmd(tmp_path: Path) -> None:
    root = _tree(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n"})
    assert host.state(root, vcgencmd=lambda: pytest.fail("not needed")).pi_throttled == 0x50000


def test_a_pc_is_recognised_without_a_board(tmp_path: Path) -> None:
    root = _tree(tmp_path, {"proc/cpuinfo": PC_CPUINFO})
    found = host.fingerprint(root)
    assert (found.board, found.cpu) == (None, "AMD EPYC 9B45 64-Core Processor")
    assert found.flags == ("avx2", "avx512_vnni", "avx_vnni", "avx512_bf16")
    assert host.state(root).mhz == (3000.123, 2999.5)
    assert host.slug(found).startswith("amd-epyc-9b45-64-core-processor-")


def test_an_empty_machine_gives_none_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system without /proc, without affinity, without load averages."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "getloadavg", raising=False)
    monkeypatch.setattr(platform, "processor", lambda: "")
    found, now = host.fingerprint(tmp_path), host.state(tmp_path, vcgencmd=lambda: None)
    unknown = ("kernel_machine", "board", "cpu", "flags", "memory_bytes")
    assert [getattr(found, name) for name in unknown] == [None] * len(unknown)
    assert found.usable_cpus == os.cpu_count()
    assert set(now.model_dump().values()) == {None}
    assert host.throttled(now, now) is None
    assert host.steal_share(now, now) is None


@pytest.mark.parametrize("text", ["", "garbage", "cpu", "MemTotal: many kB", "\0\xff"])
def test_files_of_another_shape_are_unknown_too(tmp_path: Path, text: str) -> None:
    root = _tree(tmp_path, dict.fromkeys([*PI, "proc/self/cgroup", "sys/fs/cgroup/cpu.max"], text))
    now = host.state(root, vcgencmd=lambda: text)
    assert (now.mhz, now.temperature_c, now.pi_throttled, now.memory_available_bytes) == (None,) * 4
    assert host.fingerprint(root).memory_bytes is None


def test_this_very_machine_is_described() -> None:
    found = host.fingerprint()
    assert found.machine
    assert {"edgecnn", "numpy", "onnxruntime"} <= set(found.libraries)
    assert host.Fingerprint.model_validate_json(found.model_dump_json()) == found
    now = host.state()
    assert host.State.model_validate_json(now.model_dump_json()) == now


@pytest.mark.parametrize(("said", "meant"), [("arm64", "aarch64"), ("AMD64", "x86_64"), ("armv7l", "armv7l")])
def test_architectures_go_by_their_linux_name(monkeypatch: pytest.MonkeyPatch, said: str, meant: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: said)
    assert host.machine() == meant


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/self/cgroup": "0::/app", "sys/fs/cgroup/app/cpu.max": "50000 100000"}, 0.5),
        ({"sys/fs/cgroup/cpu.max": "50000 100000"}, 0.5),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/app",
                "sys/fs/cgroup/cpu/app/cpu.cfs_quota_us": "25000",
                "sys/fs/cgroup/cpu/app/cpu.cfs_period_us": "100000",
            },
            0.25,
        ),
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, None),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            None,
        ),
    ],
)
def test_a_containers_quota_lowers_the_usable_processors(
    tmp_path: Path, files: Mapping[str, str], expected: float | None
) -> None:
    usable = host.usable_cpus(_tree(tmp_path, files))
    assert usable == (expected or host.usable_cpus(tmp_path / "elsewhere"))


def _state(root: Path, **changes: int) -> host.State:
    return host.state(root, vcgencmd=lambda: None).model_copy(update=changes)


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (0, 0, None),
        (0x0, 0x4, "throttled"),
        (0x1, 0x0, "under-voltage"),
        (0x0, 0x20000, "frequency capped"),
        (0x80000, 0x80000, None),
        (0x20000, 0xA0000, "soft temperature limit"),
    ],
)
def test_throttling_is_what_happens_during_the_run(tmp_path: Path, before: int, after: int, what: str | None) -> None:
    """Bits from 16 on stay set since boot: those that were set before say nothing of the run."""
    found = host.throttled(_state(tmp_path, pi_throttled=before), _state(tmp_path, pi_throttled=after))
    assert found is None if what is None else found is not None and f"({what})" in found


def test_a_pcs_own_throttle_count_is_heeded(tmp_path: Path) -> None:
    folder = "sys/devices/system/cpu/cpu0/thermal_throttle"
    root = _tree(tmp_path, {f"{folder}/core_throttle_count": "3\n", f"{folder}/package_throttle_count": "4\n"})
    before = _state(root)
    assert before.thermal_throttles == 7
    assert host.throttled(before, before) is None
    assert "temperature" in (host.throttled(before, _state(root, thermal_throttles=8)) or "")


def test_steal_is_a_share_of_all_time(tmp_path: Path) -> None:
    before = _state(tmp_path, steal_ticks=10, total_ticks=1000)
    after = _state(tmp_path, steal_ticks=60, total_ticks=2000)
    assert host.steal_share(before, after) == 0.05
