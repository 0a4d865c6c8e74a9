"""Pipelines apart from a model: ours is `edgecnn.imaging`'s, stages change what they say and nothing else."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from edgecnn.artifact import Preprocess
from edgecnn.blame.pipeline import EncodedImage, layout_of, own_pipeline
from edgecnn.blame.stages import STAGES, exchange, walk
from edgecnn.imaging import prepare, prepare_frame
from tests.blame.conftest import textured
from tests.conftest import encode

SPECS = [Preprocess(height=32, width=32), Preprocess(height=24, width=40, fit="center-crop", crop=0.8)]


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(textured(3)).save(stream, "JPEG", quality=95, exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize("spec", SPECS, ids=["stretch", "center-crop"])
def test_ours_is_that_of_imaging(spec: Preprocess) -> None:
    for encoded in (encode(textured(1)), encode(textured(2), "JPEG"), encode(textured(3)[:, :, 0]), turned(6)):
        image = EncodedImage(encoded)
        assert np.array_equal(image.pixels(own_pipeline(spec)), prepare(encoded, spec))
    whole = replace(own_pipeline(spec), decode="whole")
    encoded = encode(textured(1))
    assert np.array_equal(EncodedImage(encoded).pixels(whole), prepare_frame(textured(1), spec))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turn_is_undone(orientation: int) -> None:
    encoded = turned(orientation)
    with Image.open(io.BytesIO(encoded)) as image:
        stored = np.asarray(image.convert("RGB"))
    pipeline = replace(own_pipeline(SPECS[0]), decode="whole", resize="bilinear", orientation="ignored")
    plain = Image.fromarray(stored).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(EncodedImage(encoded).pixels(pipeline), np.asarray(plain))


def test_what_enters() -> None:
    spec = SPECS[0]
    own = own_pipeline(spec)
    image = EncodedImage(encode(textured(1)))
    pixels = prepare(encode(textured(1)), spec)
    bgr = replace(own, colour="bgr", layout="nchw", dtype="float32", gain=(2.0, 1.0, 1.0), offset=(0.0, -1.0, 0.0))
    entered = image.enter(bgr, "nchw")
    assert entered.shape == (1, 3, 32, 32)
    assert np.array_equal(entered[0, 0], 2.0 * pixels[:, :, 2])
    assert np.array_equal(entered[0, 1], pixels[:, :, 1] - 1.0)
    as_it_lies = image.enter(replace(own, layout="nhwc"), "nchw")
    assert as_it_lies.shape == (1, 3, 32, 32)
    assert np.array_equal(as_it_lies.ravel(), pixels.ravel())
    grey = image.pixels(replace(own, colour="grey"))
    assert (grey == grey[:, :, :1]).all()


def test_the_layout_of_a_shape() -> None:
    assert layout_of((None, 3, 8, 8)) == "nchw"
    assert layout_of((1, 8, 8, 3)) == "nhwc"
    assert layout_of((1, 3, 8, 3)) is None
    assert layout_of((None, None, None, None)) is None


def test_torchvisions_way_to_crop() -> None:
    torchvision = pytest.importorskip("torchvision")
    pixels = textured(4)
    steps = [torchvision.transforms.Resize(40), torchvision.transforms.CenterCrop(32)]
    theirs = np.asarray(torchvision.transforms.Compose(steps)(Image.fromarray(pixels)))
    own = own_pipeline(SPECS[0])
    pipeline = replace(own, decode="whole", resize="bilinear", fit="center-crop", resize_short=40)
    assert np.array_equal(EncodedImage(encode(pixels)).pixels(pipeline), theirs)


def test_walking_ends_at_what_is_described() -> None:
    own = own_pipeline(SPECS[0])
    described = replace(
        own, decode="whole", resize="bicubic", antialias=False, colour="bgr", fit="center-crop", orientation="ignored"
    )
    path = list(walk(own, described))
    stages = [stage for stage, _ in path]
    assert stages == ["decode", "orientation", "colour order", "fit", "resize filter", "antialias"]
    assert stages == sorted(stages, key=STAGES.index)
    assert path[-1][1] == described
    assert list(walk(own, own)) == []


def test_putting_every_stage_right_gives_our_pixels() -> None:
    own = own_pipeline(SPECS[0])
    described = replace(own, decode="whole", resize="opencv-linear", antialias=False, fit="center-crop")
    right = exchange(described, own, STAGES)
    encoded = encode(textured(2), "JPEG")
    assert np.array_equal(EncodedImage(encoded).pixels(right), prepare(encoded, SPECS[0]))
