"""Pictures of the test images that a variant decides otherwise than eager fp32."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from edgecnn.artifact import Flip
from edgecnn.bench.report.material import Material, Variant
from edgecnn.data import Sought, locate
from edgecnn.data.located import is_below
from edgecnn.documents import sha256_of
from edgecnn.errors import BadImage
from edgecnn.imaging import decode_whole

MOST_PICTURES = 24
"""For each variant."""
_SIDE = 144
_QUALITY = 82


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
    located = _located(material, data, sorted(names)) if data is not None else {}
    sources = {name: _picture(material, located.get(name), name) for name in sorted(names)}
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


def _located(material: Material, data: Path, names: Sequence[str]) -> dict[str, Path]:
    """Where the images lie in `data`: by content, and by name where the bundle does not know it."""
    known = {name: digest for name in names if (digest := _sha256(material, name)) is not None}
    found = locate(data, [Sought(name, digest, "") for name, digest in known.items()], ())
    by_name = {name: data / name for name in names if name not in known and is_below(name)}
    return by_name | {name: place for name, place in zip(known, found.places, strict=True) if place is not None}


def _picture(material: Material, located: Path | None, name: str) -> str | None:
    """A small JPEG as a data: URI; None where the image is not there, is another one, or cannot be decoded."""
    for path in _places(material, located, name):
        try:
            encoded = path.read_bytes()
            expected = _sha256(material, name)
            if expected is not None and sha256_of(encoded) != expected:
                continue
            return _thumbnail(encoded, material.bundle.preprocess.bits)
        except (OSError, BadImage):
            continue
    return None


def _places(material: Material, located: Path | None, name: str) -> list[Path]:
    expected = _sha256(material, name)
    bundle = material.bundle
    golden = [image.file for image in bundle.golden if image.file in bundle.files]
    copies = [material.folder / file for file in golden if bundle.files[file].sha256 == expected]
    return [*([] if located is None else [located]), *copies]


def _sha256(material: Material, name: str) -> str | None:
    reference = material.reference
    if reference is None or name not in reference.names:
        return None
    return reference.sha256[reference.names.index(name)]


def _thumbnail(encoded: bytes, bits: int | None) -> str:
    image = Image.fromarray(decode_whole(encoded, bits))
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
