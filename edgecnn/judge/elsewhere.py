"""Whether a variant decides on another processor as it did where it was judged: by images, of which it has few."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from edgecnn.artifact import Precision
from edgecnn.judge.distance import Distance, Mask, unlike
from edgecnn.judge.yardstick import Yardstick

Elsewhere = Literal["same", "too few", "differs"]

FEWEST_IMAGES = 16
"""Fewer show nothing: the mildest saturation met flipped 18 % of the decisions, which 16 images show in 95 %."""


def newly_flipped(there: Mask, at_home: Mask | None) -> Mask:
    """Images decided unlike the trained network there, and like it at home; all of them where home is not known."""
    return there if at_home is None else there & ~at_home


def verdict(images: int, flips: int, agreement: float) -> Elsewhere:
    """What so many new flips of so many images say.

    One flip beyond what the agreement allows may be a near tie between classes, a second one is none. Simulated in
    `tests/test_proof.py`: 0.4 % of true flips, as engines on Arm have, are called different in less than 1 %.
    """
    allowed = (1 - agreement) * images
    if flips > allowed + 1:
        return "differs"
    return "too few" if images < FEWEST_IMAGES or flips > allowed else "same"


def most_new_flips(precision: Precision, images: int, agreement: float) -> int:
    """More of so many images are too many."""
    if precision == "fp32":
        return 0
    return math.floor((1 - agreement) * images + (precision == "int8"))


def judge_elsewhere(
    found: Distance,
    at_home: Mask | None,
    yardstick: Yardstick,
    precision: Precision,
    images: Sequence[str],
    home: str = "this machine",
) -> tuple[Elsewhere, str | None]:
    """Whether a variant's answers on another processor are as good as at `home`; why not, None where they are.

    `found`: there against eager fp32. `at_home`: images flipped at home; None where that is not known. fp32: every
    decision, and every logit within the tolerance, as the trained network's. Other precisions: no more images than the
    agreement allows are decided unlike the trained network, and like it at home; int8 by `verdict`. What they cost on
    both was judged by `judge`.
    """
    different = unlike(found, precision, yardstick.tolerance)
    if different is not None:
        return "differs", different
    known = at_home if precision != "fp32" else None
    new = np.flatnonzero(newly_flipped(found.flipped, known)).tolist()
    outcome = _outcome(precision, found.images, len(new), yardstick.agreement)
    if outcome == "same":
        return outcome, None
    if not new:
        return outcome, f"{found.images} images show too little: at least {FEWEST_IMAGES} do"
    names = (yardstick.name(int(rows[new[0]])) for rows in (found.decided, found.expected))
    there = "" if known is None else f", and {home} decides it like it"
    first = f"{images[new[0]]}: {' instead of '.join(names)}"
    text = f"{len(new)} of {found.images} images decided unlike the trained network{there} ({first})"
    return outcome, text if outcome == "differs" else f"{text}, which shows too little"


def _outcome(precision: Precision, images: int, flips: int, agreement: float) -> Elsewhere:
    if precision == "int8":
        return verdict(images, flips, agreement)
    return "differs" if flips > (0 if precision == "fp32" else (1 - agreement) * images) else "same"
