"""Instruction words and the emulator's log: which arithmetic was executed."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.rehearse import instructions
from edgecnn.rehearse.instructions import BEGIN, END, Log, kind_of, parse_line

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
