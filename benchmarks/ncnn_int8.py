"""ncnn: int8 against fp32, and what keeping grouped convolutions in float and handing over int8 do to it.

    python benchmarks/ncnn_int8.py [--rounds 40] [--network torchvision:resnet18 …]
    python benchmarks/ncnn_int8.py --table

Batch 1, 224×224, one thread. Weights are random and ranges are those of noise: for latency only. `int8` is as
`edgecnn export` writes it; `grouped int8` has depthwise and grouped convolutions in int8 too; in `no hand-over` every
int8 layer gives floats. The sides take turns in one process, in an order that is drawn anew each round, so that all
see the same disturbances: the ratios are what counts. Appends a row with the raw samples for each network to
benchmarks/results/ncnn_int8.jsonl.

Two clocks are kept, wall time and the processor time of the thread, which on an idle core are the same. The table is by
processor time: what else the machine does takes more wall time from a long run than from a short one.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgecnn.bench.host import fingerprint
from edgecnn.formats import Source
from edgecnn.formats.ncnn import fp32_file
from edgecnn.modelfiles.ncnn import load, save
from edgecnn.models import Deployed, build
from edgecnn.quantize.engines.ncnn import grouped, int8_network, layer_scales, quantisable
from edgecnn.quantize.observe import OBSERVERS
from edgecnn.runtimes import Session, open_file

RESULTS = Path(__file__).parent / "results" / "ncnn_int8.jsonl"
NETWORKS = (
    "torchvision:mobilenet_v2",
    "timm:tf_mobilenetv3_small_100",
    "timm:efficientnet_b0",
    "torchvision:squeezenet1_1",
    "torchvision:shufflenet_v2_x1_0",
    "torchvision:resnet18",
    "timm:regnetx_002",
)
SIDES = ("fp32", "int8", "grouped int8", "no hand-over")
SIZE, WARM_UP, CALIBRATION = 224, 5, 4
TOLD = "processor_us"


def main() -> None:
    """Measure the networks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--network", nargs="+", default=NETWORKS)
    parser.add_argument("--table", action="store_true", help="print the table of what was measured before")
    arguments = parser.parse_args()
    if not arguments.table:
        for name in arguments.network:
            row = measure(name, arguments.rounds)
            with RESULTS.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
    print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))


def measure(name: str, rounds: int) -> dict[str, Any]:
    """A row: raw samples of every side of a network."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    image = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    with TemporaryDirectory() as folder:
        sessions = open_sides(name, Path(folder))
        samples = sample(sessions, image, rounds)
        ran = {side: session.executed() for side, session in sessions.items()}
    counts = ("int8_layers", "float_layers", "quantize_ops", "requantized_layers")
    return {
        "started": started,
        "host": fingerprint().model_dump(mode="json"),
        "network": name,
        "size": SIZE,
        "threads": 1,
        "macs": sum(layer.macs for layer in ran["fp32"].layers),
        "executed": {side: {key: getattr(report, key) for key in counts} for side, report in ran.items()},
        **samples,
    }


def open_sides(name: str, folder: Path) -> dict[str, Session]:
    """Every side of a network, open."""
    built = build(name, 1000, "none")
    fp32 = fp32_file(Source(Deployed(built.module, built.preprocess), SIZE, SIZE, folder))
    network = load(fp32)
    noise = np.random.default_rng(1).integers(0, 256, (CALIBRATION, SIZE, SIZE, 3), dtype=np.uint8)
    scales = layer_scales(network, fp32, folder / "histograms.npz", OBSERVERS["min-max"], noise, threads=1)
    every = set(quantisable(network))
    wanted = {
        "int8": (every - grouped(network), True),
        "grouped int8": (every, True),
        "no hand-over": (every - grouped(network), False),
    }
    sessions = {"fp32": open_file(fp32, "ncnn", "fp32", 1)}
    for side, (layers, requantise) in wanted.items():
        path = folder / f"{side.replace(' ', '-')}.param"
        save(int8_network(network, scales, layers, requantise), path)
        sessions[side] = open_file(path, "ncnn", "int8", 1)
    return sessions


def sample(sessions: Mapping[str, Session], image: Any, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Microseconds of every run by both clocks."""
    taken: dict[str, dict[str, list[float]]] = {
        clock: {side: [] for side in sessions} for clock in ("wall_us", "processor_us")
    }
    order = list(sessions)
    shuffle = random.Random(0).shuffle
    for number in range(WARM_UP + rounds):
        shuffle(order)
        for side in order:
            wall, processor = time.perf_counter(), time.thread_time()
            sessions[side].run(image)
            processor, wall = time.thread_time() - processor, time.perf_counter() - wall
            if number >= WARM_UP:
                taken["wall_us"][side].append(round(1e6 * wall, 1))
                taken["processor_us"][side].append(round(1e6 * processor, 1))
    return taken


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: median milliseconds of fp32, and of every other side over it. The last row of a network and host."""
    lines = [
        f"| network | fp32 ms | {' | '.join(f'{side} / fp32' for side in SIDES[1:])} | int8 layers |",
        "|---|---|" + "---|" * len(SIDES),
    ]
    last = {(row["network"], row["host"]["cpu"]): row for row in rows}
    for row in last.values():
        medians = {side: statistics.median(row[TOLD][side]) for side in SIDES}
        ratios = " | ".join(f"{medians[side] / medians['fp32']:.2f}" for side in SIDES[1:])
        ran = row["executed"]["int8"]
        layers = f"{ran['int8_layers']} of {ran['int8_layers'] + ran['float_layers']}"
        lines.append(f"| {row['network']} | {medians['fp32'] / 1000:.2f} | {ratios} | {layers} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
