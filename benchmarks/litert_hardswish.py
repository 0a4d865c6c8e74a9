"""MobileNetV3's hard-swish in LiteRT int8: kept in float, written as products and sums, or LiteRT's own int8 kernel.

    python benchmarks/litert_hardswish.py --weights tf_mobilenetv3_small_100.safetensors --images FOLDER [--rounds 60]
    python benchmarks/litert_hardswish.py --table

XNNPACK has no int8 kernel for HARD_SWISH, so that the graph falls into parts. Every side is made from the same weights
and ranges (min-max over the calibration images) and is opened as a device opens it: one image, one thread. In a round
the sides take turns, in an order drawn anew; the first run of a turn is not kept. Agreement and error are against the
eager network, on images of the folder that were not calibrated with. The clock of the table is the processor time of
the process, which other processes on the machine disturb less; wall time is kept beside it.

Appends one row with all raw samples to benchmarks/results/litert_hardswish.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Preprocess
from edgecnn.bench.host import fingerprint
from edgecnn.errors import UserError
from edgecnn.imaging import EXTENSIONS, Images, prepare
from edgecnn.runtimes import Session, open_file

RESULTS = Path(__file__).parent / "results" / "litert_hardswish.jsonl"
MODEL = "timm:tf_mobilenetv3_small_100"
CLASSES = 1000
WARM_UP, UNKEPT, KEPT = 5, 1, 3
CLOCKS = ("wall_us", "processor_us")
TOLD = "processor_us"
"""The clock of the table."""
FP32 = "fp32"
TOLD_OF_A_SIDE = ("partitions", "outside_xnnpack", "int8_layers", "float_layers", "quantize_ops")
"""Of what its session executed."""


def main() -> None:
    """Measure and print the table."""
    arguments = _arguments()
    if not arguments.table:
        row = measure(arguments)
        with RESULTS.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
    print(table(json.loads(RESULTS.read_text().splitlines()[-1])))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One row: what each side answers, how it is partitioned, and every kept run in microseconds."""
    from edgecnn.models import Deployed, build

    built = build(MODEL, CLASSES, weights=arguments.weights, keep_head=True)
    deployed = Deployed(built.module, built.preprocess)
    calibration, judged = _images(arguments, built.preprocess)
    eager = _eager(deployed, judged)
    with TemporaryDirectory() as work:
        sides = _sides(deployed, calibration, judged, eager, Path(work))
        answers = {side: session.run(judged) for side, session in sides.items()}
        return {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": MODEL,
            "weights": built.weights,
            "size": [built.preprocess.height, built.preprocess.width],
            "threads": 1,
            "calibration_images": len(calibration),
            "judged_images": len(judged),
            "host": fingerprint().model_dump(mode="json"),
            "sides": {side: _described(sides[side], answers[side], eager) for side in sides},
            **_timed(sides, judged[:1], arguments.rounds),
        }


def table(row: Mapping[str, Any]) -> str:
    """The last measurement as Markdown."""
    times = {side: float(np.median(samples)) for side, samples in row[TOLD].items()}
    lines = [
        "| hard-swish | median ms | × fp32 | XNNPACK parts | outside of them | agreement | error, sd of logits |",
        "|---|---|---|---|---|---|---|",
    ]
    for side, told in row["sides"].items():
        outside = ", ".join(f"{kind} ×{count}" for kind, count in told["outside_xnnpack"].items()) or "–"
        lines.append(
            f"| {side} | {times[side] / 1000:.2f} | {times[side] / times[FP32]:.2f} | {told['partitions']} | {outside} "
            f"| {100 * told['agreement']:.1f} % | {told['error']:.3f} |"
        )
    return "\n".join(lines)


def _sides(deployed: Any, calibration: Images, judged: Images, eager: NDArray[np.float32], work: Path) -> Any:
    from edgecnn import formats
    from edgecnn.formats import Source
    from edgecnn.judge import Yardstick
    from edgecnn.quantize.engines.litert import HardSwish, write
    from edgecnn.quantize.flat import flatten
    from edgecnn.quantize.ladder import Attempt, TuningSet

    height, width = judged.shape[1:3]
    tuning = TuningSet(calibration, judged, eager.argmax(1), eager, Yardstick(1.0), 1)
    formats.convert("litert", Source(deployed, height, width, work), "fp32", work / FP32)
    sides = {FP32: open_file(work / FP32 / "model.tflite", "litert", "fp32", 1)}
    attempt = Attempt("min-max", Source(flatten(deployed, height, width), height, width, work), "min-max")
    for side in get_args(HardSwish):
        print(side, file=sys.stderr)
        (work / side).mkdir()
        (file,) = write(attempt, tuning, work / side, side)
        sides[side] = open_file(work / side / file, "litert", "int8", 1)
    return sides


def _described(session: Session, answers: NDArray[np.float32], eager: NDArray[np.float32]) -> dict[str, Any]:
    executed = session.executed()
    return {
        "agreement": float((answers.argmax(1) == eager.argmax(1)).mean()),
        "error": float(np.sqrt(np.mean((answers - eager) ** 2)) / eager.std()),
        "partitions": executed.partitions,
        "outside_xnnpack": dict(executed.outside_delegate),
        "int8_layers": executed.int8_layers,
        "float_layers": executed.float_layers,
        "quantize_ops": executed.quantize_ops,
    }


def _timed(sides: Mapping[str, Session], image: Images, rounds: int) -> dict[str, dict[str, list[float]]]:
    draw = random.Random(0)
    kept: dict[str, dict[str, list[float]]] = {clock: {side: [] for side in sides} for clock in CLOCKS}
    for session in sides.values():
        for _ in range(WARM_UP):
            session.run(image)
    for _ in range(rounds):
        for side in draw.sample(list(sides), len(sides)):
            for turn in range(UNKEPT + KEPT):
                wall, processor = time.perf_counter_ns(), time.process_time_ns()
                sides[side].run(image)
                taken = (time.perf_counter_ns() - wall, time.process_time_ns() - processor)
                if turn >= UNKEPT:
                    for clock, nanoseconds in zip(CLOCKS, taken, strict=True):
                        kept[clock][side].append(nanoseconds / 1000)
    return kept


def _eager(deployed: Any, images: Images) -> NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        parts = [deployed(torch.from_numpy(images[first : first + 16])).numpy() for first in range(0, len(images), 16)]
    return np.concatenate(parts)


def _images(arguments: argparse.Namespace, spec: Preprocess) -> tuple[Images, Images]:
    paths = sorted(path for path in arguments.images.rglob("*") if path.suffix.lower() in EXTENSIONS)
    wanted = arguments.calibrate + arguments.judge
    if len(paths) < wanted:
        raise UserError(f"{arguments.images}: {len(paths)} images, {wanted} are wanted (--calibrate, --judge)")
    random.Random(0).shuffle(paths)
    images = np.stack([prepare(path.read_bytes(), spec) for path in paths[:wanted]])
    return images[: arguments.calibrate], images[arguments.calibrate :]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", type=Path, help=f"of {MODEL}, with its {CLASSES} classes")
    parser.add_argument("--images", type=Path, help="a folder of images of its classes")
    parser.add_argument("--calibrate", type=int, default=200)
    parser.add_argument("--judge", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--table", action="store_true", help="print the last result")
    arguments = parser.parse_args()
    if not arguments.table and not (arguments.weights and arguments.images):
        parser.error("--weights and --images are wanted, or --table")
    return arguments


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
