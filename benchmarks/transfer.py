"""Test accuracy and minutes of every recipe on real data sets, by the number of labelled images.

    python benchmarks/transfer.py --shared SHARED --work WORK [--part full|sweep|few|fewest] [--set defect_neu_det]
    python benchmarks/transfer.py --table          # the stored rows as Markdown

SHARED holds data/ and weights/ (not part of this project). MobileNetV2 with torchvision's ImageNet weights at 96×96,
each recipe with its own number of epochs, from 500 images on fewer for those that train everything (SHORTER): small and
short enough for the whole table to stay within four hours of two cores.
full: every image. sweep: 100 and 1,000 images of NEU-DET. few: at most 50 labelled images a class, and `auto`
with a time box. fewest: at most 5 and 10, for where `head` and `last` part. "Labelled images" are training and
validation together, 4:1; the test split is always the whole one, and nothing is chosen by it. ImageNet's sample has
1.3 images a class: it is grouped into eight coarse ones by the order of its class numbers (its weights have seen
ImageNet, though not these images).

A row is appended to benchmarks/results/transfer.jsonl as it is done; rows that are there are not measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgecnn.artifact import Preprocess
from edgecnn.bench.host import fingerprint
from edgecnn.checkpoint import Checkpoint
from edgecnn.data import Dataset, Item, load_folder
from edgecnn.intervals import clopper_pearson
from edgecnn.models import Deployed, load_module
from edgecnn.train import TrainOptions, fine_tune, prepared, read_evidence
from edgecnn.train.progress import Silent

RESULTS = Path(__file__).parent / "results" / "transfer.jsonl"
SETS = ("defect_magnetic_tile", "defect_neu_det", "imagenet_val1300")
RECIPES = ("head", "last", "all", "progressive", "scratch")
SIZE = 96
SWEPT, COUNTS = "defect_neu_det", (100, 1000)  # 300 are its 50 a class
FEW, FEWEST = 50, (5, 10)
"""Labelled images a class."""
MANY, SHORTER = 500, {"all": 8, "progressive": 8, "scratch": 12}
"""From so many training images these recipes are given fewer epochs than their own."""
AUTO_MINUTES = 6.0
COARSE = {
    "fish": [(0, 6), (389, 397)],
    "bird": [(7, 24), (80, 100), (127, 146)],
    "reptile or amphibian": [(25, 68)],
    "invertebrate": [(69, 79), (107, 126), (300, 329)],
    "dog": [(151, 268)],
    "other mammal": [(101, 106), (147, 150), (269, 299), (330, 388)],
    "food, plant or place": [(924, 999)],
    "artefact": [(398, 923)],
}
"""ImageNet's class numbers, first and last, in the order that they have everywhere."""


def main() -> None:
    """Run what is asked for; print and append its rows."""
    arguments = _arguments()
    if arguments.table:
        print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))
        return
    for name, images, recipe in _wanted(arguments.part, arguments.set or SETS):
        if (name, images, recipe) in _done():
            continue
        row = measure(arguments.shared, arguments.work, name, images, recipe)
        print(json.dumps(row), flush=True)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        with RESULTS.open("a") as stream:
            stream.write(json.dumps(row) + "\n")


def measure(shared: Path, work: Path, name: str, images: str, recipe: str) -> dict[str, Any]:
    """One recipe on one set of labelled images: `images` is all, ≤ 50 a class, or a number."""
    data = _limited(_load(shared, work, name), images)
    weights = shared / "weights" / "mobilenet_v2" / "mobilenet_v2.safetensors"
    augment = "natural" if name.startswith("imagenet") else "surface"
    options = TrainOptions(
        model="torchvision:mobilenet_v2",
        weights=str(weights),
        recipe=recipe,  # type: ignore[arg-type]
        minutes=AUTO_MINUTES if recipe == "auto" else 0.0,
        size=SIZE,
        epochs=SHORTER.get(recipe) if len(data.train) >= MANY else None,
        augment=augment,  # type: ignore[arg-type]
    )
    out = work / f"{name}-{images.replace(' ', '-')}-{recipe}"
    started = time.monotonic()
    checkpoint = fine_tune(data, options, out, Silent())
    minutes = (time.monotonic() - started) / 60
    right, balanced = _test(data, checkpoint, out, work / "cache")
    evidence = read_evidence(out)
    return {
        "data": name,
        "images": images,
        "recipe": recipe,
        "chosen": checkpoint.recipe.name,
        "train": len(data.train),
        "val": len(data.val),
        "test": len(data.test),
        "right": right,
        "top1": right / len(data.test),
        "interval": clopper_pearson(right, len(data.test)),
        "balanced": balanced,
        "val_balanced": checkpoint.metrics.val_balanced,
        "val_loss": checkpoint.metrics.val_loss,
        "minutes": round(minutes, 2),
        "epochs": checkpoint.metrics.epochs,
        "size": SIZE,
        "threads": torch.get_num_threads(),
        "evidence": evidence.model_dump(mode="json", exclude={"trials": {"__all__": {"history"}}})
        if evidence
        else None,
        "date": datetime.now(UTC).date().isoformat(),
        "host": fingerprint().model_dump(mode="json"),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line per set and number of images, a column per recipe: top-1 [95 %] on test, minutes."""
    cells: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        cells[(row["data"], row["images"])][row["recipe"]] = row
    names = [*RECIPES, "auto"]
    lines = ["| data | labelled images | test | " + " | ".join(names) + " |", "|---" * (3 + len(names)) + "|"]
    for (name, images), found in sorted(cells.items()):
        any_row = next(iter(found.values()))
        labelled = f"{images} ({any_row['train'] + any_row['val']:,})"
        cell = " | ".join(_cell(found.get(recipe)) for recipe in names)
        lines.append(f"| {name} | {labelled} | {any_row['test']} | {cell} |")
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    low, high = row["interval"]
    chosen = f" → {row['chosen']}" if row["recipe"] == "auto" else ""
    return f"{100 * row['top1']:.1f} [{100 * low:.1f}, {100 * high:.1f}] · {row['minutes']:.1f} min{chosen}"


def _wanted(part: str | None, sets: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    if part in (None, "few"):
        yield from ((name, f"≤ {FEW} a class", recipe) for name in sets for recipe in (*RECIPES, "auto"))
    if part in (None, "fewest"):
        yield from (
            (name, f"≤ {count} a class", recipe)
            for count in FEWEST
            for name in sets
            for recipe in RECIPES
            if recipe != "scratch"
        )
    if part in (None, "sweep") and SWEPT in sets:
        yield from ((SWEPT, str(count), recipe) for count in COUNTS for recipe in RECIPES)
    if part in (None, "full"):
        yield from ((name, "all", recipe) for name in sets for recipe in RECIPES)


def _done() -> set[tuple[str, str, str]]:
    if not RESULTS.is_file():
        return set()
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return {(row["data"], row["images"], row["recipe"]) for row in rows}


def _load(shared: Path, work: Path, name: str) -> Dataset:
    if name.startswith("imagenet"):
        return load_folder(_coarse_folder(shared / "data" / name, work / "coarse"), good="none")
    return load_folder(shared / "data" / name / "images")


def _limited(data: Dataset, images: str) -> Dataset:
    """So many images for training and validation together, 4:1, the classes in proportion (≤ n a class: alike)."""
    if images == "all":
        return data
    kept: dict[str, tuple[Item, ...]] = {}
    for split, share in (("train", 0.8), ("val", 0.2)):
        queues: dict[int, list[Item]] = defaultdict(list)
        for item in sorted(data.split(split), key=lambda item: item.sha256):
            queues[item.label].append(item)
        if images.isdigit():
            part = share * int(images) / len(data.split(split))
            limits = {label: round(part * len(queue)) for label, queue in queues.items()}
        else:
            limits = dict.fromkeys(queues, round(share * int(images.split()[1])))
        kept[split] = tuple(item for label, queue in queues.items() for item in queue[: limits[label]])
    return dataclasses.replace(data, train=kept["train"], val=kept["val"])


def _test(data: Dataset, checkpoint: Checkpoint, folder: Path, cache: Path) -> tuple[int, float]:
    """Images decided rightly, and mean recall of the classes, on the whole test split."""
    _, module = load_module(folder)
    spec: Preprocess = checkpoint.preprocess
    items = sorted(data.test, key=lambda item: item.sha256)
    pixels = prepared(items, spec, cache, Silent())
    deployed = Deployed(module, spec)
    with torch.no_grad():
        parts = np.array_split(np.arange(len(items)), max(1, len(items) // 32))
        decided = np.concatenate([deployed(torch.from_numpy(np.array(pixels[p]))).argmax(1).numpy() for p in parts])
    labels = np.array([item.label for item in items])
    right = decided == labels
    return int(right.sum()), float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def _coarse_folder(source: Path, root: Path) -> Path:
    if root.is_dir():
        return root
    part = root.with_name(f"{root.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for line in (source / "dataset.txt").read_text().splitlines():
        if not line.strip():
            continue
        file, label = line.replace(",", " ").split()
        names = [name for name, spans in COARSE.items() for a, b in spans if a <= int(label) <= b]
        (part / names[0]).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file, part / names[0] / Path(file).name)
    part.rename(root)
    return root


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, help="folder with data/ and weights/")
    parser.add_argument("--work", type=Path, help="folder for runs; reused")
    parser.add_argument("--table", action="store_true", help="print the stored rows")
    parser.add_argument("--part", choices=("full", "sweep", "few", "fewest"))
    parser.add_argument("--set", choices=SETS, action="append")
    arguments = parser.parse_args()
    if not arguments.table and not (arguments.shared and arguments.work):
        parser.error("--shared and --work are needed")
    if arguments.work:
        arguments.work.mkdir(parents=True, exist_ok=True)
    return arguments


if __name__ == "__main__":
    main()
