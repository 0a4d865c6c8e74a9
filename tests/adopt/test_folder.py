"""Somebody else's network becomes a run folder: what it says is kept, nothing is done twice, nothing half."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from edgecnn.adopt import sizes
from edgecnn.adopt.agreement import agreement
from edgecnn.adopt.folder import ADOPTED, adopt
from edgecnn.checkpoint import CHECKPOINT, read_checkpoint
from edgecnn.data import Dataset, load_split, split_hashes
from edgecnn.errors import UserError
from edgecnn.metadata import describe
from edgecnn.models import build, load_module
from edgecnn.onnx_graph.network import load_network
from edgecnn.onnx_graph.onnx_file import input_of, read_model
from tests.adopt.conftest import GOOD_TOML, toml
from tests.conftest import picture
from tests.onnx_graph.files import SIDE, SPEC, chosen, classifier, half, pixels_inside
from tests.training import CLASSES


def test_another_answer_than_onnx_runtimes_is_not_taken_in(tmp_path: Path) -> None:
    path = classifier(tmp_path / "m.onnx")
    network = load_network(path, SIDE, SIDE)
    with torch.no_grad():
        next(network.module.parameters()).mul_(1.001)
    images = np.stack([picture(seed, SIDE, SIDE) for seed in range(3)])
    with pytest.raises(UserError, match="answers otherwise than in ONNX Runtime"):
        agreement(path, input_of(path, read_model(path).model), network, images, SPEC)


def test_an_onnx_file_becomes_a_run_folder(data: Dataset, pre: Path, tmp_path: Path) -> None:
    path = classifier(tmp_path / "my net.onnx", softmax=True)
    lines: list[str] = []
    taken = adopt(path, data, tmp_path / "run", preprocess=pre, progress=lines.append)
    assert any("softmax" in note for note in taken.notes)
    assert any("as in ONNX Runtime on 16 images" in note for note in taken.notes)
    checkpoint, module = load_module(tmp_path / "run")
    assert checkpoint == taken == read_checkpoint(tmp_path / "run")
    assert (checkpoint.model, checkpoint.recipe.name, checkpoint.classes) == ("onnx:my-net", "none", CLASSES)
    assert checkpoint.preprocess == SPEC
    assert set(checkpoint.files) == {"model.onnx", "split.json"}
    assert checkpoint.metrics.val_images == len(data.val)
    assert checkpoint.cost.macs == 4 * 27 * SIDE * SIDE + 12
    assert dict(checkpoint.splits) == split_hashes(load_split(None, tmp_path / "run" / "split.json"))
    image = torch.randn(2, 3, SIDE, SIDE)
    assert torch.equal(module(image), load_network(path, SIDE, SIDE).module(image))


def test_the_second_time_nothing_is_done(data: Dataset, pre: Path, tmp_path: Path) -> None:
    path, run = classifier(tmp_path / "m.onnx"), tmp_path / "run"
    first = adopt(path, data, run, preprocess=pre)
    before = {file: file.stat().st_mtime_ns for file in run.iterdir()}
    lines: list[str] = []
    assert adopt(path, data, run, preprocess=pre, progress=lines.append) == first
    assert {file: file.stat().st_mtime_ns for file in run.iterdir()} == before
    assert "already taken in" in lines[0]
    pre.write_text(GOOD_TOML + "crop = 0.9\nfit = 'center-crop'\n")
    assert adopt(path, data, run, preprocess=pre).preprocess.crop == 0.9
    (run / "model.onnx").write_bytes(b"damaged")
    assert adopt(path, data, run, preprocess=pre) == load_module(run)[0]


def test_external_data_is_taken_into_the_folder(data: Dataset, pre: Path, tmp_path: Path) -> None:
    path = classifier(tmp_path / "m.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    adopt(path, data, tmp_path / "run", preprocess=pre)
    identity = json.loads((tmp_path / "run" / ADOPTED).read_text())["identity"]
    assert set(identity["external data"]) == {"m.onnx.data"}
    (tmp_path / "m.onnx.data").unlink()
    assert load_module(tmp_path / "run")[1](torch.zeros(1, 3, SIDE, SIDE)).shape == (1, 3)


@pytest.mark.parametrize("make", [half, chosen])
def test_a_file_that_was_made_plain_is_opened_again(make: Any, data: Dataset, pre: Path, tmp_path: Path) -> None:
    path = make(tmp_path / "M.ONNX")
    checkpoint = adopt(path, data, tmp_path / "run", preprocess=pre)
    said = ("computes in float16: taken in as float32", "ends in the choice of a class (ArgMax)")
    assert any(one in note for one in said for note in checkpoint.notes)
    image = torch.randn(2, 3, SIDE, SIDE)
    answers = load_module(tmp_path / "run")[1](image)
    torch.testing.assert_close(answers, load_network(path, SIDE, SIDE).module(image))
    assert answers.shape == (2, 3)


def test_our_own_file_says_its_preprocessing_and_the_order_of_its_classes(data: Dataset, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"fit": "center-crop", "crop": 0.75})
    order = ("striped", "dark", "light")
    path = pixels_inside(tmp_path / "m.onnx", described=describe(order, spec, "x"))
    checkpoint = adopt(path, data, tmp_path / "run")
    assert (checkpoint.preprocess, checkpoint.classes) == (spec, order)
    split = load_split(None, tmp_path / "run" / "split.json")
    assert {item.name.partition("/")[0] for item in split.test if item.label == 0} == {"striped"}


def test_pixels_inside_contradicting_the_description_are_refused(data: Dataset, pre: Path, tmp_path: Path) -> None:
    path = pixels_inside(tmp_path / "m.onnx")
    assert adopt(path, data, tmp_path / "run", preprocess=pre).preprocess == SPEC
    with pytest.raises(UserError, match="are not those inside the .onnx file"):
        adopt(path, data, tmp_path / "other", preprocess=toml(pre, GOOD_TOML.replace("0.4", "0.1")))
    assert not (tmp_path / "other").exists()


def test_labels_may_be_more_than_the_images_have(data: Dataset, pre: Path, tmp_path: Path) -> None:
    path = classifier(tmp_path / "m.onnx", outputs=5)
    labels = toml(tmp_path / "labels.txt", "striped\nrust\nlight\ndent\ndark\n")
    checkpoint = adopt(path, data, tmp_path / "run", preprocess=pre, labels=labels)
    assert checkpoint.classes == ("striped", "rust", "light", "dent", "dark")
    split = load_split(None, tmp_path / "run" / "split.json")
    assert {item.label for item in split.train} == {0, 2, 4}


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return build("timm:mobilenetv2_035", 3, "none").module.eval()


def test_which_weights_were_taken_is_a_note(network: Any, data: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "w.ckpt"
    raw = network.state_dict()
    mean = {name: tensor / 2 if tensor.is_floating_point() else tensor for name, tensor in raw.items()}
    torch.save({"state_dict": raw, "state_dict_ema": mean}, path)
    spec = toml(tmp_path / "pre.toml", "height = 32\nwidth = 32")
    notes = []
    for key in (None, "state_dict", "state_dict_ema"):
        run = tmp_path / f"run {key}"
        notes.append(adopt(path, data, run, model="mobilenetv2_035", preprocess=spec, weights_key=key).notes[1])
        taken = load_module(run)[1].state_dict()["classifier.weight"]
        assert torch.equal(taken, (raw if key == "state_dict" else mean)["classifier.weight"])
    assert notes == [
        "its averaged weights (state_dict_ema) are taken, not the plain ones beside them (state_dict)",
        "its weights under state_dict are taken, as --weights-key says",
        "its weights under state_dict_ema are taken, as --weights-key says",
    ]


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_state_dict_becomes_a_run_folder(ending: str, network: Any, data: Dataset, tmp_path: Path) -> None:
    import safetensors.torch

    path = tmp_path / f"weights{ending}"
    if ending == ".pth":
        torch.save({"epoch": 3, "state_dict": network.state_dict()}, path)
    else:
        safetensors.torch.save_file(network.state_dict(), path)
    spec = toml(tmp_path / "pre.toml", "height = 64\nwidth = 48\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]")
    taken = adopt(path, data, tmp_path / "run", model="mobilenetv2_035", preprocess=spec)
    checkpoint, module = load_module(tmp_path / "run")
    assert (checkpoint.model, checkpoint.recipe.name) == ("timm:mobilenetv2_035", "none")
    assert (checkpoint.preprocess.height, checkpoint.preprocess.width) == (64, 48)
    assert checkpoint.leftovers.missing == ()
    assert taken.notes == (
        "head of 3 classes",
        "preprocessing: 64×48, center-crop 0.875, RGB, mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5], from --preprocess, "
        "the rest from timm's pretrained_cfg",
        "resize: timm's pretrained_cfg says bicubic; here it is antialiased bilinear, the one resize that there is "
        "here (`edgecnn verify --explain` prices that)",
        "classes in the order of its outputs: dark, light, striped "
        "(the folders' names, sorted: the file names none; else give --labels)",
    )
    image = torch.randn(1, 3, 64, 48)
    assert torch.equal(module(image), network(image))


def test_without_a_description_the_librarys_own_is_taken_and_said(
    network: Any, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a network of random weights answers at another size is the processor's chance.
    own = lambda trials, usual: next(trial for trial in trials if trial.spec == usual)  # noqa: E731
    monkeypatch.setattr(sizes, "choose", own)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    taken = adopt(tmp_path / "w.pth", data, tmp_path / "run", model="mobilenetv2_035")
    assert taken.preprocess.fit == "center-crop"
    assert taken.preprocess.crop == 0.875
    assert "preprocessing: 224×224, center-crop 0.875, RGB, mean [0.485" in taken.notes[1]
    assert "from timm's pretrained_cfg; size: none of the other sizes tried fits" in taken.notes[1]
    assert taken.test_seen == "may be"
    sized = adopt(tmp_path / "w.pth", data, tmp_path / "sized", model="mobilenetv2_035", size=32, test_seen="no")
    assert (sized.preprocess.height, sized.preprocess.width, sized.test_seen) == (32, 32, "no")
    assert "from --size, the rest from timm's pretrained_cfg" in sized.notes[1]


def test_a_description_may_say_the_order_and_the_colours(network: Any, data: Dataset, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pth")
    words = 'size = [32, 32]\ncolour = "bgr"\nmean = [0.1, 0.2, 0.3]\nstd = [1, 1, 1]\n'
    spec = toml(tmp_path / "pre.toml", words + 'classes = ["light", "striped", "dark"]\n')
    taken = adopt(tmp_path / "w.pth", data, tmp_path / "run", model="mobilenetv2_035", preprocess=spec)
    assert taken.classes == ("light", "striped", "dark")
    assert taken.preprocess.mean == (0.3, 0.2, 0.1)
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(load_module(tmp_path / "run")[1](image), network(image.flip(1)))
    labels = toml(tmp_path / "labels.txt", "dark\nlight\nstriped\n")
    with pytest.raises(UserError, match="another order than classes in --preprocess"):
        adopt(tmp_path / "w.pth", data, tmp_path / "other", model="mobilenetv2_035", preprocess=spec, labels=labels)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('colour = "bgr"', "colour: 'bgr' of an .onnx file: export it with"),
        ('layout = "nhwc"', "layout: 'nhwc', but the file takes 'nchw'"),
        ('dtype = "uint8"', "dtype: 'uint8', but the file takes 'float32'|takes pixels as they are"),
    ],
)
def test_what_an_onnx_file_does_otherwise_is_refused(line: str, message: str, data: Dataset, tmp_path: Path) -> None:
    spec = toml(tmp_path / "pre.toml", f"{GOOD_TOML}{line}\n")
    with pytest.raises(UserError, match=message):
        adopt(classifier(tmp_path / "m.onnx"), data, tmp_path / "run", preprocess=spec)


def test_a_folder_of_something_else_is_kept(data: Dataset, pre: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("x")
    with pytest.raises(UserError, match="was not made by `edgecnn export`"):
        adopt(classifier(tmp_path / "m.onnx"), data, tmp_path / "run", preprocess=pre)
    assert (tmp_path / "run" / "precious").read_text() == "x"


def test_a_folder_of_a_newer_version_is_refused(data: Dataset, pre: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    adopt(classifier(tmp_path / "m.onnx"), data, run, preprocess=pre)
    document = json.loads((run / CHECKPOINT).read_text())
    (run / CHECKPOINT).write_text(json.dumps({**document, "version": 99}))
    with pytest.raises(UserError, match="version 99, this edgecnn reads version"):
        load_module(run)
    assert json.loads((run / ADOPTED).read_text())["identity"]
