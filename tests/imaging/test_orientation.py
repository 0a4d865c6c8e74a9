"""Every format × every orientation × every path: the same picture, upright."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgecnn.artifact import Preprocess
from edgecnn.blame.pipeline import EncodedImage, own_pipeline
from edgecnn.data.folders import Item
from edgecnn.documents import sha256_of
from edgecnn.imaging import Preparer, decode_whole, orientation, prepare, prepare_frame
from edgecnn.parity import prepare_as_frames, prepare_files
from edgecnn.train.progress import Silent
from edgecnn.train.sources import prepared
from tests.conftest import encode, picture
from tests.imaging.files import TAGGED, UNTAGGED, exif, stored

SPEC = Preprocess(height=40, width=56, bits=16)
UPRIGHT = picture(2, 163, 241)
"""Odd sides, reduced by 4: its partial blocks lie at other edges in every orientation."""
TAGS = range(1, 9)


def _train(path: Path) -> np.ndarray:
    item = Item(path, path.name, 0, sha256_of(path.read_bytes()))
    return prepared([item], SPEC, path.parent / "cache", Silent())[0]


PATHS: dict[str, Callable[[Path], np.ndarray]] = {
    "prepare": lambda path: prepare(path.read_bytes(), SPEC),
    "decode, fit": lambda path: (lambda own: own.fit(own.decode(path.read_bytes())))(Preparer(SPEC)),
    "whole, as a frame": lambda path: prepare_frame(decode_whole(path.read_bytes(), SPEC.bits), SPEC),
    "files": lambda path: prepare_files([path], SPEC)[0],
    "frames": lambda path: prepare_as_frames([path], SPEC)[0],
    "training": _train,
    "explained": lambda path: EncodedImage(path.read_bytes(), SPEC.bits).pixels(own_pipeline(SPEC)),
}
"""All that leads from a file to prepared pixels."""


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("kind", TAGGED)
def test_a_picture_is_upright_on_every_path(kind: str, tag: int, tmp_path: Path) -> None:
    path = tmp_path / "part.bin"
    path.write_bytes(TAGGED[kind](stored(UPRIGHT, tag), tag))
    upright = np.repeat(UPRIGHT[:, :, :1], 3, 2) if "grey" in kind else UPRIGHT
    expected = prepare_frame(upright, SPEC).astype(int)
    lossy = "jpeg" in kind or "mpo" in kind
    for name, pixels in ((name, lead(path)) for name, lead in PATHS.items()):
        error = np.abs(pixels - expected)
        assert error.mean() <= (1.0 if lossy else 0), f"{name}: {error.mean():.2f} levels"
        assert error.max() <= (16 if lossy else 0), f"{name}: {error.max()} levels"


@pytest.mark.parametrize("kind", UNTAGGED)
def test_a_format_without_a_tag_is_as_it_lies(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "part.bin"
    path.write_bytes(UNTAGGED[kind](UPRIGHT))
    upright = np.repeat(UPRIGHT[:, :, :1], 3, 2) if kind in ("pgm", "gif") else UPRIGHT
    assert all(np.array_equal(lead(path), prepare_frame(upright, SPEC)) for lead in PATHS.values())


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("kind", TAGGED)
def test_the_whole_picture_is_upright(kind: str, tag: int) -> None:
    encoded = TAGGED[kind](stored(UPRIGHT, tag), tag)
    assert decode_whole(encoded, 16).shape == UPRIGHT.shape
    assert orientation(encoded) == tag


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_an_orientation_in_xmp_turns_no_path(image_format: str) -> None:
    """Pillow obeys it, decoders of cameras do not: here no path does."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    options = {"tiffinfo": {700: xmp}} if image_format == "TIFF" else {"xmp": xmp}
    encoded = encode(picture(2, 80, 64), image_format, **options)
    assert b"tiff:Orientation" in encoded or image_format == "PNG"
    assert decode_whole(encoded).shape == (80, 64, 3)
    assert Preparer(Preprocess(height=80, width=64)).decode(encoded).pixels.shape == (80, 64, 3)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_an_exif_block_that_cannot_be_read_turns_no_path(image_format: str) -> None:
    encoded = encode(picture(2, 80, 64), image_format, exif=b"Exif\0\0" + b"II*\0\xff\xff\xff\xff" + bytes(8))
    assert orientation(encoded) == 1
    assert decode_whole(encoded).shape == (80, 64, 3)
    assert prepare(encoded, SPEC).shape == (40, 56, 3)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_is_none_is_upright(value: int) -> None:
    assert orientation(encode(picture(2), "JPEG", exif=exif(value))) == 1
