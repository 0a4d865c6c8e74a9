"""What the folds of `edgecnn run --folds` say together: the values of folds.json."""

from __future__ import annotations

from edgecnn.artifact import Bundle, Grouping, Interval, Judged
from edgecnn.documents import Frozen

POOLED = "folds.json"
"""In the run's folder."""


class PooledVariant(Frozen):
    """A variant's answers over the test images of all folds in which it was checked."""

    variant: str
    folds: int
    """In which it was checked."""
    kept: int
    """In which it passed, by the test images too."""
    images: int
    parts: int
    top1: float
    top1_interval: Interval
    """95 %, as all here: images of one part count as far as they say something of their own."""
    reference_top1: float
    loss_points: float
    loss_interval: Interval
    judged: Judged
    """By the target's limits, as a bundle's variant by its test images; what the engines ran is for each fold."""
    agreement: float
    agreement_interval: Interval
    defects: int | None
    """Test images of defects; None where no class is the good one."""
    missed_defects: int | None
    missed_interval: Interval | None
    """Of the share of defects."""
    reference_missed_defects: int | None
    false_alarms: int | None
    reference_false_alarms: int | None


class Pooled(Frozen):
    """What all folds say together: of the way to train and export, not of one network."""

    folds: int
    images: int
    parts: int
    grouping: Grouping | None
    loss_limit: float
    """Points that a variant may lose: the target's."""
    variants: tuple[PooledVariant, ...]

    @property
    def words(self) -> str:
        """What the figures are of."""
        return (
            f"{self.folds} folds: each of {self.images} images of {self.parts} parts tested once; 95 % intervals by "
            "part; of this way to train and export, of which the bundle is one network"
        )


def refused(pooled: Pooled, bundle: Bundle) -> dict[str, str]:
    """Variants that the bundle has for deployment and all folds together refuse, with the reason."""
    usable = {artifact.variant for artifact in bundle.artifacts if bundle.unusable(artifact) is None}
    return {
        row.variant: f"NOT WITHIN THE TARGET OVER ALL FOLDS: {row.judged.reason}"
        for row in pooled.variants
        if row.variant in usable and not row.judged.acceptable
    }
