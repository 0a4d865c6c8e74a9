"""Networks as strangers hand them over, from the folder of cases; skipped where that is absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecnn.adopt.folder import adopt
from edgecnn.checkpoint import Checkpoint
from edgecnn.data import load_folder, load_split
from edgecnn.errors import UserError
from edgecnn.models import Deployed, load_module
from edgecnn.parity import prepare_files
from tests.adopt.conftest import toml

pytestmark = pytest.mark.shared
PRE = "height = 96\nwidth = 96\nmean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n"
BY_NUMBER = "\n".join(map(str, range(1, 12)))


@pytest.fixture
def cases(shared: Path) -> Path:
    if not (shared / "cases").is_dir():
        pytest.skip("no cases there")
    return shared / "cases"


def taken(cases: Path, file: str, data: str, out: Path, labels: str | None = None) -> Checkpoint:
    out.mkdir(parents=True, exist_ok=True)
    return adopt(
        cases / file,
        load_folder(cases / data),
        out / "run",
        model=None if file.endswith(".onnx") else "edgecnn_mobilenetv2_035",
        preprocess=toml(out / "pre.toml", PRE),
        labels=toml(out / "labels.txt", labels) if labels else None,
    )


def top1_of(out: Path) -> float:
    """Share of the test images that are right."""
    checkpoint, module = load_module(out / "run")
    items = load_split(None, out / "run" / "split.json").test
    logits = Deployed(module, checkpoint.preprocess).answers(
        prepare_files([item.path for item in items], checkpoint.preprocess)
    )
    return float((logits.argmax(1) == np.array([item.label for item in items])).mean())


def test_names_inside_the_file(cases: Path, tmp_path: Path) -> None:
    checkpoint = taken(cases, "perm_names.onnx", "base", tmp_path)
    assert (checkpoint.classes, checkpoint.doubts) == (("spot", "crack", "good"), ())
    assert top1_of(tmp_path) == 1.0


def test_numbered_folders(cases: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --labels"):
        taken(cases, "w_numeric_timm_order.pth", "numeric", tmp_path)
    checkpoint = taken(cases, "w_numeric_timm_order.pth", "numeric", tmp_path, BY_NUMBER)
    assert checkpoint.doubts == ()
    assert top1_of(tmp_path) == pytest.approx(0.818, abs=0.001)
    as_text = "\n".join(sorted(BY_NUMBER.split("\n")))
    wrong = taken(cases, "w_numeric_timm_order.pth", "numeric", tmp_path / "wrong", as_text)
    assert [doubt.stage for doubt in wrong.doubts] == ["class order"]
    assert "sorted by number" in wrong.doubts[0].words


@pytest.mark.parametrize("file", ["timm_ema.pth", "lightning.pth", "orig_module.pth", "fixed4.onnx", "argmax.onnx"])
def test_what_wrappers_leave_is_taken_in(file: str, cases: Path, tmp_path: Path) -> None:
    checkpoint = taken(cases, file, "base", tmp_path)
    assert checkpoint.doubts == ()
    assert top1_of(tmp_path) == 1.0
    assert any("averaged weights (state_dict_ema)" in note for note in checkpoint.notes) == ("ema" in file)
    assert any("ends in the choice of a class (ArgMax)" in note for note in checkpoint.notes) == ("argmax" in file)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("nan.pth", "classifier.weight holds values that are not finite"),
        ("sig1.onnx", "has 2 outputs, .* has 3 classes"),
        ("train.onnx", r"is in training mode: export the network after \.eval\(\)"),
    ],
)
def test_what_cannot_be_taken_in_is_one_line(file: str, message: str, cases: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        taken(cases, file, "base", tmp_path)
    assert "\n" not in str(caught.value)
