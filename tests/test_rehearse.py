"""The rehearsal on an emulated board: its parts without one, and the whole of it where it can be set up."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn import rehearse as rehearsing
from edgecnn.artifact import Flip, Golden
from edgecnn.documents import sha256_of
from edgecnn.errors import UserError
from edgecnn.rehearse import instructions, process, userland, wheels
from edgecnn.rehearse.boards import BOARDS, board, cpuinfo, write_system_files
from edgecnn.rehearse.compare import EMULATED, Difference, Rehearsed, difference, exit_code, judge
from edgecnn.rehearse.inside import engine_mappings, mappings
from edgecnn.rehearse.instructions import BEGIN, END, Log, kind_of, parse_line
from edgecnn.rehearse.process import Ended, death, emulated, execute, native, run
from edgecnn.rehearse.userland import BOOKWORM, TRIXIE, Contents, Userland, cache_folder, check_host, release_for
from tests.rehearse.bundle import write_bundle_to_rehearse

# What an assembler (LLVM 14, -triple=aarch64) makes of each line, and the kind that we must see in it.
ASSEMBLED = (
    ("sdot v0.4s, v1.16b, v2.16b", 0x4E829420, "sdot"),
    ("sdot v3.2s, v4.8b, v5.8b", 0x0E859483, "sdot"),
    ("sdot v0.4s, v1.16b, v18.4b[3]", 0x4FB2E820, "sdot"),
    ("udot v0.4s, v1.16b, v2.16b", 0x6E829420, "udot"),
    ("udot v0.4s, v1.16b, v18.4b[3]", 0x6FB2E820, "udot"),
    ("usdot v0.4s, v1.16b, v2.16b", 0x4E829C20, "usdot"),
    ("usdot v0.4s, v1.16b, v2.4b[1]", 0x4FA2F020, "usdot"),
    ("sudot v0.4s, v1.16b, v2.4b[1]", 0x4F22F020, "sudot"),
    ("smmla v0.4s, v1.16b, v2.16b", 0x4E82A420, "smmla"),
    ("ummla v0.4s, v1.16b, v2.16b", 0x6E82A420, "ummla"),
    ("usmmla v0.4s, v1.16b, v2.16b", 0x4E82AC20, "usmmla"),
    ("smlal v0.4s, v1.4h, v2.4h", 0x0E628020, "smlal"),
    ("smlal2 v0.8h, v1.16b, v2.16b", 0x4E228020, "smlal"),
    ("smlal v0.4s, v1.4h, v2.h[7]", 0x0F722820, "smlal"),
    ("umlal v0.4s, v1.4h, v2.4h", 0x2E628020, "umlal"),
    ("umlal2 v0.4s, v1.8h, v2.h[3]", 0x6F722020, "umlal"),
    ("smull v0.8h, v1.8b, v2.8b", 0x0E22C020, "smull"),
    ("smull2 v0.4s, v1.8h, v2.h[3]", 0x4F72A020, "smull"),
    ("umull v0.8h, v1.8b, v2.8b", 0x2E22C020, "umull"),
    ("umull2 v0.4s, v1.8h, v2.h[3]", 0x6F72A020, "umull"),
    ("sadalp v0.4s, v1.8h", 0x4E606820, "sadalp"),
    ("fmla v0.8h, v1.8h, v2.8h", 0x4E420C20, "fmla fp16"),
    ("fmla v0.4h, v1.4h, v2.h[7]", 0x0F321820, "fmla fp16"),
    ("fmla v0.4s, v1.4s, v2.4s", 0x4E22CC20, "fmla fp32"),
    ("fmla v0.4s, v1.4s, v31.s[3]", 0x4FBF1820, "fmla fp32"),
    ("fmla v0.2d, v1.2d, v2.2d", 0x4E62CC20, "fmla fp64"),
    ("fmla v0.2d, v1.2d, v2.d[1]", 0x4FC21820, "fmla fp64"),
    ("fmlal v0.4s, v1.4h, v2.4h", 0x4E22EC20, "fmlal"),
    ("fmlal v0.4s, v1.4h, v2.h[7]", 0x4FB20820, "fmlal"),
    ("fmlal2 v0.4s, v1.4h, v2.4h", 0x6E22CC20, "fmlal2"),
    ("fmlal2 v0.4s, v1.4h, v2.h[7]", 0x6FB28820, "fmlal2"),
    ("bfdot v0.4s, v1.8h, v2.8h", 0x6E42FC20, "bfdot"),
    ("bfmmla v0.4s, v1.8h, v2.8h", 0x6E42EC20, "bfmmla"),
    ("fmadd s0, s1, s2, s3", 0x1F020C20, "fmadd fp32"),
    ("fmadd d0, d1, d2, d3", 0x1F420C20, "fmadd fp64"),
    ("fmadd h0, h1, h2, h3", 0x1FC20C20, "fmadd fp16"),
    ("nop", 0xD503201F, None),
    ("ret", 0xD65F03C0, None),
    ("fadd v0.4s, v1.4s, v2.4s", 0x4E22D420, None),
    ("fmls v0.4s, v1.4s, v2.4s", 0x4EA2CC20, None),
    ("mla v0.4s, v1.4s, v2.4s", 0x4EA29420, None),
    ("mul v0.4s, v1.4s, v2.4s", 0x4EA29C20, None),
    ("smull x0, w1, w2", 0x9B227C20, None),
    ("fmul v0.8h, v1.8h, v2.8h", 0x6E421C20, None),
    ("fmsub s0, s1, s2, s3", 0x1F028C20, None),
    ("saddlp v0.4s, v1.8h", 0x4E602820, None),
    ("smlsl v0.4s, v1.4h, v2.4h", 0x0E62A020, None),
    ("sqdmlal v0.4s, v1.4h, v2.4h", 0x0E629020, None),
    ("addhn v0.8b, v1.8h, v2.8h", 0x0E224020, None),
)
SDOT, RET = 0x4E829420, 0xD65F03C0


@pytest.mark.parametrize(("text", "word", "kind"), ASSEMBLED, ids=[text for text, _, _ in ASSEMBLED])
def test_an_instruction_word_is_of_the_kind_that_the_assembler_meant(text: str, word: int, kind: str | None) -> None:
    assert kind_of(word) == kind


@given(st.sampled_from([row for row in ASSEMBLED if row[2]]), st.integers(0, 31), st.integers(0, 31))
def test_the_kind_does_not_depend_on_the_registers(row: tuple[str, int, str], destination: int, source: int) -> None:
    assert kind_of(row[1] & ~0x3FF | source << 5 | destination) == row[2]


@given(st.integers(0, 2**32 - 1))
def test_no_word_is_of_two_kinds(word: int) -> None:
    assert len({kind for kind, mask, value in instructions._ENCODINGS if word & mask == value}) <= 1


@given(st.binary())
def test_any_line_of_a_log_can_be_parsed(line: bytes) -> None:
    found = parse_line(line)
    assert found is None or found[1] < 2**32


def test_a_line_of_the_emulators_log() -> None:
    assert parse_line(b"0x5500801234:  4e829420  sdot     v0.4s, v1.16b, v2.16b") == (0x5500801234, 0x4E829420)
    assert parse_line(b"0x5500801234:  4e829420  .byte    0x20, 0x94, 0x82, 0x4e") == (0x5500801234, 0x4E829420)
    assert parse_line(b"----------------") is None
    assert parse_line(b"IN: ") is None


LOG = b"""IN: \n0x0000001000:  0e202020  before
%s
0x0000002000:  4e829420  sdot v0.4s, v1.16b, v2.16b
0x0000002004:  4e829420  sdot v0.4s, v1.16b, v2.16b
0x0000002000:  4e829420  sdot again, after the emulator forgot it
0x0000003000:  4e22cc20  fmla of another library
0x0000002008:  d65f03c0  ret
%s
0x0000002010:  6e829420  udot after it
""" % (BEGIN, END)


@given(st.lists(st.integers(1, 60), min_size=1))
def test_a_log_is_read_alike_in_whatever_pieces_it_comes(sizes: list[int]) -> None:
    stream = io.BytesIO(LOG)
    pieces = iter(sizes)

    class Pieces:
        def read(self, most: int) -> bytes:
            return stream.read(next(pieces, most))

    log = Log()
    log.read(Pieces())  # type: ignore[arg-type]
    assert sorted(log.between) == [0x2000, 0x2004, 0x2008, 0x3000]
    assert log.last == 0x6E829420
    assert instructions.count(log.between, [(0x2000, 0x3000)]) == {"sdot": 2, "other": 1}


def test_a_log_that_ends_before_the_marks() -> None:
    log = Log()
    log.read(io.BytesIO(LOG[: LOG.index(BEGIN)]))
    assert log.between == {}
    assert log.last == 0x0E202020


@pytest.mark.parametrize(("name", "part"), [("pi-3", "0xd03"), ("pi-4", "0xd08"), ("pi-5", "0xd0b")])
def test_cpuinfo_names_the_boards_core(name: str, part: str) -> None:
    text = cpuinfo(board(f"raspberry-{name}"))
    blocks = text.strip().split("\n\n")
    assert len(blocks) == 4
    for number, block in enumerate(blocks):
        fields = dict(line.split(":", 1) for line in block.splitlines())
        fields = {name.strip(): value.strip() for name, value in fields.items()}
        assert fields["processor"] == str(number)
        assert fields["CPU implementer"] == "0x41"
        assert fields["CPU part"] == part
        assert ("asimddp" in fields["Features"].split()) == (name == "pi-5")
        assert ("aes" in fields["Features"].split()) == (name == "pi-5")


def test_the_boards_system_files(tmp_path: Path) -> None:
    write_system_files(board("raspberry-pi-4"), tmp_path)
    assert (tmp_path / "sys/devices/system/cpu/possible").read_text() == "0-3\n"
    identification = tmp_path / "sys/devices/system/cpu/cpu3/regs/identification/midr_el1"
    assert int(identification.read_text(), 16) == 0x410FD083


def test_an_unknown_board() -> None:
    with pytest.raises(UserError, match="device: 'toaster' is not one of raspberry-pi-3, raspberry-pi-4"):
        board("toaster")


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


# Setting up


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
    userland._sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f".bookworm.{os.getpid()}.tmp"]


def test_a_damaged_set_up_says_what_to_remove(tmp_path: Path) -> None:
    folder = tmp_path / release_for(sys.version_info[:2]).name
    folder.mkdir()
    with pytest.raises(UserError, match="remove .*and run again"):
        userland.set_up_userland(tmp_path, True, silent)


def test_two_set_ups_at_once_the_first_wins(tmp_path: Path) -> None:
    with userland.made_once(tmp_path / "it") as slower:
        (slower / "slower").touch()
        (tmp_path / "it").mkdir()
        (tmp_path / "it" / "first").touch()
    assert [path.name for path in (tmp_path / "it").iterdir()] == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb here")
def test_packages_are_unpacked_and_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    build_deb(store, BOOKWORM.qemu, "amd64", BOOKWORM.qemu_path, "emulator")
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


# Wheels


def fake_download(refuse: int = 0) -> tuple[Any, list[tuple[list[str], bool]]]:
    """A `_download` that refuses so often, then writes two wheels; and what it was asked for."""
    asked: list[tuple[list[str], bool]] = []

    def download(requirements: list[str], installed: dict[str, str], release: Any, folder: Path) -> str | None:
        asked.append((list(requirements), bool(installed)))
        if len(asked) <= refuse:
            return "No matching distribution found for engine"
        for name in ("the_engine-2.0-cp311-cp311-manylinux_2_28_aarch64.whl", "numpy-2.4-cp311-none-any.whl"):
            with zipfile.ZipFile(folder / name, "w") as archive:
                for member in (f"{name.split('-')[0]}/__init__.py", f"{name.split('-')[0]}.data/platlib/moved.py"):
                    archive.writestr(zipfile.ZipInfo(member), "")  # of a fixed date: the same bytes each time
        return None

    return download, asked


def test_wheels_are_fetched_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    download, asked = fake_download()
    monkeypatch.setattr(wheels, "_download", download)
    for _ in range(2):
        found = wheels.fetch_wheels(tmp_path, "the-engine", BOOKWORM, False, silent)
    assert len(asked) == 1
    assert found.set.version == "2.0"
    assert found.set.pinned
    for folder in found.folders:
        assert (folder / "moved.py").is_file()
    assert wheels.fetch_wheels(tmp_path, "the-engine", BOOKWORM, True, silent) == found
    assert not list(tmp_path.rglob(".*"))


def test_where_the_installed_versions_are_not_to_be_had_others_are_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    download, asked = fake_download(refuse=2)
    monkeypatch.setattr(wheels, "_download", download)
    found = wheels.fetch_wheels(tmp_path, "the-engine", BOOKWORM, False, silent)
    assert not found.set.pinned
    assert [pinned for _, pinned in asked] == [True, False, False]
    assert any(word.startswith("numpy==") for word in asked[0][0])
    assert not any("==" in word for word in asked[2][0])


def test_no_wheel_for_the_board(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(wheels, "_download", fake_download(refuse=9)[0])
    with pytest.raises(wheels.NoWheel, match=r"no aarch64 wheel of the-engine for Python 3\.11: No matching"):
        wheels.fetch_wheels(tmp_path, "the-engine", BOOKWORM, False, silent)
    with pytest.raises(wheels.NoWheel, match="torch is not rehearsed"):
        wheels.fetch_wheels(tmp_path, "torch", BOOKWORM, False, silent)
    assert not list((tmp_path / "wheels-3.11").iterdir())


def test_wheels_that_are_gone_are_named_and_fetched_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(wheels, "_download", fake_download()[0])
    found = wheels.fetch_wheels(tmp_path, "the-engine", BOOKWORM, False, silent)
    shutil.rmtree(found.folders[0])
    with pytest.raises(UserError, match="run again"):
        wheels.fetch_wheels(tmp_path, "the-engine", BOOKWORM, False, silent)
    assert wheels.fetch_wheels(tmp_path, "the-engine", BOOKWORM, False, silent) == found


@pytest.mark.parametrize(
    ("stderr", "outcome"),
    [
        ("ERROR: No matching distribution found for x==1", "No matching distribution found for x==1"),
        ("WARNING: Retrying: Connection refused\nERROR: No matching distribution found for x", UserError),
        ("ERROR: Could not install packages due to an OSError", UserError),
        ("", UserError),
    ],
)
def test_what_pip_complains_of(stderr: str, outcome: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = subprocess.CompletedProcess([], 1, "", stderr)
    monkeypatch.setattr(wheels.subprocess, "run", lambda *words, **options: done)
    if outcome is UserError:
        with pytest.raises(UserError, match="check the network"):
            wheels._download(["x"], {}, BOOKWORM, tmp_path)
    else:
        assert wheels._download(["x"], {}, BOOKWORM, tmp_path) == outcome


# The process


MAPS = """00400000-00916000 r-xp 00000000 fe:00 246                                /board/usr/bin/python3.11
55092b0000-5509371000 r-xp 00010000 fe:00 25 /sp/the engine/lib.so
5509371000-5509372000 rw-p 00010000 fe:00 25 /sp/the engine/lib.so
5528d36000-5528df6000 rwxp 00000000 00:00 0
not a line
"""


def test_the_lines_of_proc_maps() -> None:
    found = list(mappings(MAPS))
    assert [one.protection for one in found] == [5, 5, 3, 7]
    assert [one.path for one in found] == ["/board/usr/bin/python3.11", *["/sp/the engine/lib.so"] * 2, ""]
    assert (found[1].low, found[1].high) == (0x55092B0000, 0x5509371000)


def test_an_engines_code_is_its_own() -> None:
    paths = {one.path for one in engine_mappings("numpy") if one.path}
    assert paths
    assert all("numpy" in path for path in paths)
    assert engine_mappings("no_such_engine") == [one for one in engine_mappings("no_such_engine") if not one.path]


def ended(code: int | None, stderr: str = "", last: int | None = None) -> Ended:
    log = Log()
    log.last = last
    return Ended(code, (), stderr, log)


@pytest.mark.parametrize(
    ("how", "failure", "words"),
    [
        (ended(None), "timed out", ["60 s"]),
        (ended(2, "edgecnn: x\nmodel.onnx: cannot be opened"), "refused", ["model.onnx: cannot be opened"]),
        (ended(1, "Traceback\nImportError: no libfoo.so"), "crashed", ["exit code 1", "no libfoo.so"]),
        (ended(-4, "qemu: uncaught target signal 4", SDOT), "crashed", ["SIGILL", "sdot 0x4e829420"]),
        (ended(-11, "qemu: uncaught target signal 11"), "crashed", ["SIGSEGV", "no message"]),
        (ended(-9), "crashed", ["SIGKILL", "memory"]),
        (ended(-50), "crashed", ["signal 50"]),
    ],
)
def test_every_way_of_dying_has_a_name(how: Ended, failure: str, words: list[str]) -> None:
    found, reason = death(how, 60)
    assert found == failure
    for word in words:
        assert word in reason


def test_a_process_that_hangs_is_stopped(tmp_path: Path) -> None:
    found = execute(native(), ["-c", "import time; print('x', flush=True); time.sleep(60)"], tmp_path, 0.5)
    assert found.code is None


def test_a_process_that_dies_by_a_signal(tmp_path: Path) -> None:
    found = execute(native(), ["-c", "import os; os.kill(os.getpid(), 4)"], tmp_path, 60)
    assert found.code == -4


# The comparison


CLASSES = ("good", "crack", "dent")
NAMES, LABELS = ("a", "b", "c"), ("good", "crack", "dent")
TRAINED = np.array([[3, 1, 0], [0, 2, 1], [0, 1, 1.5]], np.float32)


def against(board_logits: np.ndarray, other: np.ndarray = TRAINED) -> Difference:
    return difference(board_logits.astype(np.float32), other.astype(np.float32), 1.0, NAMES, LABELS, CLASSES)


def test_equal_logits() -> None:
    found = against(TRAINED)
    assert found == Difference(images=3, max_error=0, mean_error=0, bit_equal=True, flips=())


def test_a_difference_is_in_units_of_the_scale_and_names_its_flips() -> None:
    changed = TRAINED.copy()
    changed[2] = (0, 1.75, 1.5)
    found = difference(changed, TRAINED, 0.5, NAMES, LABELS, CLASSES)
    assert found.max_error == pytest.approx(1.5)
    assert not found.bit_equal
    assert found.flips == (Flip(image="c", label="dent", reference="dent", variant="crack"),)


def test_minus_zero_is_not_the_same_bits() -> None:
    found = against(np.where(TRAINED == 0, -0.0, TRAINED))
    assert found.max_error == 0
    assert not found.bit_equal


def flipped(*images: int) -> np.ndarray:
    logits = TRAINED.copy()
    for image in images:
        logits[image] = np.roll(logits[image], 1)
    return logits


@pytest.mark.parametrize(
    ("precision", "on_board", "here", "words"),
    [
        ("fp32", TRAINED + 5e-5, TRAINED, None),
        ("fp32", TRAINED + 5e-4, TRAINED, "logits differ"),
        ("int8", TRAINED + 0.1, TRAINED, None),
        ("int8", flipped(1), TRAINED, "1 of 3 images"),
        ("int8", flipped(1), flipped(1), None),
        ("int8", flipped(1, 2), flipped(1), "1 of 3 images"),
        ("int8", TRAINED, flipped(1), None),
        ("int8", flipped(1), None, "1 of 3 images"),
        ("int8", TRAINED, None, None),
        ("fp16", flipped(0), TRAINED, "a: "),
    ],
)
def test_the_judgement(precision: Any, on_board: np.ndarray, here: np.ndarray | None, words: str | None) -> None:
    reason = judge(precision, against(on_board), None if here is None else against(here), True, 1e-4, True)
    assert (reason is None) == (words is None)
    if words:
        assert reason is not None
        assert words in reason


def test_other_pixels_or_no_numbers_are_never_good() -> None:
    assert "pixels" in (judge("int8", against(TRAINED), None, False, 1e-4, True) or "")
    assert "finite" in (judge("int8", against(TRAINED), None, True, 1e-4, False) or "")
    assert against(np.full_like(TRAINED, np.nan)).max_error > 1e300


def rows(*outcomes: Any) -> list[Rehearsed]:
    return [Rehearsed(variant=str(i), outcome=outcome, reason=None) for i, outcome in enumerate(outcomes)]


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        (("same", "same"), 0),
        (("same", "differs"), 1),
        (("crashed", "same"), 1),
        (("timed out",), 1),
        (("refused",), 1),
        (("same", "not run"), 1),
        (("not run", "not run"), 3),
        ((), 3),
    ],
)
def test_exit_codes(outcomes: tuple[str, ...], code: int) -> None:
    assert exit_code(rows(*outcomes)) == code


def test_images_are_spread_over_the_classes() -> None:
    golden = [Golden(file=str(i), label="x", logits=(0.0,), pixels_sha256=sha256_of(b"")) for i in range(50)]
    chosen = [int(one.file) for one in rehearsing.evenly(golden, 5)]
    assert chosen == [0, 12, 24, 37, 49]
    assert len(rehearsing.evenly(golden, 99)) == 50
    assert len(rehearsing.evenly(golden, 1)) == 1


# The whole


def test_the_rehearsed_process_answers_natively(tmp_path: Path) -> None:
    from edgecnn.artifact import load_bundle

    folder = write_bundle_to_rehearse(tmp_path / "bundle")
    bundle = load_bundle(folder)
    job = rehearsing.Job(
        model=str(folder / "onnx-fp32.onnx"),
        runtime="onnxruntime",
        precision="fp32",
        threads=1,
        preprocess=bundle.preprocess,
        images=tuple(str(folder / one.file) for one in bundle.golden),
        out="",
        log=None,
    )
    seen: list[int] = []
    ran = run(native(), job, 120, seen.append)
    assert ran.reason is None
    assert ran.answer is not None
    assert seen == [1, 2, 3]
    assert ran.answer.pixels == tuple(one.pixels_sha256 for one in bundle.golden)
    logits = np.frombuffer(bytes.fromhex(ran.answer.logits), "<f4").reshape(3, -1)
    assert np.array_equal(logits, np.array([one.logits for one in bundle.golden], np.float32))

    broken = run(native(), job.model_copy(update={"model": str(folder / "labels.txt")}), 120)
    assert broken.failure == "refused"
    assert "labels.txt" in (broken.reason or "")


@pytest.fixture(scope="session")
def set_up() -> Userland:
    """The emulated board, set up once in the user's own cache; skips where it cannot be."""
    try:
        check_host()
        for tool in ("apt-get", "dpkg-deb"):
            if shutil.which(tool) is None:
                pytest.skip(f"no {tool} here")
        return userland.set_up_userland(cache_folder(None), False, silent)
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_an_instruction_that_the_board_lacks_is_named(set_up: Userland, tmp_path: Path) -> None:
    code = (
        "import ctypes, mmap\n"
        "page = mmap.mmap(-1, 4096, prot=7)\n"
        f"page.write(bytes.fromhex('{SDOT.to_bytes(4, 'little').hex()}{RET.to_bytes(4, 'little').hex()}'))\n"
        "address = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "ctypes.CFUNCTYPE(None)(address)()\n"
        "print('done')\n"
    )
    for one in BOARDS:
        folder = tmp_path / one.name
        (folder / "run").mkdir(parents=True)
        (folder / "board").mkdir()
        machine = emulated(one, set_up, [], tmp_path, folder / "board")
        found = execute(machine, ["-c", code], folder / "run", 300)
        if "asimddp" in one.features.split():
            assert found.code == 0, found.stderr
        else:
            failure, reason = death(found, 300)
            assert failure == "crashed"
            assert "SIGILL" in reason
            assert "sdot 0x4e829420" in reason


@pytest.mark.slow
@pytest.mark.parametrize("name", [one.name for one in BOARDS])
def test_a_bundle_is_rehearsed(name: str, set_up: Userland, tmp_path: Path) -> None:
    folder = write_bundle_to_rehearse(tmp_path / "bundle")
    lines: list[str] = []
    found = rehearsing.rehearse(folder, name, say=lines.append)
    assert found.emulated == EMULATED
    assert [row.outcome for row in found.variants] == ["same", "same"], [row.reason for row in found.variants]
    assert found.exit_code == 0
    floating, int8 = found.variants
    assert floating.instructions["fmla fp32"] > 0
    assert not set(floating.instructions) & {"sdot", "udot", "fmla fp16"}
    dot = {"sdot", "udot"} & set(int8.instructions)
    assert bool(dot) == (name == "raspberry-pi-5")
    assert dot or {"smlal", "umlal", "smull", "umull"} & set(int8.instructions)
    assert floating.versions["machine"] == "aarch64"
    assert floating.against_native is not None
    assert floating.against_native.max_error < 1e-5
    assert floating.pixels_equal
    assert floating.peak_rss_mib is not None
    assert not any(" ms" in line or "latency" in line for line in lines)
    assert "latency" not in found.model_dump_json()


@pytest.mark.slow
def test_one_variant_that_cannot_be_opened_does_not_stop_the_others(set_up: Userland, tmp_path: Path) -> None:
    folder = write_bundle_to_rehearse(tmp_path / "bundle", damage="onnx-fp32.onnx")
    found = rehearsing.rehearse(folder, "raspberry-pi-4", images=1)
    assert [row.outcome for row in found.variants] == ["refused", "same"]
    assert "onnx-fp32.onnx" in (found.variants[0].reason or "")
    assert found.exit_code == 1


# The command line


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    from edgecnn.cli import main

    monkeypatch.setattr(sys, "argv", ["edgecnn", "rehearse", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_the_command_refuses_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = write_bundle_to_rehearse(tmp_path / "bundle")
    cases = [
        ((folder, "--device", "toaster"), "device: 'toaster' is not one of raspberry-pi-3"),
        ((tmp_path, "--device", "raspberry-pi-4"), "no bundle.json there"),
        ((folder, "--device", "raspberry-pi-4", "--variant", "onnx-fp64"), "'onnx-fp64' is not in the bundle"),
        ((folder, "--device", "raspberry-pi-4", "--images", "0"), "--images 0: at least 1"),
        ((folder, "--device", "raspberry-pi-4", "--offline", "--cache", tmp_path / "c"), "run once without --offline"),
    ]
    for words, message in cases:
        assert command(monkeypatch, *words) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert message in lines[0]


def test_the_commands_default_is_the_functions() -> None:
    import inspect

    from edgecnn.cli.verbs.rehearse import rehearse as verb

    assert inspect.signature(verb).parameters["images"].default == rehearsing.DEFAULT_IMAGES


def test_the_printed_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    same, flips = against(TRAINED), against(flipped(1))
    found = rehearsing.Rehearsal(
        bundle="parts",
        device="raspberry-pi-5",
        description="Raspberry Pi 5",
        cpu="cortex-a76",
        emulator="qemu 7.2",
        system="Debian bookworm, Python 3.11",
        tolerance=1e-4,
        images=NAMES,
        variants=(
            Rehearsed(
                variant="onnx-int8",
                outcome="same",
                reason=None,
                against_trained=same,
                against_native=flips,
                native_against_trained=flips,
                pixels_equal=True,
                instructions={"sdot": 12, "other": 900},
                peak_rss_mib=190.4,
            ),
            Rehearsed(variant="ncnn-fp32", outcome="crashed", reason="SIGILL: the engine …"),
        ),
        packages={},
    )
    monkeypatch.setattr(rehearsing, "rehearse", lambda *words: found)
    assert command(monkeypatch, tmp_path, "--device", "raspberry-pi-5", "--out", tmp_path / "report.json") == 1
    printed = " ".join(capsys.readouterr().out.split())
    for words in (EMULATED, "12 sdot", "crashed", "SIGILL", "b (crack) is ", "MiB RSS, emulated"):
        assert words in printed
    assert rehearsing.Rehearsal.model_validate_json((tmp_path / "report.json").read_text()) == found
    assert command(monkeypatch, tmp_path, "--device", "raspberry-pi-5", "--json") == 1
    assert rehearsing.Rehearsal.model_validate_json(capsys.readouterr().out) == found


def test_the_emulated_python_sees_no_library_of_this_machine(tmp_path: Path) -> None:
    contents = Contents(release="bookworm", python="3.11", qemu="7.2", packages={})
    root = tmp_path / "cache/bookworm/root"
    (root / "usr").mkdir(parents=True)
    (tmp_path / "board").mkdir()
    machine = emulated(
        board("raspberry-pi-5"),
        Userland(root, tmp_path / "qemu", "7.2", BOOKWORM, contents),
        [tmp_path / "wheel"],
        tmp_path / "cache",
        tmp_path / "board",
    )
    search = next(word for word in machine.command if word.startswith("PYTHONPATH=")).partition("=")[2].split(":")
    assert [path.name for path in Path(search[0]).iterdir()] == ["edgecnn"]
    assert (Path(search[0]) / "edgecnn").resolve() == Path(process.__file__).resolve().parents[1]
    assert search[1:] == [str(tmp_path / "wheel")]
    assert "PYTHONPATH" not in machine.environment
