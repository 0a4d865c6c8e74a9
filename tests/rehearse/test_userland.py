"""The emulated machines' systems and emulators: fetched once, whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from edgecnn.errors import UserError
from edgecnn.rehearse import cache, levels, userland, wheels
from edgecnn.rehearse.cache import cache_folder
from edgecnn.rehearse.debian import BOOKWORM, TRIXIE, release_for
from edgecnn.rehearse.userland import Contents, check_host


@pytest.mark.parametrize(
    ("system", "machine", "message"),
    [("Linux", "aarch64", "nothing to emulate"), ("Darwin", "arm64", "x86-64 Linux"), ("Windows", "AMD64", "x86-64")],
)
def test_a_host_that_cannot_rehearse(system: str, machine: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_host(system, machine)


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EDGECNN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(None) == tmp_path / "xdg/edgecnn/rehearse"
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "named"))
    assert cache_folder(None) == tmp_path / "named/rehearse"
    assert cache_folder(tmp_path / "given") == tmp_path / "given"


def test_the_release_is_the_one_with_this_python() -> None:
    assert release_for((3, 11)) is BOOKWORM
    assert release_for((3, 13)) is TRIXIE
    assert "python3.13-minimal" in TRIXIE.packages


def silent(line: str) -> None:
    pass


def test_without_apt_the_system_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="apt-get is not there.*Debian, Ubuntu"):
        userland.set_up_userland(tmp_path / "cache", False, silent)
    assert list((tmp_path / "cache").iterdir()) == []


def test_offline_and_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run once without --offline"):
        userland.set_up_userland(tmp_path, True, silent)
    with pytest.raises(UserError, match="no aarch64 wheels of onnxruntime"):
        wheels.fetch_wheels(tmp_path, "onnxruntime", BOOKWORM, True, silent)


def test_a_full_disk_is_noticed_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12, 100 * 10**6))
    with pytest.raises(UserError, match="100 MB free, 350 MB are needed.*--cache"):
        userland.set_up_userland(tmp_path / "cache", False, silent)
    assert not (tmp_path / "cache").exists()


def test_an_interrupted_set_up_leaves_nothing_and_the_next_one_works(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(folder: Path, *rest: Any) -> None:
        (folder / "root").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(userland, "_make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        userland.set_up_userland(tmp_path, False, silent)
    assert list(tmp_path.iterdir()) == []

    made = []
    monkeypatch.setattr(userland, "_make", lambda folder, *rest: (write_contents(folder), made.append(folder)))
    monkeypatch.delenv("EDGECNN_QEMU", raising=False)
    for _ in range(2):
        found = userland.set_up_userland(tmp_path, False, silent)
        assert found.qemu_version == "7.2"
        assert found.root.parent.name == found.release.name
    assert len(made) == 1


def write_contents(folder: Path) -> None:
    contents = Contents(release="bookworm", python="3.11", qemu="7.2", packages={})
    (folder / "userland.json").write_text(contents.model_dump_json())


def test_what_a_killed_set_up_left_is_swept_away(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    for process_id in (dead.pid, os.getpid()):
        (tmp_path / f".bookworm.{process_id}.tmp" / "root").mkdir(parents=True)
    cache.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f".bookworm.{os.getpid()}.tmp"]


def test_a_damaged_set_up_says_what_to_remove(tmp_path: Path) -> None:
    folder = tmp_path / release_for(sys.version_info[:2]).name
    folder.mkdir()
    with pytest.raises(UserError, match="remove .*and run again"):
        userland.set_up_userland(tmp_path, True, silent)


def test_two_set_ups_at_once_the_first_wins(tmp_path: Path) -> None:
    with cache.made_once(tmp_path / "it") as slower:
        (slower / "slower").touch()
        (tmp_path / "it").mkdir()
        (tmp_path / "it" / "first").touch()
    assert [path.name for path in (tmp_path / "it").iterdir()] == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb here")
def test_packages_are_unpacked_and_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    build_deb(store, BOOKWORM.qemu, "amd64", BOOKWORM.emulator_of("aarch64"), "emulator")
    build_deb(store, "python3.11-minimal", "arm64", "usr/bin/python3.11", "interpreter")
    tool = tmp_path / "bin" / "apt-get"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\ncase "$*" in *download*) cp {store}/*.deb . ;; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(userland, "release_for", lambda python: BOOKWORM)
    monkeypatch.delenv("EDGECNN_QEMU", raising=False)
    lines: list[str] = []
    found = userland.set_up_userland(tmp_path / "cache", False, lines.append)
    assert (found.root / "usr/bin/python3.11").read_text() == "interpreter"
    assert found.qemu.read_text() == "emulator"
    assert os.access(found.qemu, os.X_OK)
    assert (found.root / "lib").resolve() == found.root / "usr/lib"
    assert found.contents.qemu == found.qemu_version == "1:2.0"
    assert len(found.contents.packages) == 2
    assert sorted(path.name for path in found.root.parent.iterdir()) == ["qemu-aarch64", "root", "userland.json"]
    assert any("once" in line for line in lines)


def build_deb(store: Path, name: str, architecture: str, member: str, content: str) -> None:
    tree = store / name
    (tree / member).parent.mkdir(parents=True)
    (tree / member).write_text(content)
    (tree / "DEBIAN").mkdir()
    control = f"Package: {name}\nVersion: 1:2.0\nArchitecture: {architecture}\nMaintainer: x <x@x>\nDescription: x\n"
    (tree / "DEBIAN/control").write_text(control)
    command = [
        "dpkg-deb",
        "--build",
        "--root-owner-group",
        str(tree),
        str(store / f"{name}_1%3a2.0_{architecture}.deb"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    shutil.rmtree(tree)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb here")
def test_no_network_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "apt-get"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'E: Could not resolve deb.debian.org' >&2\nexit 100\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    with pytest.raises(UserError, match="apt-get could not fetch .*Could not resolve.*check the network"):
        userland.set_up_userland(tmp_path / "cache", False, silent)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_emulator_that_is_named_and_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_contents_in = tmp_path / release_for(sys.version_info[:2]).name
    write_contents_in.mkdir()
    write_contents(write_contents_in)
    monkeypatch.setenv("EDGECNN_QEMU", "qemu-for-toasters")
    with pytest.raises(UserError, match="EDGECNN_QEMU=qemu-for-toasters: no such program"):
        userland.set_up_userland(tmp_path, True, silent)


# The x86-64 emulator


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb here")
def test_the_x86_emulator_is_fetched_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store, asked = tmp_path / "store", tmp_path / "asked"
    store.mkdir()
    build_deb(store, BOOKWORM.qemu, "amd64", BOOKWORM.emulator_of("x86_64"), "emulator")
    tool = tmp_path / "bin" / "apt-get"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$*" >> {asked}\ncase "$*" in *download*) cp {store}/*.deb . ;; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(levels, "release_for", lambda python: BOOKWORM)
    monkeypatch.delenv("EDGECNN_QEMU_X86_64", raising=False)
    assert levels.find_emulator(tmp_path / "cache") is None
    with pytest.raises(UserError, match="no emulator there, and --offline"):
        levels.set_up_emulator(tmp_path / "cache", True, silent)
    found = [levels.set_up_emulator(tmp_path / "cache", offline, silent) for offline in (False, False, True)]
    assert found[0] == found[1] == found[2] == levels.find_emulator(tmp_path / "cache")
    assert found[0].path.read_text() == "emulator"
    assert os.access(found[0].path, os.X_OK)
    assert (found[0].version, len(found[0].packages)) == ("1:2.0", 1)
    assert asked.read_text().count(" download ") == 1
    assert sorted(path.name for path in found[0].path.parent.iterdir()) == ["emulator.json", "qemu-x86_64"]


def test_an_x86_emulator_of_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = tmp_path / "qemu-of-mine"
    own.write_text("#!/bin/sh\necho qemu-x86_64 version 9.1\n")
    own.chmod(0o755)
    monkeypatch.setenv("EDGECNN_QEMU_X86_64", str(own))
    assert levels.set_up_emulator(tmp_path, True, silent) == levels.Qemu(own, "9.1", {})
    monkeypatch.setenv("EDGECNN_QEMU_X86_64", "qemu-for-toasters")
    with pytest.raises(UserError, match="EDGECNN_QEMU_X86_64=qemu-for-toasters: no such program"):
        levels.find_emulator(tmp_path)


@pytest.mark.parametrize(("system", "machine"), [("Linux", "aarch64"), ("Darwin", "x86_64"), ("Windows", "AMD64")])
def test_a_host_that_cannot_rehearse_x86(system: str, machine: str) -> None:
    with pytest.raises(UserError, match="it takes x86-64 Linux"):
        levels.check_host(system, machine)


@pytest.mark.parametrize("name", ["a,b", "a:b"])
def test_a_folder_that_an_emulator_would_take_apart_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be handed to an emulator: name another folder"):
        cache.refuse_separators(tmp_path / name)
    cache.refuse_separators(tmp_path / "a b")
