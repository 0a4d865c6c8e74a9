"""A Debian arm64 userland and the emulator that runs it, in a cache folder: no root, nothing of the system touched."""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from edgecnn.documents import Frozen, parse, sha256_of_file, write_atomically
from edgecnn.errors import UserError
from edgecnn.rehearse.cache import Say, made_once, need_space, read_record, sweep
from edgecnn.rehearse.debian import Release, extract_one, fetch, named_program, release_for, unpack, version_of

NEEDED_MB = 350
"""Free disk space for the userland while it is being unpacked."""
_DOWNLOAD_MB = 75


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


def check_host(system: str | None = None, machine: str | None = None) -> None:
    """UserError where this machine cannot rehearse for Arm."""
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
        sweep(cache)
        need_space(cache, NEEDED_MB)
        with made_once(folder) as temporary:
            _make(temporary, release, say)
    contents = parse(Contents, read_record(folder / "userland.json"), str(folder / "userland.json"))
    qemu, version = named_program("EDGECNN_QEMU", "qemu-aarch64") or (folder / "qemu-aarch64", contents.qemu)
    return Userland(folder / "root", qemu, version, release, contents)


def _make(folder: Path, release: Release, say: Say) -> None:
    work = folder / "work"
    packages = [f"{release.qemu}:amd64", *(f"{name}:arm64" for name in release.packages)]
    debs = fetch(release, packages, work, "an arm64 userland", _DOWNLOAD_MB, say)
    say("setting up: unpacking")
    for deb in debs:
        if deb.name.endswith(("_arm64.deb", "_all.deb")):
            unpack(deb, folder / "root")
        else:
            extract_one(deb, release.emulator_of("aarch64"), folder / "qemu-aarch64")
    if not (folder / "root/lib").exists():
        # Since trixie a package that we leave out, base-files, makes this link.
        (folder / "root/lib").symlink_to("usr/lib")
    contents = Contents(
        release=release.name,
        python=release.python,
        qemu=version_of(next(deb for deb in debs if deb.name.startswith(f"{release.qemu}_"))),
        packages={deb.name.replace("%3a", ":"): sha256_of_file(deb) for deb in debs},
    )
    write_atomically(folder / "userland.json", contents.model_dump_json(indent=1) + "\n")
    shutil.rmtree(work)
