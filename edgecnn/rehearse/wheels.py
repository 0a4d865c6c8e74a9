"""The real aarch64 wheels of an engine and of what prepares an image, of the versions that are installed here."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from edgecnn.documents import Frozen, parse, sha256_of, sha256_of_file, write_atomically
from edgecnn.ending import bound
from edgecnn.errors import UserError
from edgecnn.installed import PREPARING
from edgecnn.rehearse.cache import Say, made_once, need_space
from edgecnn.rehearse.debian import Release

TOO_LARGE = frozenset({"torch"})
"""Their aarch64 wheels pull gigabytes, and no board runs them."""
NEEDED_MB = 300
"""Free disk space for one engine while it is being unpacked."""
_OLDEST_GLIBC_MINOR = 17
_NONE_THERE = ("No matching distribution", "ResolutionImpossible", "conflicting dependencies")
_UNREACHABLE = ("Connection", "connection", "Max retries", "Temporary failure", "ProxyError", "Read timed out")


class NoWheel(Exception):
    """The package index has no aarch64 wheel; the message says of what."""


class WheelSet(Frozen):
    """What one engine needs."""

    library: str
    version: str
    pinned: bool
    """Whether every version is the one that is installed here."""
    wheels: dict[str, str]
    """Wheel file to SHA-256."""


@dataclass(frozen=True)
class Wheels:
    """Unpacked wheels."""

    set: WheelSet
    folders: tuple[Path, ...]
    """To go into PYTHONPATH."""


def fetch_wheels(cache: Path, library: str, release: Release, offline: bool, say: Say) -> Wheels:
    """The unpacked wheels of `library` and PREPARING; fetched first where they are missing.

    Raises NoWheel where the library is not to be had for the board, UserError where the set-up is at fault.
    """
    if library in TOO_LARGE:
        raise NoWheel(f"{library} is not rehearsed: its aarch64 wheel pulls gigabytes, and no board's target uses it")
    installed = _installed()
    wanted = [_requirement(name, installed) for name in (*PREPARING, library)]
    digest = sha256_of(" ".join([*wanted, release.name]).encode())[:12]
    folder = cache / f"wheels-{release.python}"
    path = cache / f"sets-{release.python}" / f"{library}-{digest}.json"
    if not path.is_file():
        if offline:
            raise UserError(f"{cache}: no aarch64 wheels of {library} there: run once without --offline")
        need_space(cache, NEEDED_MB)
        say(f"setting up: aarch64 wheels of {wanted[-1]} and what it needs")
        found = _fetch(library, wanted, installed, release, folder)
        write_atomically(path, found.model_dump_json(indent=1) + "\n")
    there = parse(WheelSet, path.read_bytes(), str(path))
    folders = tuple(folder / name.removesuffix(".whl") for name in there.wheels)
    for one in folders:
        if not one.is_dir():
            path.unlink()
            raise UserError(f"{one}: a part of the set-up is gone: run again to fetch it anew")
    return Wheels(there, folders)


def _installed() -> dict[str, str]:
    """Every distribution here: normalised name to version, without a local part such as +cpu."""
    found = {}
    for one in distributions():
        name = one.metadata["Name"]
        if name:
            found[_normal(name)] = one.version.partition("+")[0]
    return found


def _requirement(name: str, installed: dict[str, str]) -> str:
    here = installed.get(_normal(name))
    return f"{name}=={here}" if here else name


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _fetch(library: str, wanted: Sequence[str], installed: dict[str, str], release: Release, folder: Path) -> WheelSet:
    """Download and unpack. First everything as it is installed here, then only the engine, then what there is."""
    attempts: tuple[tuple[Sequence[str], dict[str, str]], ...] = (
        (wanted, installed),
        ([*PREPARING, wanted[-1]], {}),
        ([*PREPARING, library], {}),
    )
    folder.mkdir(parents=True, exist_ok=True)
    complaint = ""
    for requirements, constraints in attempts:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
            complaint = _download(requirements, constraints, release, Path(temporary)) or ""
            if complaint:
                continue
            files = sorted(Path(temporary).glob("*.whl"))
            for file in files:
                _unpack(file, folder / file.stem)
            found = {file.name: sha256_of_file(file) for file in files}
            return WheelSet(
                library=library, version=_version_of(library, found), pinned=bool(constraints), wheels=found
            )
    raise NoWheel(f"no aarch64 wheel of {library} for Python {release.python}: {complaint}")


def _download(requirements: Sequence[str], installed: dict[str, str], release: Release, folder: Path) -> str | None:
    """Let pip choose and fetch the wheels; what it complains of where there are none. UserError for other failures."""
    with warnings.catch_warnings():
        # That setuptools replaces distutils, where a converter has loaded both.
        warnings.simplefilter("ignore")
        pip = importlib.util.find_spec("pip")
    if pip is None:
        raise UserError("pip is not in this Python, and fetches the board's wheels: python -m ensurepip")
    constraints = folder / "constraints.txt"
    constraints.write_text(
        "".join(f"{name}=={version}\n" for name, version in sorted(installed.items())), encoding="utf-8"
    )
    glibc = range(_OLDEST_GLIBC_MINOR, release.glibc_minor + 1)
    platforms = ["manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in glibc)]
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"),
        *("--only-binary=:all:", "--implementation", "cp", "--python-version", release.python),
        *(word for name in platforms for word in ("--platform", name)),
        *("--dest", str(folder), "--constraint", str(constraints), *requirements),
    ]
    done = subprocess.run(
        bound(command),
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode == 0:
        return None
    errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    reason = errors[-1] if errors else (done.stderr.strip() or f"exit {done.returncode}").rpartition("\n")[2]
    if any(word in done.stderr for word in _UNREACHABLE) or not any(word in done.stderr for word in _NONE_THERE):
        raise UserError(f"pip could not fetch aarch64 wheels: {reason}: check the network, or pip's index settings")
    return reason


def _unpack(wheel: Path, target: Path) -> None:
    """A wheel is a zip of what goes into site-packages; what has a place elsewhere lies under `….data/`."""
    if target.is_dir():
        return
    with made_once(target) as temporary:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(temporary)
        for part in (*temporary.glob("*.data/purelib"), *temporary.glob("*.data/platlib")):
            shutil.copytree(part, temporary, dirs_exist_ok=True)


def _version_of(library: str, wheels: Iterable[str]) -> str:
    return next(name.split("-")[1] for name in wheels if _normal(name.split("-")[0]) == _normal(library))
