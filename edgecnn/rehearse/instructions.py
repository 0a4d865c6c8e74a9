"""Which arithmetic a program really executed: A64 instruction words, read from the emulator's log, to their kinds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import IO

BEGIN, END = b"edgecnn: inference begins", b"edgecnn: inference ends"
"""Lines that the rehearsed process writes into the emulator's log around its first image."""

# (kind, mask, value), from the Arm Architecture Reference Manual (DDI 0487), chapter C4.1 "A64 instruction set
# encoding": Advanced SIMD three same (extra), three different, by element; scalar floating-point 3 source. Q (bit 30),
# registers and lanes are masked out.
_ENCODINGS: tuple[tuple[str, int, int], ...] = (
    ("sdot", 0xBFE0FC00, 0x0E809400),
    ("sdot", 0xBFC0F400, 0x0F80E000),
    ("udot", 0xBFE0FC00, 0x2E809400),
    ("udot", 0xBFC0F400, 0x2F80E000),
    ("usdot", 0xBFE0FC00, 0x0E809C00),
    ("usdot", 0xBFC0F400, 0x0F80F000),
    ("sudot", 0xBFC0F400, 0x0F00F000),
    ("smmla", 0xFFE0FC00, 0x4E80A400),
    ("ummla", 0xFFE0FC00, 0x6E80A400),
    ("usmmla", 0xFFE0FC00, 0x4E80AC00),
    ("smlal", 0xBF20FC00, 0x0E208000),
    ("smlal", 0xBF00F400, 0x0F002000),
    ("umlal", 0xBF20FC00, 0x2E208000),
    ("umlal", 0xBF00F400, 0x2F002000),
    ("smull", 0xBF20FC00, 0x0E20C000),
    ("smull", 0xBF00F400, 0x0F00A000),
    ("umull", 0xBF20FC00, 0x2E20C000),
    ("umull", 0xBF00F400, 0x2F00A000),
    ("sadalp", 0xBF3FFC00, 0x0E206800),
    ("fmla fp16", 0xBFE0FC00, 0x0E400C00),
    ("fmla fp16", 0xBFC0F400, 0x0F001000),
    ("fmla fp32", 0xBFE0FC00, 0x0E20CC00),
    ("fmla fp32", 0xBFC0F400, 0x0F801000),
    ("fmla fp64", 0xBFE0FC00, 0x0E60CC00),
    ("fmla fp64", 0xBFC0F400, 0x0FC01000),
    ("fmlal", 0xBFE0FC00, 0x0E20EC00),
    ("fmlal", 0xBFC0F400, 0x0F800000),
    ("fmlal2", 0xBFE0FC00, 0x2E20CC00),
    ("fmlal2", 0xBFC0F400, 0x2F808000),
    ("bfdot", 0xBFE0FC00, 0x2E40FC00),
    ("bfmmla", 0xFFE0FC00, 0x6E40EC00),
    ("fmadd fp32", 0xFFE08000, 0x1F000000),
    ("fmadd fp64", 0xFFE08000, 0x1F400000),
    ("fmadd fp16", 0xFFE08000, 0x1FC00000),
)
INT8_KINDS = ("smmla", "ummla", "usmmla", "sdot", "udot", "usdot", "sudot", "smlal", "umlal", "smull", "umull")
"""Integer multiply-accumulates, the widest first."""
KINDS = tuple(dict.fromkeys(kind for kind, _, _ in _ENCODINGS))
# With capstone: `0x5500801234:  4e829420  sdot     v0.4s, …`; without: `OBJD-T: 2094824e…`, no addresses.
_LINE = re.compile(rb"^(0x[0-9a-f]+):\s+([0-9a-f]{8})(?:\s|$)")

Range = tuple[int, int]
"""Addresses [first, behind the last)."""


def kind_of(word: int) -> str | None:
    """The kind of a 32-bit A64 instruction word; None where it multiplies nothing into a sum."""
    for kind, mask, value in _ENCODINGS:
        if word & mask == value:
            return kind
    return None


def parse_line(line: bytes) -> tuple[int, int] | None:
    """(address, instruction word) of a line of qemu's `-d in_asm` log; None of any other line."""
    found = _LINE.match(line)
    return (int(found[1], 16), int(found[2], 16)) if found else None


def count(instructions: Mapping[int, int], ranges: Sequence[Range]) -> dict[str, int]:
    """How many different instructions of each kind lie in the ranges, of {address: word}."""
    found: Counter[str] = Counter()
    for address, word in instructions.items():
        if any(low <= address < high for low, high in ranges):
            found[kind_of(word) or "other"] += 1
    return {kind: found[kind] for kind in (*KINDS, "other") if found[kind]}


class Log:
    """qemu's log, read while it grows: the instructions between the two marks, and the last one of all."""

    def __init__(self) -> None:
        self.between: dict[int, int] = {}
        """{address: word} of what was translated, that is about to be executed, during the first image."""
        self.last: int | None = None
        """The last word translated: where the process died of an illegal instruction, that one."""

    def read(self, stream: IO[bytes]) -> None:
        """Read to the end."""
        rest, inside = b"", False
        while block := stream.read(1 << 18):
            block = rest + block
            cut = block.rfind(b"\n") + 1
            block, rest = block[:cut], block[cut:]
            # Millions of lines come before the first mark; looking at them one by one would take longer than they did.
            if inside or BEGIN in block:
                inside = self._take(block.splitlines(), inside)
            self._remember_last(block)

    def _take(self, lines: Iterable[bytes], inside: bool) -> bool:
        for line in lines:
            if line == BEGIN:
                inside = True
            elif line == END:
                inside = False
            elif inside and (found := parse_line(line)):
                self.between[found[0]] = found[1]
        return inside

    def _remember_last(self, block: bytes) -> None:
        for line in reversed(block[-2048:].splitlines()):
            if found := parse_line(line):
                self.last = found[1]
                return
