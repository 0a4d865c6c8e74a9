"""Debian packages, fetched and unpacked below a folder: no root, nothing of the system touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgecnn.ending import bound
from edgecnn.errors import UserError
from edgecnn.rehearse.cache import Say

MIRROR = "http://deb.debian.org/debian"
"""Signed by Debian's archive keys whatever carries it; EDGECNN_DEBIAN_MIRROR names another."""
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
    """A Debian release, from whose packages the emulated machines are made. Raspberry Pi OS is built on the same."""

    name: str
    python: str
    glibc_minor: int
    qemu: str
    """The package with statically linked emulators, and the path of one in there, up to its machine."""
    qemu_path: str
    extra: tuple[str, ...]
    """Packages whose names differ from release to release."""

    @property
    def packages(self) -> tuple[str, ...]:
        """What is unpacked into a userland: Python and what it and the engines link to."""
        interpreter = (
            f"python{self.python}-minimal",
            f"libpython{self.python}-minimal",
            f"libpython{self.python}-stdlib",
        )
        return (*interpreter, *_LIBRARIES, *self.extra)

    def emulator_of(self, machine: str) -> str:
        """The path of the emulator of a machine within its package."""
        return self.qemu_path.format(machine=machine)


BOOKWORM = Release("bookworm", "3.11", 36, "qemu-user-static", "usr/bin/qemu-{machine}-static", ("libssl3", "libuuid1"))
TRIXIE = Release("trixie", "3.13", 41, "qemu-user", "usr/bin/qemu-{machine}", ("libssl3t64", "libuuid1", "libzstd1"))


def release_for(python: tuple[int, int]) -> Release:
    """The release whose Python is nearest to this one, so that the same versions of the libraries exist for it."""
    return BOOKWORM if python < (3, 12) else TRIXIE


def fetch(release: Release, packages: Sequence[str], work: Path, what: str, megabytes: int, say: Say) -> list[Path]:
    """Download packages (`name:architecture`) into `work`. `what` is set up with them, for a person."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise UserError(f"{tool} is not there: the emulated machine is set up on Debian, Ubuntu or their like")
    for name in ("lists/partial", "cache/archives/partial", "debs"):
        (work / name).mkdir(parents=True)
    (work / "status").touch()
    options = _apt_options(work, release)
    say(f"setting up {what} (Debian {release.name}, once): package lists")
    _apt([*options, "update"], work)
    say(f"setting up: packages (about {megabytes} MB)")
    _apt([*options, "download", *packages], work / "debs")
    return sorted((work / "debs").glob("*.deb"))


def version_of(deb: Path) -> str:
    """The version in a package file's name."""
    return deb.name.split("_")[1].replace("%3a", ":")


def unpack(deb: Path, folder: Path) -> None:
    """All of a package."""
    _run(["dpkg-deb", "--extract", str(deb), str(folder)], deb.parent, f"unpack {deb.name}")


def extract_one(deb: Path, member: str, target: Path) -> None:
    """One program of a package; the emulators' package holds forty."""
    process = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE)
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for entry in archive:
                stream = archive.extractfile(entry) if entry.name.removeprefix("./") == member else None
                if stream is not None:
                    _copy(stream, target)
                    return
    finally:
        process.kill()
        process.communicate()
    raise UserError(f"{deb.name} has no {member}: this release of Debian is laid out otherwise than expected")


def named_program(variable: str, expected: str) -> tuple[Path, str] | None:
    """(path, version) of the emulator that an environment variable names; None where it names none."""
    named = os.environ.get(variable)
    if named is None:
        return None
    found = shutil.which(named)
    if found is None:
        raise UserError(f"{variable}={named}: no such program (expected a {expected})")
    done = subprocess.run([found, "--version"], capture_output=True, encoding="utf-8", errors="replace")
    first = (done.stdout.strip() or "unknown").splitlines()[0]
    return Path(found), first.removeprefix(f"{expected} version ")


def _apt_options(work: Path, release: Release) -> list[str]:
    """apt with lists, caches and sources of its own; proxies and mirrors of its transport stay the system's."""
    mirror = os.environ.get("EDGECNN_DEBIAN_MIRROR", MIRROR)
    sources = work / "sources.list"
    sources.write_text(
        f"deb [arch=arm64,amd64 signed-by={_keyring(work)}] {mirror} {release.name} main\n", encoding="utf-8"
    )
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
    unpack(next(work.glob("debian-archive-keyring_*.deb")), work / "keyring")
    return work / "keyring" / _KEYRING.relative_to("/")


def _apt(words: Sequence[str], folder: Path) -> None:
    _run(["apt-get", *words], folder, "fetch Debian's packages", "check the network, or apt's proxy settings")


def _run(command: Sequence[str], folder: Path, what: str, advice: str = "") -> None:
    done = subprocess.run(
        bound(command),
        cwd=folder,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        complaints = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:", "dpkg-deb:"))]
        reason = complaints[0] if complaints else done.stderr.strip().rpartition("\n")[2] or f"exit {done.returncode}"
        raise UserError(f"{command[0]} could not {what}: {reason}" + (f": {advice}" if advice else ""))


def _copy(stream: IO[bytes], target: Path) -> None:
    with target.open("wb") as out:
        shutil.copyfileobj(stream, out)
    target.chmod(0o755)
