"""LiteRT beyond the contract of every format: layout, metadata, input types, proof of int8, and what ran where."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgecnn import formats
from edgecnn.artifact import Preprocess
from edgecnn.errors import UserError
from edgecnn.formats import Source
from edgecnn.formats.litert import captured, fp32_file, keep_pooled_dimensions, merge_normalisation
from edgecnn.metadata import describe, read_tflite
from edgecnn.modelfiles.metadata import tflite_metadata
from edgecnn.modelfiles.tflite import hushed, inputs_and_outputs, operations
from edgecnn.models import Deployed
from edgecnn.quantize.engines import litert as quantize_litert
from edgecnn.quantize.flat import flatten, layers_of
from edgecnn.quantize.ladder import Attempt, TuningSet
from edgecnn.runtimes import open_file
from edgecnn.runtimes.litert import InterpreterSession, _delegated
from tests.conftest import pictures
from tests.networks import eager, tuning_by
from tests.real import mobilenet_v2

for needed in ("litert_torch", "ai_edge_litert", "ai_edge_quantizer"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed", allow_module_level=True)

SIZE, CLASSES = 32, 3
images = partial(pictures, side=SIZE)
DESCRIBED = {"classes": '["good", "Kratzer", "défaut"]', "preprocess": '{"height": 32}'}
TUNED = ("rewritten", "float")


class Net(nn.Module):
    """Begins with padding of one side, as TensorFlow's networks do, and has hard-swish and squeeze-and-excite."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.squeeze = nn.Conv2d(8, 8, 1)
        self.swish = nn.Hardswish(inplace=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.swish(self.norm(self.stem(nn.functional.pad(x, (0, 1, 0, 1)))))
        x = self.swish(self.depthwise(x)) + x
        x = x * nn.functional.hardsigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def module() -> Deployed:
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        for batch in range(3):
            net(torch.from_numpy(images(8, 8 * batch)).permute(0, 3, 1, 2).float() / 64 - 2)
    return Deployed(net.eval(), Preprocess(height=SIZE, width=SIZE))


@pytest.fixture(scope="module")
def fp32(module: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("fp32")
    converted = formats.convert("litert", Source(module, SIZE, SIZE, work, DESCRIBED), "fp32", work / "out")
    return work / "out" / converted.files[0]


@pytest.fixture(scope="module")
def attempt(module: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Attempt:
    source = Source(flatten(module, SIZE, SIZE), SIZE, SIZE, tmp_path_factory.mktemp("int8"), DESCRIBED)
    return Attempt("min-max", source, "min-max")


@pytest.fixture(scope="module")
def tuning(module: Deployed) -> TuningSet:
    return tuning_by(module, images, 24, 12)


def written(attempt: Attempt, tuning: TuningSet, out: Path, **more: Any) -> Path:
    out.mkdir()
    return out / quantize_litert.write(attempt, tuning, out, **more)[0]


def kinds(path: Path) -> list[str]:
    return [operation.kind for operation in operations(path)]


def test_fp32_is_channels_last_without_a_transpose(fp32: Path, module: Deployed) -> None:
    assert "TRANSPOSE" not in kinds(fp32)
    (pixels,), (logits,) = inputs_and_outputs(fp32)
    assert (pixels.type, pixels.shape) == ("uint8", (1, SIZE, SIZE, 3))
    assert (logits.type, logits.shape) == ("float32", (1, CLASSES))
    session = open_file(fp32, "litert", "fp32", 1)
    reference = eager(module, images(4, 200))
    assert np.abs(session.run(images(4, 200)) - reference).max() < 1e-4 * reference.std()


def test_fp32_says_what_ran(fp32: Path) -> None:
    executed = open_file(fp32, "litert", "fp32", 1).executed()
    layers = {layer.name: layer for layer in executed.layers}
    assert executed.mac_shares == {"fp32": 1.0}
    assert (executed.int8_layers, executed.float_layers, executed.quantize_ops) == (0, 5, 0)
    assert layers["normalisation"].macs == SIZE * SIZE * 3
    half = SIZE // 2
    assert sum(layer.macs for layer in executed.layers) == (
        SIZE * SIZE * 3 + half * half * 8 * 27 + half * half * 8 * 9 + 8 * 8 + 8 * CLASSES
    )
    assert executed.partitions == 1
    assert executed.outside_delegate == {"CAST": 1}
    assert executed.remarks == ()
    assert all(layer.kind.startswith("XNNPACK ") for layer in executed.layers)


def test_what_is_described_is_inside(fp32: Path, attempt: Attempt, tuning: TuningSet, tmp_path: Path) -> None:
    for path in (fp32, written(attempt, tuning, tmp_path / "out")):
        stored = tflite_metadata(path)
        assert {key: stored[key] for key in DESCRIBED} == DESCRIBED
        from ai_edge_litert import schema_py_generated as schema

        description = schema.Model.GetRootAs(path.read_bytes()).Description().decode()
        assert description.splitlines() == [f"{key}: {value}" for key, value in DESCRIBED.items()]


def test_buffers_are_aligned_and_inside(attempt: Attempt, tuning: TuningSet, tmp_path: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    content = written(attempt, tuning, tmp_path / "out").read_bytes()
    model = schema.Model.GetRootAs(content)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    assert all(buffer.Offset() == 0 for buffer in buffers)
    starts = [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in buffers if buffer.DataLength()]
    assert starts
    assert all(start % 16 == 0 for start in starts)


@pytest.mark.parametrize("io", ["uint8", "int8"])
def test_int8_takes_integer_pixels(
    io: Any, attempt: Attempt, tuning: TuningSet, module: Deployed, tmp_path: Path
) -> None:
    described = describe(("a", "b", "c"), Preprocess(height=SIZE, width=SIZE), "net")
    source = replace(attempt.source, io=io, described=described)
    path = written(replace(attempt, source=source), tuning, tmp_path / "out")
    told = tflite_metadata(path)["edgecnn.input"]
    assert told.startswith(f"{io} (n, {SIZE}, {SIZE}, 3)")
    assert ("minus 128" in told) == (io == "int8")
    assert read_tflite(path) is not None
    (pixels,), (logits,) = inputs_and_outputs(path)
    assert (pixels.type, pixels.scale) == (io, (1.0,))
    assert pixels.zero_point == ((0,) if io == "uint8" else (-128,))
    assert logits.type == "int8"
    reference = eager(module, images(8, 200))
    session = open_file(path, "litert", "int8", 1)
    assert np.abs(session.run(images(8, 200)) - reference).max() < 0.5 * reference.std()
    executed = session.executed()
    assert executed.mac_shares == {"int8": 1.0}
    assert executed.outside_delegate == ({"QUANTIZE": 1} if io == "uint8" else {})
    assert (executed.partitions, executed.remarks) == (1, ())


def test_both_inputs_answer_alike(attempt: Attempt, tuning: TuningSet, tmp_path: Path) -> None:
    answers = []
    for io in ("uint8", "int8"):
        path = written(replace(attempt, source=replace(attempt.source, io=io)), tuning, tmp_path / io)
        answers.append(open_file(path, "litert", "int8", 1).run(images(6, 300)))
    assert np.array_equal(*answers)


@pytest.mark.parametrize("which", ["stem", "depthwise", "head"])
def test_chosen_layers_stay_in_float(
    which: str, attempt: Attempt, tuning: TuningSet, module: Deployed, tmp_path: Path
) -> None:
    (layer,) = [one for one in layers_of(attempt.source.module) if one.name.endswith(which)]
    path = written(replace(attempt, in_float=(layer,)), tuning, tmp_path / "out")
    floats = [one for one in operations(path) if one.weight and one.weight.type == "float32"]
    assert len(floats) == 1
    assert floats[0].weight is not None
    assert floats[0].weight.values is not None
    assert np.allclose(np.sort(floats[0].weight.values.ravel()), np.sort(layer.weight.ravel()))
    executed = open_file(path, "litert", "int8", 1).executed()
    assert (executed.int8_layers, executed.float_layers) == (4, 1)


def test_a_layer_that_is_not_in_the_file_is_an_error(attempt: Attempt, tuning: TuningSet, tmp_path: Path) -> None:
    layer = layers_of(attempt.source.module)[0]
    other = replace(layer, name="elsewhere", weight=layer.weight + 1)
    with pytest.raises(UserError, match="no layer with the weights of elsewhere"):
        written(replace(attempt, in_float=(other,)), tuning, tmp_path / "out")


def test_a_file_that_stayed_float_is_an_error(
    attempt: Attempt, tuning: TuningSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ai_edge_quantizer import recipe

    monkeypatch.setattr(recipe, "static_wi8_ai8", recipe.dynamic_wi8_afp32)
    with pytest.raises(UserError, match="takes float32 and gives float32 instead of int8"):
        written(attempt, tuning, tmp_path / "out")


def test_a_layer_that_stayed_float_is_named(
    attempt: Attempt, tuning: TuningSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ai_edge_quantizer import qtyping, quantizer, recipe

    def all_but_depthwise() -> Any:
        work = quantizer.recipe_manager.RecipeManager()
        work.load_quantization_recipe(static())
        work.add_quantization_config(
            ".*", qtyping.TFLOperationName.DEPTHWISE_CONV_2D, None, quantizer.AlgorithmName.NO_QUANTIZE
        )
        return work.get_quantization_recipe()

    static = recipe.static_wi8_ai8
    monkeypatch.setattr(recipe, "static_wi8_ai8", all_but_depthwise)
    with pytest.raises(UserError, match=r"are int8 in the file where 5 should be; float are .*depthwise"):
        written(attempt, tuning, tmp_path / "out")


def test_a_file_with_float_activations_is_not_called_int8(attempt: Attempt, tuning: TuningSet, tmp_path: Path) -> None:
    from ai_edge_quantizer import quantizer, recipe

    source = replace(attempt.source, work=tmp_path)
    float_pixels = fp32_file(source)
    with hushed():
        work = quantizer.Quantizer(str(float_pixels), recipe.dynamic_wi8_afp32())
        made = work.quantize(enable_progress_bar=False, enable_progress_report=False)
    (tmp_path / "dynamic.tflite").write_bytes(made.quantized_model)
    executed = open_file(tmp_path / "dynamic.tflite", "litert", "int8", 1).executed()
    assert executed.int8_layers == 0
    assert any("int8 weights but take and give float32" in remark for remark in executed.remarks)


def test_int8_hard_swish_breaks_the_graph_and_ours_does_not(
    attempt: Attempt, tuning: TuningSet, module: Deployed, tmp_path: Path
) -> None:
    broken = open_file(written(attempt, tuning, tmp_path / "int8", hard_swish="int8"), "litert", "int8", 1).executed()
    assert broken.partitions == 3
    assert broken.remarks == ("XNNPACK took the graph in 3 parts; outside of them run HARD_SWISH ×2, QUANTIZE ×1",)
    reference = eager(module, images(8, 200))
    for side in TUNED:
        session = open_file(written(attempt, tuning, tmp_path / side, hard_swish=side), "litert", "int8", 1)
        assert session.executed().partitions == 1
        assert np.abs(session.run(images(8, 200)) - reference).max() < 0.5 * reference.std()


def test_hard_swish_is_rewritten_to_the_same_function(module: Deployed) -> None:
    graph = flatten(module, SIZE, SIZE)
    before = eager(graph, images(4))
    rewritten = quantize_litert.without_hard_swish(graph)
    assert not any("hardswish" in str(node.target) for node in rewritten.graph.nodes)
    assert np.allclose(eager(rewritten, images(4)), before, atol=1e-5)


def test_writing_leaves_the_network_as_it_was(attempt: Attempt, tuning: TuningSet, tmp_path: Path) -> None:
    before = eager(attempt.source.module, images(3))
    written(attempt, tuning, tmp_path / "out", hard_swish="rewritten")
    assert any("hardswish" in str(node.target) for node in attempt.source.module.graph.nodes)
    assert np.array_equal(eager(attempt.source.module, images(3)), before)


def test_normalisation_becomes_one_convolution_of_the_same_values(module: Deployed) -> None:
    graph = captured(module, torch.zeros((1, SIZE, SIZE, 3), dtype=torch.uint8))
    before = eager(graph, images(1))
    merged = merge_normalisation(graph)
    targets = [str(node.target) for node in merged.graph.nodes]
    assert not {"aten.div.Tensor", "aten.sub.Tensor"} & set(targets)
    assert np.allclose(eager(merged, images(1)), before, atol=1e-5)


def test_a_mean_that_drops_height_and_width_becomes_one_that_keeps_them(module: Deployed) -> None:
    graph = captured(module, torch.zeros((1, SIZE, SIZE, 3), dtype=torch.uint8))
    before = eager(graph, images(1))
    kept = [node.args[2:] for node in keep_pooled_dimensions(graph).graph.nodes if str(node.target) == "aten.mean.dim"]
    assert kept == [(True,), (True,)]
    assert np.allclose(eager(graph, images(1)), before, atol=1e-6)


def test_arithmetic_that_is_not_a_scale_and_a_shift_stays() -> None:
    class Squared(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.permute(0, 3, 1, 2).float() / 255
            return (x * x).mean((2, 3))

    graph = captured(Squared(), torch.zeros((1, SIZE, SIZE, 3), dtype=torch.uint8))
    before = eager(graph, images(1))
    assert np.allclose(eager(merge_normalisation(graph), images(1)), before, atol=1e-6)


def test_ranges_that_decide_are_not_clipped(attempt: Attempt, tuning: TuningSet, tmp_path: Path) -> None:
    path = written(replace(attempt, observer="percentile 99.99"), tuning, tmp_path / "out")
    _, (logits,) = inputs_and_outputs(path)
    (scale,), (zero_point,) = logits.scale, logits.zero_point
    calibrated = open_file(
        fp32_file(replace(attempt.source, work=tmp_path)),
        "litert",
        "fp32",
        1,
    ).run(tuning.calibration)
    assert (127 - zero_point) * scale >= calibrated.max() - scale
    assert (-128 - zero_point) * scale <= calibrated.min() + scale


def test_the_bias_of_a_channel_without_weights_survives(tuning: TuningSet, tmp_path: Path) -> None:
    """Its weights' own scale would be so small that the bias would not fit 32 bits."""
    torch.manual_seed(0)
    net = Net().eval()
    with torch.no_grad():
        net.depthwise.weight[:4] = 0
        net.depthwise.bias[:4] = torch.tensor([3.0, -1.5, 2.0, 4.0])
    module = Deployed(net, Preprocess(height=SIZE, width=SIZE))
    (tmp_path / "work").mkdir()
    source = Source(flatten(module, SIZE, SIZE), SIZE, SIZE, tmp_path / "work")
    path = written(Attempt("min-max", source, "min-max"), tuning, tmp_path / "out")
    layer = next(one for one in operations(path) if one.kind == "DEPTHWISE_CONV_2D" and one.outputs[0].shape[-1] == 8)
    bias = layer.inputs[2]
    assert bias is not None
    assert bias.values is not None
    assert np.allclose(bias.values[:4] * np.array(bias.scale[:4]), [3.0, -1.5, 2.0, 4.0], atol=1e-3)
    reference = eager(module, images(8, 200))
    assert np.abs(open_file(path, "litert", "int8", 1).run(images(8, 200)) - reference).max() < 0.5 * reference.std()


def test_an_operation_that_litert_lacks_is_named(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.i0e(x.permute(0, 3, 1, 2).float()).mean((2, 3))

    with pytest.raises(UserError, match=r"^LiteRT: litert-torch cannot convert aten\.special_i0e") as caught:
        formats.convert("litert", Source(Odd(), SIZE, SIZE, tmp_path), "fp32", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.tflite"))


def test_nothing_is_printed(module: Deployed, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    converted = formats.convert("litert", Source(module, SIZE, SIZE, tmp_path), "fp32", tmp_path / "out")
    open_file(tmp_path / "out" / converted.files[0], "litert", "fp32", 1).run(images(1))
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_what_is_no_progress_report_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    import os

    with hushed():
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nERROR: out of memory\n")
    assert capfd.readouterr().err == "ERROR: out of memory\n"


def test_a_file_of_somebody_else_with_float_pixels_is_refused(attempt: Attempt) -> None:
    path = quantize_litert.float_file(attempt.source)
    with pytest.raises(UserError, match="takes float32 instead of pixels"):
        open_file(path, "litert", "fp32", 1)


def test_what_runs_outside_a_delegate_is_found() -> None:
    def node(index: int, inputs: list[int], outputs: list[int]) -> Mapping[str, Any]:
        return {"index": index, "inputs": np.array(inputs), "outputs": np.array(outputs)}

    chain = [node(0, [0, 10], [1]), node(1, [1], [2]), node(2, [2], [3]), node(3, [3, 1], [4])]
    assert _delegated(chain, []) == set()
    assert _delegated(chain, [node(4, [10, 1], [2]), node(5, [3, 1], [4])]) == {1, 3}
    assert _delegated(chain, [node(4, [0, 10], [4])]) == {0, 1, 2, 3}


class TestTfliteRuntime:
    """The older package, which cannot be here: what it says instead."""

    def test_not_installed(self, fp32: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from edgecnn.runtimes import tflite_runtime

        monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
        with pytest.raises(UserError, match="environment of its own .*'numpy<2' tflite-runtime==2.14.0") as caught:
            tflite_runtime.RUNTIME.open(fp32, "fp32", 1)
        assert "\n" not in str(caught.value)

    def test_with_numpy_2(self, fp32: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from edgecnn.runtimes import tflite_runtime

        monkeypatch.setattr("importlib.util.find_spec", lambda module: object())
        monkeypatch.setattr(np, "__version__", "2.4.6")
        with pytest.raises(UserError, match=r"fails with the numpy 2\.4\.6 of this environment"):
            tflite_runtime.RUNTIME.open(fp32, "fp32", 1)

    def test_it_opens_the_same_files_by_the_same_session(self, fp32: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from ai_edge_litert.interpreter import Interpreter

        from edgecnn.runtimes import tflite_runtime

        monkeypatch.setattr("importlib.util.find_spec", lambda module: object())
        monkeypatch.setattr(np, "__version__", "1.26.4")
        monkeypatch.setattr("importlib.import_module", lambda name: SimpleNamespace(Interpreter=Interpreter))
        session = tflite_runtime.RUNTIME.open(fp32, "fp32", 1)
        assert isinstance(session, InterpreterSession)
        assert session.run(images(2)).shape == (2, CLASSES)
        assert session.executed().providers == ("XNNPACK", "tflite-runtime kernels")


@pytest.mark.shared
@pytest.mark.slow
def test_real_weights_keep_their_decisions(shared: Path, tmp_path: Path) -> None:
    """MobileNetV2 on ImageNet images: fp32 to 1e-4 of the logits' scale, int8 on 85 of 100 images as fp32."""
    real = mobilenet_v2(shared, tmp_path)
    converted = formats.convert("litert", real.source, "fp32", tmp_path / "fp32")
    answers = open_file(tmp_path / "fp32" / converted.files[0], "litert", "fp32", 1).run(real.images)
    assert np.abs(answers - real.logits).max() < 1e-4 * real.logits.std()
    attempt = Attempt("min-max", real.source, "min-max")
    session = open_file(written(attempt, real.tuning, tmp_path / "out"), "litert", "int8", 1)
    assert (session.run(real.images).argmax(1) == real.logits.argmax(1)).mean() >= 0.85
    assert session.executed().mac_shares == {"int8": 1.0}
