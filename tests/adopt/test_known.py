"""The preprocessing is read from where it lies: the file, what is beside it, the library."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from edgecnn.adopt.known import of_onnx, of_weights
from edgecnn.adopt.preprocessing import prepared
from edgecnn.metadata import describe
from edgecnn.models import Built, build
from tests.onnx_graph.files import SPEC

CONFIG = {
    "input_size": [3, 128, 160],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "crop_pct": 0.9,
    "interpolation": "bicubic",
}
READ = {
    "height": 128,
    "width": 160,
    "fit": "center-crop",
    "crop": 0.9,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
}


@pytest.fixture(scope="module")
def timms() -> Built:
    return build("timm:mobilenetv2_035", 3, "none")


def test_the_library_says_it_but_not_of_these_weights(timms: Built, tmp_path: Path) -> None:
    known = of_weights(tmp_path / "w.pth", {}, timms, 3)
    assert (known.by, known.sure, known.resize) == ("timm's pretrained_cfg", False, "bicubic")
    assert (known.values["height"], known.values["crop"]) == (224, 0.875)
    assert of_weights(tmp_path / "w.pth", {}, timms, 1000).sure
    theirs = of_weights(tmp_path / "w.pth", {}, build("torchvision:mobilenet_v2", 3, "none"), 3)
    assert theirs.by == "torchvision's transforms of its weights"
    assert theirs.values["crop"] == pytest.approx(224 / 232)


@pytest.mark.parametrize("as_text", [False, True])
def test_timms_config_in_the_file_and_beside_it(as_text: bool, timms: Built, tmp_path: Path) -> None:
    about: dict[str, Any] = {"pretrained_cfg": json.dumps(CONFIG) if as_text else CONFIG}
    known = of_weights(tmp_path / "w.pth", about, timms, 3)
    assert (known.by, known.sure, known.resize) == ("w.pth's pretrained_cfg", True, "bicubic")
    assert {key: known.values[key] for key in READ} == READ
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "x", "pretrained_cfg": CONFIG}))
    beside = of_weights(tmp_path / "w.pth", {}, timms, 3)
    assert beside.by == "config.json's pretrained_cfg"
    assert beside.values == known.values
    assert of_onnx(tmp_path / "m.onnx", {}).values == READ


@pytest.mark.parametrize("odd", [{"mean": [10**400, 0, 0]}, {"crop_pct": float("nan")}, {"std": [True, 1, 1]}])
def test_odd_numbers_in_a_config_are_passed_over(odd: Any, timms: Built, tmp_path: Path) -> None:
    known = of_weights(tmp_path / "w.pth", {"pretrained_cfg": {**CONFIG, **odd}}, timms, 3)
    assert known.values["height"] == 128
    prepared(None, known, "w.pth")


@pytest.mark.parametrize(
    "config", ["no json", {"input_size": "large"}, {"input_size": [3, 10**9, 1]}, {"input_size": [3, True, 8]}, [1], 7]
)
def test_what_is_no_config_is_passed_over(config: Any, timms: Built, tmp_path: Path) -> None:
    assert not of_weights(tmp_path / "w.pth", {"pretrained_cfg": config}, timms, 3).sure
    (tmp_path / "config.json").write_text("[" * 10000)
    assert not of_weights(tmp_path / "w.pth", {}, timms, 3).sure


def test_the_options_of_training(timms: Built, tmp_path: Path) -> None:
    timm_args = argparse.Namespace(img_size=192, input_size=None, mean=None, std=None, crop_pct=1.0)
    known = of_weights(tmp_path / "w.pth", {"args": timm_args}, timms, 3)
    assert (known.values["height"], known.values["crop"], known.sure) == (192, 1.0, True)
    timm_args.img_size = timm_args.crop_pct = None
    usual = of_weights(tmp_path / "w.pth", {"args": timm_args}, timms, 3)
    assert (usual.values["height"], usual.values["crop"], usual.sure) == (224, 0.875, True)
    theirs = {"val_crop_size": 160, "val_resize_size": 200, "interpolation": "bilinear"}
    scripts = of_weights(tmp_path / "w.pth", {"args": theirs}, timms, 3)
    assert (scripts.values["height"], scripts.values["crop"], scripts.resize) == (160, 0.8, "bilinear")


def test_an_onnx_file_says_it(tmp_path: Path) -> None:
    ours = of_onnx(tmp_path / "m.onnx", describe(("a", "b"), SPEC, "x"))
    assert ours.values == SPEC.model_dump()
    held = {"author": "Ultralytics", "task": "classify", "imgsz": "[64, 64]", "names": "{0: 'a', 1: 'b'}"}
    theirs = of_onnx(tmp_path / "m.onnx", held)
    assert theirs.by == "Ultralytics' metadata in the file"
    assert theirs.values == {
        "height": 64,
        "width": 64,
        "fit": "center-crop",
        "crop": 1.0,
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
    }
    assert of_onnx(tmp_path / "m.onnx", {**held, "task": "detect"}).values == {}
