"""What computing the frozen part once saves: recipes head and last against the plain loop, side by side in one run.

    python benchmarks/frozen.py --shared SHARED --work WORK
    python benchmarks/frozen.py --table            # the stored rows as Markdown

SHARED holds data/ and weights/ (not part of this project). MobileNetV2 with ImageNet weights on some of the magnetic
tiles, 25 epochs each. The plain loop runs the whole network over augmented images in every epoch, the frozen
layers without gradients; it is this package's own loop with --views 0. Both sides read pixels that were prepared
beforehand, so neither pays for decoding. They take turns, epoch by epoch of the plain one being too long to interleave
closer: once, plain, once. Time is the whole run's, with what is computed once and the validation after each epoch.
Rows are appended to benchmarks/results/frozen.jsonl.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgecnn.bench.host import fingerprint
from edgecnn.data import Dataset, load_folder
from edgecnn.models import Deployed, load_module
from edgecnn.train import TrainOptions, fine_tune, prepared
from edgecnn.train.progress import Silent
from edgecnn.train.task import views_of
from edgecnn.transfer import RECIPES

RESULTS = Path(__file__).parent / "results" / "frozen.jsonl"
EPOCHS = 25
CASES = {"head": (224, 6), "last": (160, 2)}
"""Recipe to input side, and which share of the training and validation images is taken (1 in so many): the plain loop
takes minutes as it is."""


def main() -> None:
    """Measure, print and append; or print the table."""
    arguments = _arguments()
    if arguments.table:
        print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))
        return
    whole = load_folder(arguments.shared / "data" / "defect_magnetic_tile" / "images")
    weights = arguments.shared / "weights" / "mobilenet_v2" / "mobilenet_v2.safetensors"
    for recipe in arguments.recipe or CASES:
        size, every = CASES[recipe]
        data = dataclasses.replace(whole, train=whole.train[::every], val=whole.val[::every])
        for turn, side in enumerate(("once", "plain", "once")):
            row = measure(data, weights, recipe, side, size, arguments.work)
            line = json.dumps({**row, "turn": turn})
            print(line, flush=True)
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            with RESULTS.open("a") as stream:
                stream.write(line + "\n")


def measure(data: Dataset, weights: Path, recipe: str, side: str, size: int, work: Path) -> dict[str, Any]:
    """One run."""
    options = TrainOptions(
        model="torchvision:mobilenet_v2",
        weights=str(weights),
        recipe=recipe,  # type: ignore[arg-type]
        epochs=EPOCHS,
        patience=EPOCHS,
        size=size,
        views=0 if side == "plain" else None,
    )
    out, cache = work / "run", work / "cache"
    for split in ("train", "val"):  # nobody pays for decoding
        fine = sorted(data.split(split), key=lambda item: (item.sha256, item.label, item.name))
        prepared(fine, _preprocess(size), cache, Silent())
    for folder in (out, *(path for path in cache.iterdir() if path.is_dir())):
        shutil.rmtree(folder, ignore_errors=True)
    started = time.monotonic()
    checkpoint = fine_tune(data, options, out, Silent(), cache=cache)
    seconds = time.monotonic() - started
    items = sorted(data.test, key=lambda item: item.sha256)
    pixels = prepared(items, checkpoint.preprocess, cache, Silent())
    deployed = Deployed(load_module(out)[1], checkpoint.preprocess)
    with torch.no_grad():
        parts = np.array_split(np.arange(len(items)), len(items) // 32)
        decided = np.concatenate([deployed(torch.from_numpy(np.array(pixels[p]))).argmax(1).numpy() for p in parts])
    return {
        "recipe": recipe,
        "side": side,
        "seconds": round(seconds, 2),
        "epochs": checkpoint.metrics.epochs,
        "train": len(data.train),
        "val": len(data.val),
        "test": len(items),
        "right": int((decided == np.array([item.label for item in items])).sum()),
        "val_balanced": checkpoint.metrics.val_balanced,
        "size": size,
        "views": 0 if side == "plain" else max(1, views_of(RECIPES[recipe], len(data.train))),  # type: ignore[index]
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).date().isoformat(),
        "host": fingerprint().model_dump(mode="json"),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: median seconds of both sides, their ratio, and test images decided rightly."""
    lines = [
        "| recipe | images, side | views | plain loop, s | computed once, s | ratio | right, plain | right, once |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for case in sorted({(*_case(row), row["views"]) for row in rows if row["side"] == "once"}):
        plain = [row for row in rows if _case(row) == case[:3] and row["side"] == "plain"]
        once = [row for row in rows if (*_case(row), row["views"]) == case and row["side"] == "once"]
        # Each run has its own plain loop: the one beside these turns.
        beside = plain[min(len(plain) - 1, sum(row["views"] < case[3] for row in rows if _beside(row, case)) // 2)]
        seconds = statistics.median(row["seconds"] for row in once)
        times = f"{beside['seconds']:.0f} | {seconds:.1f} | {beside['seconds'] / seconds:.1f} ×"
        right = f"{beside['right']} of {beside['test']} | {once[-1]['right']} of {once[-1]['test']}"
        lines.append(f"| {case[0]} | {case[1]}, {case[2]} px | {case[3]} | {times} | {right} |")
    return "\n".join(lines)


def _case(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["recipe"], row["train"], row["size"]


def _beside(row: dict[str, Any], case: tuple[str, int, int, int]) -> bool:
    return _case(row) == case[:3] and row["side"] == "once"


def _preprocess(size: int) -> Any:
    from edgecnn.models import build

    return build("torchvision:mobilenet_v2", 2, "none", size=size).preprocess


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, help="folder with data/ and weights/")
    parser.add_argument("--work", type=Path, help="folder for runs; overwritten")
    parser.add_argument("--recipe", choices=tuple(CASES), action="append")
    parser.add_argument("--table", action="store_true", help="print the stored rows")
    arguments = parser.parse_args()
    if not arguments.table and not (arguments.shared and arguments.work):
        parser.error("--shared and --work are needed")
    return arguments


if __name__ == "__main__":
    main()
