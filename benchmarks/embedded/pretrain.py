"""Make the embedded backbone: pretrain MobileNetV2-0.35 at 96 × 96 on drawn surfaces of the pretraining classes.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive python benchmarks/embedded/pretrain.py --cache FOLDER

The demo set's classes are not among them. Writes the backbone without its classifier, and one line per epoch.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from edgecnn.artifact import Preprocess
from edgecnn.data.surfaces import PRETRAIN_CLASSES, draw
from edgecnn.imaging import Images, Pixels, prepare_frame

ARCHITECTURE = "mobilenetv2_035"
SPEC = Preprocess(height=96, width=96, fit="stretch")
ROOT = Path(__file__).parents[2]
_WARM_STEPS = 100
_STREAM = 1_000
"""Added to the class number in the seed: the demo set's surfaces are never drawn from the same random numbers."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast is trained."""

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    label_smoothing: float


@dataclass(frozen=True)
class Plan:
    """What is drawn, and the training on it."""

    seed: int
    per_class: int
    held_out_per_class: int
    schedule: Schedule


@dataclass(frozen=True)
class Surfaces:
    """Images with their class numbers."""

    images: Images
    labels: NDArray[np.int64]


def main() -> None:
    arguments = parse_arguments()
    plan = Plan(
        seed=arguments.seed,
        per_class=arguments.per_class,
        held_out_per_class=60,
        schedule=Schedule(
            epochs=arguments.epochs,
            batch=64,
            learning_rate=arguments.learning_rate,
            weight_decay=0.02,
            label_smoothing=0.05,
        ),
    )
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(plan.seed)
    train, held_out = drawn(plan, arguments.cache, arguments.processes)
    model = fresh(len(PRETRAIN_CLASSES))
    rows = [describe(plan, arguments.threads)]
    for row in epochs(model, train, held_out, plan.schedule, plan.seed):
        rows.append(row)
        print(json.dumps(row), flush=True)
    weights = backbone_of(model)
    model.load_state_dict({**model.state_dict(), **weights})
    found = accuracy(model, held_out)
    save(arguments.out, weights, plan, found)
    rows.append({"kind": "result", "held_out_accuracy_as_stored": found, "bytes": arguments.out.stat().st_size})
    arguments.result.parent.mkdir(parents=True, exist_ok=True)
    arguments.result.write_text("".join(json.dumps(row) + "\n" for row in rows))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for the drawn images, reused if complete")
    parser.add_argument("--out", type=Path, default=ROOT / f"edgecnn/weights/{ARCHITECTURE}_surfaces_96.safetensors")
    parser.add_argument("--result", type=Path, default=ROOT / "benchmarks/results/embedded/pretrain.jsonl")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-class", type=int, default=700, help="training images per class")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int, default=2, help="that draw")
    return parser.parse_args()


# -------------------------------------------------------------------------------------------------------- drawing


def drawn(plan: Plan, cache: Path, processes: int) -> tuple[Surfaces, Surfaces]:
    """The training and the held-out images, from the cache if this plan was drawn before."""
    each = plan.per_class + plan.held_out_per_class
    path = cache / f"seed{plan.seed}-{len(PRETRAIN_CLASSES)}x{each}.npy"
    if not path.is_file():
        jobs = [(name, number) for name in range(len(PRETRAIN_CLASSES)) for number in range(each)]
        with Pool(processes) as pool:
            images = np.stack(pool.map(partial(one, plan.seed), jobs, chunksize=64))
        cache.mkdir(parents=True, exist_ok=True)
        np.save(path, images)
    images = np.load(path).reshape(len(PRETRAIN_CLASSES), each, SPEC.height, SPEC.width, 3)
    return labelled(images[:, : plan.per_class]), labelled(images[:, plan.per_class :])


def one(seed: int, job: tuple[int, int]) -> Pixels:
    """One surface at the network's input size."""
    label, number = job
    rng = np.random.default_rng(np.random.SeedSequence((seed, _STREAM + label, number)))
    return prepare_frame(draw(PRETRAIN_CLASSES[label], rng), SPEC)


def labelled(images: NDArray[np.uint8]) -> Surfaces:
    """Images (class, number, h, w, 3) as one list with labels."""
    labels = np.repeat(np.arange(images.shape[0]), images.shape[1])
    return Surfaces(images=images.reshape(-1, *images.shape[2:]), labels=labels)


# ------------------------------------------------------------------------------------------------------- training


def epochs(
    model: nn.Module, train: Surfaces, held_out: Surfaces, schedule: Schedule, seed: int
) -> Iterator[dict[str, Any]]:
    """Train, and yield one row per epoch. AdamW, linear warm-up, then a cosine to zero."""
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    steps = len(train.labels) // schedule.batch
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser, partial(share_of_rate, warm=min(steps, _WARM_STEPS), last=steps * schedule.epochs)
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=schedule.label_smoothing)
    for epoch in range(1, schedule.epochs + 1):
        begin, losses = time.monotonic(), []
        model.train()
        for picked in rng.permutation(len(train.labels))[: steps * schedule.batch].reshape(steps, schedule.batch):
            loss = criterion(model(augmented(train.images[picked], rng)), torch.from_numpy(train.labels[picked]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
            losses.append(loss.item())
        yield {
            "kind": "epoch",
            "epoch": epoch,
            "train_loss": round(float(np.mean(losses)), 4),
            "held_out_accuracy": accuracy(model, held_out),
            "seconds": round(time.monotonic() - begin, 1),
        }


def fresh(classes: int) -> nn.Module:
    """The network with random weights and a classifier of zeros: timm starts it so wide that it costs epochs."""
    model: nn.Module = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=classes)
    for parameter in model.get_submodule("classifier").parameters():
        nn.init.zeros_(parameter)
    return model.to(memory_format=torch.channels_last)


def share_of_rate(step: int, warm: int, last: int) -> float:
    """The learning rate at a step, as a share of the highest."""
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, last - warm)))


def augmented(images: Images, rng: np.random.Generator) -> Tensor:
    """A normalised batch with random flips, quarter turns and brightness, one draw of each per image."""
    turned = np.stack(
        [
            np.rot90(image, quarter)[:, ::flip]
            for image, quarter, flip in zip(images, *turns(rng, len(images)), strict=True)
        ]
    )
    gain = rng.uniform(0.7, 1.3, (len(images), 1, 1, 1)).astype(np.float32)
    colour = rng.uniform(0.95, 1.05, (len(images), 1, 1, 3)).astype(np.float32)
    return normalised(np.clip(turned * (gain * colour), 0, 255))


def turns(rng: np.random.Generator, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Quarter turns (0 to 3) and flips (+1 or −1)."""
    return rng.integers(0, 4, count), rng.choice((1, -1), count)


def normalised(images: NDArray[Any]) -> Tensor:
    """Pixels 0..255 (n, h, w, 3) to the network's input (n, 3, h, w)."""
    mean, std = np.asarray(SPEC.mean, np.float32), np.asarray(SPEC.std, np.float32)
    return torch.from_numpy((images.astype(np.float32) / np.float32(255) - mean) / std).permute(0, 3, 1, 2)


@torch.inference_mode()
def accuracy(model: nn.Module, surfaces: Surfaces) -> float:
    """Share of images whose highest logit is their class's."""
    model.eval()
    batches = np.array_split(np.arange(len(surfaces.labels)), 10)
    decisions = [model(normalised(surfaces.images[batch])).argmax(1).numpy() for batch in batches]
    return round(float(np.mean(np.concatenate(decisions) == surfaces.labels)), 4)


# -------------------------------------------------------------------------------------------------------- storing


def backbone_of(model: nn.Module) -> dict[str, Tensor]:
    """The weights without the classifier: convolutions in fp16, batch normalisation in fp32."""
    kept = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("classifier.")}
    return {name: (tensor.half() if tensor.ndim == 4 else tensor).contiguous() for name, tensor in kept.items()}


def save(path: Path, weights: dict[str, Tensor], plan: Plan, held_out_accuracy: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "architecture": ARCHITECTURE,
        "input": str(SPEC.height),
        "pretraining": f"{plan.per_class * len(PRETRAIN_CLASSES)} drawn surfaces of {len(PRETRAIN_CLASSES)} classes "
        f"({', '.join(PRETRAIN_CLASSES)}), {plan.schedule.epochs} epochs",
        "mean": ",".join(map(str, SPEC.mean)),
        "std": ",".join(map(str, SPEC.std)),
        "seed": str(plan.seed),
        "held_out_accuracy": str(held_out_accuracy),
        "license": "Apache-2.0",
    }
    save_file(weights, path, metadata=about)
    path.chmod(0o644)


def describe(plan: Plan, threads: int) -> dict[str, Any]:
    """The plan, the host and the day."""
    return {
        "kind": "run",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "architecture": ARCHITECTURE,
        "classes": PRETRAIN_CLASSES,
        "cpu": cpu_model(),
        "threads": threads,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__},
        "seed": plan.seed,
        "per_class": plan.per_class,
        "held_out_per_class": plan.held_out_per_class,
        **vars(plan.schedule),
    }


def cpu_model() -> str:
    """The processor's name, where Linux tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
