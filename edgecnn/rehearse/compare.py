"""What the emulated board answered, judged against the trained network and against the same variant on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from edgecnn.artifact import Flip, Precision
from edgecnn.documents import Frozen
from edgecnn.runtimes import Logits

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


def difference(
    board: Logits, other: Logits, scale: float, names: Sequence[str], labels: Sequence[str], classes: Sequence[str]
) -> Difference:
    """Compare logits (n, classes)."""
    error = np.abs(board.astype(np.float64) - other) / scale
    decided, expected = board.argmax(1), other.argmax(1)
    return Difference(
        images=len(board),
        max_error=_finite(error.max()),
        mean_error=_finite(error.mean()),
        bit_equal=board.tobytes() == other.tobytes(),
        flips=tuple(
            Flip(image=names[i], label=labels[i], reference=classes[expected[i]], variant=classes[decided[i]])
            for i in np.flatnonzero(decided != expected).tolist()
        ),
    )


def judge(
    precision: Precision,
    trained: Difference,
    native_trained: Difference | None,
    pixels_equal: bool,
    tolerance: float,
    finite: bool,
) -> str | None:
    """Why the board's answers are not as good as this machine's; None where they are.

    fp32: every decision, and every logit within `tolerance`, as the trained network's. Other precisions: no image is
    decided unlike the trained network's that this machine decides like it. What INT8 costs on both alike was judged
    when the bundle was made.
    """
    if not finite:
        return "its outputs are not finite numbers"
    if not pixels_equal:
        return "its prepared pixels are not those of the machine that made the bundle"
    if precision == "fp32" and trained.max_error > tolerance:
        error = f"{trained.max_error:.1e} of their scale (limit {tolerance:.0e})"
        return f"logits differ from the trained network's by {error}"
    known = {flip.image for flip in native_trained.flips} if native_trained is not None else set()
    new = [flip for flip in trained.flips if precision == "fp32" or flip.image not in known]
    if not new:
        return None
    first = f"{new[0].image}: {new[0].variant} instead of {new[0].reference}"
    here = ", and this machine decides it like it" if precision != "fp32" and native_trained is not None else ""
    return f"{len(new)} of {trained.images} images decided unlike the trained network{here} ({first})"


def exit_code(rows: Sequence[Rehearsed]) -> int:
    """0 all the same · 1 one differs, died, or has no engine for the board · 3 none could be run."""
    if all(row.outcome == "not run" for row in rows):
        return 3
    return 0 if all(row.outcome == "same" for row in rows) else 1


def _finite(value: np.floating) -> float:
    """JSON has no NaN: a difference that is no number is as large as can be."""
    return float(value) if np.isfinite(value) else float(np.finfo(np.float64).max)
