"""Standard 3×3 against depthwise separable convolutions: time beside multiply-accumulates, in every engine.

    python benchmarks/depthwise.py [--rounds 20]
    python benchmarks/depthwise.py --table

Batch 1, one thread, float32 (1, channels, size, size) in. Each side is a stack of eight equal layers, so that an
engine's cost of a call weighs little; `call` is the same call with a single 1×1 depthwise convolution (in PyTorch,
where nothing is converted on the way, a single ReLU): what the way in and out costs at most. After each convolution
there is a bias and a ReLU, as a folded BatchNorm leaves them. `depthwise` is the separable block without its 1×1: not
a replacement, but what the 3×3 alone takes. int8 is static QDQ, calibrated on noise: for latency only.

One process an engine. In it the sides of a shape take turns, in an order that is drawn anew each round, so that all
see the same disturbances: the ratios are what counts. The first run of a turn is not kept: it pays for the other sides'
use of the caches. Appends a row with the raw samples for each engine and shape to benchmarks/results/depthwise.jsonl.

Two clocks are kept, wall time and the processor time of the process, which on an idle core are the same for one thread.
The table is by processor time: what else the machine does takes more wall time from a long run than from a short one.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecnn.bench.host import fingerprint
from edgecnn.block_cost import At, Layer, depthwise_separable, macs, plain

Maps: TypeAlias = NDArray[np.float32]
"""float32 (1, channels, size, size)."""
Unit: TypeAlias = Callable[[], object]
"""One call of the engine: what is timed."""


class Shape(NamedTuple):
    """Of the maps: the layers keep it."""

    channels: int
    size: int
    """Height and width in pixels."""


RESULTS = Path(__file__).parent / "results" / "depthwise.jsonl"
SHAPES = (Shape(16, 112), Shape(32, 112), Shape(64, 56), Shape(128, 28), Shape(256, 14), Shape(512, 7))
DEPTH = 8
"""Equal layers (or pairs of them) in a stack."""
SIDES = ("standard", "separable", "depthwise", "call")
WARM_UP, UNKEPT, KEPT = 5, 1, 2
"""Runs before all rounds, and of a turn."""
RESAMPLES = 2000
CLOCKS = ("wall_us", "processor_us")
TOLD = "processor_us"
"""The clock of the table."""


def main() -> None:
    """Measure every engine, each in a process of its own, and print the table."""
    arguments = _arguments()
    if arguments.engine:
        for row in measure(arguments.engine, arguments.work, arguments.rounds):
            print(json.dumps(row), flush=True)
        return
    if not arguments.table:
        measure_all(arguments.rounds)
    print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))


def measure_all(rounds: int) -> None:
    """Write the ONNX files that the engines open, run the engines one after the other, append what they found."""
    facts = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "depth": DEPTH,
        "threads": 1,
        "host": fingerprint().model_dump(mode="json"),
    }
    with TemporaryDirectory() as work:
        write_onnx(Path(work))
        for engine in ENGINES:
            print(engine, file=sys.stderr)
            command = [sys.executable, __file__, "--engine", engine, "--work", work, "--rounds", str(rounds)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            with RESULTS.open("a") as stream:
                for line in done.stdout.splitlines():
                    stream.write(json.dumps({**facts, **json.loads(line)}) + "\n")


def measure(engine: str, work: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """One row a shape: microseconds of each kept run of each side, by both clocks, in this process."""
    draw = random.Random(0)
    for shape in SHAPES:
        maps = np.random.default_rng(0).random((1, shape.channels, shape.size, shape.size), np.float32)
        units = {side: ENGINES[engine](work, shape, side, maps) for side in SIDES}
        yield {
            "engine": engine,
            **shape._asdict(),
            "macs": {side: macs(stack(shape, side)) for side in SIDES},
            **take_turns(units, rounds, draw),
        }


def take_turns(units: Mapping[str, Unit], rounds: int, draw: random.Random) -> dict[str, dict[str, list[float]]]:
    """By clock and side: microseconds of the kept runs."""
    samples: dict[str, dict[str, list[float]]] = {clock: {side: [] for side in units} for clock in CLOCKS}
    for unit in units.values():
        for _ in range(WARM_UP):
            unit()
    order = list(units)
    gc.disable()
    for _ in range(rounds):
        draw.shuffle(order)
        for side in order:
            for wall_us, processor_us in _turn(units[side]):
                samples["wall_us"][side].append(wall_us)
                samples["processor_us"][side].append(processor_us)
    gc.enable()
    return samples


def stack(shape: Shape, side: str) -> list[Layer]:
    """The convolutions of a side."""
    channels, at = shape.channels, At(shape.size, shape.size)
    if side == "call":
        return [Layer("1×1 depthwise", channels, channels, 1, channels, at)]
    layers = {
        "standard": plain(channels, channels, at),
        "separable": depthwise_separable(channels, channels, at),
        "depthwise": depthwise_separable(channels, channels, at)[:1],
    }
    return DEPTH * layers[side]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of the latest run: medians, and how many times less time beside how many times fewer MACs."""
    latest = [row for row in rows if row["started"] == rows[-1]["started"]]
    first = latest[0]
    heads = ("engine", "channels, map", "call, ms", "standard, ms", *("separable, ms", "MACs ÷", "time ÷ [95 %]"))
    heads += ("depthwise, ms", "MACs ÷", "time ÷ [95 %]")
    lines = [
        f"{first['started']}, {first['host']['cpu']}: {first['depth']} layers each, one thread, median processor time.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
    ]
    for row in latest:
        cells = [row["engine"], f"{row['channels']}, {row['size']}×{row['size']}"]
        cells += [f"{_median_ms(row, side):.2f}" for side in ("call", "standard")]
        for side in ("separable", "depthwise"):
            fewer = row["macs"]["standard"] / row["macs"][side]
            cells += [f"{_median_ms(row, side):.2f}", f"{fewer:.1f}", _marked(fewer, *ratio_of_medians(row, side))]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "**Bold**: less than half of what the MACs promise; **slower**: more time than the standard one."]
    return "\n".join(lines)


def ratio_of_medians(row: Mapping[str, Any], side: str) -> tuple[float, float, float]:
    """Time of the standard convolution over that of `side`, and its 95 % interval: bootstrap over rounds."""
    standard, other = (np.reshape(row[TOLD][name], (-1, KEPT)) for name in ("standard", side))
    drawn = np.random.default_rng(0).integers(0, len(standard), (RESAMPLES, len(standard)))
    medians = [np.median(samples[drawn], axis=(1, 2)) for samples in (standard, other)]
    low, high = np.percentile(medians[0] / medians[1], (2.5, 97.5))
    return float(np.median(standard) / np.median(other)), float(low), float(high)


def write_onnx(work: Path) -> None:
    """Every shape's and side's stack, in fp32 and in int8."""
    for shape in SHAPES:
        for side in SIDES:
            _write_fp32(shape, side, _file(work, shape, side, "fp32"))
            _write_int8(shape, _file(work, shape, side, "fp32"), _file(work, shape, side, "int8"))


# The engines: each opens a side's stack and gives the function that is timed.


def eager(work: Path, shape: Shape, side: str, maps: Maps) -> Unit:
    """PyTorch as it is, channels last."""
    del work
    import torch

    torch.set_num_threads(1)
    return _torch_unit(_torch_stack(shape, side), maps)


def torchscript(work: Path, shape: Shape, side: str, maps: Maps) -> Unit:
    """Traced and frozen, channels last."""
    del work
    import warnings

    import torch

    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated as a whole and still deployed
        traced = torch.jit.trace(_torch_stack(shape, side), torch.from_numpy(maps), check_trace=False)
        return _torch_unit(torch.jit.freeze(traced), maps)


def onnxruntime(precision: str, work: Path, shape: Shape, side: str, maps: Maps) -> Unit:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    path = _file(work, shape, side, precision)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"maps": maps})


def openvino(precision: str, work: Path, shape: Shape, side: str, maps: Maps) -> Unit:
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = openvino.Core().compile_model(str(_file(work, shape, side, precision)), "CPU", settings)
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(maps, shared_memory=True))
    return request.infer


def _with(precision: str, engine: Callable[[str, Path, Shape, str, Maps], Unit]) -> Callable[..., Unit]:
    return lambda *arguments: engine(precision, *arguments)


ENGINES: Mapping[str, Callable[[Path, Shape, str, Maps], Unit]] = {
    "PyTorch eager": eager,
    "TorchScript": torchscript,
    "ONNX Runtime fp32": _with("fp32", onnxruntime),
    "ONNX Runtime int8": _with("int8", onnxruntime),
    "OpenVINO fp32": _with("fp32", openvino),
    "OpenVINO int8": _with("int8", openvino),
}


def _torch_stack(shape: Shape, side: str) -> Any:
    import torch
    from torch import nn

    if side == "call":
        return nn.ReLU().eval()
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for layer in stack(shape, side):
        pad = layer.kernel // 2
        layers.append(nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, padding=pad, groups=layer.groups))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers).eval().to(memory_format=torch.channels_last)


def _torch_unit(module: Any, maps: Maps) -> Unit:
    import torch

    given = torch.from_numpy(maps).contiguous(memory_format=torch.channels_last)

    def unit() -> object:
        with torch.inference_mode():
            return module(given)

    return unit


def _write_fp32(shape: Shape, side: str, path: Path) -> None:
    import onnx
    from onnx import helper, numpy_helper

    draw, nodes, constants, last = np.random.default_rng(0), [], [], "maps"
    layers = stack(shape, side)
    for number, layer in enumerate(layers):
        taken = layer.inputs // layer.groups
        spread = np.sqrt(2 / (taken * layer.kernel**2))
        weight = draw.normal(0, spread, (layer.outputs, taken, layer.kernel, layer.kernel)).astype(np.float32)
        bias = draw.normal(0, 0.1, layer.outputs).astype(np.float32)
        constants += [numpy_helper.from_array(weight, f"w{number}"), numpy_helper.from_array(bias, f"b{number}")]
        settings = {"group": layer.groups, "kernel_shape": [layer.kernel] * 2, "pads": [layer.kernel // 2] * 4}
        names = [last, f"w{number}", f"b{number}"]
        nodes.append(helper.make_node("Conv", names, [f"c{number}"], f"conv{number}", **settings))
        last = f"r{number}" if number + 1 < len(layers) else "out"
        nodes.append(helper.make_node("Relu", [f"c{number}"], [last], f"relu{number}"))
    dimensions = [1, shape.channels, shape.size, shape.size]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dimensions) for name in ("maps", "out")]
    graph = helper.make_graph(nodes, side, ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _write_int8(shape: Shape, fp32: Path, out: Path) -> None:
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Noise(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            draw, dimensions = np.random.default_rng(1), (1, shape.channels, shape.size, shape.size)
            self._left = [{"maps": draw.random(dimensions, np.float32)} for _ in range(4)]

        def get_next(self) -> dict[str, Maps] | None:
            return self._left.pop() if self._left else None

    logging.disable(logging.WARNING)  # it advises a pre-processing that is not needed here
    onnxruntime.set_default_logger_severity(3)
    quantize_static(
        fp32,
        out,
        Noise(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    logging.disable(logging.NOTSET)


def _turn(unit: Unit) -> Iterator[tuple[float, float]]:
    """Microseconds of wall time and of processor time (all threads) of the kept runs."""
    for _ in range(UNKEPT):
        unit()
    for _ in range(KEPT):
        start, processor_start = time.perf_counter_ns(), time.process_time_ns()
        unit()
        processor_ns, wall_ns = time.process_time_ns() - processor_start, time.perf_counter_ns() - start
        yield wall_ns / 1e3, processor_ns / 1e3


def _median_ms(row: Mapping[str, Any], side: str) -> float:
    return float(np.median(row[TOLD][side])) / 1e3


def _marked(fewer: float, faster: float, low: float, high: float) -> str:
    """Marks hold for the whole interval."""
    shown, least, most = (f"{value:#.3g}".rstrip(".") for value in (faster, low, high))
    text = f"{shown} [{least}, {most}]"
    if high < 1:
        return f"**{text} slower**"
    return f"**{text}**" if high < fewer / 2 else text


def _file(work: Path, shape: Shape, side: str, precision: str) -> Path:
    return work / f"{shape.channels}-{shape.size}-{side}-{precision}.onnx"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--table", action="store_true", help="print the latest run's, without measuring")
    parser.add_argument("--engine", choices=list(ENGINES), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
