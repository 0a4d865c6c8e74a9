"""How many parts a variant decides wrongly, each count with its interval: for the last screen and the report alike."""

from __future__ import annotations

from dataclasses import dataclass

from edgecnn.artifact import Bundle, Check, Interval
from edgecnn.intervals import clopper_pearson

TOO_GOOD = (
    "accuracy may be too good: these weights may have been trained on the test images; --test FOLDER names clean ones"
)


def optimism(bundle: Bundle) -> list[str]:
    """Why every accuracy in it may be too good; empty where its test images are unseen."""
    return [TOO_GOOD] if bundle.test_seen == "may be" else []


@dataclass(frozen=True)
class Share:
    """So many of so many, and the 95 % interval of the share."""

    count: int
    of: int
    interval: Interval
    """0 to 1. Images of one part count as far as they say something of their own, where the bundle records that."""

    @property
    def value(self) -> float:
        """0 to 1; 0 of nothing."""
        return self.count / self.of if self.of else 0.0


@dataclass(frozen=True)
class Mistakes:
    """What one variant decides on the test images."""

    right: Share
    missed: Share | None
    """Of the defects, those called good; None without a good class, or where classes are too many to count."""
    false_alarms: Share | None
    """Of the good parts, those called a defect."""
    weakest: tuple[str, Share] | None
    """The class of which the smallest share is right, with how many of it are."""


def mistakes_of(bundle: Bundle, check: Check) -> Mistakes:
    """Count the mistakes of one of the bundle's variants, whose check is given."""
    right = Share(round(check.top1 * check.images), check.images, check.top1_interval)
    if check.confusion is None:
        return Mistakes(right, None, None, None)
    totals = {name: sum(row) for name, row in zip(bundle.classes, check.confusion, strict=True)}
    hits = {name: row[index] for index, (name, row) in enumerate(zip(bundle.classes, check.confusion, strict=True))}
    shares = {
        name: Share(hits[name], total, check.recall_intervals.get(name) or _independent(hits[name], total))
        for name, total in totals.items()
        if total
    }
    weakest = min(shares.items(), key=lambda item: (item[1].value, item[1].interval.low), default=None)
    good = bundle.good_class
    if good is None or check.missed_defects is None or check.false_alarms is None:
        return Mistakes(right, None, None, weakest)
    defects = sum(totals.values()) - totals[good]
    return Mistakes(
        right,
        _share(check.missed_defects, defects, check.missed_interval),
        _share(check.false_alarms, totals[good], check.false_alarms_interval),
        weakest,
    )


def _share(count: int, of: int, interval: Interval | None) -> Share:
    return Share(count, of, interval or _independent(count, of))


def _independent(count: int, of: int) -> Interval:
    """Of a bundle that records no interval: as if each image showed a part of its own."""
    return Interval.of(clopper_pearson(count, of))
