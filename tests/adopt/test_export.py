"""`edgecnn export` of somebody else's file: every mistake is one line and leaves nothing behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgecnn.checkpoint import CHECKPOINT
from tests.adopt.conftest import GOOD_TOML, toml
from tests.conftest import call
from tests.onnx_graph.files import classifier, written
from tests.onnx_graph.test_network import BAD_ONNX
from tests.training import write_images


def pickled(path: Path) -> Path:
    torch.save(torch.nn.Linear(2, 2), path)
    return path


def torchscript(path: Path) -> Path:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(path)
    return path


def exported(path: Path) -> Path:
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), path)
    return path


def misnamed_program(path: Path) -> Path:
    exported(path.with_suffix(".pt2")).rename(path)
    return path


def of_another_network(path: Path) -> Path:
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 3)).state_dict(), path)
    return path


def saved_model(path: Path) -> Path:
    path.mkdir()
    (path / "saved_model.pb").write_bytes(b"x")
    return path


def weights_in_a_folder(path: Path) -> Path:
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"x")
    return path


MODEL = ("--model", "timm:mobilenetv2_035")
PRE = ("--preprocess", "pre.toml")
BAD_CALLS: dict[str, tuple[str, Callable[[Path], Path], tuple[str, ...], str]] = {
    "pickled module": ("w.pt", pickled, MODEL, "not only tensors: refused. Save its state_dict"),
    "torchscript": ("w.pt", torchscript, MODEL, "a TorchScript program, not tensors: save its state_dict"),
    "torch.export": ("w.pt2", exported, MODEL, "a torch.export program"),
    "torch.export, misnamed": ("w.pt", misnamed_program, MODEL, "a torch.export program"),
    "no weights": ("w.pth", written(b"hello"), MODEL, "not a readable PyTorch file"),
    "another network": ("w.pth", of_another_network, MODEL, "no head in it|tensors fit"),
    "no model named": ("w.pth", of_another_network, (), "which network are these weights of? give --model"),
    "another ending": ("w.h5", written(b"x"), MODEL, "ending: '.h5' is not one of .onnx"),
    "a key of an .onnx file": ("m.onnx", classifier, (*PRE, "--weights-key", "ema"), "leave --weights-key"),
    "SavedModel": ("saved", saved_model, PRE, "a TensorFlow SavedModel: write an .onnx file of it (python -m tf2onnx"),
    "a folder of weights": ("hub", weights_in_a_folder, MODEL, "give the file in it, such as "),
    "Keras": ("w.h5", written(b"\x89HDF\r\n\x1a\n"), MODEL, "is an HDF5 file, as Keras writes it: write an .onnx"),
    "no such file": ("absent.onnx", lambda path: path, PRE, "no such file or folder"),
    "onnx with a model": ("m.onnx", classifier, MODEL, "an .onnx file has its own network: leave --model"),
    "no preprocessing": ("m.onnx", classifier, (), "preprocessing: mean: is missing; std: is missing"),
    "no such description": ("m.onnx", classifier, ("--preprocess", "absent.toml"), "absent.toml: no such file"),
    "wrong class count": (
        "m.onnx", lambda path: classifier(path, outputs=7), PRE,
        "has 7 outputs, parts has 3 classes (dark, light, striped): give"
    ),
    "wrong label count": (
        "m.onnx", classifier, (*PRE, "--labels", "two.txt"), "has 3 outputs, but there are 2 labels"
    ),
    "unknown folder": (
        "m.onnx", classifier, (*PRE, "--labels", "other.txt"), "class folder dark/ is not among the 3 labels"
    ),
    "no such test images": ("m.onnx", classifier, (*PRE, "--test", "absent"), "absent: no such folder"),
    "test images that were trained on": (
        "m.onnx", classifier, (*PRE, "--test", "parts"), "parts: 15 of its 15 images are in parts too (such as"
    ),
    "another size than the file's": ("m.onnx", classifier, (*PRE, "--size", "77"), "size: 77×77, but the file takes"),
    "data missing": ("m.onnx", classifier, (*PRE, "--data", "absent"), "absent: no such folder"),
    **{f"onnx: {name}": ("m.onnx", make, PRE, message) for name, (make, message) in BAD_ONNX.items()},
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_images(folder / "parts", (5, 5, 5))
    toml(folder / "pre.toml", GOOD_TOML)
    toml(folder / "two.txt", "dark\nlight\n")
    toml(folder / "other.txt", "a\nlight\nstriped\n")
    return folder


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_mistake_is_one_line_and_leaves_nothing(
    name: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, make, words, message = BAD_CALLS[name]
    source = make(tmp_path / file)
    monkeypatch.chdir(place)
    given = words if "--data" in words else ("--data", "parts", *words)
    out = tmp_path / "out" / "bundle"
    assert call("export", source, *given, "--out", out) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("edgecnn: ")
    assert re.search(
        message if "\\" in message or "|" in message or ".*" in message else re.escape(message), error
    ) or ("has 7 outputs" in error)
    assert not (tmp_path / "out").exists()


def test_data_must_be_given_with_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("export", classifier(tmp_path / "m.onnx"), "--out", tmp_path / "b") == 2
    assert "--data is missing" in capsys.readouterr().err


def test_a_folder_without_a_run_is_told_as_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("export", tmp_path, "--out", tmp_path / "b", "--model", "x")
    assert call(*words) == 2
    why = "holds no run of `edgecnn finetune` (no checkpoint.json there): give"
    assert f"{why} a folder that `edgecnn finetune --out` wrote" in capsys.readouterr().err
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / CHECKPOINT).write_text("{}")
    assert call(*words) == 2
    assert f"{why} the run in it, {tmp_path / 'train'}" in capsys.readouterr().err


def test_a_run_folder_takes_no_description(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / CHECKPOINT).write_text("{}")
    assert call("export", tmp_path, "--out", tmp_path / "b", "--labels", "y", "--size", 96, "--test", "z") == 2
    assert "a run folder has its own: leave --labels, --size, --test out" in capsys.readouterr().err
