"""Small pictures of test images, found by content in the data folder, else among the bundle's golden images."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from edgecnn.bench.report.material import Material
from edgecnn.data import Sought, locate
from edgecnn.data.located import is_below
from edgecnn.documents import sha256_of
from edgecnn.errors import BadImage
from edgecnn.imaging import decode_whole

SIDE = 144
"""Px of the longer side."""
_QUALITY = 82


def pictures(material: Material, data: Path | None, names: Iterable[str]) -> dict[str, str | None]:
    """A data: URI for each of the test images; None where it is not there, is another one, or cannot be decoded."""
    wanted = sorted(set(names))
    located = _located(material, data, wanted) if data is not None else {}
    return {name: _picture(material, located.get(name), name) for name in wanted}


def _located(material: Material, data: Path, names: Sequence[str]) -> dict[str, Path]:
    """Where the images lie in `data`: by content, and by name where the bundle does not know it."""
    known = {name: digest for name in names if (digest := _sha256(material, name)) is not None}
    found = locate(data, [Sought(name, digest, "") for name, digest in known.items()], ())
    by_name = {name: data / name for name in names if name not in known and is_below(name)}
    return by_name | {name: place for name, place in zip(known, found.places, strict=True) if place is not None}


def _picture(material: Material, located: Path | None, name: str) -> str | None:
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
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
