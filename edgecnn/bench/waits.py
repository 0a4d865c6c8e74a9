"""How long this process was ready to run and had no processor: what other work on the same processors took from it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from edgecnn.bench import cgroup

_ROOT = Path("/")


class Waits(NamedTuple):
    """So far; None is what the system does not tell."""

    ready_ns: dict[str, int] | None
    """By thread."""
    quota_stops: int | None


def waits(root: Path = _ROOT) -> Waits:
    """Of all threads of this process (Linux's schedstat, sched-stats.rst) and of its cgroups."""
    return Waits(_ready(root / "proc/self/task"), cgroup.stops(root))


def ready_between(before: Waits, after: Waits) -> int | None:
    """Nanoseconds, all threads together, that lived at the end; None where it is not told."""
    if before.ready_ns is None or after.ready_ns is None:
        return None
    return sum(ready - before.ready_ns.get(thread, 0) for thread, ready in after.ready_ns.items())


def stops_between(before: Waits, after: Waits) -> int | None:
    """Times that a quota stopped the process's cgroup or one above it; None where it is not told."""
    if before.quota_stops is None or after.quota_stops is None:
        return None
    return max(0, after.quota_stops - before.quota_stops)


def _ready(tasks: Path) -> dict[str, int] | None:
    """A kernel that does not count says 0 0 0, and this very thread has run."""
    try:
        threads = list(tasks.iterdir())
    except OSError:
        return None
    found = {thread.name: _numbers(thread / "schedstat") for thread in threads}
    told = {name: numbers[1] for name, numbers in found.items() if len(numbers) == 3 and numbers[2]}
    return told or None


def _numbers(path: Path) -> list[int]:
    try:
        words = path.read_text(encoding="utf-8").split()
    except (OSError, ValueError):  # the thread has ended
        return []
    return [int(word) for word in words if word.isdigit()]
