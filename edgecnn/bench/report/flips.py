"""Pictures of the test images that a variant decides otherwise than eager fp32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecnn.artifact import Flip
from edgecnn.bench.report.material import Material, Variant
from edgecnn.bench.report.pictures import pictures

MOST_PICTURES = 24
"""For each variant."""


@dataclass(frozen=True)
class Picture:
    """A flipped image; `source` is a data: URI."""

    flip: Flip
    source: str
    effect: str
    """worse, better, or both wrong."""


@dataclass(frozen=True)
class Gallery:
    """What one variant flipped: those it made worse first."""

    variant: str
    images: int
    worse: int
    better: int
    pictures: tuple[Picture, ...]
    not_found: tuple[Flip, ...]
    more: int
    """Beyond MOST_PICTURES."""

    @property
    def flips(self) -> int:
        """All of them."""
        return len(self.pictures) + len(self.not_found) + self.more


def galleries(material: Material, data: Path | None) -> list[Gallery]:
    """One for each variant that flipped anything. An image is taken from `data`, else from the golden ones."""
    names = {flip.image for variant in material.variants for flip in _shown(variant, material)}
    sources = pictures(material, data, names)
    return [_gallery(variant, material, sources) for variant in material.variants if variant.artifact.check.flips]


def _gallery(variant: Variant, material: Material, sources: dict[str, str | None]) -> Gallery:
    shown = _shown(variant, material)
    flips = variant.artifact.check.flips
    pictures = [Picture(flip, source, _effect(flip)) for flip in shown if (source := sources[flip.image]) is not None]
    effects = [_effect(flip) for flip in flips]
    return Gallery(
        variant=variant.name,
        images=variant.artifact.check.images,
        worse=effects.count("worse"),
        better=effects.count("better"),
        pictures=tuple(pictures),
        not_found=tuple(flip for flip in shown if sources[flip.image] is None),
        more=len(flips) - len(shown),
    )


def _shown(variant: Variant, material: Material) -> Sequence[Flip]:
    """Defects that are now missed first, then what else got worse, then the rest."""
    good = material.bundle.good_class

    def urgency(flip: Flip) -> tuple[bool, int]:
        missed = good is not None and flip.variant == good != flip.label
        return not missed, ("worse", "both wrong", "better").index(_effect(flip))

    return sorted(variant.artifact.check.flips, key=urgency)[:MOST_PICTURES]


def _effect(flip: Flip) -> str:
    return "worse" if flip.reference == flip.label else "better" if flip.variant == flip.label else "both wrong"
