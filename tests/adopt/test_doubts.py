"""A network is taken in as others hand it over: right, or wrong in one way that the labelled images give away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgecnn.adopt.folder import adopt
from edgecnn.artifact import load_bundle
from edgecnn.checkpoint import Checkpoint
from edgecnn.data import Dataset, load_folder
from edgecnn.errors import UserError
from tests.adopt.conftest import toml
from tests.adopt.parts import CLASSES, EACH, SPEC, described, train, write_onnx, write_parts
from tests.conftest import call

TARGET = """# edgecnn export net.onnx --target target.toml --out bundle/
name = "onnx"
description = "ONNX alone"
machine = "x86_64"
threads = 1
budget = "30ms@p99"
accuracy_loss_limit = 1.0

[[variants]]
format = "onnx"
precision = "fp32"
runtime = "onnxruntime"
"""
ORDER = [3, 0, 4, 1, 2]
NAMES = [CLASSES[i] for i in ORDER]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parts(tmp_path_factory.mktemp("drawn") / "parts")


@pytest.fixture(scope="module")
def parts(root: Path) -> Dataset:
    return load_folder(root)


@pytest.fixture(scope="module")
def net(root: Path) -> torch.nn.Module:
    return train(root)


def taken(tmp_path: Path, parts: Dataset, path: Path, labels: list[str] | None = None, **says: Any) -> Checkpoint:
    given = toml(tmp_path / "labels.txt", "\n".join(labels)) if labels else None
    return adopt(path, parts, tmp_path / "run", preprocess=described(tmp_path / "pre.toml", **says), labels=given)


def test_a_right_network_is_in_no_doubt_and_says_what_it_assumes(
    net: torch.nn.Module, parts: Dataset, tmp_path: Path
) -> None:
    checkpoint = taken(tmp_path, parts, write_onnx(tmp_path / "m.onnx", net))
    assert checkpoint.doubts == ()
    said = "\n".join(checkpoint.notes)
    assert "classes in the order of its outputs: border, moss, paint, plain, rust (the folders' names, sorted" in said
    assert "preprocessing: 24×24, the whole image, RGB, mean [0.485, 0.456, 0.406]" in said


def tensor(values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


def normalise(x: torch.Tensor) -> torch.Tensor:
    return (x - tensor(SPEC.mean)) / tensor(SPEC.std)


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "class order": (
        {"behind": lambda x: x[:, ORDER]},
        {},
        "class order",
        "(border, moss, paint, plain, rust assumed, where the labels need plain, border, rust, moss, paint)",
    ),
    "trained on BGR": (
        {
            "before": lambda x: (
                ((x * tensor(SPEC.std) + tensor(SPEC.mean)).flip(1) - tensor(SPEC.mean)) / tensor(SPEC.std)
            )
        },
        {},
        "colour order",
        "(RGB assumed, where the labels need BGR)",
    ),
    "it normalises pixels 0 to 255 itself": (
        {"before": lambda x: normalise(x / 255)},
        {},
        "normalisation",
        "where the labels need pixels 0 to 255, no mean and std",
    ),
    "pixels 0 to 255": (
        {},
        {"mean": [0.0] * 3, "std": [1 / 255] * 3},
        "normalisation",
        "(pixels 0 to 255, no mean assumed, where the labels need ImageNet's mean and std)",
    ),
    "centre crop": ({}, {"fit": "center-crop"}, "fit", "(center-crop of 1 assumed, where the labels need stretch)"),
}


@pytest.mark.parametrize("way", WRONG)
def test_a_network_that_is_wrong_in_one_way_is_in_doubt_for_just_that(
    way: str, net: torch.nn.Module, parts: Dataset, tmp_path: Path
) -> None:
    built, says, stage, words = WRONG[way]
    checkpoint = taken(tmp_path, parts, write_onnx(tmp_path / "m.onnx", net, **built), **says)
    assert [doubt.stage for doubt in checkpoint.doubts] == [stage]
    line = checkpoint.doubts[0].words
    assert words in line
    assert "100.0% then" in line
    assert "\n" not in line


def test_a_range_from_minus_one_to_one_inside(net: torch.nn.Module, parts: Dataset, tmp_path: Path) -> None:
    """The file turns 0 to 1 into -1 to 1 itself, which its network was trained on."""

    def inside(x: torch.Tensor) -> torch.Tensor:
        half = x * 2 - 1
        return normalise((half + 1) / 2)  # …as the network here knows it

    path = write_onnx(tmp_path / "m.onnx", net, before=inside)
    doubts = taken(tmp_path, parts, path, mean=[0.0] * 3, std=[0.00392157] * 3).doubts
    assert [doubt.stage for doubt in doubts] == ["normalisation"]
    assert "where the labels need pixels 0 to 1, no mean and std" in doubts[0].words
    assert taken(tmp_path, parts, path, mean=[0.0] * 3, std=[1.0] * 3).doubts == ()


ENDS: dict[str, tuple[Callable[[Any], Any], str | None]] = {
    "log-softmax": (lambda x: x.log_softmax(1), "ends in log_softmax"),
    "softmax twice": (lambda x: x.softmax(1).softmax(1), "ends in softmax and softmax"),
    "sigmoid": (lambda x: x.sigmoid(), "ends in sigmoid"),
    "scaled and shifted": (lambda x: 3 * x - 7, None),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_is_done_to_the_logits_is_taken_off_and_raises_no_doubt(
    end: str, net: torch.nn.Module, parts: Dataset, tmp_path: Path
) -> None:
    does, words = ENDS[end]
    checkpoint = taken(tmp_path, parts, write_onnx(tmp_path / "m.onnx", net, behind=does))
    assert checkpoint.doubts == ()
    assert words is None or any(note.startswith(words) for note in checkpoint.notes)


def test_its_own_names_are_used_and_labels_outdo_them(net: torch.nn.Module, parts: Dataset, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", net, behind=lambda x: x[:, ORDER], names=dict(enumerate(NAMES)))
    checkpoint = taken(tmp_path, parts, path)
    assert (checkpoint.classes, checkpoint.doubts, checkpoint.metrics.val_top1) == (tuple(NAMES), (), 1.0)
    assert "(by its own 'names')" in "\n".join(checkpoint.notes)
    other = taken(tmp_path, parts, path, list(CLASSES))
    assert "--labels, though the file itself says another order" in "\n".join(other.notes)
    assert [doubt.stage for doubt in other.doubts] == ["class order"]


def test_names_that_only_count_are_none(net: torch.nn.Module, parts: Dataset, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", net, names={i: str(i) for i in range(5)})
    assert taken(tmp_path, parts, path).classes == CLASSES


def test_names_of_other_classes_are_refused(net: torch.nn.Module, parts: Dataset, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", net, names={0: "cat", 1: "dog", 2: "cow", 3: "owl", 4: "ant"})
    with pytest.raises(UserError, match="border/ is not among the 5 names in its 'names' .*or give --labels FILE"):
        taken(tmp_path, parts, path)


def test_numbered_folders_ask_for_labels(net: torch.nn.Module, root: Path, tmp_path: Path) -> None:
    numbered = tmp_path / "numbered"
    for name, number in zip(CLASSES, (1, 2, 9, 10, 11), strict=True):
        (numbered / str(number)).mkdir(parents=True)
        for path in (root / name).iterdir():
            (numbered / str(number) / path.name).write_bytes(path.read_bytes())
    parts = load_folder(numbered)
    assert parts.classes == ("1", "10", "11", "2", "9")
    path = write_onnx(tmp_path / "m.onnx", net)
    with pytest.raises(UserError, match=r"two usual orders: 1, 2, … \(timm's\) or 1, 10, … .*give --labels FILE"):
        taken(tmp_path, parts, path)
    checkpoint = taken(tmp_path, parts, path, ["1", "2", "9", "10", "11"])
    assert (checkpoint.metrics.val_top1, checkpoint.doubts) == (1.0, ())
    wrong = taken(tmp_path, parts, path, ["1", "10", "11", "2", "9"]).doubts
    assert "sorted by number" in wrong[0].words


def test_a_network_that_always_answers_the_same_is_in_doubt(
    net: torch.nn.Module, parts: Dataset, tmp_path: Path
) -> None:
    path = write_onnx(tmp_path / "m.onnx", net, behind=lambda x: 0 * x + torch.tensor([0.0, 0, 1, 0, 0]))
    doubts = taken(tmp_path, parts, path).doubts
    assert [doubt.stage for doubt in doubts] == ["answers"]
    assert f"20.0% of {5 * EACH} labelled images right" in doubts[0].words


def test_the_bundle_carries_the_doubt_and_every_verb_ends_with_1(
    net: torch.nn.Module,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    toml(tmp_path / "target.toml", TARGET)
    described(tmp_path / "pre.toml")
    says = ("--data", root, "--preprocess", "pre.toml", "--target", "target.toml")
    for name, order, code in (("right", [0, 1, 2, 3, 4], 0), ("wrong", ORDER, 1)):
        path = write_onnx(tmp_path / f"{name}.onnx", net, behind=lambda x, order=order: x[:, order])
        assert call("export", path, *says, "--out", name) == code
        assert ("WARNING: the network does not fit" in capsys.readouterr().err) == bool(code)
        assert call("export", path, *says, "--out", name) == code  # already done, and still in doubt
        assert call("verify", name, "--data", root) == code
        bundle = load_bundle(tmp_path / name)
        assert [doubt.stage for doubt in bundle.doubts] == ["class order"] * code
        assert any("classes in the order of its outputs" in note for note in bundle.notes)
        capsys.readouterr()
        assert call("export", path, *says, "--out", name, "--json") == code
        assert len(json.loads(capsys.readouterr().out)["doubts"]) == code
