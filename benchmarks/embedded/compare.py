"""Measure what the embedded backbone brings over random weights, on the demo set.

    python benchmarks/embedded/compare.py --cache FOLDER

Linear probe and full fine-tuning, on all 800 training images and on 100 of them, with the same images, recipe and
number of steps for both. Every seed is another 800/200/200 split. The probe's regularisation is chosen on validation.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import sklearn
import timm
import torch
from numpy.typing import NDArray
from pretrain import ARCHITECTURE, ROOT, SPEC, Schedule, Surfaces, accuracy, cpu_model, epochs, fresh, normalised
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from edgecnn.data.surfaces import CLASSES, write_demo_data
from edgecnn.imaging import prepare

Weights = Literal["random", "random, batch statistics", "embedded"]
WEIGHTS = ROOT / f"edgecnn/weights/{ARCHITECTURE}_surfaces_96.safetensors"
FEW = 100
PROBE_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse regularisation; the best on validation is taken."""
PROBED: tuple[Weights, ...] = ("random", "random, batch statistics", "embedded")
TUNED: tuple[Weights, ...] = ("random", "embedded")
EPOCHS = {800: 14, FEW: 40}
"""By the number of training images."""


@dataclass(frozen=True)
class Split:
    """One division of the demo set."""

    train: Surfaces
    validation: Surfaces
    test: Surfaces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder of the demo set; drawn if absent")
    parser.add_argument("--result", type=Path, default=ROOT / "benchmarks/results/embedded/compare.jsonl")
    parser.add_argument("--probe-seeds", type=int, default=3)
    parser.add_argument("--tune-seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    surfaces = demo_set(arguments.cache)
    rows = []
    for row in compared(surfaces, arguments.probe_seeds, arguments.tune_seeds):
        rows.append(row)
        print(json.dumps(row), flush=True)
    arguments.result.parent.mkdir(parents=True, exist_ok=True)
    everything = [describe(arguments.threads), *rows]
    arguments.result.write_text("".join(json.dumps(row) + "\n" for row in everything))
    print(table(rows))


def demo_set(cache: Path) -> Surfaces:
    """The 1200 images of the demo set with seed 0, at the network's input size."""
    if not cache.exists():
        write_demo_data(cache, images=1200, seed=0)
    paths = [(label, path) for label, name in enumerate(CLASSES) for path in sorted((cache / name).iterdir())]
    images = np.stack([prepare(path.read_bytes(), SPEC) for _, path in paths])
    return Surfaces(images=images, labels=np.array([label for label, _ in paths], dtype=np.int64))


def compared(surfaces: Surfaces, probe_seeds: int, tune_seeds: int) -> Iterator[dict[str, Any]]:
    """One row per method, number of training images, weights and seed."""
    for seed in range(max(probe_seeds, tune_seeds)):
        for count in (800, FEW):
            parts = split(surfaces, count, seed)
            for weights in PROBED if seed < probe_seeds else ():
                yield row_of("probe", count, weights, seed, probe(network(weights, seed, parts.train), parts))
            for weights in TUNED if seed < tune_seeds else ():
                yield row_of(
                    "fine-tune", count, weights, seed, fine_tune(network(weights, seed, parts.train), parts, seed)
                )


def row_of(method: str, count: int, weights: Weights, seed: int, found: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "accuracy", "method": method, "train_images": count, "weights": weights, "seed": seed, **found}


def split(surfaces: Surfaces, count: int, seed: int) -> Split:
    """Stratified: 200 images each for validation and test, `count` of the other 800 for training."""
    everything = np.arange(len(surfaces.labels))
    rest, test = train_test_split(everything, test_size=200, random_state=seed, stratify=surfaces.labels)
    train, validation = train_test_split(rest, test_size=200, random_state=seed, stratify=surfaces.labels[rest])
    if count < len(train):
        train, _ = train_test_split(train, train_size=count, random_state=seed, stratify=surfaces.labels[train])
    return Split(*(Surfaces(surfaces.images[part], surfaces.labels[part]) for part in (train, validation, test)))


def network(weights: Weights, seed: int, train: Surfaces) -> nn.Module:
    """The network with fresh weights, or with the embedded ones below a fresh classifier."""
    torch.manual_seed(seed)
    model = fresh(len(CLASSES))
    if weights == "embedded":
        missing, unexpected = model.load_state_dict(load_file(WEIGHTS), strict=False)
        if set(missing) != {"classifier.weight", "classifier.bias"} or unexpected:
            raise SystemExit(f"{WEIGHTS}: does not fit {ARCHITECTURE}: missing {missing}, unexpected {unexpected}")
    if weights == "random, batch statistics":
        settle(model, train)
    return model


@torch.inference_mode()
def settle(model: nn.Module, train: Surfaces) -> None:
    """Set every batch normalisation to the statistics of the training images: a fairer random network."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    model.train()
    model(normalised(train.images))


def probe(model: nn.Module, parts: Split) -> dict[str, Any]:
    """Logistic regression on pooled features; its strength chosen on validation."""
    train, validation, test = (features(model, part.images) for part in (parts.train, parts.validation, parts.test))
    fitted = [
        make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000)).fit(train, parts.train.labels)
        for strength in PROBE_STRENGTHS
    ]
    best = max(range(len(fitted)), key=lambda index: fitted[index].score(validation, parts.validation.labels))
    return {"top1": round(float(fitted[best].score(test, parts.test.labels)), 4), "strength": PROBE_STRENGTHS[best]}


@torch.inference_mode()
def features(model: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pooled features (n, 1280)."""
    model.eval()
    batches = np.array_split(images, max(1, len(images) // 100))
    pooled = [model.forward_head(model.forward_features(normalised(batch)), pre_logits=True) for batch in batches]
    return np.concatenate([batch.numpy() for batch in pooled])


def fine_tune(model: nn.Module, parts: Split, seed: int) -> dict[str, Any]:
    """All layers trained; the last epoch's weights are tested, none is picked."""
    schedule = Schedule(
        epochs=EPOCHS[len(parts.train.labels)],
        batch=32,
        learning_rate=2e-3,
        weight_decay=0.02,
        label_smoothing=0.05,
    )
    history = [row["held_out_accuracy"] for row in epochs(model, parts.train, parts.validation, schedule, seed)]
    return {"top1": accuracy(model, parts.test), "validation_top1": history, **vars(schedule)}


def describe(threads: int) -> dict[str, Any]:
    """The host and the day."""
    tools = {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__}
    return {
        "kind": "run",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "architecture": ARCHITECTURE,
        "cpu": cpu_model(),
        "threads": threads,
        "versions": {**tools, "scikit-learn": sklearn.__version__},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and range of the test accuracy over the seeds."""
    lines = ["| method | training images | weights | top-1, % | range, % | seeds |", "|---|---|---|---|---|---|"]
    for key in dict.fromkeys((row["method"], row["train_images"], row["weights"]) for row in rows):
        found = [100 * r["top1"] for r in rows if (r["method"], r["train_images"], r["weights"]) == key]
        spread = f"{min(found):.1f} to {max(found):.1f}"
        lines.append(f"| {key[0]} | {key[1]} | {key[2]} | {np.mean(found):.1f} | {spread} | {len(found)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
