"""A Debian arm64 userland and the emulator that runs it, in a cache folder: no root, nothing of the system touched."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecnn.documents import Frozen, parse, sha256_of_file, write_atomically
from edgecnn.errors import UserError

Say = Callable[[str], None]
"""Takes a line of progress."""

MIRROR = "http://deb.debian.org/debian"
"""Signed by Debian's archive keys whatever carries it; EDGECNN_DEBIAN_MIRROR names another."""
NEEDED_MB = 350
"""Free disk space for the userland while it is being unpacked."""
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_LIBRARIES = (
    "libc6",
    "libstdc++6",
    "libgcc-s1",
    "libgomp1",
    "libexpat1",
    "zlib1g",
    "libffi8",
    "libbz2-1.0",
    "liblzma5",
)


@dataclass(frozen=True)
class Release:
    """A Debian release, from whose packages the userland is made. Raspberry Pi OS is built on the same ones."""

    name: str
    python: str
    glibc_minor: int
    qemu: str
    """The package with a statically linked emulator, and its path in there."""
    qemu_path: str
    extra: tuple[str, ...]
    """Packages whose names differ from release to release."""

    @property
    def packages(self) -> tuple[str, ...]:
        """What is unpacked into the userland: Python and what it and the engines link to."""
        interpreter = (
            f"python{self.python}-minimal",
            f"libpython{self.python}-minimal",
            f"libpython{self.python}-stdlib",
        )
        return (*interpreter, *_LIBRARIES, *self.extra)


BOOKWORM = Release("bookworm", "3.11", 36, "qemu-user-static", "usr/bin/qemu-aarch64-static", ("libssl3", "libuuid1"))
TRIXIE = Release("trixie", "3.13", 41, "qemu-user", "usr/bin/qemu-aarch64", ("libssl3t64", "libuuid1", "libzstd1"))


class Contents(Frozen):
    """userland.json: what was unpacked."""

    release: str
    python: str
    qemu: str
    """Version of the emulator's package."""
    packages: dict[str, str]
    """Package file to SHA-256."""


@dataclass(frozen=True)
class Userland:
    """A userland that is there, whole."""

    root: Path
    qemu: Path
    qemu_version: str
    release: Release
    contents: Contents


def cache_folder(given: Path | None) -> Path:
    """`given`, or $EDGECNN_CACHE/rehearse, or $XDG_CACHE_HOME/edgecnn/rehearse (~/.cache/edgecnn/rehearse)."""
    if given is not None:
        return given.resolve()
    if named := os.environ.get("EDGECNN_CACHE"):
        return Path(named).resolve() / "rehearse"
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base).resolve() / "edgecnn" / "rehearse"


def release_for(python: tuple[int, int]) -> Release:
    """The release whose Python is nearest to this one, so that the same versions of the libraries exist for it."""
    return BOOKWORM if python < (3, 12) else TRIXIE


def check_host(system: str | None = None, machine: str | None = None) -> None:
    """UserError where this machine cannot rehearse."""
    system, machine = system or platform.system(), machine or platform.machine()
    if (system, machine) == ("Linux", "aarch64"):
        raise UserError(
            "this machine is an Arm board itself, there is nothing to emulate: "
            "`edgecnn verify` checks the variants on it, `edgecnn bench` measures them"
        )
    if (system, machine) != ("Linux", "x86_64"):
        raise UserError(f"{system} {machine} cannot rehearse for Arm: it takes x86-64 Linux (a container will do)")


def set_up_userland(cache: Path, offline: bool, say: Say) -> Userland:
    """The userland in `cache`; made there first where it is missing. UserError where that cannot be done."""
    release = release_for(sys.version_info[:2])
    folder = cache / release.name
    if not folder.is_dir():
        if offline:
            raise UserError(
                f"{cache}: no userland there, and --offline forbids fetching it: run once without --offline"
            )
        _sweep(cache)
        need_space(cache, NEEDED_MB)
        with made_once(folder) as temporary:
            _make(temporary, release, say)
    contents = parse(Contents, _read(folder / "userland.json"), str(folder / "userland.json"))
    qemu, version = _qemu(folder, contents)
    return Userland(folder / "root", qemu, version, release, contents)


def need_space(cache: Path, megabytes: int) -> None:
    """UserError where the disk of `cache` has less free."""
    there = next(parent for parent in (cache, *cache.parents) if parent.exists())
    free = shutil.disk_usage(there).free // 10**6
    if free < megabytes:
        raise UserError(
            f"{cache}: {free} MB free, {megabytes} MB are needed to set up the emulated board: "
            "free some, or name another folder with --cache"
        )


@contextmanager
def made_once(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` on success and vanishes on failure. The first of two makers wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sweep(cache: Path) -> None:
    """Remove what killed set-ups left behind; a set-up that is stopped otherwise clears up itself."""
    for left in cache.glob(".*.tmp"):
        process = left.name.split(".")[-2]
        if process.isdigit() and not Path("/proc", process).exists():
            shutil.rmtree(left, ignore_errors=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: remove {path.parent} and run again") from None


def _make(folder: Path, release: Release, say: Say) -> None:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise UserError(f"{tool} is not there: the emulated board is set up on Debian, Ubuntu or their like")
    work = folder / "work"
    for name in ("lists/partial", "cache/archives/partial", "debs"):
        (work / name).mkdir(parents=True)
    (work / "status").touch()
    options = _apt_options(work, release)
    say(f"setting up an arm64 userland (Debian {release.name}, once): package lists")
    _apt([*options, "update"], work)
    say("setting up: packages (about 75 MB)")
    _apt(
        [*options, "download", f"{release.qemu}:amd64", *(f"{name}:arm64" for name in release.packages)], work / "debs"
    )
    debs = sorted((work / "debs").glob("*.deb"))
    say("setting up: unpacking")
    for deb in debs:
        if deb.name.endswith("_arm64.deb") or deb.name.endswith("_all.deb"):
            _run(["dpkg-deb", "--extract", str(deb), str(folder / "root")], work, f"unpack {deb.name}")
        else:
            _extract_one(deb, release.qemu_path, folder / "qemu-aarch64")
    if not (folder / "root/lib").exists():
        # Since trixie a package that we leave out, base-files, makes this link.
        (folder / "root/lib").symlink_to("usr/lib")
    qemu = next(deb for deb in debs if deb.name.startswith(f"{release.qemu}_"))
    contents = Contents(
        release=release.name,
        python=release.python,
        qemu=qemu.name.split("_")[1].replace("%3a", ":"),
        packages={deb.name.replace("%3a", ":"): sha256_of_file(deb) for deb in debs},
    )
    write_atomically(folder / "userland.json", contents.model_dump_json(indent=1) + "\n")
    shutil.rmtree(work)


def _apt_options(work: Path, release: Release) -> list[str]:
    """apt with lists, caches and sources of its own; proxies and mirrors of its transport stay the system's."""
    mirror = os.environ.get("EDGECNN_DEBIAN_MIRROR", MIRROR)
    sources = work / "sources.list"
    sources.write_text(f"deb [arch=arm64,amd64 signed-by={_keyring(work)}] {mirror} {release.name} main\n")
    values = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64,amd64",
        "APT::Sandbox::User": "",
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Dir::State": work,
        "Dir::State::lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferencesparts": "-",
        "Dir::Etc::preferences": "-",
    }
    return ["-q", *(word for name, value in values.items() for word in ("-o", f"{name}={value}"))]


def _keyring(work: Path) -> Path:
    """Debian's archive keys: the system's, or from the package that Ubuntu and others carry, signed by their own."""
    if _KEYRING.is_file():
        return _KEYRING
    try:
        _apt(["-q", "download", "debian-archive-keyring"], work)
    except UserError as error:
        raise UserError(f"{error} (install debian-archive-keyring, or run apt-get update first)") from None
    deb = next(work.glob("debian-archive-keyring_*.deb"))
    _run(["dpkg-deb", "--extract", str(deb), str(work / "keyring")], work, f"unpack {deb.name}")
    return work / "keyring" / _KEYRING.relative_to("/")


def _apt(words: Sequence[str], folder: Path) -> None:
    _run(["apt-get", *words], folder, "fetch the userland's packages", "check the network, or apt's proxy settings")


def _run(command: Sequence[str], folder: Path, what: str, advice: str = "") -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        complaints = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:", "dpkg-deb:"))]
        reason = complaints[0] if complaints else done.stderr.strip().rpartition("\n")[2] or f"exit {done.returncode}"
        raise UserError(f"{command[0]} could not {what}: {reason}" + (f": {advice}" if advice else ""))


def _extract_one(deb: Path, member: str, target: Path) -> None:
    """One file of a package; the emulator's package holds forty."""
    process = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE)
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for entry in archive:
                if entry.name.removeprefix("./") == member:
                    _copy(archive.extractfile(entry), target)
                    return
    finally:
        process.kill()
        process.communicate()
    raise UserError(f"{deb.name} has no {member}: this release of Debian is laid out otherwise than expected")


def _copy(stream: Any, target: Path) -> None:
    with target.open("wb") as out:
        shutil.copyfileobj(stream, out)
    target.chmod(0o755)


def _qemu(folder: Path, contents: Contents) -> tuple[Path, str]:
    """(emulator, version): the one that EDGECNN_QEMU names, else the one that was unpacked."""
    named = os.environ.get("EDGECNN_QEMU")
    if named is None:
        return folder / "qemu-aarch64", contents.qemu
    found = shutil.which(named)
    if found is None:
        raise UserError(f"EDGECNN_QEMU={named}: no such program (expected a qemu-aarch64)")
    done = subprocess.run([found, "--version"], capture_output=True, text=True, errors="replace")
    first = (done.stdout.strip() or "unknown").splitlines()[0]
    return Path(found), first.removeprefix("qemu-aarch64 version ")
