"""Race edgecnn against what people write by hand, from encoded JPEG bytes in memory to a decision, in one run.

    python benchmarks/peers/from_jpeg_to_decision.py --bundle bundle/ --weights mobilenet_v2.safetensors --data data/
    python benchmarks/peers/from_jpeg_to_decision.py --show benchmarks/results/peers/from_jpeg_to_decision.jsonl

The bundle: torchvision:mobilenet_v2 at 224×224, exported for desktop-cpu. Batch 1, one thread each, every side in a
process of its own. The parent asks one after the other for a burst of units, so that only one works at a time and all
see the same disturbances: the ratios are what counts. Each unit is timed by its own process, decoding included. Units
at the start of a burst are not kept: they pay for the other sides' use of the caches. All sides are launched several
times: how a process's memory happens to lie can change PyTorch's time by a quarter, for as long as the process lives.

Two clocks, because a busy machine takes more wall time from a long unit than from a short one: wall time, and the
processor time of the side's process, which on an idle core is the same for one thread.

Exit code: 0 where every statement holds, which is where its whole 95 % interval does by both clocks, else 1.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgecnn.artifact import load_bundle
from edgecnn.bench import host
from edgecnn.decide import decide
from edgecnn.documents import sha256_of
from edgecnn.imaging import Preparer
from edgecnn.runtimes import open_session

Unit: TypeAlias = Callable[[bytes], object]
"""Encoded bytes to a decision: what is timed."""
Samples: TypeAlias = NDArray[np.float64]
"""Milliseconds, (launches, rounds, units of a burst)."""
Measured: TypeAlias = dict[tuple[str, str, str], Samples]
"""By (input, side, clock)."""

RESULTS = Path(__file__).parents[1] / "results/peers/from_jpeg_to_decision.jsonl"
SIDE = 224
"""Input height and width of the network, in pixels."""
LARGE = (1280, 960)
LARGE_BYTES = 250_000
PHOTOS = 9
UNKEPT, KEPT = 2, 5
"""Units of a burst."""
RESAMPLES = 2000
CLOCKS = ("wall", "processor")
EDGECNN = "edgecnn"
VERSIONS = (
    "numpy",
    "Pillow",
    "simplejpeg",
    "opencv-python-headless",
    "openvino",
    "onnxruntime",
    "torch",
    "torchvision",
)


@dataclass(frozen=True)
class Settings:
    """What every side is opened with."""

    bundle: Path
    variant: str
    weights: Path
    classes: int
    work: Path
    """For temporary files."""


@dataclass(frozen=True)
class Input:
    """An encoded image."""

    name: str
    encoded: bytes
    made: str


@dataclass(frozen=True)
class Statement:
    """`slower` takes at least `least` times as long as `faster`, or (with `most`) at most so many times."""

    input: str
    slower: str
    faster: str
    bound: Literal["at least", "at most"]
    times: float


STATEMENTS = (
    Statement("large", "pil+torchvision+eager", EDGECNN, "at least", 4.0),
    Statement("small", "pil+torchvision+eager", EDGECNN, "at least", 6.0),
    Statement("large", EDGECNN, "lower bound, 3/8", "at most", 1.02),
    Statement("small", EDGECNN, "lower bound, 3/8", "at most", 1.10),
    Statement("large", EDGECNN, "lower bound, smallest n/8", "at most", 1.02),
    Statement("small", EDGECNN, "lower bound, smallest n/8", "at most", 1.10),
    Statement("small", EDGECNN, "opencv+openvino int8", "at most", 1.05),
)


def main() -> int:
    arguments = _arguments()
    if arguments.show is None:
        arguments.show = arguments.out
        measure_to(arguments.out, arguments)
    header, samples = read(arguments.show)
    shape = f"{header['launches']} launches of {header['rounds_of_a_launch']} rounds"
    print(f"{header['started']}, {header['host']['cpu']}, {header['host']['cores']} cores, {shape}")
    print(table(samples, header["inputs"]))
    verdicts = [judged(statement, samples) for statement in STATEMENTS]
    print("\n".join(text for _, text in verdicts))
    return 0 if all(holds for holds, _ in verdicts) else 1


def measure_to(out: Path, arguments: argparse.Namespace) -> None:
    """Run every side in turn and write the raw samples: a header, then one line for each burst."""
    inputs = [large_input(arguments), small_input(arguments)]
    bundle = load_bundle(arguments.bundle)
    if (bundle.preprocess.height, bundle.preprocess.width) != (SIDE, SIDE):
        raise SystemExit(f"{arguments.bundle}: takes another size than {SIDE}×{SIDE}: export it with --size {SIDE}")
    started, before = datetime.now(UTC).isoformat(timespec="seconds"), host.state()
    with TemporaryDirectory() as work:
        settings = Settings(arguments.bundle, arguments.variant, arguments.weights, len(bundle.classes), Path(work))
        bursts: list[dict[str, Any]] = []
        for launch in range(arguments.launches):
            with workers(settings, inputs) as sides:
                bursts += _bursts(launch, sides, [image.name for image in inputs], arguments.rounds)
    header = {
        "kind": "run",
        "started": started,
        "launches": arguments.launches,
        "rounds_of_a_launch": arguments.rounds,
        "unkept_units_of_a_burst": UNKEPT,
        "bundle": bundle.name,
        "variant": _variant_facts(arguments.bundle, arguments.variant),
        "host": host.fingerprint().model_dump(),
        "before": before.model_dump(),
        "after": host.state().model_dump(),
        "versions": {name: metadata.version(name) for name in VERSIONS},
        "inputs": {image.name: _described(image) for image in inputs},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in [header, *bursts]))


def read(path: Path) -> tuple[dict[str, Any], Measured]:
    """The header, and the samples."""
    header, *bursts = [json.loads(line) for line in path.read_text().splitlines()]
    found: dict[tuple[str, str, str], list[list[int]]] = {}
    for burst in sorted(bursts, key=lambda burst: (int(burst["launch"]), int(burst["round"]))):
        for clock in CLOCKS:
            found.setdefault((burst["input"], burst["side"], clock), []).append(burst[f"{clock}_ns"])
    shape = (header["launches"], header["rounds_of_a_launch"], -1)
    return header, {key: np.array(rows).reshape(shape) / 1e6 for key, rows in found.items()}


def table(samples: Measured, inputs: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: percentiles of each side, and its median relative to edgecnn's by both clocks."""
    lines = [
        "| input | side | p50, ms | p90, ms | relative to edgecnn [95 %] | processor p50, ms | relative [95 %] |",
        "|---|---|---|---|---|---|---|",
    ]
    for image, facts in inputs.items():
        shown = f"{facts['width']}×{facts['height']}, {facts['bytes'] / 1000:.0f} kB"
        for side in SIDES:
            p50, p90 = np.percentile(samples[image, side, "wall"], (50, 90))
            processor = np.median(samples[image, side, "processor"])
            wall_ratio, ratio = (_relative(image, side, clock, samples) for clock in CLOCKS)
            lines.append(f"| {shown} | {side} | {p50:.2f} | {p90:.2f} | {wall_ratio} | {processor:.2f} | {ratio} |")
    return "\n".join(lines)


def judged(statement: Statement, samples: Measured) -> tuple[bool, str]:
    """Whether a statement holds by both clocks, and the line that says so."""
    outcomes, shown = [], []
    for clock in CLOCKS:
        sides = (samples[statement.input, side, clock] for side in (statement.slower, statement.faster))
        ratio, low, high = ratio_of_medians(*sides)
        at_least = statement.bound == "at least"
        worst, best = (low, high) if at_least else (high, low)
        outcomes.append(_outcome(worst, best, statement.times, at_least))
        shown.append(f"{clock} {ratio:.2f} [{low:.2f}, {high:.2f}]")
    word = next(word for word in ("does not hold", "not shown", "holds") if word in outcomes)
    what = f"{statement.input}: {statement.slower} takes {statement.bound} {statement.times:g} × {statement.faster}"
    return word == "holds", f"{what}: {word} ({', '.join(shown)})"


def ratio_of_medians(numerator: Samples, denominator: Samples) -> tuple[float, float, float]:
    """The ratio and its 95 % interval: percentile bootstrap over launches and their rounds, the same for both sides."""
    launches, rounds, _ = numerator.shape
    draw = np.random.default_rng(0)
    drawn = (
        draw.integers(0, launches, (RESAMPLES, launches, 1)),
        draw.integers(0, rounds, (RESAMPLES, launches, rounds)),
    )
    ratios = _medians(numerator, drawn) / _medians(denominator, drawn)
    low, high = np.percentile(ratios, (2.5, 97.5))
    return float(np.median(numerator) / np.median(denominator)), float(low), float(high)


def large_input(arguments: argparse.Namespace) -> Input:
    """A 1280×960 JPEG of about 250 kB: `--large`, or a mosaic of nine photographs at twice their size."""
    if arguments.large is not None:
        return Input("large", arguments.large.read_bytes(), "given with --large")
    paths = sorted((arguments.data / "imagenet_val1300/data").glob("*.JPEG"))[:PHOTOS]
    mosaic, edge = Image.new("RGB", LARGE), 454
    for number, path in enumerate(paths):
        photo = Image.open(path).convert("RGB").resize((edge, edge), Image.Resampling.LANCZOS)
        mosaic.paste(photo, (number % 3 * edge, number // 3 * edge))
    encodings = {quality: _jpeg(mosaic, quality) for quality in range(70, 98)}
    quality = min(encodings, key=lambda quality: abs(len(encodings[quality]) - LARGE_BYTES))
    made = (
        f"3 × 3 ImageNet validation photographs at {edge}×{edge} (Lanczos), cropped; Pillow, quality {quality}, 4:2:0"
    )
    return Input("large", encodings[quality], made)


def small_input(arguments: argparse.Namespace) -> Input:
    """A 200×200 JPEG: `--small`, or the first image of NEU-DET."""
    if arguments.small is not None:
        return Input("small", arguments.small.read_bytes(), "given with --small")
    path = min((arguments.data / "defect_neu_det/images").glob("*/*.jpg"))
    return Input("small", path.read_bytes(), f"NEU-DET, {path.name}, as it is")


# The sides: each opens its engine and gives the function that is timed.


def pil_torchvision_eager(settings: Settings) -> Unit:
    """What a user would write."""
    import torch

    transform, module = _transform(), _eager(settings)

    def unit(encoded: bytes) -> tuple[int, float]:
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
        with torch.inference_mode():
            probabilities = module(transform(image)[None]).softmax(1)[0]
        best = int(probabilities.argmax())
        return best, float(probabilities[best])

    return unit


def pil_torchvision_onnxruntime(settings: Settings) -> Unit:
    """The same with ONNX Runtime fp32 as the engine."""
    import onnxruntime
    import torch

    transform, path = _transform(), settings.work / "user.onnx"
    if not path.exists():  # of an earlier launch
        example = torch.zeros(1, 3, SIDE, SIDE)
        torch.onnx.export(_eager(settings), (example,), path, dynamo=True, external_data=False, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def unit(encoded: bytes) -> tuple[int, float]:
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
        return _decision(session.run(None, {name: transform(image)[None].numpy()})[0][0])

    return unit


def opencv_openvino(settings: Settings) -> Unit:
    """OpenCV, INTER_AREA, OpenVINO int8, as its own examples call them."""
    import cv2

    cv2.setNumThreads(1)
    request = _openvino_request(settings)

    def unit(encoded: bytes) -> tuple[int, float]:
        image: Any = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
        image = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return _decision(request.infer([image[None]])[0][0])

    return unit


def lower_bound_three_eighths(settings: Settings) -> Unit:
    """The least found by hand: decoding at 3/8 where that leaves enough pixels, every buffer made once, bare engine."""
    return _lower_bound(settings, least_eighths=3)


def lower_bound_smallest(settings: Settings) -> Unit:
    """The same, decoding at the smallest n/8 that leaves at least as many pixels as the network takes."""
    return _lower_bound(settings, least_eighths=1)


def edgecnn(settings: Settings) -> Unit:
    """This package, as `edgecnn bench` calls it."""
    bundle = load_bundle(settings.bundle)
    preparer = Preparer(bundle.preprocess)
    session = open_session(settings.bundle, bundle.artifact(settings.variant), threads=1)

    def unit(encoded: bytes) -> object:
        return decide(session.run(preparer.prepare(encoded)[np.newaxis]))

    return unit


SIDES: Mapping[str, Callable[[Settings], Unit]] = {
    "pil+torchvision+eager": pil_torchvision_eager,
    "pil+torchvision+onnxruntime fp32": pil_torchvision_onnxruntime,
    "opencv+openvino int8": opencv_openvino,
    "lower bound, 3/8": lower_bound_three_eighths,
    "lower bound, smallest n/8": lower_bound_smallest,
    EDGECNN: edgecnn,
}


@contextmanager
def workers(settings: Settings, inputs: Sequence[Input]) -> Iterator[dict[str, Connection[Any, Any]]]:
    """A waiting process for each side, and the connection to ask it by."""
    context = multiprocessing.get_context("spawn")
    sides: dict[str, Connection[Any, Any]] = {}
    processes = []
    try:
        for name in SIDES:
            sides[name], theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, name, settings, tuple(inputs)), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            print(f"{name}: {sides[name].recv()}", file=sys.stderr)
        yield sides
    finally:
        for connection in sides.values():
            connection.close()
        for process in processes:
            process.join(timeout=10)


def _work(connection: Connection[Any, Any], name: str, settings: Settings, inputs: Sequence[Input]) -> None:
    """A side's process: bursts of units on demand, until the parent hangs up."""
    encoded = {image.name: image.encoded for image in inputs}
    unit = SIDES[name](settings)
    decisions = {image.name: unit(image.encoded) for image in inputs}
    for image in inputs:
        _burst(unit, image.encoded, 10 * KEPT)
    gc.collect()
    gc.disable()
    connection.send(f"ready, {decisions}")
    while True:
        try:
            wanted = connection.recv()
        except EOFError:
            return
        _burst(unit, encoded[wanted], UNKEPT)
        connection.send(_burst(unit, encoded[wanted], KEPT))


def _bursts(
    launch: int, sides: Mapping[str, Connection[Any, Any]], inputs: Sequence[str], rounds: int
) -> Iterator[dict[str, Any]]:
    """Ask every side for every input in each round, in an order that is drawn anew."""
    order, draw = [(side, image) for image in inputs for side in sides], random.Random(launch)
    for number in range(rounds):
        draw.shuffle(order)
        for side, image in order:
            sides[side].send(image)
            wall, processor = sides[side].recv()
            who = {"kind": "burst", "launch": launch, "round": number, "input": image, "side": side}
            yield {**who, "wall_ns": wall, "processor_ns": processor}


def _burst(unit: Unit, encoded: bytes, count: int) -> tuple[list[int], list[int]]:
    """Nanoseconds of wall time and of processor time (all threads) of each unit."""
    wall, processor = [], []
    for _ in range(count):
        start, processor_start = time.perf_counter_ns(), time.process_time_ns()
        unit(encoded)
        processor.append(time.process_time_ns() - processor_start)
        wall.append(time.perf_counter_ns() - start)
    return wall, processor


def _transform() -> Callable[[Image.Image], Any]:
    import torch
    from torchvision import transforms

    torch.set_num_threads(1)
    steps = [
        transforms.Resize((SIDE, SIDE), antialias=True),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    composed: Callable[[Image.Image], Any] = transforms.Compose(steps)
    return composed


def _eager(settings: Settings) -> Any:
    """torchvision's MobileNetV2 with the weights' backbone and as many classes as the bundle: for latency only."""
    from safetensors.torch import load_file
    from torchvision.models import mobilenet_v2

    module = mobilenet_v2(num_classes=settings.classes)
    backbone = {key: value for key, value in load_file(settings.weights).items() if key.startswith("features.")}
    missing, unexpected = module.load_state_dict(backbone, strict=False)
    if unexpected or any(key.startswith("features.") for key in missing):
        raise SystemExit(f"{settings.weights}: not torchvision's MobileNetV2")
    return module.eval()


def _openvino_request(settings: Settings) -> Any:
    """A bare request for the bundle's int8 file: static batch 1, float parts in f32, one thread."""
    import openvino

    artifact = load_bundle(settings.bundle).artifact(settings.variant)
    core = openvino.Core()
    model = core.read_model(settings.bundle / artifact.files[0])
    model.reshape([1, SIDE, SIDE, 3])
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    return core.compile_model(model, "CPU", options).create_infer_request()


def _lower_bound(settings: Settings, least_eighths: int) -> Unit:
    import cv2
    import openvino
    import simplejpeg

    cv2.setNumThreads(1)
    request = _openvino_request(settings)
    images = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    request.set_input_tensor(openvino.Tensor(images, shared_memory=True))
    logits = request.get_output_tensor().data
    pixels = np.empty(LARGE[0] * LARGE[1] * 3, np.uint8)

    def unit(encoded: bytes) -> tuple[int, float]:
        height, width, _, _ = simplejpeg.decode_jpeg_header(encoded)
        eighths = max(least_eighths, -(-8 * SIDE // min(height, width)))
        height, width = (height, width) if eighths >= 8 else (-(-height * eighths // 8), -(-width * eighths // 8))
        decoded: Any = simplejpeg.decode_jpeg(encoded, "RGB", min_height=height, min_width=width, buffer=pixels)
        cv2.resize(decoded, (SIDE, SIDE), dst=images[0], interpolation=cv2.INTER_AREA)
        request.infer()
        return _decision(logits[0])

    return unit


def _decision(logits: NDArray[np.float32]) -> tuple[int, float]:
    """The largest class and its softmax probability."""
    best = int(logits.argmax())
    return best, float(1.0 / np.exp(logits - logits[best]).sum())


def _outcome(worst: float, best: float, limit: float, at_least: bool) -> str:
    """By the ends of the interval that speak least and most for a statement."""
    if not at_least:
        worst, best, limit = -worst, -best, -limit
    return "holds" if worst >= limit else "does not hold" if best < limit else "not shown"


def _relative(image: str, side: str, clock: str, samples: Measured) -> str:
    if side == EDGECNN:
        return "1"
    ratio, low, high = ratio_of_medians(samples[image, side, clock], samples[image, EDGECNN, clock])
    return f"{ratio:.2f} [{low:.2f}, {high:.2f}]"


def _medians(samples: Samples, drawn: tuple[NDArray[np.int64], NDArray[np.int64]]) -> NDArray[np.float64]:
    """Median over all units of the drawn (launches, rounds), for each resample."""
    medians: NDArray[np.float64] = np.median(samples[drawn].reshape(RESAMPLES, -1), axis=1)
    return medians


def _jpeg(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _described(image: Input) -> dict[str, Any]:
    with Image.open(io.BytesIO(image.encoded)) as opened:
        width, height = opened.size
    size = len(image.encoded)
    return {"width": width, "height": height, "bytes": size, "sha256": sha256_of(image.encoded), "made": image.made}


def _variant_facts(folder: Path, variant: str) -> dict[str, Any]:
    """What the file is that the OpenVINO sides run."""
    artifact = load_bundle(folder).artifact(variant)
    return {
        "variant": variant,
        "notes": dict(artifact.notes),
        "executed": artifact.executed.model_dump(mode="json") if artifact.executed else None,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("EDGECNN_SHARED", "shared"))
    parser.add_argument("--bundle", type=Path, help="bundle folder with --variant")
    parser.add_argument("--variant", default="openvino-int8")
    parser.add_argument("--weights", type=Path, default=shared / "weights/mobilenet_v2/mobilenet_v2.safetensors")
    parser.add_argument("--data", type=Path, default=shared / "data", help="holds imagenet_val1300, defect_neu_det")
    parser.add_argument("--large", type=Path, help="a JPEG instead of the mosaic; 1280×960 at most")
    parser.add_argument("--small", type=Path, help="a JPEG instead of NEU-DET's first")
    parser.add_argument("--launches", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15, help="of a launch")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--show", type=Path, help="print what a stored file shows; measure nothing")
    arguments = parser.parse_args()
    if arguments.show is None and arguments.bundle is None:
        parser.error("--bundle is needed to measure")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
