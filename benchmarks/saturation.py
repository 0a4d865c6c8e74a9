"""What weights that cannot saturate cost: full range, 7 bits and fitted pairs, in the engines that add in 16 bits.

    python benchmarks/saturation.py RUN [RUN …]      # folders of `edgecnn finetune`, with their images in place
    python benchmarks/saturation.py --table

Every file is written from the same network (rounded by the data, biases corrected), then run here on all test images
and compared with fp32 and with its own integers added without a limit: in ONNX Runtime's kernels for unsigned weights
(onnx, openvino) and PyTorch's QNNPACK (torchscript), which add in 32 bits. That is what a processor with VNNI computes,
by another way: no number here was taken on one unless its host says so. Latencies are medians of single images, all
ways by turns in one process, as ratios to the full range. Appends to benchmarks/results/saturation.jsonl.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from edgecnn import quantize
from edgecnn.bench.host import fingerprint
from edgecnn.data import calibration_items, load_split
from edgecnn.formats import Source
from edgecnn.judge import Yardstick
from edgecnn.models import Deployed, load_module
from edgecnn.parity import prepare_files
from edgecnn.quantize import grid
from edgecnn.quantize.candidates import Networks
from edgecnn.quantize.engines import openvino as openvino_engine
from edgecnn.quantize.ladder import TuningSet
from edgecnn.quantize.simulate import logits_of
from edgecnn.runtimes import open_file

RESULTS = Path(__file__).parent / "results" / "saturation.jsonl"
CALIBRATION = 128
ENGINES = ("onnx", "openvino", "torchscript", "litert")
TURNS = 150
SEVEN_BITS = "7 bits"


@contextmanager
def seven_bits() -> Iterator[None]:
    """Weights of 64 steps to each side in every layer, as reduced ranges are: the plainer way, to compare with."""
    whole = grid.neighbours
    with (
        patch.object(grid, "neighbours", lambda shape, groups=1: whole(shape, 1)),
        patch.object(grid, "_steps", lambda rows, largest, pairs: torch.full_like(largest, 64)),
    ):
        yield


def with_unsigned_weights(path: Path, out: Path) -> Path:
    """The same QDQ file with 128 added to every weight and its zero point: U8U8."""
    return _shifted(path, out, lambda name, weights: name in weights, np.int8, np.uint8, 128)


def with_signed_activations(path: Path, out: Path) -> Path:
    """The same QDQ file with 128 taken from every activation: S8S8."""
    return _shifted(path, out, lambda name, weights: name not in weights, np.uint8, np.int8, -128)


def _shifted(path: Path, out: Path, wanted: Any, old: Any, new: Any, by: int) -> Path:
    import onnx
    from onnx.numpy_helper import from_array, to_array

    model = onnx.load(path)
    constants = {one.name: one for one in model.graph.initializer}
    weights = {
        name
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
        for name in (node.input[0], node.input[2])
    }
    for name, constant in constants.items():
        values = to_array(constant)
        if values.dtype == old and wanted(name, weights):
            constant.CopyFrom(from_array((values.astype(np.int16) + by).astype(new), name))
    onnx.save(model, out)
    return out


def answers(path: Path, runtime: str, images: Any) -> Any:
    """(n, classes), image by image."""
    session = open_file(path, runtime, "int8", 1)
    try:
        return np.concatenate([session.run(image[None]) for image in images])
    finally:
        session.close()


def without_a_limit(name: str, path: Path, images: Any) -> Any:
    """The file's integers, added in 32 bits whatever this processor has; None where its engine does so anyway."""
    if name == "litert":
        return None
    if name == "torchscript":
        with patch("edgecnn.runtimes.pytorch.exact_int8", _qnnpack):
            return answers(path, "pytorch", images)
    qdq = path if name == "onnx" else path.with_name("qdq.onnx")
    return answers(with_unsigned_weights(qdq, path.with_name("unlimited.onnx")), "onnxruntime", images)


@contextmanager
def _qnnpack() -> Iterator[None]:
    engines = torch.backends.quantized
    before, engines.engine = engines.engine, "qnnpack"
    try:
        yield
    finally:
        engines.engine = before


def write(name: str, networks: Networks, way: str, out: Path) -> Path:
    """One file by one way."""
    out.mkdir(parents=True)
    quantizer = quantize.get(name)
    asked: grid.Grid = "full" if way == "full" else "paired"
    start = networks.plain
    corrected = networks.corrected(start, asked)
    attempt = networks.attempt("rounded by data, bias corrected", asked, corrected, start)
    files = quantizer.write(attempt, networks.tuning, out)
    if name == "openvino":
        openvino_engine.write_qdq(attempt, networks.tuning, out / "qdq.onnx", fused=openvino_engine._FUSED)
    return out / files[0]


def latencies(files: Mapping[str, Path], runtime: str, image: Any) -> dict[str, float]:
    """Median milliseconds of one image each, by turns."""
    sessions = {way: open_file(path, runtime, "int8", 1) for way, path in files.items()}
    taken: dict[str, list[float]] = {way: [] for way in files}
    for turn in range(TURNS + 10):
        for way, session in sessions.items():
            started = time.thread_time()
            session.run(image[None])
            if turn >= 10:
                taken[way].append(1000 * (time.thread_time() - started))
    for session in sessions.values():
        session.close()
    return {way: median(times) for way, times in taken.items()}


def kernels(path: Path, runtime: str, image: Any) -> list[tuple[str, str]]:
    """(kind, precision) of each layer, as executed."""
    session = open_file(path, runtime, "int8", 1)
    session.run(image[None])
    executed = session.executed()
    session.close()
    return [(layer.kind, layer.precision) for layer in executed.layers]


def measure(run: Path) -> Iterator[dict[str, Any]]:
    """A row for each engine and way."""
    checkpoint, module = load_module(run)
    spec, data = checkpoint.preprocess, load_split(None, run / "split.json")
    calibration = prepare_files([item.path for item in calibration_items(data, CALIBRATION)], spec)
    images = prepare_files([item.path for item in data.test], spec)
    labels = np.array([item.label for item in data.test])
    deployed = Deployed(module, spec).eval()
    reference = logits_of(deployed, images).numpy()
    known = {
        "data": data.root.parent.name,
        "model": checkpoint.model,
        "size": spec.height,
        "images": len(images),
        "fp32_top1": float((reference.argmax(1) == labels).mean()),
        "date": datetime.now(UTC).date().isoformat(),
        "host": fingerprint().model_dump(mode="json"),
    }
    tuning = TuningSet(calibration, images[:1], labels[:1], reference[:1], Yardstick(1.0), 1)
    with TemporaryDirectory() as folder:
        work = Path(folder)
        source = Source(deployed, spec.height, spec.width, work / "networks")
        source.work.mkdir()
        networks = Networks(source, tuning)
        reduced = _beside(networks, work / "reduced")
        for name in ENGINES:
            runtime = quantize.get(name).runtime
            ways = ("full",) if name == "litert" else ("full", SEVEN_BITS, "paired")
            files = {}
            for way in ways:
                if way == SEVEN_BITS:
                    with seven_bits():
                        files[way] = write(name, reduced, way, work / name / "seven")
                else:
                    files[way] = write(name, networks, way, work / name / way)
            if name == "onnx":
                files["U8U8"] = with_unsigned_weights(files["full"], work / name / "u8u8.onnx")
                files["S8S8"] = with_signed_activations(files["full"], work / name / "s8s8.onnx")
            times = latencies(files, runtime, images[0])
            expected = kernels(files["full"], runtime, images[0])
            for way, path in files.items():
                logits = answers(path, runtime, images)
                exact = without_a_limit(name, path, images) if way in ways else None
                yield {
                    **known,
                    "engine": name,
                    "way": way,
                    "here": _apart(logits, reference, labels),
                    "without_a_limit": None if exact is None else _apart(exact, reference, labels),
                    "here_from_without_a_limit": None if exact is None else _apart(logits, exact, labels),
                    "latency_ms": times[way],
                    "latency_over_full": times[way] / times["full"],
                    "same_kernels_as_full": kernels(path, runtime, images[0]) == expected,
                }
            shutil.rmtree(work / name)


def _beside(networks: Networks, work: Path) -> Networks:
    """The same networks and observers, to be rounded otherwise."""
    work.mkdir()
    assert networks.exceptions is not None  # observers are chosen once
    other = copy.copy(networks)
    other.source = replace(networks.source, work=work)
    other._made, other._rounded = {}, {}
    return other


def _apart(logits: Any, reference: Any, labels: Any) -> dict[str, float]:
    error = np.abs(logits - reference) / reference.std()
    return {
        "top1": float((logits.argmax(1) == labels).mean()),
        "agreement": float((logits.argmax(1) == reference.argmax(1)).mean()),
        "mean_logit_error": float(error.mean()),
        "max_logit_error": float(error.max()),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    head = ("data (images)", "network", "engine", "weights", "fp32, %", "here, %", "agreement", "mean error, sd")
    head += ("without a limit, %", "agreement", "mean error, sd", "latency / full", "same kernels")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in {(row["data"], row["model"], row["engine"], row["way"]): row for row in rows}.values():
        cells = [f"{row['data']} ({row['images']})", row["model"], row["engine"], row["way"]]
        cells.append(f"{100 * row['fp32_top1']:.1f}")
        for found in (row["here"], row["without_a_limit"]):
            cells += (
                ["–"] * 3
                if found is None
                else [
                    f"{100 * found['top1']:.1f}",
                    f"{100 * found['agreement']:.1f} %",
                    f"{found['mean_logit_error']:.3f}",
                ]
            )
        cells += [f"{row['latency_over_full']:.2f}", "yes" if row["same_kernels_as_full"] else "no"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--table", action="store_true", help="print the stored rows as Markdown")
    arguments = parser.parse_args()
    if arguments.table:
        print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))
    for run in arguments.runs:
        for row in measure(run):
            print(
                row["data"], row["model"], row["engine"], row["way"], row["here"], row["latency_over_full"], flush=True
            )
            with RESULTS.open("a") as stream:
                stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
