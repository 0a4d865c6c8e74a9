"""What the emulated board answered, judged against the trained network and against the same variant on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from edgecnn.artifact import Flip, Precision
from edgecnn.documents import Frozen
from edgecnn.judge import Distance, Elsewhere, Mask, Yardstick, flips_of, judge_elsewhere

EMULATED = "emulated: numerics only, no times"
HELD_BACK = "numerics only, no times"
"""On this machine itself, which is such a processor or is held to be one."""
Outcome = Literal["same", "differs", "refused", "crashed", "timed out", "not run"]
"""refused: the engine said that it cannot; not run: there is no engine for the board."""


class Difference(Frozen):
    """Logits of the same images from two places."""

    images: int
    max_error: float
    """Largest |difference| over all logits, in units of the logit scale (standard deviation of eager fp32's logits)."""
    mean_error: float
    bit_equal: bool
    flips: tuple[Flip, ...]
    """Images that are decided otherwise: `reference` is the other place's decision, `variant` the board's."""


class Rehearsed(Frozen):
    """One variant on one device."""

    variant: str
    emulated: str = EMULATED
    how: str = ""
    """On what it ran: an emulator with its CPU model, or this machine and what held it back."""
    instruction_set: str | None = None
    """That the engine worked with there, as the process saw it."""
    outcome: Outcome
    reason: str | None
    """Why it is not "same"; None where it is."""
    too_few: bool = False
    """Whether the images show too little to call an int8 variant proven there, which a remark says."""
    new_flips: int = 0
    """Images decided unlike the trained network there, and like it where the variant was judged."""
    flips_allowed: int = 0
    """So many of them may be; more are "differs"."""
    against_trained: Difference | None = None
    """The board against eager fp32 (the bundle's golden logits)."""
    against_native: Difference | None = None
    """The board against the same variant and images on this machine; None where it cannot run here."""
    native_against_trained: Difference | None = None
    pixels_equal: bool | None = None
    """Whether the board prepared the exporting machine's very pixels, to the last bit."""
    instructions: dict[str, int] = Field(default_factory=dict)
    """How many different instructions of each kind one image executed in the engine's code, from the emulator's log."""
    versions: dict[str, str] = Field(default_factory=dict)
    """On the board."""
    native_versions: dict[str, str] = Field(default_factory=dict)
    peak_rss_mib: float | None = None
    """Emulated: of emulator and program together, more than the board would use."""
    remarks: tuple[str, ...] = ()


def difference(found: Distance, names: Sequence[str], labels: Sequence[str], classes: Sequence[str]) -> Difference:
    """The record of what was measured."""
    return Difference(
        images=found.images,
        max_error=found.max_error,
        mean_error=found.mean_error,
        bit_equal=found.bit_equal,
        flips=flips_of(found.decided, found.expected, names, labels, classes),
    )


def judge(
    trained: Distance,
    at_home: Mask | None,
    pixels_equal: bool,
    yardstick: Yardstick,
    precision: Precision,
    names: Sequence[str],
    home: str = "this machine",
) -> tuple[Elsewhere, str | None]:
    """Whether the board's answers are as good as those at home, and why not. See `judge_elsewhere`."""
    if not pixels_equal:
        return "differs", "its prepared pixels are not those of the machine that made the bundle"
    return judge_elsewhere(trained, at_home, yardstick, precision, names, home)


def exit_code(rows: Sequence[Rehearsed]) -> int:
    """0 all the same · 1 one differs, died, or has no engine for the board · 3 none could be run."""
    if all(row.outcome == "not run" for row in rows):
        return 3
    return 0 if all(row.outcome == "same" for row in rows) else 1
