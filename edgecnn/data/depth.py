"""How many bits of 16-bit files count, found over a data set: a camera's 8, 10, 12 or 14 lie at the lower end of 16."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from edgecnn.imaging import DEPTHS, bits_of

_DARK_BITS = 4
"""An image that leaves so many upper bits unused is not a dark one: 255 levels would be 16."""
_CLIPPED = 2
"""So many images whose largest value is the most that fewer bits hold are no chance: a camera of fewer bits was lit
to the end of its range."""
_FEWEST = min(DEPTHS)
"""No image ends where so few do: among those of 10 bits one may be dark, among more it is too dark anyway. Where all
have so few, none is too dark, as in files of 8 bits."""


@dataclass(frozen=True)
class Depth:
    """What the 16-bit files of a data set hold."""

    bits: int | None
    """For `Preprocess.bits`; None where there is no such file."""
    remark: str | None
    """One line for the user."""
    unfit: Mapping[str, str]
    """Images of another depth than the others, with the reason: mixed in, they would come out dark."""


def find_depth(peaks: Mapping[str, int]) -> Depth:
    """Of the largest value of each 16-bit file, by name.

    The brightest image decides. Which of the others are dark and which come from a camera of fewer bits, their values
    tell only where they use a sixteenth of the range at most, or where several end exactly where fewer bits do.
    """
    if not peaks:
        return Depth(None, None, {})
    bits = bits_of(max(peaks.values()))
    tops = {2**fewer - 1: fewer for fewer in DEPTHS if _FEWEST < fewer < bits}
    clipped = Counter(peak for peak in peaks.values() if peak in tops)
    unfit = {}
    for name, peak in peaks.items():
        if clipped[peak] >= _CLIPPED:
            unfit[name] = f"16-bit image clipped at {peak} ({tops[peak]} bits) among others of {bits} bits: scale it"
        elif bits > _FEWEST and 0 < peak < 2 ** (bits - _DARK_BITS):
            unfit[name] = f"16-bit image with values up to {peak} among others of {bits} bits: scale it to theirs"
    files = "1 file has" if len(peaks) == 1 else f"{len(peaks)} files have"
    remark = f"{files} 16 bits a channel, of which the lower {bits} count (values up to {max(peaks.values())})"
    return Depth(bits, remark if bits < max(DEPTHS) else remark.replace("the lower 16", "all"), unfit)
