"""What a variant's answers cost, and whether that is shown: of all images, of the defects, of each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgecnn.intervals import binomial_cdf, paired_bounds, trials_needed, worse_p
from edgecnn.judge.distance import Distance, Labels, Mask
from edgecnn.judge.yardstick import Yardstick

WRONG = 0.05
"""Chance of a wrong statement about any of the variants that are judged together."""
SHARES = {"missed": 10, "classes": 4, "loss": 1, "agreement": 1}
"""How the chance of a wrong refusal is divided among its reasons."""
COLLAPSED, COLLAPSED_BY = 0.9, 0.2
"""Collapsed: more than this share of the decisions are one class, so much more than of fp32's."""
DOUBTFUL = 0.25
"""p-value from which on a class's fall is told: two images against none. A class that is lost is always told."""
NAMED = 5
"""Classes that a message names; the rest is counted."""


@dataclass(frozen=True)
class Part:
    """What changed among some of the images: all, the defects, those of a class."""

    found: Distance
    of: Mask
    lost: Mask
    gained: Mask

    @cached_property
    def images(self) -> int:
        return int(self.of.sum())

    @cached_property
    def fall(self) -> float:
        """Points."""
        return 100 * (int(self.lost.sum()) - int(self.gained.sum())) / max(self.images, 1)

    @cached_property
    def design(self) -> float:
        """How many images count as one: the mean size of an image's group."""
        if self.found.groups is None or not self.images:
            return 1.0
        sizes = np.unique(self.found.groups[self.of], return_counts=True)[1].astype(np.float64)
        return float((sizes**2).sum() / sizes.sum())

    @property
    def independent(self) -> int:
        return math.floor(self.images / self.design + 1e-9)

    def bounds(self, alpha: float) -> tuple[float, float]:
        """Of the fall, as shares."""
        lost, gained, trials = self._counts()
        return paired_bounds(lost, gained, trials, alpha)

    def images_to_show(self, limit: float, alpha: float) -> int | None:
        lost, gained, trials = self._counts()
        needed = trials_needed(lost, gained, trials, limit / 100, alpha)
        return None if needed is None else math.ceil(needed * self.design)

    @cached_property
    def changed(self) -> tuple[int, int]:
        """(worse, better) images; where there are groups, groups by what most of their changed images did."""
        if self.found.groups is None:
            return int(self.lost.sum()), int(self.gained.sum())
        net = np.bincount(self.found.groups, weights=self.lost.astype(np.int64) - self.gained.astype(np.int64))
        return int((net > 0).sum()), int((net < 0).sum())

    def worse(self, limit: float, alpha: float, bound_alpha: float = WRONG) -> bool:
        """Whether it is shown that fp32 is better (exactly, at `alpha`), and by more than `limit` points (Tango)."""
        exact = worse_p(*self.changed) <= alpha * (1 + 1e-9)
        return exact and 100 * self.bounds(bound_alpha)[0] > limit

    def _counts(self) -> tuple[float, float, float]:
        return self.lost.sum() / self.design, self.gained.sum() / self.design, self.images / self.design


@dataclass(frozen=True)
class Cost:
    """Something that is beyond a limit, by the number at hand or as shown."""

    sentence: str
    beyond: bool


def costs_of(found: Distance, yardstick: Yardstick, everything: Part, alpha: float) -> list[Cost]:
    """All that is beyond a limit in these images; `alpha` is the chance that any of it is wrongly said to be shown."""
    limit, defects = yardstick.loss_limit, _defects(found, yardstick)
    whole = sum(share for reason, share in SHARES.items() if reason != "missed" or defects is not None)
    level = {reason: alpha * share / whole for reason, share in SHARES.items()}
    costs = _by_class(found, yardstick, level["classes"])
    if defects is not None and defects.fall > limit:
        missed, before = (int((rows[defects.of] == _good(yardstick)).sum()) for rows in (found.decided, found.expected))
        sentence = f"misses {missed} of {defects.images} defects, fp32 {before}"
        costs.insert(0, Cost(sentence, defects.worse(limit, level["missed"])))
    if everything.fall > limit:
        sentence = f"loses {everything.fall:.1f} points of accuracy on {found.images} images (limit {limit:g})"
        costs.insert(0, Cost(sentence, everything.worse(limit, level["loss"], level["loss"])))
    if found.agreement < yardstick.agreement:
        sentence = f"decides {found.agreement:.1%} of {found.images} images as fp32 (wanted {yardstick.agreement:.0%})"
        costs.append(Cost(sentence, _disagrees(everything, yardstick.agreement, level["agreement"])))
    most, most_expected = _largest_share(found.decided), _largest_share(found.expected)
    if most > max(COLLAPSED, most_expected + COLLAPSED_BY):
        sentence = f"has collapsed: {most:.0%} of its decisions are one class, of fp32's {most_expected:.0%}"
        costs.insert(0, Cost(sentence, True))
    return costs


def _by_class(found: Distance, yardstick: Yardstick, alpha: float) -> list[Cost]:
    """Classes whose recall falls by more than the limit, unless it is one image of several."""
    parts: dict[int, Part] = {}
    lost, gained = found.lost, found.gained
    for label in np.unique(found.known[lost | gained]).tolist():
        of = found.known == label
        parts[label] = Part(found, of, lost & of, gained & of)
    tests = _tests([0.5 ** sum(part.changed) for part in parts.values()], alpha)
    costs = []
    for label, part in parts.items():
        if part.fall <= yardstick.loss_limit:
            continue
        right, before = (int((rows[part.of] == label).sum()) for rows in (found.decided, found.expected))
        if right == 0 or worse_p(*part.changed) <= DOUBTFUL:
            sentence = f"recalls {right} of {part.images} of {yardstick.name(label)!r}, fp32 {before}"
            costs.append(Cost(sentence, part.worse(yardstick.loss_limit, alpha / tests)))
    costs.sort(key=lambda cost: not cost.beyond)
    if len(costs) > NAMED:
        rest = costs[NAMED:]
        costs = [*costs[:NAMED], Cost(f"recalls less of {len(rest)} more classes", any(one.beyond for one in rest))]
    return costs


def _tests(least: Sequence[float], alpha: float) -> int:
    """How many tests share `alpha`, of those whose p-values could not be less than these (Tarone)."""
    counts = range(1, len(least) + 1)
    return next((count for count in counts if sum(p <= alpha / count for p in least) <= count), 1)


def _defects(found: Distance, yardstick: Yardstick) -> Part | None:
    good = _good(yardstick)
    if good is None:
        return None
    of, caught, expected = found.known != good, found.decided != good, found.expected != good
    return Part(found, of, of & expected & ~caught, of & caught & ~expected)


def _good(yardstick: Yardstick) -> int | None:
    return None if yardstick.good_class is None else yardstick.classes.index(yardstick.good_class)


def _disagrees(everything: Part, least: float, alpha: float) -> bool:
    """Whether so many flips are more than `least` agreement explains."""
    flips = math.floor(int(everything.found.flipped.sum()) / everything.design + 1e-9)
    trials = math.ceil(everything.images / everything.design - 1e-9)
    return 1 - binomial_cdf(flips - 1, trials, 1 - least) <= alpha


def _largest_share(decided: Labels) -> float:
    return float(np.bincount(decided).max() / len(decided))
