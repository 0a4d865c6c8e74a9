"""What each of the ladder's repairs leaves of the logits, simulated: SQNR in dB on test images.

    python benchmarks/int8_rounding.py RUN [RUN …]     # run folders of `edgecnn finetune`
    python benchmarks/int8_rounding.py --table         # the stored rows as Markdown

Weights alone are rounded, to the nearest or by the data; then the activations alone, before and after equalising; then
both, with constant channels as they are and lifted. Appends to benchmarks/results/int8_rounding.jsonl.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from edgecnn.bench.host import fingerprint
from edgecnn.data import calibration_items, load_split
from edgecnn.formats import Source
from edgecnn.judge import Yardstick
from edgecnn.models import Deployed, load_module
from edgecnn.parity import prepare_files
from edgecnn.quantize.candidates import Networks
from edgecnn.quantize.flat import flatten
from edgecnn.quantize.grid import Grid
from edgecnn.quantize.ladder import TuningSet
from edgecnn.quantize.rounding import correct_bias
from edgecnn.quantize.simulate import logits_of, run_simulated, simulated, sqnr

RESULTS = Path(__file__).parent / "results" / "int8_rounding.jsonl"
CALIBRATION, TEST = 128, 200
COLUMNS = {
    "weights_nearest": "weights to the nearest",
    "weights_by_data": "weights by the data",
    "activations": "activations",
    "activations_equalised": "activations, equalised",
    "all_not_lifted": "all, constants as they are",
    "all_lifted": "all, constants lifted",
    "all_by_data": "and weights by the data",
    "all_equalised": "and equalised",
}


def measure(run: Path, work: Path) -> dict[str, Any]:
    """One row."""
    torch.set_num_threads(2)
    checkpoint, module = load_module(run)
    spec, data = checkpoint.preprocess, load_split(None, run / "split.json")
    calibration = prepare_files([item.path for item in calibration_items(data, CALIBRATION)], spec)
    test = prepare_files([item.path for item in data.test[:: max(1, len(data.test) // TEST)][:TEST]], spec)
    nothing = np.zeros(1, np.int64), np.zeros((1, 1), np.float32)
    tuning = TuningSet(calibration, test[:1], *nothing, Yardstick(1.0), 2)
    deployed = Deployed(module, spec).eval()
    reference = logits_of(deployed, test).numpy()

    def left(graph: Any, ranges: Any, grid: Grid | None = "full") -> float:
        return round(sqnr(reference, run_simulated(simulated(graph, ranges, grid), test).numpy()), 1)

    def networks(name: str) -> Networks:
        (work / name).mkdir()
        return Networks(Source(deployed, spec.height, spec.width, work / name, {}), tuning)

    now, before = networks("now"), networks("before")
    flat = flatten(deployed, spec.height, spec.width)
    before.__dict__["plain"] = before._source("flat", flat)
    plain = now.plain
    row = {
        "weights_nearest": left(correct_bias(plain.module, now.held_in), {}),
        "weights_by_data": left(now.corrected(plain, "full").module, {}),
        "activations": left(plain.module, now.chosen_ranges(plain), grid=None),
        "all_not_lifted": left(correct_bias(flat, now.held_in), before.chosen_ranges(before.plain)),
        "all_lifted": left(correct_bias(plain.module, now.held_in), now.chosen_ranges(plain)),
        "all_by_data": left(now.corrected(plain, "full").module, now.chosen_ranges(plain)),
    }
    if now.equalised:
        ranges = now.chosen_ranges(now.equalised)
        row["activations_equalised"] = left(now.equalised.module, ranges, grid=None)
        row["all_equalised"] = left(now.corrected(now.equalised, "full").module, ranges)
    known = {
        "run": f"{run.parent.name}, {checkpoint.recipe.name}",
        "model": checkpoint.model,
        "size": spec.height,
        "images": len(test),
    }
    return {**known, "date": datetime.now(UTC).date().isoformat(), "host": fingerprint().model_dump(mode="json"), **row}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: the latest row of each run."""
    lines = [f"| {' | '.join(('run', *COLUMNS.values()))} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row in {row["run"]: row for row in rows}.values():
        lines.append(f"| {' | '.join((row['run'], *(str(row.get(column, '–')) for column in COLUMNS)))} |")
    return "\n".join(lines)


def main() -> None:
    """Measure or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="*", type=Path)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))
        return
    for run in arguments.run:
        with TemporaryDirectory() as work:
            row = measure(run, Path(work))
        print({key: value for key, value in row.items() if key != "host"}, flush=True)
        with RESULTS.open("a") as stream:
            stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
