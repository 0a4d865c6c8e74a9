"""What a device downloads to run a bundle, and how long the command line takes to start there without torch.

    python benchmarks/device_install.py --wheel dist/edgecnn-*.whl

Resolves the dependencies of pyproject.toml with `pip download`, wheels only, for each processor and Python, and adds up
the files. Versions are the newest that pip finds on that day, as on a device. `--wheel` adds this package's own.

Exit code: 0 where the base install is within the limit everywhere and nothing loaded torch, else 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgecnn import __version__
from edgecnn.bench import host

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/device_install.json"
LIMIT_MIB = 60.0
"""Of the base install."""
MACHINES = ("x86_64", "aarch64")
PYTHONS = ("3.11", "3.13")
EXTRAS = (None, "openvino")
NEWEST_GLIBC = 36
"""2.36 is Debian 12's, on which the Raspberry Pi's system is built. pip takes `--platform` literally: an older tag that
is not listed is not considered, and pip then silently falls back to old versions."""
PROCESSES = 11
STARTED = {
    "bare interpreter": ("-c", "pass"),
    "import edgecnn": ("-c", "import edgecnn"),
    "edgecnn --help": ("-m", "edgecnn", "--help"),
}
TORCH_FREE = ("edgecnn.cli", "edgecnn.bench", "edgecnn.imaging", "edgecnn.runtimes.openvino")
MIB = 2**20


@dataclass(frozen=True)
class Wheel:
    """A file that pip downloads."""

    file: str
    bytes: int


@dataclass(frozen=True)
class Install:
    """What one kind of device downloads."""

    machine: str
    python: str
    extra: str | None
    wheels: tuple[Wheel, ...]

    @property
    def mib(self) -> float:
        """All of it, in MiB."""
        return sum(wheel.bytes for wheel in self.wheels) / MIB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, help="this package's own wheel, made by `python -m build --wheel`")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    own = (Wheel(arguments.wheel.name, arguments.wheel.stat().st_size),) if arguments.wheel else ()
    installs = [resolved(machine, python, extra, own) for extra in EXTRAS for machine in MACHINES for python in PYTHONS]
    starts = {name: started(command) for name, command in STARTED.items()}
    loading_torch = [module for module in TORCH_FREE if loads_torch(module)]
    write(arguments.out, installs, starts, loading_torch, own_wheel=bool(own))
    print(sizes(installs))
    print("\n" + start_times(starts))
    print(f"\ntorch is loaded by: {', '.join(loading_torch) or 'none of ' + ', '.join(TORCH_FREE)}")
    largest = max(install.mib for install in installs if install.extra is None)
    print(f"largest base install: {largest:.1f} MiB (limit {LIMIT_MIB:g})")
    return 0 if largest <= LIMIT_MIB and not loading_torch else 1


def resolved(machine: str, python: str, extra: str | None, own: Sequence[Wheel]) -> Install:
    """Let pip choose and download the wheels of one kind of device."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(project["optional-dependencies"][extra] if extra else ())]
    platforms = [
        f"manylinux2014_{machine}",
        *(f"manylinux_2_{minor}_{machine}" for minor in range(17, NEWEST_GLIBC + 1)),
    ]
    print(f"{machine}, Python {python}, {extra or 'base'} …", file=sys.stderr)
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", folder]
        command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
        command += [word for platform in platforms for word in ("--platform", platform)]
        subprocess.run([*command, *wanted], check=True, capture_output=True)
        files = sorted(Path(folder).iterdir(), key=lambda path: -path.stat().st_size)
        wheels = [Wheel(path.name, path.stat().st_size) for path in files]
    return Install(machine, python, extra, (*wheels, *own))


def started(command: Sequence[str]) -> list[int]:
    """Wall time of fresh processes, in nanoseconds; one before them, to fill the file cache, is not kept."""
    times = []
    for _ in range(PROCESSES + 1):
        start = time.perf_counter_ns()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        times.append(time.perf_counter_ns() - start)
    return times[1:]


def loads_torch(module: str) -> bool:
    """Whether importing a module in a fresh process loads torch."""
    code = f"import sys, {module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip() != "False"


def write(
    path: Path, installs: Sequence[Install], starts: dict[str, list[int]], loading_torch: list[str], own_wheel: bool
) -> None:
    """Everything that was found, raw."""
    document: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "edgecnn": __version__,
        "pip": metadata.version("pip"),
        "own_wheel_included": own_wheel,
        "newest_glibc": f"2.{NEWEST_GLIBC}",
        "note": "environment markers are evaluated by pip for the Python that runs it, not for the one asked for",
        "host": host.fingerprint().model_dump(),
        "state": host.state().model_dump(),
        "installs": [{**asdict(install), "mib": round(install.mib, 2)} for install in installs],
        "processes_ns": starts,
        "torch_free": list(TORCH_FREE),
        "loading_torch": loading_torch,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def sizes(installs: Sequence[Install]) -> str:
    """Markdown: each wheel's MiB in each install, and the sums."""
    heads = [f"{i.machine}, {i.python}{', ' + i.extra if i.extra else ''}" for i in installs]
    columns = [{wheel.file.split("-")[0].lower(): wheel for wheel in install.wheels} for install in installs]
    names = sorted({name for column in columns for name in column}, key=lambda name: -_largest(name, columns))
    lines = [f"| MiB | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in names:
        cells = [f"{column[name].bytes / MIB:.2f}" if name in column else "" for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines.append(f"| **all** | {' | '.join(f'**{install.mib:.1f}**' for install in installs)} |")
    return "\n".join(lines)


def start_times(starts: dict[str, list[int]]) -> str:
    """Markdown: medians in milliseconds."""
    lines = ["| fresh process | median, ms | fastest, ms |", "|---|---|---|"]
    lines += [
        f"| {name} | {statistics.median(times) / 1e6:.0f} | {min(times) / 1e6:.0f} |" for name, times in starts.items()
    ]
    return "\n".join(lines)


def _largest(name: str, columns: Sequence[dict[str, Wheel]]) -> int:
    return max(column[name].bytes for column in columns if name in column)


if __name__ == "__main__":
    sys.exit(main())
