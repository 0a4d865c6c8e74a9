"""Weights as training scripts leave them: wrapped, averaged, prefixed, cut into parts, damaged, or something else."""

from __future__ import annotations

import argparse
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from edgecnn.errors import UserError
from edgecnn.models import build, head_of
from edgecnn.models.held import held_in
from edgecnn.models.weights_file import read_file

State = dict[str, Tensor]


def tiny() -> nn.Module:
    """The smallest network that is known by name."""
    return build(NAME, 3, "none").module.eval()


NAME = "timm:mobilenetv2_035"


@pytest.fixture(scope="module")
def raw() -> State:
    torch.manual_seed(1)
    return tiny().state_dict()


@pytest.fixture(scope="module")
def mean(raw: State) -> State:
    """Its averaged weights."""
    return {name: tensor * 0.5 if tensor.is_floating_point() else tensor for name, tensor in raw.items()}


def saved(held: Any, path: Path) -> Path:
    torch.save(held, path)
    return path


def taken(path: Path, **options: Any) -> tuple[float, tuple[str, ...]]:
    """First weight of the head after loading, as a share of the raw one's, and what was said."""
    built = build(NAME, 3, path, keep_head=True, **options)
    return built.module.state_dict()["classifier.weight"][0, 0].item(), built.remarks


def prefixed(state: State, before: str) -> State:
    return {before + name: tensor for name, tensor in state.items()}


AVERAGED: dict[str, tuple[Callable[[State, State], Any], str]] = {
    "timm": (lambda raw, ema: {"state_dict": raw, "state_dict_ema": ema, "epoch": 3}, "state_dict_ema"),
    "torchvision": (
        lambda raw, ema: {"model": raw, "model_ema": {**prefixed(ema, "module."), "n_averaged": torch.tensor(9)}},
        "model_ema",
    ),
    "ema": (
        lambda raw, ema: {"model": raw, "ema": {"module": ema, "decay": 0.99}, "optimizer": {"a": raw}},
        "ema.module",
    ),
    "n_averaged": (
        lambda raw, ema: {"net": raw, "second": {**prefixed(ema, "module."), "n_averaged": torch.tensor(9)}},
        "second",
    ),
    "lightning, one dictionary": (
        lambda raw, ema: {"state_dict": prefixed(raw, "net.") | prefixed(ema, "ema_net.")},
        "state_dict.ema_net",
    ),
    "lightning, WeightAveraging": (
        lambda raw, ema: {"state_dict": prefixed(ema, "model."), "current_model_state": prefixed(raw, "model.")},
        "state_dict.model",
    ),
    "nested": (lambda raw, ema: {"a": {"b": {"model": raw, "swa_model": ema}}}, "a.b.swa_model"),
}


@pytest.mark.parametrize("name", AVERAGED)
def test_averaged_weights_are_taken_and_that_is_said(name: str, raw: State, mean: State, tmp_path: Path) -> None:
    make, label = AVERAGED[name]
    path = saved(make(raw, mean), tmp_path / "w.pth")
    first, remarks = taken(path)
    assert first == mean["classifier.weight"][0, 0]
    assert f"its averaged weights ({label}) are taken, not the plain ones beside them" in remarks[0]


@pytest.mark.parametrize("name", AVERAGED)
def test_the_key_chooses(name: str, raw: State, mean: State, tmp_path: Path) -> None:
    make, label = AVERAGED[name]
    path = saved(make(raw, mean), tmp_path / "w.pth")
    assert taken(path, weights_key=label)[0] == mean["classifier.weight"][0, 0]
    with pytest.raises(UserError, match="--weights-key 'nothing' is not in it; there are: ") as caught:
        taken(path, weights_key="nothing")
    plain = [one.strip() for one in str(caught.value).partition("there are: ")[2].split(",")]
    assert label in plain
    others = [one for one in plain if taken_or_none(path, one) == raw["classifier.weight"][0, 0]]
    assert others


def taken_or_none(path: Path, key: str) -> float | None:
    try:
        return taken(path, weights_key=key)[0]
    except UserError:
        return None


def test_averaged_weights_that_are_not_whole_are_not_taken(raw: State, mean: State, tmp_path: Path) -> None:
    broken = {**mean, "conv_stem.weight": mean["conv_stem.weight"] * float("nan")}
    partial = {name: tensor for name, tensor in mean.items() if "running" not in name}
    for ema, fault in ((broken, "conv_stem.weight is not finite"), (partial, "tensors short")):
        path = saved({"model": raw, "model_ema": ema}, tmp_path / "w.pth")
        first, remarks = taken(path)
        assert first == raw["classifier.weight"][0, 0]
        assert "the averaged ones (model_ema) are not whole" in remarks[0]
        assert fault in remarks[0]
    never = {**prefixed(raw, "module."), "n_averaged": torch.tensor(0)}
    assert taken(saved({"model": mean, "model_ema": never}, tmp_path / "w.pth"))[0] == mean["classifier.weight"][0, 0]


def test_two_sets_that_are_both_plain_ask_for_the_key(raw: State, mean: State, tmp_path: Path) -> None:
    path = saved({"student": raw, "teacher": mean}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"2 sets .* \(student, teacher\): choose with --weights-key"):
        taken(path)
    assert taken(path, weights_key="teacher")[0] == mean["classifier.weight"][0, 0]
    assert taken(saved({"last": raw, "best": raw}, tmp_path / "same.pth"))[0] == raw["classifier.weight"][0, 0]


def test_torchs_own_average_is_known(tmp_path: Path) -> None:
    average = AveragedModel(tiny())
    average.update_parameters(tiny())
    built = build(NAME, 3, saved(average.state_dict(), tmp_path / "w.pth"), keep_head=True)
    assert "averaged weights" in built.remarks[0]
    assert torch.equal(built.module.state_dict()["conv_head.weight"], average.module.state_dict()["conv_head.weight"])


WRAPPERS = st.lists(
    st.sampled_from(("module", "model", "net", "network", "backbone", "encoder", "_orig_mod", "my_own", "0")),
    max_size=4,
)
NESTS = st.lists(st.sampled_from(("state_dict", "model", "checkpoint", "weights", "a.b")), max_size=4)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=WRAPPERS, head_before=WRAPPERS, nest=NESTS, inside=st.booleans(), head_inside=st.booleans())
def test_any_nesting_and_any_prefixes(
    before: list[str],
    head_before: list[str],
    nest: list[str],
    inside: bool,
    head_inside: bool,
    raw: State,
    tmp_path: Path,
) -> None:
    def named(name: str) -> str:
        ours = name.startswith("classifier.")
        words = before if inside or not ours else head_before
        name = name.replace("classifier.", "fc.") if ours and head_inside and not inside else name
        name = name.replace("blocks.", "blocks._orig_mod.") if len(before) == 2 else name
        return ".".join([*words, name])

    held: Any = {named(name): tensor for name, tensor in raw.items()}
    for word in nest:
        held = {word: held, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3, 3)}}}}
    built = build(NAME, 3, saved(held, tmp_path / "w.pth"), keep_head=True)
    assert all(
        torch.equal(tensor, raw[name]) for name, tensor in built.module.state_dict().items() if "num_" not in name
    )


@given(
    st.recursive(
        st.one_of(st.none(), st.integers(), st.text(max_size=3)),
        lambda inner: st.dictionaries(st.text(max_size=3), inner),
    )
)
def test_whatever_a_file_holds_is_looked_through(held: Any) -> None:
    file = held_in({"top": held, "w": torch.zeros(2)})
    assert [one.key for one in file.sets] == [""]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("ending", [".pth", ".CKPT", ".bin", ".PTH.TAR", ".Safetensors"])
def test_other_precisions_and_endings_are_taken(kind: torch.dtype, ending: str, raw: State, tmp_path: Path) -> None:
    state = {name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in raw.items()}
    path = tmp_path / f"w{ending}"
    if ending == ".Safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    built = build(NAME, 3, path, keep_head=True)
    assert {parameter.dtype for parameter in built.module.parameters()} == {torch.float32}
    torch.testing.assert_close(
        built.module.state_dict()["classifier.weight"], raw["classifier.weight"], atol=1e-3, rtol=1e-2
    )


def test_the_reader_goes_by_what_a_file_is(raw: State, tmp_path: Path) -> None:
    safetensors.torch.save_file(raw, tmp_path / "w.pth")
    torch.save(raw, tmp_path / "w.safetensors")
    torch.save(raw, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("w.pth", "w.safetensors", "old.pt"):
        assert taken(tmp_path / name)[0] == raw["classifier.weight"][0, 0]


def test_weights_in_parts_are_put_together(raw: State, tmp_path: Path) -> None:
    names = list(raw)
    files = {f"model-0000{number}-of-00002.safetensors": names[number - 1 :: 2] for number in (1, 2)}
    for file, part in files.items():
        safetensors.torch.save_file({name: raw[name] for name in part}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, part in files.items() for name in part}}))
    built = build(NAME, 3, index, keep_head=True)
    assert torch.equal(built.module.state_dict()["conv_head.weight"], raw["conv_head.weight"])
    with pytest.raises(UserError, match=r"one of 2 parts: give the \.index\.json"):
        build(NAME, 3, tmp_path / next(iter(files)))
    (tmp_path / next(iter(files))).unlink()
    with pytest.raises(UserError, match="weights that model.safetensors.index.json lists: copy it too"):
        build(NAME, 3, index)


NOT_FINITE: dict[str, Callable[[State], State]] = {
    "a weight": lambda state: {**state, "conv_stem.weight": torch.full_like(state["conv_stem.weight"], torch.nan)},
    "half": lambda state: {k: (v * 1e9).half() if v.is_floating_point() else v for k, v in state.items()},
    "the head": lambda state: {**state, "classifier.bias": torch.tensor([0.0, torch.inf, 0.0])},
    "statistics": lambda state: {**state, "bn1.running_var": torch.full_like(state["bn1.running_var"], torch.inf)},
    "too large for float32": lambda state: {**state, "bn1.bias": state["bn1.bias"].double() + 1e300},
}


@pytest.mark.parametrize("name", NOT_FINITE)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_values_that_are_not_finite_are_refused(name: str, ending: str, raw: State, tmp_path: Path) -> None:
    state, path = NOT_FINITE[name](raw), tmp_path / f"w.{ending}"
    safetensors.torch.save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    for keep_head in (False, True):
        with pytest.raises(UserError, match="holds values that are not finite numbers"):
            build(NAME, 3, path, keep_head=keep_head)


HEADS: dict[str, tuple[Callable[[State, Tensor, Tensor], State], str]] = {
    "deeper": (
        lambda body, wide, last: {
            **body,
            "classifier.0.weight": wide,
            "classifier.0.bias": wide[:, 0],
            "classifier.3.weight": last,
        },
        r"its head is 2 layers \(classifier.0.weight 16×1280, classifier.3.weight 3×16\), and "
        r"timm:mobilenetv2_035 ends in one that takes 1280 features: write an .onnx file",
    ),
    "of other features": (
        lambda body, wide, last: {**body, "fc.weight": last},
        r"its head is 1 layer \(fc.weight 3×16\)",
    ),
    "absent": (lambda body, wide, last: body, r"has no head to keep \(classifier.weight is missing\)"),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_of_another_form_is_described_as_it_is(name: str, raw: State, tmp_path: Path) -> None:
    make, message = HEADS[name]
    body = {key: tensor for key, tensor in raw.items() if not key.startswith("classifier")}
    path = saved(make(body, torch.ones(16, 1280), torch.ones(3, 16)), tmp_path / "w.pth")
    with pytest.raises(UserError, match=message) as caught:
        build(NAME, 3, path, keep_head=True)
    assert "\n" not in str(caught.value)
    assert build(NAME, 3, path).leftovers.missing == ("classifier.weight", "classifier.bias")  # a new one is trained


def test_one_score_becomes_two(raw: State, tmp_path: Path) -> None:
    state = {**raw, "classifier.weight": raw["classifier.weight"][:1], "classifier.bias": torch.tensor([0.3])}
    built = build(NAME, 2, saved(state, tmp_path / "w.pth"), keep_head=True)
    _, head = head_of(built.module)
    features = torch.randn(4, head.weight.shape[1])
    score = features @ state["classifier.weight"][0] + 0.3
    torch.testing.assert_close(torch.softmax(head(features), 1)[:, 1], torch.sigmoid(score))
    assert "becomes two" in built.remarks[0]


FORMS: dict[str, tuple[Callable[[State], State], str]] = {
    "pruned": (
        lambda s: {**s, "conv_stem.weight_orig": s["conv_stem.weight"], "conv_stem.weight_mask": s["conv_stem.weight"]},
        "is pruned by torch.nn.utils.prune",
    ),
    "parametrized": (
        lambda s: {**s, "conv_stem.parametrizations.weight.original0": s["conv_stem.weight"]},
        "has parametrized layers",
    ),
    "whole numbers": (lambda s: {**s, "conv_stem.weight": s["conv_stem.weight"].to(torch.int8)}, "the file has int8"),
    "another network": (lambda s: prefixed(s, "x"), r"its own are called xconv_stem.weight, xbn1.weight, …"),
}


@pytest.mark.parametrize("name", FORMS)
def test_weights_in_another_form_are_called_so(name: str, raw: State, tmp_path: Path) -> None:
    change, message = FORMS[name]
    state = change(raw)
    if name in ("pruned", "parametrized"):
        state.pop("conv_stem.weight")
    with pytest.raises(UserError, match=message):
        build(NAME, 3, saved(state, tmp_path / "w.pth"))


def zipped(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "x")


STRANGERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "lfs": (
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n"),
        "a Git LFS pointer",
    ),
    "page": (lambda p: p.write_text("\n<!DOCTYPE html><html>sign in</html>"), "a web page (HTML), not the file itself"),
    "empty": (lambda p: p.write_bytes(b""), "is empty (0 bytes)"),
    "pickled": (lambda p: p.write_bytes(pickle.dumps(Path)), "Python objects or code"),
    "keras": (
        lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64)),
        "an HDF5 file, as Keras writes it: write an .onnx",
    ),
    "keras 3": (lambda p: zipped(p, "config.json", "model.weights.h5"), "a Keras model"),
    "tflite": (lambda p: p.write_bytes(b"\x1c\0\0\0TFL3" + bytes(64)), "a TFLite model"),
    "onnx": (
        lambda p: p.write_bytes(b"\x08\x0a\x12\x07pytorch" + bytes(64)),
        "an ONNX model: give it the ending .onnx",
    ),
    "numpy": (lambda p: zipped(p, "a.npy", "b.npy"), "NumPy arrays"),
    "zip": (lambda p: zipped(p, "weights.pth"), "a packed archive: unpack it"),
    "gzip": (lambda p: p.write_bytes(b"\x1f\x8b\x08" + bytes(64)), "a packed archive: unpack it"),
    "cut off": (
        lambda p: (torch.save({"a": torch.zeros(9, 9)}, p), p.write_bytes(p.read_bytes()[:300])),
        "damaged or cut off",
    ),
    "text": (lambda p: p.write_text("Entry not found"), "w.pth: "),
    "no tensors": (
        lambda p: torch.save({"epoch": 3, "best": 0.5}, p),
        "holds no tensors by name (but epoch: int, best: float)",
    ),
    "a list": (lambda p: torch.save([torch.zeros(3)], p), "holds list, not tensors by name"),
}


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("ending", ["pth", "safetensors", "bin"])
def test_what_is_no_weights_is_called_what_it_is(name: str, ending: str, tmp_path: Path) -> None:
    make, message = STRANGERS[name]
    path = tmp_path / f"w.{ending}"
    make(path)
    with pytest.raises(UserError) as caught:
        read_file(path)
    assert message.replace("w.pth", path.name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_plain_values_beside_the_tensors_do_no_harm(raw: State, tmp_path: Path) -> None:
    held = {
        "state_dict": raw,
        "args": argparse.Namespace(lr=0.1, out=Path("x")),
        "best": np.float64(0.5),
        "seen": np.int64(3),
        "class_to_idx": {"a": 0, "b": 1, "c": 2},
    }
    file = read_file(saved(held, tmp_path / "w.pth"))
    assert file.about["class_to_idx"] == {"a": 0, "b": 1, "c": 2}
    assert [one.key for one in file.sets] == ["state_dict"]
