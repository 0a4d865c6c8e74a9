"""Somebody's model file with a mistake in it or in how it is fed: the diagnosis names the stage."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn.blame.foreign import ForeignReport, diagnose
from edgecnn.errors import UserError
from tests.blame.conftest import CLASSES, RIGHT, SIDE, SPEC, Made, network, settle, write_int8

PILLOW = {"resize": "bilinear", "antialias": True, "decode": "whole"}
"""What most people write: the whole image, Pillow's resize."""
PLANTED: dict[str, tuple[dict[str, Any], str]] = {
    "BGR": ({"colour": "bgr"}, "colour order"),
    "linear resize": ({"resize": "opencv-linear", "antialias": None, "decode": "whole"}, "resize filter"),
    "no antialias": ({"resize": "bilinear", "antialias": False, "decode": "whole"}, "antialias"),
    "wrong mean": ({"mean": [0.5] * 3, "std": [0.5] * 3}, "normalisation"),
    "NCHW fed as NHWC": ({"layout": "nhwc"}, "layout"),
    "centre crop": ({"fit": "center-crop"}, "fit"),
}
Write = Callable[..., Path]


def found(made: Made, model: Path, description: Path, **options: Any) -> ForeignReport:
    return diagnose(made.folder, made.data, model, description, **options)


def module(function: Callable[[Any], Any]) -> Any:
    from torch import nn

    class Step(nn.Module):
        def forward(self, x: Any) -> Any:
            return function(x)

    return Step()


def test_the_right_description_matches(made: Made, foreign: Write, described: Write) -> None:
    diagnosis = found(made, foreign(), described())
    assert diagnosis.matches
    assert diagnosis.as_described.error < 1e-5
    assert diagnosis.verdict.startswith("matches the checkpoint")
    assert diagnosis.first is None


@pytest.mark.parametrize("base", [{}, PILLOW], ids=["our resize", "Pillow's"])
@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_mistake_is_named(
    planted: str, base: dict[str, Any], made: Made, foreign: Write, described: Write
) -> None:
    changes, stage = PLANTED[planted]
    diagnosis = found(made, foreign(), described(**{**base, **changes}))
    assert not diagnosis.matches
    assert diagnosis.first == stage
    assert diagnosis.cured_by == (stage,)
    assert f"first stage that differs: {stage} (" in diagnosis.verdict
    assert [step.stage for step in diagnosis.steps if step.to_blame] == [stage]
    step = next(step for step in diagnosis.steps if step.to_blame)
    assert step.put_right.mean_error < diagnosis.as_described.mean_error / 3
    assert diagnosis.at_best is not None
    assert diagnosis.at_best.error < 1e-5


def test_two_mistakes_are_both_named_the_earlier_first(made: Made, foreign: Write, described: Write) -> None:
    diagnosis = found(made, foreign(), described(colour="bgr", fit="center-crop", **PILLOW))
    assert diagnosis.first == "colour order"
    assert [step.stage for step in diagnosis.steps if step.to_blame] == ["colour order", "fit"]
    assert diagnosis.cured_by == ("colour order", "fit")
    assert "also fit" in diagnosis.verdict


def test_means_that_follow_their_channel_are_not_a_second_mistake(made: Made, foreign: Write, described: Write) -> None:
    changes = {"colour": "bgr", "mean": list(SPEC.mean[::-1]), "std": list(SPEC.std[::-1])}
    diagnosis = found(made, foreign(), described(**changes))
    assert [step.stage for step in diagnosis.steps] == ["colour order"]
    assert diagnosis.steps[0].put_right.error < 1e-5


def test_without_explain_it_only_says_that_it_differs(made: Made, foreign: Write, described: Write) -> None:
    diagnosis = found(made, foreign(), described(colour="bgr"), explain=False)
    assert not diagnosis.matches
    assert diagnosis.first is None
    assert "--explain says why" in diagnosis.verdict


def test_a_tolerance_of_the_users_own(made: Made, foreign: Write, described: Write) -> None:
    """Pillow's resize of the whole image is no mistake, and differs by more than the bundle allows."""
    assert found(made, foreign(), described(**PILLOW)).first == "decode"
    assert found(made, foreign(), described(**PILLOW), tolerance=0.5).matches


def test_a_file_that_wants_bgr(made: Made, foreign: Write, described: Write) -> None:
    """The swap is inside: BGR with means that follow is right, RGB is the mistake."""
    model = foreign("swaps", before=module(lambda x: x.flip(1)))
    numbers = {"mean": list(SPEC.mean[::-1]), "std": list(SPEC.std[::-1])}
    assert found(made, model, described(colour="bgr", **numbers)).matches
    diagnosis = found(made, model, described())
    assert diagnosis.first == "colour order"
    assert diagnosis.steps[0].needed == "BGR"


def normalising(made: Made, foreign: Write, name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> Path:
    import torch

    m, s = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    return foreign(name, before=module(lambda x: (x / 255 - m) / s))


def test_a_file_that_normalises_itself(made: Made, foreign: Write, described: Write) -> None:
    model = normalising(made, foreign, "normalises", SPEC.mean, SPEC.std)
    raw = {"scale": "1", "mean": [0, 0, 0], "std": [1, 1, 1]}
    assert found(made, model, described(**raw)).matches
    twice = found(made, model, described())
    assert twice.first == "normalisation"
    assert "it normalises itself" in str(twice.takes)


def test_a_file_that_normalises_wrongly(made: Made, foreign: Write, described: Write) -> None:
    model = normalising(made, foreign, "wrongly", (0.5,) * 3, (0.5,) * 3)
    diagnosis = found(made, model, described(scale="1", mean=[0, 0, 0], std=[1, 1, 1]))
    assert diagnosis.first == "normalisation"
    assert diagnosis.at_best is not None
    assert diagnosis.at_best.error < 1e-4


def test_a_softmax_in_the_file(made: Made, foreign: Write, described: Write) -> None:
    model = foreign("softmax", behind=module(lambda x: x.softmax(1)))
    assert found(made, model, described(output="softmax")).matches
    diagnosis = found(made, model, described())
    assert diagnosis.first == "output"
    assert "ends in a softmax" in diagnosis.verdict


OUTPUTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "log-softmax": (lambda x: x.log_softmax(1), "ends in a log-softmax, described is logits"),
    "softmax twice": (lambda x: x.softmax(1).softmax(1), "ends in two softmaxes, one after the other"),
    "sigmoid": (lambda x: x.sigmoid(), "ends in a sigmoid"),
    "scaled": (lambda x: 0.5 * x, "takes 0.5 × the checkpoint's logits"),
    "scaled and shifted": (lambda x: 3 * x - 7, "takes 3 × the checkpoint's logits − 7"),
    "temperature": (lambda x: (x / 4).softmax(1), "takes 0.25 × the checkpoint's logits and ends in a softmax"),
    "temperature, log": (lambda x: (2 * x).log_softmax(1), "takes 2 × the checkpoint's logits and ends in a log-soft"),
    "scaled sigmoid": (lambda x: (x * 0.5 + 1).sigmoid(), "takes 0.5 × the checkpoint's logits + 1 and ends in a sig"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_is_done_to_the_logits_is_named(name: str, made: Made, foreign: Write, described: Write) -> None:
    does, words = OUTPUTS[name]
    model = foreign(name.replace(" ", "-"), behind=module(does))
    diagnosis = found(made, model, described())
    assert diagnosis.first == "output"
    assert words in diagnosis.verdict
    assert "also" not in diagnosis.verdict
    assert found(made, model, described(colour="bgr")).first == "colour order"


def test_an_output_that_is_described_matches(made: Made, foreign: Write, described: Write) -> None:
    for kind, name in (("log-softmax", "log-softmax"), ("sigmoid", "sigmoid")):
        model = foreign(name, behind=module(OUTPUTS[name][0]))
        assert found(made, model, described(output=kind)).matches


def test_another_order_of_scaled_logits(made: Made, foreign: Write, described: Write) -> None:
    model = foreign("both", behind=module(lambda x: 0.2 * x[:, [2, 0, 3, 1]]))
    diagnosis = found(made, model, described())
    assert diagnosis.first == "class order"
    assert "takes 0.2 × the checkpoint's logits" in diagnosis.verdict


@pytest.mark.parametrize("pixels", ["float", "uint8"])
def test_the_range_from_minus_one_to_one_inside_the_file(
    pixels: str, made: Made, foreign: Write, described: Write
) -> None:
    """uint8 pixels cannot be changed so that the file gives what the checkpoint does: the mistake itself is made."""
    if pixels == "float":
        model = foreign("range", before=module(lambda x: x * 2 - 1))
        diagnosis = found(made, model, described(scale="1/255", mean=[0, 0, 0], std=[1, 1, 1]))
        assert "undone: it does that itself" in str(diagnosis.takes)
    else:
        model = foreign("range8", before=module(lambda x: x.float() / 127.5 - 1), uint8=True)
        diagnosis = found(made, model, described(dtype="uint8", scale=None, mean=None, std=None))
        assert "inside the file: mean 0.5, std 0.5, where the checkpoint's is" in diagnosis.verdict
    assert diagnosis.first == "normalisation"
    assert "\n" not in diagnosis.verdict


def test_classes_in_another_order(made: Made, foreign: Write, described: Write) -> None:
    order = [2, 0, 3, 1]
    model = foreign("order", behind=module(lambda x: x[:, order]))
    names = [CLASSES[i] for i in order]
    assert found(made, model, described(classes=names)).matches
    diagnosis = found(made, model, described())
    assert diagnosis.first == "class order"
    assert ", ".join(names) in diagnosis.verdict
    assert found(made, model, described(colour="bgr")).first == "colour order"


def test_names_inside_the_file_say_the_order(made: Made, foreign: Write, described: Write) -> None:
    import onnx

    order = [2, 0, 3, 1]
    model = foreign("named", behind=module(lambda x: x[:, order]))
    file = onnx.load(model)
    onnx.helper.set_model_props(file, {"names": str({i: CLASSES[column] for i, column in enumerate(order)})})
    onnx.save(file, model)
    report = found(made, model, described())
    assert report.matches
    assert report.remarks == ("classes in the order of the file's own 'names'",)
    assert found(made, model, described(classes=list(CLASSES))).first == "class order"


def test_other_weights(made: Made, foreign: Write, described: Write) -> None:
    import torch

    from edgecnn.parity import prepare_files

    torch.manual_seed(9)
    net = network()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    other = settle(net, prepare_files(made.paths, SPEC))
    diagnosis = found(made, foreign("other", net=other), described())
    assert diagnosis.first == "weights"
    assert "no known preprocessing" in diagnosis.verdict


def test_nearly_the_same_weights(made: Made, foreign: Write, described: Write) -> None:
    import copy

    import torch

    torch.manual_seed(4)
    near = copy.deepcopy(made.net)
    with torch.no_grad():
        near[-1].weight += 0.008 * torch.randn_like(near[-1].weight)
    diagnosis = found(made, foreign("near", net=near), described())
    assert diagnosis.first == "weights"
    assert "close to the checkpoint" in diagnosis.verdict


def test_an_int8_file_is_told_from_a_wrong_one(made: Made, described: Write, tmp_path: Path) -> None:
    from edgecnn.parity import prepare_files

    model = tmp_path / "int8.onnx"
    write_int8(made.folder / "onnx-fp32" / "model.onnx", model, prepare_files(made.paths[:16], SPEC))
    ours = {"layout": "nhwc", "dtype": "uint8", "scale": None, "mean": None, "std": None}
    diagnosis = found(made, model, described(**ours))
    assert diagnosis.first == "precision"
    assert "int8 operations" in diagnosis.verdict
    both = found(made, model, described(**{**ours, "colour": "bgr"}))
    assert both.first == "colour order"
    assert "also precision" in both.verdict


def test_a_file_in_training_mode(made: Made, described: Write, tmp_path: Path) -> None:
    import torch

    path = tmp_path / "training.pt"
    dropping = torch.nn.Sequential(module(lambda x: torch.nn.functional.dropout(x, 0.9, training=True)), made.net)
    save_torchscript(dropping, path)
    diagnosis = found(made, path, described())
    assert diagnosis.first == "export"
    assert "training mode" in diagnosis.verdict


def save_torchscript(net: Any, path: Path) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(net, torch.zeros(1, 3, SIDE, SIDE), check_trace=False).save(str(path))


def test_torchscript(made: Made, described: Write, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    save_torchscript(made.net, path)
    assert found(made, path, described()).matches
    assert found(made, path, described(layout="nhwc")).first == "layout"
    assert found(made, path, described(colour="bgr")).first == "colour order"


def test_openvino(made: Made, foreign: Write, described: Write, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    path = tmp_path / "net.xml"
    openvino.save_model(openvino.convert_model(foreign()), path, compress_to_fp16=False)
    assert found(made, path, described()).matches
    assert found(made, path, described(colour="bgr")).first == "colour order"
    half = tmp_path / "half.xml"
    openvino.save_model(openvino.convert_model(foreign()), half)
    diagnosis = found(made, half, described(), tolerance=1e-6)
    assert diagnosis.first == "precision"
    assert "fp16" in diagnosis.verdict


def convert_by_litert(net: Any, path: Path) -> None:
    """In a process of its own: litert-torch imports jax, which warns of every later fork."""
    import torch

    weights = path.with_suffix(".weights")
    torch.save(net.state_dict(), weights)
    code = (
        "import litert_torch, torch; from tests.blame.conftest import SIDE, network; net = network(); "
        f"net.load_state_dict(torch.load({str(weights)!r}, weights_only=True)); "
        f"litert_torch.convert(net.eval(), (torch.zeros(1, 3, SIDE, SIDE),)).export({str(path)!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=Path(__file__).parents[2])


def test_litert(made: Made, described: Write, tmp_path: Path) -> None:
    if importlib.util.find_spec("litert_torch") is None:
        pytest.skip("litert-torch is not installed")
    path = tmp_path / "net.tflite"
    convert_by_litert(made.net, path)
    assert found(made, path, described()).matches
    assert found(made, path, described(colour="bgr")).first == "colour order"
    assert found(made, path, described(layout="nhwc")).first == "layout"


# What is refused, each in one line


def refused(made: Made, model: Path, description: Path) -> str:
    with pytest.raises(UserError) as caught:
        found(made, model, description)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_a_file_for_another_size(made: Made, foreign: Write, described: Write) -> None:
    assert f"takes [{SIDE}, {SIDE}]" in refused(made, foreign(), described(size=[48, 48]))


def test_a_file_of_another_network(made: Made, foreign: Write, described: Write) -> None:
    model = foreign("more", behind=module(lambda x: x.repeat(1, 2)))
    assert "answers with 8 numbers, the checkpoint has 4 classes" in refused(made, model, described())


def test_classes_that_the_bundle_has_not(made: Made, foreign: Write, described: Write) -> None:
    assert "the bundle has crack, dent, good, stain" in refused(made, foreign(), described(classes=["a", "b"]))


def test_a_file_that_no_engine_opens(made: Made, described: Write, tmp_path: Path) -> None:
    (tmp_path / "net.h5").write_bytes(b"x")
    assert ".onnx" in refused(made, tmp_path / "net.h5", described())
    (tmp_path / "net.onnx").write_bytes(b"x")
    assert "ONNX Runtime cannot open it" in refused(made, tmp_path / "net.onnx", described())
    assert "no such file" in refused(made, tmp_path / "none.onnx", described())


def test_a_type_that_the_file_does_not_take(made: Made, foreign: Write, described: Write) -> None:
    line = refused(made, foreign(), described(dtype="uint8", scale=None, mean=None, std=None))
    assert "it takes float32, described is uint8" in line


def test_images_that_are_not_there(made: Made, foreign: Write, described: Write, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="24 of the 24 test images are not there"):
        diagnose(made.folder, tmp_path / "empty", foreign(), described())


def test_the_description_that_the_others_change_is_complete() -> None:
    assert set(RIGHT) >= {"size", "colour", "resize", "fit", "layout", "dtype", "output"}
    assert np.isfinite(SPEC.mean).all()
