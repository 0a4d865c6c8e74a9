"""The boards that can be rehearsed for: which CPU model is emulated, and what its kernel says of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgecnn.processor import instruction_set_of


@dataclass(frozen=True)
class Board:
    """A board with four equal Arm cores and a 64-bit system."""

    name: str
    description: str
    cpu: str
    """qemu's name of the CPU model."""
    midr: int
    """Main ID register (Arm ARM, MIDR_EL1): implementer, variant, architecture, part, revision."""
    features: str
    """As the board's kernel lists them in /proc/cpuinfo."""
    cores: int = 4

    @property
    def instruction_set(self) -> str:
        """See `processor`."""
        return instruction_set_of("aarch64", self.features.split()) or "aarch64"


_BASE = "fp asimd evtstrm crc32 cpuid"
"""The Broadcom chips of Pi 3 and 4 come without Arm's cryptographic extension."""
BOARDS = (
    Board("raspberry-pi-3", "Raspberry Pi 3: Cortex-A53, Armv8.0", "cortex-a53", 0x410FD034, _BASE),
    Board("raspberry-pi-4", "Raspberry Pi 4: Cortex-A72, Armv8.0", "cortex-a72", 0x410FD083, _BASE),
    Board(
        "raspberry-pi-5",
        "Raspberry Pi 5: Cortex-A76, Armv8.2 with dot product and fp16",
        "cortex-a76",
        0x414FD0B1,
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    ),
)


def cpuinfo(board: Board) -> str:
    """The board's /proc/cpuinfo. ONNX Runtime picks its kernels from it, and dies where it finds an x86 host's."""
    midr = board.midr
    return "".join(
        f"processor\t: {core}\n"
        "BogoMIPS\t: 108.00\n"
        f"Features\t: {board.features}\n"
        f"CPU implementer\t: {midr >> 24:#04x}\n"
        "CPU architecture: 8\n"
        f"CPU variant\t: {midr >> 20 & 0xF:#x}\n"
        f"CPU part\t: {midr >> 4 & 0xFFF:#05x}\n"
        f"CPU revision\t: {midr & 0xF}\n\n"
        for core in range(board.cores)
    )


def write_system_files(board: Board, root: Path) -> None:
    """Write below `root` what engines read of /proc and /sys to recognise the processor."""
    (root / "proc").mkdir(parents=True)
    (root / "proc/cpuinfo").write_text(cpuinfo(board), encoding="utf-8")
    processors = root / "sys/devices/system/cpu"
    processors.mkdir(parents=True)
    for name in ("possible", "present", "online"):
        (processors / name).write_text(f"0-{board.cores - 1}\n", encoding="utf-8")
    for core in range(board.cores):
        registers = processors / f"cpu{core}/regs/identification"
        registers.mkdir(parents=True)
        (registers / "midr_el1").write_text(f"{board.midr:#018x}\n", encoding="utf-8")
