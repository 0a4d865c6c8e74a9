"""What answers are judged by: one frozen value, the same for every rung, export, verification and device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgecnn.artifact import Bundle, NotShown
from edgecnn.profiles import Target
from edgecnn.require import Requirement, parse


@dataclass(frozen=True)
class Yardstick:
    """Classes, limits, tolerance and requirement."""

    loss_limit: float
    """Points: of top-1, of the defects' recall, of each class's."""
    tolerance: float = 1e-4
    """Largest logit error of fp32, relative to the logit scale."""
    agreement: float = 0.98
    """Least share of decisions equal to fp32's; of other precisions."""
    classes: tuple[str, ...] = ()
    good_class: str | None = None
    requirements: tuple[Requirement, ...] = ()
    """Of what the engine runs of an int8 variant."""
    not_shown: NotShown = "keep"
    together: int = 1
    """Variants that share the chance of a wrong statement."""

    def name(self, label: int) -> str:
        """Of a class."""
        return self.classes[label] if label < len(self.classes) else f"class {label}"


def yardstick_for(target: Target, classes: Sequence[str], good_class: str | None) -> Yardstick:
    """What a target judges its variants by."""
    return Yardstick(
        loss_limit=target.accuracy_loss_limit,
        tolerance=target.fp32_tolerance,
        agreement=target.int8_agreement,
        classes=tuple(classes),
        good_class=good_class,
        requirements=parse(target.require) if target.require else (),
        not_shown=target.not_shown,
        together=max(1, sum(spec.precision != "fp32" for spec in target.variants)),
    )


def yardstick_of(bundle: Bundle) -> Yardstick:
    """What the variants of a bundle were judged by."""
    return Yardstick(
        loss_limit=bundle.accuracy_loss_limit,
        tolerance=bundle.fp32_tolerance,
        agreement=bundle.int8_agreement,
        classes=bundle.classes,
        good_class=bundle.good_class,
        requirements=parse(bundle.require) if bundle.require else (),
        not_shown=bundle.not_shown,
        together=bundle.judged_together,
    )
