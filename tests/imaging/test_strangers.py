"""The very files that failed: beside the checkout, where they are."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecnn.artifact import Preprocess
from edgecnn.data import load_folder
from edgecnn.imaging import decode_whole, prepare, prepare_frame

SPEC = Preprocess(height=96, width=96, bits=12)


@pytest.fixture
def cases(shared: Path) -> Path:
    if not (shared / "cases").is_dir():
        pytest.skip("no cases there")
    return shared / "cases"


@pytest.mark.shared
@pytest.mark.parametrize("name", ["s1x4.jpg", "s4x2.jpg", "sodd.jpg"])
def test_odd_subsampling_is_read_as_pillow_reads_it(cases: Path, name: str) -> None:
    encoded = (cases / name).read_bytes()
    assert np.array_equal(decode_whole(encoded), np.asarray(Image.open(io.BytesIO(encoded))))
    assert np.abs(prepare(encoded, SPEC).astype(int) - prepare_frame(decode_whole(encoded), SPEC)).mean() < 1


@pytest.mark.shared
def test_both_turned_files_are_upright(cases: Path) -> None:
    tiff, png = ((cases / name).read_bytes() for name in ("tif_orient6.tif", "png_exif6_after_idat.png"))
    assert decode_whole(tiff).shape == decode_whole(png).shape == (128, 160, 3)
    for encoded in (tiff, png):
        assert np.array_equal(prepare(encoded, SPEC), prepare_frame(decode_whole(encoded), SPEC))


@pytest.mark.shared
def test_a_turned_tiff_is_read_as_the_png_beside_it(cases: Path) -> None:
    data = load_folder(cases / "side_tif")
    shapes = {decode_whole(item.path.read_bytes()).shape for item in (*data.train, *data.val, *data.test)}
    assert len(shapes) == 1


@pytest.mark.shared
def test_twelve_bits_of_colour_keep_their_levels(cases: Path) -> None:
    assert load_folder(cases / "rgb12").bits == 12
    assert len(np.unique(decode_whole((cases / "png_16rgb_12bit_range.png").read_bytes(), 12))) >= 100
