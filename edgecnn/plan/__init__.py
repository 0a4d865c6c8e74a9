"""What fine-tuning would do to a network on a folder of images, and what it would cost, before any training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from edgecnn.advice import Advice, Facts, advise
from edgecnn.cost import measure_cost
from edgecnn.data import Dataset
from edgecnn.documents import Frozen
from edgecnn.errors import UserError
from edgecnn.models import build
from edgecnn.plan.classes import ClassRow, Described, describe
from edgecnn.plan.cost import CostEstimate, RecipeCost, Speedup, estimate_cost
from edgecnn.plan.domain import Domain, judge_domain
from edgecnn.plan.freeze_map import COMPARED, FreezeMap, StageRow, Trained, freeze_map
from edgecnn.plan.sample import take_sample
from edgecnn.profiles import Target, parse_budget
from edgecnn.recipes import StartingPoint
from edgecnn.transfer import starting_point

__all__ = [
    "COMPARED",
    "ClassRow",
    "CostEstimate",
    "Described",
    "Domain",
    "FreezeMap",
    "Plan",
    "RecipeCost",
    "Speedup",
    "StageRow",
    "Trained",
    "plan",
]

_MOST_IMAGES, _LEAST_IMAGES = 240, 60
"""Of the sample that is measured on."""
_SAMPLE_GMACS = 100.0
"""Work of one pass over the sample, in 10⁹ multiply-accumulates, above which the sample is smaller."""


class Plan(Frozen):
    """What `edgecnn plan` finds."""

    model: str
    weights: str
    """As recorded: hub:…, file:… with hash, embedded:…, or none."""
    size: int
    fit: Literal["stretch", "center-crop"]
    params: int
    macs: int
    """Of one image, with the head for these classes."""
    data: Described
    domain: Domain
    freeze_map: FreezeMap
    cost: CostEstimate
    advice: Advice


def plan(
    data: Dataset,
    model: str,
    target: Target,
    *,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    size: int | None = None,
    fit: Literal["stretch", "center-crop"] = "stretch",
    batch: int = 32,
    device: torch.device | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Describe the data, judge its domain, map what each recipe freezes, time it, and advise.

    Nothing is trained and nothing is written. Only training images are read; the test split is counted, no more.
    Raises UserError: no training images, an image that cannot be read, and what `build` raises.
    """
    if len(data.train) < 2:
        raise UserError(f"{data.root}: {len(data.train)} training images: at least 2 are needed")
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        say(f"building {model}")
        built = build(model, len(data.classes), weights, size=size, weights_key=weights_key)
        for remark in built.remarks:
            say(f"weights: {remark}")
        preprocess = built.preprocess.model_copy(update={"fit": fit, "bits": data.bits})
        work = measure_cost(built.module, preprocess.height, preprocess.width)
        sample = take_sample(data, preprocess, _sample_images(work.macs))
        built.module.to(device).to(memory_format=torch.channels_last)
        described = describe(data, sample)
        start = starting_point(built.name, built.weights)
        say(f"near or far: features of {len(sample.labels)} training images, pretrained and random")
        domain = judge_domain(built, len(data.classes), sample, device)
        counts = (len(data.train), len(data.val))
        cost = estimate_cost(built.module, start, sample, counts, device, say, batch)
        mapped = freeze_map(built.module, start)
    return Plan(
        model=built.name,
        weights=built.weights,
        size=preprocess.height,
        fit=fit,
        params=sum(parameter.numel() for parameter in built.module.parameters()),
        macs=work.macs,
        data=described,
        domain=domain,
        freeze_map=mapped,
        cost=cost,
        advice=advise(_facts(described, domain, start, preprocess.height, target)),
    )


def _sample_images(macs: int) -> int:
    """Fewer for a large network, so that a plan stays a matter of seconds; from its cost, so that it is repeatable."""
    return max(_LEAST_IMAGES, min(_MOST_IMAGES, int(_SAMPLE_GMACS * 1e9 / max(1, macs))))


def _facts(described: Described, domain: Domain, start: StartingPoint, size: int, target: Target) -> Facts:
    trained = [row.train for row in described.classes]
    return Facts(
        train_images=described.train,
        classes=len(described.classes),
        smallest_class=min(trained),
        largest_class=max(trained),
        domain=domain.verdict,
        start=start,
        median_side=described.median_side,
        least_side=described.least_side,
        input_size=size,
        machine=target.machine,
        target=target.name,
        budget_ms=parse_budget(target.budget).milliseconds,
    )
