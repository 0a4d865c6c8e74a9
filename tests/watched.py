"""A command under strace: whom it spoke to and what it wrote, its children and the emulated board's included."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

_CALLS = "%network,/^(open|openat|creat|(mkdir|rename|link|symlink|mknod)(at2?)?)$"
_ADDRESS = re.compile(r'sin_port=htons\((\d+)\), sin_addr=inet_addr\("([^"]+)"\)')
_ADDRESS_6 = re.compile(r'sin6_port=htons\((\d+)\).*?inet_pton\(AF_INET6, "([^"]+)"')
_OPENED = re.compile(r"(?:open|openat|creat)\(.*\) = \d+<(.*?)>(?:\(deleted\))?$")
_FOR_WRITING = re.compile(r"\b(?:O_CREAT|O_WRONLY|O_RDWR|O_TRUNC)\b|^creat\(")
_MADE = re.compile(r"(?:mkdir|rename|link|symlink|mknod)\w*\(.*\) = 0$")
_LAST_PATH = re.compile(r'(?:<([^>]*)>, )?"((?:[^"\\]|\\.)*)"(?!.*")')
_DOMAIN_NAMES = 53
_NO_SECRETS = ("CI", "PYTEST_CURRENT_TEST", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "EDGECNN_CACHE", "MPLCONFIGDIR")
"""Variables that change where libraries write, or under which they hold back."""


@dataclass(frozen=True)
class Seen:
    """What a command did."""

    code: int
    output: str
    contacts: frozenset[str]
    """address:port outside of this machine, and every question for a name, wherever the answer would come from."""
    written: frozenset[Path]
    """Files and folders that were made or opened for writing."""


def watched(command: Sequence[str | Path], folder: Path, **environment: str) -> Seen:
    """Run Python with these arguments in `folder`, its own HOME and TMPDIR beside it in there."""
    for name in ("home", "tmp", "trace"):
        (folder / name).mkdir(exist_ok=True)
    for old in (folder / "trace").iterdir():
        old.unlink()
    done = subprocess.run(
        [*_strace(folder / "trace" / "of"), sys.executable, *map(str, command)],
        cwd=folder,
        env={**_plain(os.environ), "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), **environment},
        capture_output=True,
        text=True,
        errors="replace",
    )
    lines = [line for path in (folder / "trace").iterdir() for line in path.read_text(errors="replace").splitlines()]
    assert lines, "strace saw nothing"
    written = frozenset(path for path in (_written(line, folder) for line in lines) if path is not None)
    return Seen(done.returncode, done.stdout + done.stderr, frozenset(_contacts(lines)), written)


def skip_unless_watchable() -> None:
    """Skips, with the reason, where processes cannot be traced."""
    if reason := _unwatchable():
        pytest.skip(reason)


@cache
def _unwatchable() -> str | None:
    if shutil.which("strace") is None:
        return "strace is not installed: apt-get install strace"
    done = subprocess.run([*_strace(Path(os.devnull))[:-2], "-o", os.devnull, "true"], capture_output=True, text=True)
    return None if done.returncode == 0 else f"strace may not trace here: {done.stderr.strip()}"


def _strace(log: Path) -> list[str]:
    """A file for each process, so that no call is told in two halves; -y names what a descriptor is open on."""
    return ["strace", "--seccomp-bpf", "-ff", "-qq", "-y", "-e", f"trace={_CALLS}", "-o", str(log)]


def _plain(environment: Mapping[str, str]) -> dict[str, str]:
    package = str(Path(__file__).parents[1])
    kept = {name: value for name, value in environment.items() if name not in _NO_SECRETS}
    return {**kept, "PYTHONPATH": package, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


def _contacts(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        if line.startswith(("connect(", "sendto(", "sendmsg(", "sendmmsg(")):
            for port, address in (*_ADDRESS.findall(line), *_ADDRESS_6.findall(line)):
                if int(port) == _DOMAIN_NAMES or not (address.startswith("127.") or address == "::1"):
                    yield f"{address}:{port}"


def _written(line: str, folder: Path) -> Path | None:
    if found := _OPENED.match(line):
        return Path(found[1]) if _FOR_WRITING.search(line) else None
    if _MADE.match(line) and (found := _LAST_PATH.search(line)):
        return Path(found[1] or folder) / found[2]
    return None
