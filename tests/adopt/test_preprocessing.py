"""What is said of a preprocessing, over what is known: taken in as our pixels and the network can do it, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edgecnn.adopt.preprocessing import Known, by_whom, note_on_resize, prepared, words
from edgecnn.adopt.state_dict import taking_rgb
from edgecnn.artifact import Preprocess
from edgecnn.blame.description import described_pipeline, read_description
from edgecnn.cli.verbs import export, verify
from edgecnn.errors import UserError
from tests.adopt.conftest import GOOD_TOML, toml
from tests.onnx_graph.files import SPEC

NOBODY = Known("")
LIBRARY = Known("timm's pretrained_cfg", SPEC.model_copy(update={"fit": "center-crop", "crop": 0.875}).model_dump())


def read(tmp_path: Path, text: str, known: Known = NOBODY, size: int | None = None) -> Preprocess:
    return prepared(read_description(toml(tmp_path / "p.toml", text)), known, "m.onnx", size)


def test_a_description_is_read_over_what_is_known(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD_TOML) == SPEC
    assert read(tmp_path, GOOD_TOML.replace("height = 8\nwidth = 8", "size = [8, 8]")) == SPEC
    partly = read(tmp_path, 'fit = "center-crop"\ncrop = 0.5', LIBRARY)
    assert partly == SPEC.model_copy(update={"fit": "center-crop", "crop": 0.5})
    assert read(tmp_path, 'fit = "stretch"', LIBRARY) == SPEC
    assert read(tmp_path, "size = [16, 16]", LIBRARY, size=32).height == 32
    assert prepared(None, LIBRARY, "m", 24).width == 24


@pytest.mark.parametrize("size", ["size = [224, 224]", "height = 224\nwidth = 224"])
def test_a_resized_shorter_side_is_a_share_of_it(size: str, tmp_path: Path) -> None:
    text = size + '\nfit = "center-crop"\nresize_short = 256\nmean = [0, 0, 0]\nstd = [1, 1, 1]'
    spec = read(tmp_path, text)
    assert (spec.fit, spec.crop) == ("center-crop", 0.875)
    over = read(tmp_path, "resize_short = 256", Known("x", {**spec.model_dump(), "crop": 1.0}), size=128)
    assert over.crop == 0.5


def test_another_scale_and_order_are_put_into_mean_and_std(tmp_path: Path) -> None:
    text = 'size = [8, 8]\nscale = "1"\nmean = [123.675, 116.28, 103.53]\nstd = [58.395, 57.12, 57.375]'
    assert read(tmp_path, text).mean == pytest.approx((0.485, 0.456, 0.406))
    assert read(tmp_path, text).std == pytest.approx((0.229, 0.224, 0.225))
    assert read(tmp_path, text + '\ncolour = "bgr"').mean == pytest.approx((0.406, 0.456, 0.485))
    assert read(tmp_path, "size = [8, 8]\nscale = 1\nmean = [0, 0, 0]\nstd = [1, 1, 1]").std == (1 / 255,) * 3


def test_a_network_of_bgr_is_made_to_take_rgb() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
    image = torch.rand(2, 3, 9, 9)
    turned = taking_rgb(net, "w.pth")
    torch.testing.assert_close(turned(image), net(image.flip(1)))
    with pytest.raises(UserError, match="no first convolution"):
        taking_rgb(torch.nn.Flatten(), "w.pth")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('resize = "opencv-area"', "resize: opencv-area cannot be reproduced: bilinear, bicubic, .*--foreign FILE"),
        ('resize = "bilinear"\nantialias = false', "resize: bilinear without antialias cannot be reproduced"),
        ('orientation = "ignored"', "orientation: the Exif tag is always obeyed"),
        ("mean = [127.5, 127.5, 127.5]", "not of pixels 0 to 1: write scale = '1', or divide mean and std by 255"),
        ('scale = "1"', "scale: '1' needs mean and std"),
        ('size = [8, 9]\nfit = "center-crop"\nresize_short = 10', "resize_short: only of a square size"),
    ],
)
def test_what_cannot_be_reproduced_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, text, LIBRARY)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("resize", ["bicubic", "lanczos"])
def test_another_filter_is_taken_in_and_said(resize: str, tmp_path: Path) -> None:
    said = read_description(toml(tmp_path / "p.toml", f"{GOOD_TOML}resize = '{resize}'"))
    assert prepared(said, NOBODY, "m") == SPEC
    assert f"resize: --preprocess says {resize}; here it is antialiased bilinear" in note_on_resize(said, NOBODY)[0]
    assert note_on_resize(None, Known("x", {}, True, "bicubic"))
    assert not note_on_resize(read_description(toml(tmp_path / "p.toml", GOOD_TOML)), NOBODY)


def test_a_missing_mean_is_never_guessed() -> None:
    with pytest.raises(UserError, match="mean: is missing; std: is missing: give --preprocess FILE.toml with size"):
        prepared(None, Known("", {"height": 8, "width": 8}), "m.onnx: says nothing")


def test_who_says_it(tmp_path: Path) -> None:
    said = read_description(toml(tmp_path / "p.toml", "size = [8, 8]"))
    assert by_whom(said, LIBRARY) == "--preprocess, the rest from timm's pretrained_cfg"
    assert by_whom(None, LIBRARY, 128) == "--size, the rest from timm's pretrained_cfg"
    assert words(prepared(None, LIBRARY, "m"), by_whom(None, LIBRARY)) == (
        "preprocessing: 8×8, center-crop 0.875, RGB, mean [0.5, 0.4, 0.3], std [0.2, 0.25, 0.3], "
        "from timm's pretrained_cfg"
    )


def shown_in(verb: Any) -> str:
    lines = verb.VERB.example.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("  size ="))
    return "\n".join(line for line in lines[first:] if line.startswith("  "))


@pytest.mark.parametrize("verb", [export, verify])
def test_the_example_in_the_help_serves_both_verbs(verb: Any, tmp_path: Path) -> None:
    said = read_description(toml(tmp_path / "p.toml", shown_in(verb)))
    spec, pipeline = prepared(said, NOBODY, "m"), described_pipeline(said, "p.toml")
    assert (spec.height, spec.width, spec.fit) == (pipeline.height, pipeline.width, pipeline.fit) != (0, 0, "")
    assert pipeline.gain == pytest.approx([1 / (255 * std) for std in spec.std])
