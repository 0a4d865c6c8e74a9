"""Whether the entropy-coded data of a JPEG hold exactly the blocks that its header promises: damage found by hand.

Only for the rare kinds that simplejpeg does not take: Pillow, which does, shows damaged data without a word. Huffman
codes are followed and values skipped (ITU-T T.81, F.2.2), about a microsecond a coefficient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

_SEQUENTIAL = (0xC0, 0xC1)
_TABLES, _SCAN, _END, _INTERVAL = 0xC4, 0xDA, 0xD9, 0xDD
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_SLACK = 4
"""Bytes that may be left over at the end of a scan: a careless writer's."""

Codes: TypeAlias = list[tuple[int, int]]
"""By the next 16 bits: (bits that the code and the value behind it take, the symbol); (0, 0) where there is no code."""


@dataclass
class _Frame:
    """What the segments have said so far."""

    height: int = 0
    width: int = 0
    factors: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Component to (horizontal, vertical)."""
    codes: dict[int, Codes] = field(default_factory=dict)
    """By class and number, as a table's segment has them: 0x00 for DC, 0x10 for AC."""
    interval: int = 0


def is_whole(encoded: bytes) -> bool:
    """False where a scan holds fewer or more blocks than it should, or a code that is none.

    True, too, where that cannot be told: of a progressive or arithmetic-coded JPEG, whose scans are not followed here.
    """
    frame = _Frame()
    try:
        for marker, start, end in _segments(encoded):
            if marker in _SEQUENTIAL:
                _read_frame(encoded[start:end], frame)
            elif 0xC0 <= marker <= 0xCF and marker != _TABLES:
                return True
            elif marker == _TABLES:
                _read_tables(encoded[start:end], frame.codes)
            elif marker == _INTERVAL:
                frame.interval = int.from_bytes(encoded[start:end], "big")
            elif marker == _SCAN and not _scan_is_whole(encoded[start:end], _intervals(encoded, end), frame):
                return False
    except (IndexError, KeyError, ZeroDivisionError):
        return False
    return True


def _segments(encoded: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment's content. What stands between two of them is passed over."""
    at = 2
    while True:
        at = encoded.index(b"\xff", at) + 1 if b"\xff" in encoded[at:] else len(encoded)
        if at >= len(encoded) or encoded[at] == _END:
            return
        marker = encoded[at]
        if marker in (0x00, 0xFF) or marker in _ALONE:
            at += marker != 0xFF
            continue
        end = at + 1 + (encoded[at + 1] << 8 | encoded[at + 2])
        yield marker, at + 3, end
        at = end


def _read_frame(content: bytes, frame: _Frame) -> None:
    frame.height, frame.width = content[1] << 8 | content[2], content[3] << 8 | content[4]
    for number in range(content[5]):
        name, factors = content[6 + 3 * number], content[7 + 3 * number]
        frame.factors[name] = (factors >> 4, factors & 15)


def _read_tables(content: bytes, codes: dict[int, Codes]) -> None:
    at = 0
    while at < len(content):
        counts = content[at + 1 : at + 17]
        symbols = content[at + 17 : at + 17 + sum(counts)]
        codes[content[at]] = _codes(counts, symbols)
        at += 17 + sum(counts)


def _codes(counts: bytes, symbols: bytes) -> Codes:
    found: Codes = []
    place = 0
    for length, count in enumerate(counts, 1):
        for symbol in symbols[place : place + count]:
            found += [(length + (symbol & 15), symbol)] * (1 << (16 - length))
            if len(found) > 1 << 16:
                raise IndexError("more codes than there are")
        place += count
    return found + [(0, 0)] * ((1 << 16) - len(found))


def _intervals(encoded: bytes, at: int) -> list[bytes]:
    """The data of a scan between its restart markers, without stuffed zeros."""
    found, begin = [], at
    while True:
        at = encoded.find(b"\xff", at)
        marker = encoded[at + 1] if 0 <= at < len(encoded) - 1 else _END
        if marker == 0x00:
            at += 2
        elif marker == 0xFF:
            at += 1
        else:
            found.append(encoded[begin : at if at >= 0 else len(encoded)].replace(b"\xff\x00", b"\xff"))
            if marker not in _ALONE:
                return found
            at += 2
            begin = at


def _scan_is_whole(content: bytes, intervals: list[bytes], frame: _Frame) -> bool:
    named = [(content[1 + 2 * number], content[2 + 2 * number]) for number in range(content[0])]
    most = [max(one[axis] for one in frame.factors.values()) for axis in (0, 1)]
    blocks: list[tuple[Codes, Codes]] = []
    for name, tables in named:
        across, down = frame.factors[name]
        pair = (frame.codes[tables >> 4], frame.codes[0x10 | tables & 15])
        blocks += [pair] * (1 if len(named) == 1 else across * down)
    # A scan of one component has its blocks one by one; of several, in units that cover the same area of each.
    unit = frame.factors[named[0][0]] if len(named) == 1 else (1, 1)
    wide, high = (
        -(-side * one // (8 * top)) for side, one, top in zip((frame.width, frame.height), unit, most, strict=True)
    )
    left = wide * high
    for data in intervals:
        count = min(left, frame.interval or left)
        if not _holds(data, blocks * count):
            return False
        left -= count
    return left == 0


def _holds(data: bytes, blocks: list[tuple[Codes, Codes]]) -> bool:
    """Whether the data end where the last of the blocks does."""
    padded, at, end = data + b"\xff\xff\xff", 0, 8 * len(data)
    for dc, ac in blocks:
        codes, coefficient = dc, 0
        while coefficient < 64:
            byte = at >> 3
            bits = padded[byte] << 16 | padded[byte + 1] << 8 | padded[byte + 2]
            taken, symbol = codes[bits >> (8 - (at & 7)) & 0xFFFF]
            if not taken:
                return False
            at += taken
            if codes is ac and not symbol:
                break
            coefficient += (symbol >> 4) + 1 if codes is ac else 1
            codes = ac
        if at > end or coefficient > 64:
            return False
    return end - at < 8 * (_SLACK + 1)
