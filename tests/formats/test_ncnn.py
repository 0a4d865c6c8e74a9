"""ncnn beyond the contract of every format: its files, strictly; no permute; what was executed; int8 as arithmetic."""

from __future__ import annotations

import importlib.util
import platform
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgecnn import formats
from edgecnn.artifact import Preprocess
from edgecnn.errors import UserError
from edgecnn.formats import Source
from edgecnn.formats.ncnn import fp32_file, half
from edgecnn.judge import Yardstick
from edgecnn.modelfiles.ncnn import (
    FP16_TAG,
    FP32_TAG,
    INT8_TAG,
    Block,
    Layer,
    Network,
    expected_blocks,
    int8_scale_term,
    load,
    read_bin,
    read_param,
    save,
    write_bin,
    write_param,
)
from edgecnn.models import Deployed, build
from edgecnn.quantize.engines import ncnn as quantize_ncnn
from edgecnn.quantize.flat import flatten, layers_of
from edgecnn.quantize.ladder import Attempt, TuningSet
from edgecnn.quantize.observe import BINS, OBSERVERS, Histogram
from edgecnn.runtimes import ncnn as runtime
from edgecnn.runtimes import open_file
from tests.conftest import pictures as squares
from tests.networks import eager, tuning_by

for needed in ("ncnn", "pnnx"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed", allow_module_level=True)

SIZE, CLASSES = 32, 3
pictures = partial(squares, side=SIZE)


class Net(nn.Module):
    """A dense chain, a grouped and a depthwise convolution, hard-swish, a residual, squeeze-and-excite."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.dense = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 24, 1), nn.ReLU())
        self.grouped = nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1, groups=3), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1, groups=24), nn.Hardswish())
        self.squeeze = nn.Conv2d(24, 24, 1)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.dense(self.stem(x)))
        x = self.depthwise(x) + x
        x = x * nn.functional.hardsigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def module() -> Deployed:
    torch.manual_seed(1)
    net = Net()
    with torch.no_grad():
        for batch in range(3):
            net(torch.from_numpy(pictures(8, 8 * batch)).permute(0, 3, 1, 2).float() / 128 - 1)
    return Deployed(net.eval(), Preprocess(height=SIZE, width=SIZE)).eval()


@pytest.fixture(scope="module")
def source(module: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Source(module, SIZE, SIZE, tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def flat(module: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Source(flatten(module, SIZE, SIZE), SIZE, SIZE, tmp_path_factory.mktemp("flat"))


@pytest.fixture(scope="module")
def tuning(module: Deployed) -> TuningSet:
    return tuning_by(module, pictures, 12, 4)


def written(attempt: Attempt, tuning: TuningSet, out: Path) -> Path:
    out.mkdir()
    return out / quantize_ncnn.QUANTIZER.write(attempt, tuning, out)[0]


# --- the files


numbers = st.integers(-(2**31) + 1, 2**31 - 1) | st.floats(allow_nan=False, allow_infinity=False, width=32)
names = st.text("abcXYZ019_./:-", min_size=1, max_size=20)
values = (
    numbers
    | st.text("abc XYZ019_=,", max_size=20)
    | st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=1, max_size=4).map(tuple)
    | st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=4).map(tuple)
)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """A chain of layers with weights of all kinds that the reader knows, and some that have none."""
    layers = [Layer("Input", "in", (), ("b0",), {0: 8, 1: 8, 2: 3})]
    for number in range(draw(st.integers(0, 6))):
        kind = draw(
            st.sampled_from(["Convolution", "ConvolutionDepthWise", "InnerProduct", "BatchNorm", "Gemm", "Any"])
        )
        outputs, inputs, bias = (draw(st.integers(1, 5)) for _ in range(3))
        term = draw(st.sampled_from([0, 1, 2, 101, 102]))
        params: dict[str, dict[int, Any]] = {
            "Convolution": {0: outputs, 1: 1, 5: bias % 2, 6: outputs * inputs, 8: term},
            "ConvolutionDepthWise": {0: outputs, 1: 1, 5: bias % 2, 6: outputs, 7: outputs, 8: term},
            "InnerProduct": {0: outputs, 1: bias % 2, 2: outputs * inputs, 8: term % 100},
            "BatchNorm": {0: outputs},
            "Gemm": {5: 1, 6: bias % 2, 8: outputs, 9: inputs, 10: 4},
            "Any": draw(st.dictionaries(st.integers(0, 31), values, max_size=4)),
        }
        name = f"{draw(names)}"
        layers.append(Layer(kind, name, (f"b{number}",), (f"b{number + 1}",), params[kind]))
    weights = []
    for layer in layers:
        blocks = []
        for position, (count, tagged) in enumerate(expected_blocks(layer)):
            tag = None
            if tagged:
                tag = INT8_TAG if int8_scale_term(layer) else draw(st.sampled_from([FP32_TAG, FP16_TAG]))
            dtype = {None: np.float32, FP32_TAG: np.float32, FP16_TAG: np.float16, INT8_TAG: np.int8}[tag]
            rng = np.random.default_rng(count + position)
            blocks.append(Block(rng.integers(-127, 128, count).astype(dtype), tag))
        weights.append(tuple(blocks))
    return Network(tuple(layers), tuple(weights))


@given(networks())
def test_what_is_written_is_read_back(network: Network) -> None:
    assert read_param(write_param(network.layers)) == network.layers
    data = write_bin(network.weights)
    again = read_bin(network.layers, data)
    assert len(data) % 4 == 0
    assert write_bin(again) == data
    for read, blocks in zip(again, network.weights, strict=True):
        assert [block.tag for block in read] == [block.tag for block in blocks]
        for one, other in zip(read, blocks, strict=True):
            assert one.values.dtype == other.values.dtype
            assert np.array_equal(one.values, other.values)


@given(networks(), st.data())
def test_a_damaged_param_file_is_refused_in_one_line_or_read(network: Network, data: st.DataObject) -> None:
    text = write_param(network.layers)
    first = data.draw(st.integers(0, len(text) - 1))
    last = data.draw(st.integers(first, min(len(text), first + 9)))
    damaged = text[:first] + data.draw(st.text(max_size=4)) + text[last:]
    try:
        layers = read_param(damaged)
        for layer in layers:
            expected_blocks(layer)
        again = read_param(write_param(layers))
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert again == layers


@given(networks(), st.data())
def test_weights_of_another_length_are_refused_in_one_line(network: Network, data: st.DataObject) -> None:
    weights = write_bin(network.weights)
    cut = data.draw(st.integers(0, max(0, len(weights) - 1)))
    longer = weights + b"\0" * data.draw(st.integers(1, 9))
    for damaged in ([weights[:cut]] if weights else []) + [longer]:
        with pytest.raises(UserError, match=r"bytes (are left|of weights are expected)|unknown kind") as caught:
            read_bin(network.layers, damaged, "model.bin")
        assert "\n" not in str(caught.value)


GOOD = """7767517
3 3
Input in 0 1 a 0=8 1=8 2=3
Convolution c 1 1 a b 0=2 1=1 5=1 6=6
Pooling p 1 1 b c 0=1 -23310=1,0.5
"""


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("", "not an ncnn .param file"),
        (GOOD.replace("7767517", "767517"), "its first line is not 7767517"),
        (GOOD.replace("3 3", "3"), "line 2: the numbers of layers and blobs"),
        (GOOD.replace("3 3", "4 3"), "4 layers are announced and 3 are there"),
        (GOOD.replace("3 3", "3 4"), "4 blobs are announced and 3 are there"),
        (GOOD.replace("c 1 1 a b 0=2", "c 1 1 z b 0=2"), "line 4: layer c reads blob z, which no layer before it"),
        (GOOD.replace("p 1 1 b c", "p 1 1 a c"), "line 5: layer p reads blob a, which has been read before"),
        (GOOD.replace("p 1 1 b c", "p 1 1 b a"), "line 5: blob a is written twice"),
        (GOOD.replace("p 1 1 b c", "p 1 3 b c"), "1 inputs and 3 outputs are announced"),
        (GOOD.replace("0=2", "0=2 0=2"), "line 4: parameter 0 stands there twice"),
        (GOOD.replace("0=2", "40=2"), "'40=2': keys are 0 to 31"),
        (GOOD.replace("0=2", "0=two\x0bthree"), "not printable"),
        (GOOD.replace("0=2", "0=0x2"), "'0x2' is not a number of 32 bits"),
        (GOOD.replace("0=2", "0=1e99"), "'1e99' is not a number of 32 bits"),
        (GOOD.replace("0=2", "0=99999999999"), "is not a number of 32 bits"),
        (GOOD.replace("=1,0.5", "=2,0.5"), "an array of 2 has 1 values"),
        (GOOD.replace("=1,0.5", "=2,0.5,1"), "integers and floats in one array"),
        (GOOD.replace("6=6", "6=-6"), "negative or empty number of weights"),
        (GOOD.replace("6=6", "6=6.0"), "parameter 6 is 6.0 where an integer is expected"),
        (GOOD.replace("Convolution", "LSTM"), "LSTM has weights that this reader does not know"),
    ],
)
def test_what_is_wrong_with_a_param_file_is_named(wrong: str, reason: str, tmp_path: Path) -> None:
    weights = write_bin([[Block(np.ones(6, np.float32), FP32_TAG), Block(np.ones(2, np.float32), None)]])
    assert read_bin(read_param(GOOD), weights)
    (tmp_path / "model.param").write_text(wrong, newline="")
    (tmp_path / "model.bin").write_bytes(weights)
    with pytest.raises(UserError, match="cannot open it") as caught:
        open_file(tmp_path / "model.param", "ncnn", "fp32", 1)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_both_ways_to_write_an_array_are_read() -> None:
    old, new, one = (
        read_param(GOOD.replace("-23310=1,0.5", text))[2].params[10]
        for text in ("-23310=2,0.5,1.0", "10=0.5,1.0", "10=0.5,")
    )
    assert old == new == (0.5, 1.0)
    assert one == (0.5,)


# --- the conversion


@pytest.mark.parametrize("kind", ["module", "flat"])
def test_no_permute_is_left_and_the_answers_are_the_network_s(kind: str, request: Any, module: Deployed) -> None:
    source: Source = request.getfixturevalue({"module": "source", "flat": "flat"}[kind])
    layers = load(fp32_file(source)).layers
    assert not {"Permute", "Reshape", "Cast"} & {layer.kind for layer in layers}
    assert layers[0].kind == "Input"
    assert layers[0].params == {0: SIZE, 1: SIZE, 2: 3}
    session = open_file(fp32_file(source), "ncnn", "fp32", 1)
    images, reference = pictures(5, 50), eager(module, pictures(5, 50))
    assert np.abs(session.run(images) - reference).max() < 1e-4 * reference.std()
    session.close()


def test_fp16_is_in_the_file_and_only_where_it_is_asked_for(source: Source, tmp_path: Path) -> None:
    converted = formats.convert("ncnn", source, "fp16", tmp_path / "fp16")
    path = tmp_path / "fp16" / converted.files[0]
    network, full = load(path), load(fp32_file(source))
    tagged = [block.tag for blocks in network.weights for block in blocks if block.tag is not None]
    assert set(tagged) == {FP16_TAG}
    assert len(write_bin(network.weights)) < 0.6 * len(write_bin(full.weights))
    for precision, asked in (("fp32", False), ("fp16", True)):
        net, _ = runtime.open_net(path, precision, 1)  # type: ignore[arg-type]
        options = (net.opt.use_fp16_packed, net.opt.use_fp16_storage, net.opt.use_fp16_arithmetic)
        assert options == (asked, asked, asked)
        assert not net.opt.use_bf16_storage
        assert not net.opt.use_vulkan_compute
    report = open_file(path, "ncnn", "fp16", 1).executed()
    if platform.machine() == "x86_64":
        assert report.mac_shares == {"fp32": 1.0}
        assert report.remarks == ("fp16 was asked for and ncnn computes in fp32 on this processor (x86_64)",)


def test_fp16_is_named_where_the_processor_computes_in_it(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = load(fp32_file(source)).layers
    net, _ = runtime.open_net(fp32_file(source), "fp16", 1)
    monkeypatch.setattr(runtime, "_computes_fp16", lambda: True)
    made = [SimpleNamespace(support_fp16_storage=layer.kind == "Convolution") for layer in layers]
    session = open_file(fp32_file(source), "ncnn", "fp16", 1)
    session._net = SimpleNamespace(layers=lambda: made, create_extractor=net.create_extractor)  # type: ignore[attr-defined]
    report = session.executed()
    assert {layer.precision for layer in report.layers if layer.kind == "Convolution"} == {"fp16"}
    assert {layer.precision for layer in report.layers if layer.kind != "Convolution"} == {"fp32"}
    assert report.remarks


def test_a_weight_too_large_for_fp16_is_refused() -> None:
    layer = Layer("InnerProduct", "fc", ("a",), ("b",), {0: 1, 2: 1})
    with pytest.raises(UserError, match="a weight of 7e"):
        half(Network((layer,), ((Block(np.array([7e4], np.float32), FP32_TAG),),)))


class Unsupported(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.special.gammaln(images.float().mean((1, 2)) + 1)


class Untraceable(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("first\nsecond")


@pytest.mark.parametrize(("bad", "reason"), [(Unsupported(), "ncnn has no layer for .*"), (Untraceable(), "first$")])
def test_a_network_that_ncnn_cannot_run_is_refused_in_one_line(bad: nn.Module, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        fp32_file(Source(bad, SIZE, SIZE, tmp_path))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_pnnx_that_fails_says_why(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pnnx.EXEC_PATH", "false")
    with pytest.raises(UserError, match=r"pnnx cannot convert this network \(exit code 1\)"):
        fp32_file(replace(source, work=tmp_path))


# --- the session


def test_images_of_another_size_are_refused(source: Source) -> None:
    session = open_file(fp32_file(source), "ncnn", "fp32", 1)
    with pytest.raises(UserError, match=r"\(8, 8, 3\) where the network takes \(32, 32, 3\)"):
        session.run(np.zeros((1, 8, 8, 3), np.uint8))


def test_a_file_of_another_precision_is_refused(flat: Source, tuning: TuningSet, tmp_path: Path) -> None:
    int8 = written(Attempt("plain", flat, "min-max"), tuning, tmp_path / "out")
    with pytest.raises(UserError, match="cannot open it: its weights are int8"):
        open_file(int8, "ncnn", "fp32", 1)
    with pytest.raises(UserError, match="cannot open it: its weights are not int8"):
        open_file(fp32_file(flat), "ncnn", "int8", 1)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_damaged_weights_are_refused_before_the_engine_sees_them(
    source: Source, tmp_path: Path, data: st.DataObject
) -> None:
    good = fp32_file(source)
    weights = good.with_suffix(".bin").read_bytes()
    (tmp_path / "model.param").write_bytes(good.read_bytes())
    (tmp_path / "model.bin").write_bytes(weights[: data.draw(st.integers(0, len(weights) - 1))])
    with pytest.raises(UserError, match=r"cannot open it: model\.bin: layer .*") as caught:
        open_file(tmp_path / "model.param", "ncnn", "fp32", 1)
    assert "\n" not in str(caught.value)


def test_macs_are_those_of_the_layers(source: Source) -> None:
    report = open_file(fp32_file(source), "ncnn", "fp32", 1).executed()
    macs = [layer.macs for layer in report.layers]
    place = (SIZE // 2) ** 2
    assert macs == [
        place * 16 * 27, place * 16 * 16 * 9, place * 24 * 16, place * 24 * 8 * 9, place * 24 * 9, 24 * 24, 24 * CLASSES
    ]  # fmt: skip
    assert report.mac_shares == {"fp32": 1.0}
    assert report.remarks == ()


# --- int8


def test_an_int8_file_says_what_it_executed(flat: Source, tuning: TuningSet, tmp_path: Path) -> None:
    path = written(Attempt("plain", flat, "min-max"), tuning, tmp_path / "out")
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.bin", "model.param"]
    session = open_file(path, "ncnn", "int8", 1)
    report = session.executed()
    by_precision = {layer.precision: layer.kind for layer in report.layers if layer.precision == "fp32"}
    assert (report.int8_layers, report.float_layers) == (5, 2)
    assert by_precision == {"fp32": "ConvolutionDepthWise"}
    # stem → dense → dense: two hand over int8. The stem quantises; so do squeeze and head. Three give floats.
    assert report.requantized_layers == 2
    assert report.quantize_ops == 3 + 3
    assert len(report.remarks) == 1
    assert report.remarks[0].startswith("2 of 7 layers are float in this file: ")
    reference = eager(flat.module, pictures(6, 60))
    assert np.abs(session.run(pictures(6, 60)) - reference).max() < 0.1 * reference.std()


def test_layers_that_shall_stay_in_float_do(flat: Source, tuning: TuningSet, tmp_path: Path) -> None:
    kept = tuple(layer for layer in layers_of(flat.module) if layer.weight.shape[:2] in ((16, 16), (CLASSES, 24)))
    assert len(kept) == 2
    path = written(Attempt("float", flat, "min-max", kept), tuning, tmp_path / "out")
    network, full = load(path), load(fp32_file(flat))
    floats = [
        index
        for index in quantize_ncnn.quantisable(full)
        if network.weights[index][0].tag == FP32_TAG and not int8_scale_term(network.layers[index])
    ]
    assert set(floats) == quantize_ncnn.kept_in_float(full, kept) | quantize_ncnn.grouped(full)
    assert len(floats) == 4
    for index in floats:
        assert np.array_equal(network.weights[index][0].values, full.weights[index][0].values)
    report = open_file(path, "ncnn", "int8", 1).executed()
    assert (report.int8_layers, report.float_layers) == (3, 4)
    with pytest.raises(UserError, match="no layer is left to quantise"):
        written(Attempt("all", flat, "min-max", tuple(layers_of(flat.module))), tuning, tmp_path / "none")


def convolve(x: np.ndarray, weight: np.ndarray, pad: int, groups: int = 1) -> np.ndarray:
    """(channels, h, w) by (out, in / groups, k, k), in float64, where sums of int8 products are exact."""
    with torch.inference_mode():
        tensors = (torch.from_numpy(array.astype(np.float64)) for array in (x, weight))
        image, kernel = tensors
        return np.asarray(nn.functional.conv2d(image[None], kernel, padding=pad, groups=groups)[0])


def hand_made(rng: np.random.Generator) -> Network:
    """Pixels → 3×3 convolution with ReLU → grouped 3×3 → all that is left by a linear layer."""
    layers = (
        Layer("Input", "in", (), ("in0",), {0: 6, 1: 5, 2: 3}),
        Layer("Convolution", "first", ("in0",), ("a",), {0: 16, 1: 3, 4: 1, 5: 1, 6: 16 * 27, 9: 1}),
        Layer("ConvolutionDepthWise", "groups", ("a",), ("b",), {0: 8, 1: 3, 4: 1, 5: 1, 6: 8 * 8 * 9, 7: 2}),
        Layer("InnerProduct", "last", ("b",), ("out0",), {0: 4, 1: 1, 2: 4 * 8 * 30}),
    )
    weights: list[tuple[Block, ...]] = [()]
    for layer in layers[1:]:
        (size, _), (outputs, _) = expected_blocks(layer)
        weight = rng.normal(size=size).astype(np.float32)
        if layer.name == "first":
            weight[: size // outputs] = 0  # a dead channel
        bias = rng.normal(size=outputs).astype(np.float32)
        weights.append((Block(weight, FP32_TAG), Block(bias, None)))
    return Network(layers, tuple(weights))


@pytest.mark.parametrize("requantise", [True, False])
def test_ncnn_computes_what_the_file_says(requantise: bool, tmp_path: Path) -> None:
    """The same in numpy: rounded inputs and weights, sums in integers, scales, biases, rounding again."""
    rng = np.random.default_rng(0)
    network = hand_made(rng)
    image = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    scales = {"in0": 127 / 255, "a": 127 / 1500, "b": 127 / 9000, "out0": 1.0}
    int8 = quantize_ncnn.int8_network(network, scales, {1, 2, 3}, requantise)
    assert [int8_scale_term(layer) for layer in int8.layers] == [0, 102 if requantise else 2, 1, 2]
    save(int8, tmp_path / "model.param")

    def rounded(values: np.ndarray, scale: float) -> np.ndarray:
        scaled = values * scale
        return np.clip(np.copysign(np.floor(np.abs(scaled) + 0.5), scaled), -127, 127)

    def weights_of(index: int, shape: tuple[int, ...], groups: int) -> tuple[np.ndarray, np.ndarray]:
        rows = network.weights[index][0].values.reshape(groups, -1)
        largest = np.abs(rows).max(1)
        step = np.where(largest > 0, 127 / np.where(largest > 0, largest, 1), 1)
        return rounded(rows, step[:, None]).reshape(shape), step

    x = rounded(image.transpose(2, 0, 1).astype(np.float64), scales["in0"])
    weight, step = weights_of(1, (16, 3, 3, 3), 16)
    x = convolve(x, weight, 1) / (step * scales["in0"])[:, None, None] + network.weights[1][1].values[:, None, None]
    x = rounded(np.maximum(x, 0), scales["a"])
    weight, step = weights_of(2, (8, 8, 3, 3), 2)
    x = convolve(x, weight, 1, 2) / np.repeat(step * scales["a"], 4)[:, None, None]
    x = rounded(x + network.weights[2][1].values[:, None, None], scales["b"])
    weight, step = weights_of(3, (4, 240), 4)
    expected = weight @ x.ravel() / (step * scales["b"]) + network.weights[3][1].values

    session = open_file(tmp_path / "model.param", "ncnn", "int8", 1)
    got = session.run(image[None])[0]
    # A value next to a rounding border may fall on the other side in float32.
    assert np.abs(got - expected).max() < 2e-3 * np.abs(expected).max()
    assert session.executed().requantized_layers == int(requantise)


def test_winograd_is_switched_off_only_where_its_sums_could_overflow() -> None:
    layer = Layer("Convolution", "wide", ("in0",), ("a",), {0: 1, 1: 3, 4: 1, 6: 9 * 512})
    for weight, mask in ((np.full(9 * 512, 1, np.float32), 64), (np.r_[1, np.full(4607, 0.02)].astype(np.float32), 0)):
        network = Network((layer,), ((Block(weight, FP32_TAG),),))
        int8 = quantize_ncnn.int8_network(network, {"in0": 1.0}, {0})
        assert int8.layers[0].integer(31) == mask


def test_an_observer_is_shown_both_signs() -> None:
    """A range from zero on has half of int8's steps, wider than of an int8 that shifts: more is clipped."""
    counts = np.exp(-np.linspace(0, 12, BINS)) * 1e6
    seen: list[Histogram] = []

    def observer(histogram: Histogram) -> tuple[float, float]:
        seen.append(histogram)
        return -2.0, 3.0

    assert quantize_ncnn.symmetric_scale(Histogram(counts, 0.0, 6.0), observer) == 127 / 3
    assert (seen[0].low, seen[0].high) == (-6.0, 6.0)
    assert np.allclose(seen[0].counts, seen[0].counts[::-1])
    assert np.isclose(seen[0].counts.sum(), counts.sum())
    least = OBSERVERS["least squared error"]
    clipped = least(Histogram(counts, 0.0, 6.0))[1]
    assert 1.0 < 127 / quantize_ncnn.symmetric_scale(Histogram(counts, 0.0, 6.0), least) < clipped
    assert quantize_ncnn.symmetric_scale(Histogram(np.zeros(BINS), 0.0, 0.0), observer) == 1.0


def test_int8_that_is_slower_is_left_out(flat: Source, tuning: TuningSet, tmp_path: Path) -> None:
    image, here = tuning.calibration[0], platform.machine()
    int8 = written(Attempt("plain", flat, "min-max"), tuning, tmp_path / "out")
    speed = quantize_ncnn.measure(fp32_file(flat), int8, image, 1, turns=3)
    assert len(speed.fp32_ms) == len(speed.int8_ms) == 3
    assert speed.clock == "cpu"
    for factor, slower in ((0.5, False), (1.0, False), (1.5, True)):
        told = quantize_ncnn.Speed((10.0,) * 40, tuple(10.0 * factor + 0.1 * (-1) ** n for n in range(40)), "cpu")
        assert told.slower == slower
        assert told.ratio == pytest.approx(factor, rel=0.02)
    elsewhere = quantize_ncnn.not_slower(fp32_file(flat), int8, image, 1, "elsewhere")
    assert elsewhere == {"int8_over_fp32": None, "not_measured": f"the target is elsewhere and this machine {here}"}


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_the_ratio_is_recorded_or_int8_is_refused(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    speed = quantize_ncnn.Speed((10.0,) * 40, (10.0 * factor,) * 40, "cpu")
    monkeypatch.setattr(quantize_ncnn, "measure", lambda *_: speed)
    arguments = (Path("a"), Path("b"), np.zeros((1, 1, 3), np.uint8), 1, platform.machine())
    if speed.slower:
        with pytest.raises(UserError, match=r"slower than fp32 on this machine \(ratio 1.50\): left out"):
            quantize_ncnn.not_slower(*arguments)
    else:
        assert quantize_ncnn.not_slower(*arguments) == {"int8_over_fp32": 0.5, "clock": "cpu", "turns": 40}


@pytest.mark.shared
@pytest.mark.slow
def test_real_weights_keep_their_decisions(shared: Path, tmp_path: Path) -> None:
    from edgecnn.imaging import prepare

    weights = shared / "weights" / "mobilenet_v2" / "mobilenet_v2.safetensors"
    built = build("torchvision:mobilenet_v2", 1000, weights, keep_head=True)
    module = Deployed(built.module, built.preprocess)
    files = sorted((shared / "data" / "imagenet_val1300").rglob("*.JPEG"))[::16]
    images = np.stack([prepare(file.read_bytes(), built.preprocess) for file in files])
    calibration, held_out = images[:40], images[40:]
    reference = eager(module, held_out)
    (tmp_path / "work").mkdir()
    source = Source(flatten(module, 224, 224), 224, 224, tmp_path / "work")
    exact = open_file(fp32_file(source), "ncnn", "fp32", 1).run(held_out)
    assert np.abs(exact - reference).max() < 1e-4 * reference.std()
    tuning = TuningSet(calibration, held_out, reference.argmax(1), reference, Yardstick(1.0), 1)
    path = written(Attempt("plain", source, "least squared error"), tuning, tmp_path / "out")
    agreement = (open_file(path, "ncnn", "int8", 1).run(held_out).argmax(1) == reference.argmax(1)).mean()
    assert agreement > 0.85
