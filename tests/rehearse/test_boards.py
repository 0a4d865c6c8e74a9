"""The boards: what their kernels say of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecnn.errors import UserError
from edgecnn.profiles import load_target, target_names
from edgecnn.rehearse.boards import BOARDS, Board, cpuinfo, write_system_files
from edgecnn.rehearse.levels import Level
from edgecnn.rehearse.setups import device


@pytest.mark.parametrize(("name", "part"), [("pi-3", "0xd03"), ("pi-4", "0xd08"), ("pi-5", "0xd0b")])
def test_cpuinfo_names_the_boards_core(name: str, part: str) -> None:
    text = cpuinfo(device(f"raspberry-{name}"))
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
    write_system_files(device("raspberry-pi-4"), tmp_path)
    assert (tmp_path / "sys/devices/system/cpu/possible").read_text() == "0-3\n"
    identification = tmp_path / "sys/devices/system/cpu/cpu3/regs/identification/midr_el1"
    assert int(identification.read_text(), 16) == 0x410FD083


def test_an_unknown_board() -> None:
    known = "raspberry-pi-3, raspberry-pi-4, raspberry-pi-5, x86-64-v2, x86-64-v3, desktop-cpu"
    with pytest.raises(UserError, match=f"device: 'toaster' is not one of {known}$"):
        device("toaster")


@pytest.mark.parametrize("name", target_names())
def test_what_can_be_exported_for_can_be_rehearsed_on(name: str) -> None:
    arm = load_target(name).machine == "aarch64"
    assert isinstance(device(name), Board if arm else Level)


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_to_rehearse_on_is_a_target(board: Board) -> None:
    assert load_target(board.name).machine == "aarch64"
