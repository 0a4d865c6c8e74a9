"""What ONNX Runtime and OpenVINO say that they ran: every layer, its precision and its share of the arithmetic."""

# ruff: noqa: F811

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgecnn import formats, runtimes
from edgecnn.executed import Executed
from edgecnn.formats import Source
from edgecnn.formats.onnx import fp16_file, fp32_file
from edgecnn.modelfiles import onnx_shapes
from edgecnn.quantize.engines.onnx import write_qdq
from edgecnn.quantize.flat import flatten, layers_of
from edgecnn.quantize.ladder import Attempt, TuningSet
from edgecnn.require import parse, unmet
from tests.contracts.conftest import CLASSES, HEIGHT, WIDTH, eager, images, module, tuning  # noqa: F401

ENGINES = ("onnxruntime", "openvino")
PIXELS = HEIGHT // 2 * WIDTH // 2
MACS = {
    "stem.0": 8 * 3 * 9 * PIXELS,
    "depthwise.0": 8 * 9 * PIXELS,
    "pointwise": 8 * 8 * PIXELS,
    "head": 8 * CLASSES,
}


@pytest.fixture(scope="module")
def source(module: Any, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """The contract's network, exported once for all of this file: nothing in its folder may be changed."""
    return Source(module, HEIGHT, WIDTH, tmp_path_factory.mktemp("work"))


def as_file_of(engine: str, file: Path) -> Path:
    """The ONNX file in the format that an engine reads."""
    if engine == "onnxruntime":
        return file
    import openvino

    path = file.with_suffix(".xml")
    openvino.save_model(openvino.convert_model(file), path, compress_to_fp16=False)
    return path


def executed(engine: str, file: Path, precision: Any) -> Executed:
    with runtimes.open_file(as_file_of(engine, file), engine, precision, 1) as session:
        return session.executed()


def int8_file(source: Source, tuning: TuningSet, path: Path, in_float: tuple[str, ...] = ()) -> Path:
    """An int8 file in which the named layers stay float."""
    flat = flatten(source.module, HEIGHT, WIDTH)
    (source.work / "flat").mkdir(exist_ok=True)  # exported and observed once
    kept = tuple(layer for layer in layers_of(flat) if layer.name in in_float)
    assert len(kept) == len(in_float)
    attempt = Attempt("trial", replace(source, module=flat, work=source.work / "flat"), "min-max", kept)
    write_qdq(attempt, tuning, path)
    return path


def macs(report: dict[str, Any]) -> dict[str, int]:
    return {layer.name: layer.macs for layer in report.layers}


def precisions(report: dict[str, Any]) -> dict[str, str]:
    return {layer.name: layer.precision for layer in report.layers}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_float_file_runs_every_layer_in_fp32(engine: str, source: Source) -> None:
    report = executed(engine, fp32_file(source), "fp32")
    assert macs(report) == MACS
    assert report.mac_shares == {"fp32": 1.0}
    assert (report.int8_layers, report.float_layers, report.quantize_ops) == (0, 4, 0)
    assert report.remarks == report.fell_back == ()
    assert report.quantize_time_share == 0
    assert unmet(report, parse("int8>=90%"))[0].startswith(
        "int8 ran 0 % of the MACs, required >= 90 %: stem.0 (fp32, 6"
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_an_int8_file_runs_every_layer_in_int8(engine: str, source: Source, tuning: TuningSet, tmp_path: Path) -> None:
    report = executed(engine, int8_file(source, tuning, tmp_path / "int8.onnx"), "int8")
    assert macs(report) == MACS
    assert report.mac_shares == {"int8": 1.0}
    assert report.remarks == report.fell_back == ()
    assert 0 <= report.quantize_time_share < 1
    assert unmet(report, parse("int8==100%, fp32<=0%")) == []


@pytest.mark.parametrize("layer", ["depthwise.0", "head"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_layer_kept_in_float_runs_in_float_and_is_named(
    engine: str, layer: str, source: Source, tuning: TuningSet, tmp_path: Path
) -> None:
    report = executed(engine, int8_file(source, tuning, tmp_path / "mixed.onnx", (layer,)), "int8")
    assert precisions(report) == dict.fromkeys(MACS, "int8") | {layer: "fp32"}
    assert sum(report.mac_shares.values()) == pytest.approx(1)
    assert report.mac_shares["fp32"] == pytest.approx(MACS[layer] / sum(MACS.values()))
    assert len(report.remarks) == 1
    assert f"ran in fp32, kept in float by the file: {layer} (fp32, " in report.remarks[0]
    assert report.fell_back == ()
    assert layer in unmet(report, parse("int8==100%"))[0]


def test_a_layer_that_the_engine_does_not_take_in_int8_fell_back(
    source: Source, tuning: TuningSet, tmp_path: Path
) -> None:
    """ONNX Runtime has an int8 convolution only where the output is quantised too."""
    path = int8_file(source, tuning, tmp_path / "int8.onnx")
    model = onnx.load(path)
    convolution = next(node for node in model.graph.node if node.name == "pointwise")
    quantize = next(node for node in model.graph.node if node.input[:1] == [convolution.output[0]])
    dequantize = next(node for node in model.graph.node if node.input[:1] == [quantize.output[0]])
    for node in model.graph.node:
        node.input[:] = [convolution.output[0] if name == dequantize.output[0] else name for name in node.input]
    model.graph.node.remove(quantize)
    model.graph.node.remove(dequantize)
    onnx.save(model, path)
    report = executed("onnxruntime", path, "int8")
    assert precisions(report)["pointwise"] == "fp32"
    assert report.fell_back == ("pointwise",)
    assert "although int8 in the file: pointwise (fp32, " in report.remarks[0]


@pytest.mark.parametrize("engine", ENGINES)
def test_fp16_on_a_processor_that_computes_in_fp32_is_named(engine: str, source: Source, tmp_path: Path) -> None:
    converted = formats.convert("onnx" if engine == "onnxruntime" else engine, source, "fp16", tmp_path / "out")
    session = runtimes.open_file(tmp_path / "out" / converted.files[0], engine, "fp16", 1)
    report = session.executed()
    session.close()
    if set(report.mac_shares) == {"fp16"}:
        assert report.remarks == ()
    else:
        assert report.remarks == ("asked for fp16, but 4 of 4 layers (100 % of the MACs) ran in fp32",)


def test_names_are_not_needed(source: Source, tmp_path: Path) -> None:
    """Other exporters write nodes without names: layers are told by what they put out."""
    model = onnx.load(fp32_file(source))
    for node in model.graph.node:
        node.name = ""
    onnx.save(model, tmp_path / "nameless.onnx")
    report = executed("onnxruntime", tmp_path / "nameless.onnx", "fp32")
    assert sorted(macs(report).values()) == sorted(MACS.values())
    assert report.remarks == ()


def test_the_reader_of_nodes_reads_what_onnx_reads(source: Source) -> None:
    graph = onnx.load(fp32_file(source)).graph
    assert [(n.name, n.op, n.inputs, n.outputs) for n in onnx_shapes.read_nodes(fp32_file(source))] == [
        (n.name, n.op_type, tuple(n.input), tuple(n.output)) for n in graph.node
    ]


@pytest.mark.parametrize(
    ("op", "inputs", "output", "expected"),
    [
        ("Conv", [(1, 8, 5, 5), (16, 4, 3, 3)], (1, 16, 3, 3), 16 * 9 * 4 * 9),
        ("ConvTranspose", [(1, 8, 3, 3), (8, 4, 2, 2)], (1, 4, 6, 6), 8 * 9 * 4 * 4),
        ("Gemm", [(1, 20), (20, 7)], (1, 7), 140),
        ("Gemm", [(20, 1), (7, 20)], (1, 7), 140),
        ("MatMul", [(1, 3, 10, 4), (1, 3, 4, 10)], (1, 3, 10, 10), 3 * 100 * 4),
        ("QLinearConv", [(1, 8, 5, 5), (), (), (16, 8, 1, 1), (16,), ()], (1, 16, 5, 5), 16 * 25 * 8),
    ],
)
def test_macs_of_each_operation(op: str, inputs: list[Any], output: tuple[int, ...], expected: int) -> None:
    node = onnx_shapes.Node("layer", op, tuple(f"i{place}" for place in range(len(inputs))), ("out",))
    (layer,) = onnx_shapes.layers_of([node], {0: (inputs, [output])})
    assert layer.macs == expected
    assert layer.int8 == op.startswith("Q")


@pytest.mark.parametrize("engine", ENGINES)
def test_telling_what_ran_needs_neither_torch_nor_onnx(engine: str, source: Source) -> None:
    path = as_file_of(engine, fp32_file(source))
    program = (
        "import sys; from pathlib import Path; from edgecnn.runtimes import open_file\n"
        f"report = open_file(Path({str(path)!r}), {engine!r}, 'fp32', 1).executed()\n"
        "assert report.mac_shares == {'fp32': 1.0}\n"
        "assert not {'torch', 'onnx'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


DESCRIBED = {"edgecnn.classes": '["good", "crack"]', "edgecnn.input": "uint8 (n, 32, 40, 3)"}


def test_a_written_file_says_what_it_is(source: Source, tuning: TuningSet, tmp_path: Path) -> None:
    source = replace(source, described=DESCRIBED, work=tmp_path)
    for path in (fp32_file(source), fp16_file(source)):
        model = onnx.load(path)
        assert {entry.key: entry.value for entry in model.metadata_props} == DESCRIBED
        assert model.producer_name == "edgecnn"
    int8 = onnx.load(int8_file(source, tuning, tmp_path / "int8.onnx"))
    assert DESCRIBED.items() <= {entry.key: entry.value for entry in int8.metadata_props}.items()


def test_fp16_takes_and_gives_what_fp32_does(source: Source, eager: Any) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(fp16_file(source), providers=["CPUExecutionProvider"])
    assert [one.type for one in (*session.get_inputs(), *session.get_outputs())] == ["tensor(uint8)", "tensor(float)"]
    half = {weight.data_type for weight in onnx.load(fp16_file(source)).graph.initializer if "weight" in weight.name}
    assert half == {onnx.TensorProto.FLOAT16}
    batch = images(4, 300)
    (logits,) = session.run(None, {"images": batch})
    assert np.abs(logits - eager(batch)).max() < 0.01 * eager(batch).std()


def test_pooling_to_one_pixel_is_one_operation(tmp_path: Path) -> None:
    import torch
    from torch import nn

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))

    class Pixels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.net(pixels.permute(0, 3, 1, 2).float() / 255)

    path = fp32_file(Source(Pixels().eval(), HEIGHT, WIDTH, tmp_path))
    operations = [node.op_type for node in onnx.load(path).graph.node]
    assert operations == ["Transpose", "Cast", "Div", "Conv", "ReduceMean", "Reshape", "Gemm"]


@pytest.mark.shared
@pytest.mark.slow
def test_mobilenet_v2_has_its_macs(shared: Path, tmp_path: Path) -> None:
    from edgecnn.artifact import Preprocess
    from edgecnn.models import Deployed, build

    weights = shared / "weights" / "mobilenet_v2" / "mobilenet_v2.safetensors"
    net = build("torchvision:mobilenet_v2", 1000, weights=weights, keep_head=True).module
    deployed = Deployed(net.eval(), Preprocess(height=224, width=224))
    for engine in ENGINES:
        report = executed(engine, fp32_file(Source(deployed, 224, 224, tmp_path)), "fp32")
        assert sum(macs(report).values()) == pytest.approx(0.3008e9, rel=1e-3)
        assert len(report.layers) == 53
        assert report.remarks == ()
