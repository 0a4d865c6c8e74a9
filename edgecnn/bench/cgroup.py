"""The processor quotas of this process's cgroup and of every cgroup above it, of versions 1 and 2.

A quota is usually set on an ancestor: a pod's, a slice's, a container's. The lowest of all holds. `root` is where /proc
and /sys are found. An ancestor outside of the container's own view is not seen from inside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_UNTOLD = ("sys/fs/cgroup", "sys/fs/cgroup/unified"), ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct")
"""Where versions 2 and 1 are mounted where the kernel does not say."""


class _Mount(NamedTuple):
    """A hierarchy of cgroups in the file system."""

    version: int
    point: Path
    top: PurePosixPath
    """Its cgroup that is shown at `point`."""


def quota(root: Path) -> float | None:
    """Processors that the lowest quota allows (0.5 is possible); None where there is none."""
    return min((found for found in map(_quota, _folders(root)) if found), default=None)


def stops(root: Path) -> int | None:
    """How often any of the cgroups was stopped for having used up its quota, since they were made."""
    found = (re.search(r"^nr_throttled (\d+)$", _text(folder / "cpu.stat"), re.MULTILINE) for folder in _folders(root))
    counts = [int(one[1]) for one in found if one]
    return sum(counts) if counts else None


def _folders(root: Path) -> list[Path]:
    """Of this process's cgroups and their ancestors, each once."""
    paths = _memberships(_text(root / "proc/self/cgroup"))
    mounts = list(_mounts(root)) or [
        _Mount(version, root / place, PurePosixPath("/"))
        for version, places in zip((2, 1), _UNTOLD, strict=True)
        for place in places
    ]
    every = [folder for mount in mounts for folder in _upwards(mount, paths.get(mount.version))]
    return list(dict.fromkeys(every))


def _memberships(told: str) -> dict[int, PurePosixPath]:
    """Version to this process's cgroup, from /proc/self/cgroup."""
    found = {}
    for line in told.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers or "cpu" in controllers.split(","):
            found[1 if controllers else 2] = PurePosixPath(path or "/")
    return found


def _mounts(root: Path) -> Iterator[_Mount]:
    """From /proc/self/mountinfo: see proc_pid_mountinfo(5)."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        words, kind = before.split(), after.split()
        if len(words) < 5 or len(kind) < 3:
            continue
        point, top = root / _plain(words[4]).lstrip("/"), PurePosixPath(_plain(words[3]))
        if kind[0] == "cgroup2":
            yield _Mount(2, point, top)
        elif kind[0] == "cgroup" and "cpu" in kind[2].split(","):
            yield _Mount(1, point, top)


def _upwards(mount: _Mount, path: PurePosixPath | None) -> Iterator[Path]:
    """The folder of a cgroup and those above it, as far as they are mounted."""
    # A container without a namespace of its own is told the host's path, and sees its own cgroup at the mount point.
    inside = path.relative_to(mount.top) if path is not None and path.is_relative_to(mount.top) else PurePosixPath()
    if ".." in inside.parts:  # outside of this namespace
        inside = PurePosixPath()
    yield from (mount.point / part for part in (inside, *inside.parents))


def _quota(folder: Path) -> float | None:
    words = _text(folder / "cpu.max").split()
    if len(words) != 2:
        words = [_text(folder / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    return int(words[0]) / int(words[1]) if all(re.fullmatch("0*[1-9][0-9]*", word) for word in words) else None


def _plain(escaped: str) -> str:
    """Blanks and the like are octal there."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), escaped)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, ValueError):
        return ""
