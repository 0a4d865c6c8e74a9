"""A foreign preprocessing in TOML: strict, every mistake in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecnn.blame.description import assumed_words, described_pipeline, read_description
from edgecnn.blame.pipeline import Pipeline
from edgecnn.errors import UserError

GOOD = """
size = [224, 192]
colour = "bgr"
resize = "bilinear"
fit = "stretch"
scale = "1/255"
mean = [0.5, 0.4, 0]
std = [0.25, 0.2, 1]
layout = "nchw"
dtype = "float32"
output = "logits"
"""


def read(tmp_path: Path, text: str) -> Pipeline:
    path = tmp_path / "pre.toml"
    path.write_text(text)
    return described_pipeline(read_description(path), path.name)


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_enters_is_what_is_written(tmp_path: Path) -> None:
    pipeline = read(tmp_path, GOOD)
    assert (pipeline.height, pipeline.width, pipeline.colour) == (224, 192, "bgr")
    assert pipeline.gain == pytest.approx((1 / 255 / 0.25, 1 / 255 / 0.2, 1 / 255))
    assert pipeline.offset == pytest.approx((-2, -2, 0))
    assert pipeline.antialias
    assert (pipeline.decode, pipeline.orientation) == ("whole", "exif")


def test_names_are_compared_whatever_disk_they_come_from(tmp_path: Path) -> None:
    (tmp_path / "pre.toml").write_text(GOOD + 'classes = ["scho\u0308n", "Riß"]\n', encoding="utf-8")
    assert read_description(tmp_path / "pre.toml").classes == ("sch\u00f6n", "Riß")


def test_a_short_description_says_what_is_taken_for_the_rest(tmp_path: Path) -> None:
    text = "height = 224\nwidth = 192\nmean = [0.5, 0.4, 0]\nstd = [0.25, 0.2, 1]\n"
    pipeline = read(tmp_path, text)
    assert (pipeline.height, pipeline.width, pipeline.colour, pipeline.layout) == (224, 192, "rgb", "nchw")
    assumed = assumed_words(read_description(tmp_path / "pre.toml"))
    assert assumed
    assert "colour = 'rgb', resize = 'bilinear', fit = 'stretch', layout = 'nchw'" in assumed
    (tmp_path / "pre.toml").write_text(GOOD)
    assert assumed_words(read_description(tmp_path / "pre.toml")) is None


def test_every_mistake_is_in_one_line(tmp_path: Path) -> None:
    line = refused(tmp_path, GOOD.replace('"bgr"', '"gbr"').replace("size = [224, 192]", "size = 224") + "batch = 1\n")
    for word in ("pre.toml", "size", "colour", "batch", "an example: size = ["):
        assert word in line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('dtype = "float32"', 'dtype = "uint8"'), ".toml: scale, mean, std: dtype = 'uint8' takes pixels as they are"),
        (("mean = [0.5, 0.4, 0]\n", ""), "needed with dtype = 'float32'"),
        (("size = [224, 192]\n", ""), "size: is missing"),
        (("size = [224, 192]", "size = [224, 192]\nheight = 224"), "size, height: give one of them"),
        (("size = [224, 192]", "height = 224"), "width: is missing"),
        (("size = [224, 192]", 'height = 224\nwidth = "192"'), "width: must be a whole number of pixels"),
        (("size", "input_size"), "input_size: write size = [height, width]"),
        (('resize = "bilinear"', 'resize = "opencv-linear"\nantialias = true'), "opencv-linear has no such choice"),
        (('fit = "stretch"', 'fit = "stretch"\ncrop = 0.9'), "only with fit = 'center-crop'"),
        (('fit = "stretch"', 'fit = "center-crop"\nresize_short = 200'), "200 is smaller than the size"),
        (('fit = "stretch"', 'fit = "center-crop"\nresize_short = 256\ncrop = 0.9'), "give one of them"),
        (("std = [0.25, 0.2, 1]", "std = [0, 0.2, 1]"), "std: must be above 0"),
        (("size = [224, 192]", "size = [0, 192]"), "from 1 to 4096"),
        (("0.4, 0]", "nan, 0]"), "mean, std: must be finite"),
        (("0.4, 0]", f"1{'0' * 400}, 0]"), "mean"),
        (("size = [224, 192]", f"height = 1{'0' * 400}\nwidth = 8"), "size"),
        (("layout", "["), "not valid TOML"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: tuple[str, str], words: str, tmp_path: Path) -> None:
    assert change[0] in GOOD
    assert words in refused(tmp_path, GOOD.replace(*change))


def test_a_missing_file_shows_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file \(expected a description such as: size"):
        read_description(tmp_path / "none.toml")
