"""How far apart two sets of answers to the same images are, and whether that is acceptable: the one place for it.

Three outcomes. A loss is *shown within* its limit where its upper confidence bound is, *shown beyond* it where its
lower bound is beyond, else *not shown*. What is shown beyond is refused, what is not shown is said.

A wrong statement has a chance of 5 % for all variants of a target together (Bonferroni), whatever their errors have in
common. Of the chance that one of them is refused wrongly, missed defects have 10/16, so that eight new ones and none
regained are enough even among eight variants; the classes have 4/16, shared by those of which enough images changed to
matter at all (Tarone, Biometrics 46, 1990); top-1 and agreement 1/16 each. Of the defects and of a class the exact
one-sided paired test must show that fp32 is better, and the 95 % bound that it is so by more than the limit. Images of
one part (`groups`) are one piece of evidence, not several. `benchmarks/acceptance.py` simulates all of it.
"""

from __future__ import annotations

import numpy as np

from edgecnn.artifact import Interval, Judged, Precision, Shown
from edgecnn.executed import Executed
from edgecnn.judge.costs import NAMED, SHARES, WRONG, Part, costs_of
from edgecnn.judge.distance import Answers, Distance, Labels, Mask, flips_of, measure, scale_of, unlike
from edgecnn.judge.elsewhere import FEWEST_IMAGES, Elsewhere, judge_elsewhere, most_new_flips, newly_flipped, verdict
from edgecnn.judge.yardstick import Yardstick, yardstick_for, yardstick_of
from edgecnn.require import unmet

__all__ = [
    "FEWEST_IMAGES",
    "SHARES",
    "WRONG",
    "Answers",
    "Distance",
    "Elsewhere",
    "Labels",
    "Mask",
    "Yardstick",
    "flips_of",
    "judge",
    "judge_elsewhere",
    "measure",
    "most_new_flips",
    "network_faults",
    "newly_flipped",
    "scale_of",
    "unlike",
    "verdict",
    "yardstick_for",
    "yardstick_of",
]


def judge(found: Distance, yardstick: Yardstick, precision: Precision, executed: Executed | None = None) -> Judged:
    """Whether a variant may be used, by its answers to labelled images against eager fp32's.

    `executed`: what the engine says that it ran, of an int8 variant; None where nobody asked it. An fp32 variant whose
    logits are the network's own within the tolerance loses nothing: nothing is left to chance.
    """
    different = unlike(found, precision, yardstick.tolerance)
    if different is not None:
        return Judged(shown="shown beyond", refused=(different,), acceptable=False)
    limit, alpha = yardstick.loss_limit, WRONG / yardstick.together
    everything = Part(found, np.ones(found.images, bool), found.lost, found.gained)
    low, high = (100 * bound for bound in everything.bounds(alpha))
    costs = [] if precision == "fp32" else costs_of(found, yardstick, everything, alpha)
    refused = tuple(cost.sentence for cost in costs if cost.beyond)
    doubts = tuple(f"{cost.sentence}, which may be chance" for cost in costs if not cost.beyond)
    images_to_show: int | None = None
    too_few: tuple[str, ...] = ()
    if precision != "fp32" and not refused:
        images_to_show = everything.images_to_show(limit, alpha) if high > limit else None
        too_few = tuple(_too_few(found, yardstick, everything, high, images_to_show))
    shown: Shown = "shown beyond" if refused else "not shown" if doubts or too_few else "shown within"
    refused += tuple(_ran(precision, executed, yardstick))
    return Judged(
        shown=shown,
        loss_bounds=Interval(low=low, high=high),
        independent=everything.independent,
        refused=refused,
        doubts=doubts,
        too_few=too_few,
        images_to_show=images_to_show,
        acceptable=not refused and (yardstick.not_shown == "keep" or shown == "shown within"),
    )


def network_faults(found: Distance, yardstick: Yardstick) -> tuple[str, ...]:
    """What is wrong with the trained network itself, by what eager fp32 answers: no variant is to blame for it."""
    answered, labels = np.unique(found.expected), np.unique(found.known)
    if len(answered) > 1 or len(labels) < 2:
        return ()
    return (
        f"the network answers one class: fp32 already says {yardstick.name(int(answered[0]))!r} of all {found.images} "
        f"images, which are of {len(labels)} classes: train it again, or look at the images",
    )


def _ran(precision: Precision, executed: Executed | None, yardstick: Yardstick) -> list[str]:
    if precision != "int8" or executed is None:
        return []
    if not executed.int8_layers:
        return ["its engine ran none of its layers in int8"]
    return unmet(executed, yardstick.requirements)


def _too_few(found: Distance, yardstick: Yardstick, everything: Part, high: float, to_show: int | None) -> list[str]:
    """What the images cannot show."""
    found_few = []
    if high > yardstick.loss_limit:
        of = "" if everything.independent == found.images else f" of {everything.independent} parts"
        cure = f"; about {to_show:,} answered alike would show it" if to_show else ""
        found_few.append(
            f"{found.images} images{of} leave a loss of up to {high:.1f} points (one-sided, 95 % for all variants at "
            f"once): not shown to be within {yardstick.loss_limit:g}{cure}"
        )
    absent = sorted(set(range(len(yardstick.classes))) - set(np.unique(found.known).tolist()))
    if absent:
        names = ", ".join(repr(yardstick.name(label)) for label in absent[:NAMED])
        more = f" and {len(absent) - NAMED} more" if len(absent) > NAMED else ""
        found_few.append(f"there is no image of {names}{more}: what they lose is not shown")
    return found_few
