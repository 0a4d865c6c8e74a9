"""What each recipe will take in minutes on this machine, estimated from a few timed batches."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgecnn.checkpoint import Recipe, RecipeName
from edgecnn.documents import Frozen
from edgecnn.errors import UserError
from edgecnn.models import stages
from edgecnn.plan.freeze_map import COMPARED
from edgecnn.plan.sample import Sample
from edgecnn.recipes import StartingPoint
from edgecnn.train import augment
from edgecnn.train.task import views_of
from edgecnn.transfer import param_groups, recipe_for, trained_stages

PROBE_BATCH = 16
"""Images in a timed batch, at most."""
_ROUNDS = 3
"""Timed batches, after one that is not; their median counts."""
WORTH = 1.1
"""Times faster from which a setting is recommended."""
_HOPELESS = 3.0
"""Times slower than the plain step from which one batch is enough to know."""
_DRAWS = 8


class RecipeCost(Frozen):
    """The estimate for a recipe, and what it is made of."""

    recipe: RecipeName
    minutes: float
    """Of all its epochs, everything included."""
    epochs: int
    once_minutes: float
    """Computing what is frozen, once for each view."""
    epoch_seconds: float
    """Training images through what is trained, validation images through the same."""
    computed_once: bool
    frozen_ms: float
    """Forward through the frozen stages, of one image."""
    step_ms: float
    """Forward, backward and optimiser step of the trained stages, of one image."""


class Speedup(Frozen):
    """A setting of the train step against plain float32 in contiguous memory."""

    name: str
    ratio: float
    """Times as fast."""
    flag: str | None
    """What turns it on; None: it is always on."""
    worth_it: bool


class CostEstimate(Frozen):
    """Minutes on this machine."""

    recipes: tuple[RecipeCost, ...]
    speedups: tuple[Speedup, ...]
    device: str
    threads: int
    batch: int
    """Images in a timed batch."""
    prepare_ms: float
    """Reading, decoding and resizing of one image: done once."""
    augment_ms: float
    """Of one image."""
    prepare_minutes: float
    spread: float
    """Slowest timed batch to the fastest, of head or last, whichever differs more."""
    assumptions: tuple[str, ...]


@dataclass(frozen=True)
class _Parts:
    """Seconds of one train step."""

    frozen: float
    forward: float
    """Of the trained stages."""
    backward: float
    """With the optimiser's step."""

    @property
    def trained(self) -> float:
        return self.forward + self.backward

    @property
    def all(self) -> float:
        return self.frozen + self.trained


def estimate_cost(
    module: nn.Module,
    start: StartingPoint,
    sample: Sample,
    images: tuple[int, int],
    device: torch.device,
    say: Callable[[str], None],
    batch: int = PROBE_BATCH,
) -> CostEstimate:
    """`images`: of training and validation. `module` is left as it is: the steps are taken on a copy."""
    inputs = sample.inputs(0, min(batch, PROBE_BATCH), device)
    try:
        return _estimate(module, start, sample, images, inputs, say)
    except torch.OutOfMemoryError:
        raise UserError(
            f"{device}: out of memory with {len(inputs)} images of {sample.preprocess.height} px in a step: lower "
            "--batch or --size, or choose a smaller --model"
        ) from None


def _estimate(
    module: nn.Module,
    start: StartingPoint,
    sample: Sample,
    images: tuple[int, int],
    inputs: Tensor,
    say: Callable[[str], None],
) -> CostEstimate:
    device = inputs.device
    labels = torch.tensor(sample.labels[: len(inputs)], device=device)
    module = copy.deepcopy(module)
    augment_s = _augment_seconds(inputs)
    parts: dict[RecipeName, _Parts] = {}
    spread = 1.0
    for name in COMPARED[:-1]:
        say(f"timing recipe {name}")
        step = _Step(module, recipe_for(name, start), inputs, labels)
        timed = [step() for _ in range(1 + _ROUNDS)][1:]
        parts[name] = _median(timed)
        spread = max(spread, _spread(timed))
    say(f"timing recipe {COMPARED[-1]}, and what memory layout and bf16 bring")
    parts[COMPARED[-1]], speedups = _compare(module, recipe_for(COMPARED[-1], start), inputs, labels)
    cuttable = _cuttable(module)
    costs = [_cost(recipe_for(name, start), parts[name], augment_s, len(inputs), images, cuttable) for name in COMPARED]
    prepare_minutes = sum(images) * sample.prepare_ms / 60_000
    return CostEstimate(
        recipes=tuple(cost.model_copy(update={"minutes": cost.minutes + prepare_minutes}) for cost in costs),
        speedups=speedups,
        device=str(device),
        threads=torch.get_num_threads(),
        batch=len(inputs),
        prepare_ms=sample.prepare_ms,
        augment_ms=1000 * augment_s / len(inputs),
        prepare_minutes=prepare_minutes,
        spread=spread,
        assumptions=_assumptions(len(inputs), cuttable),
    )


def _assumptions(batch: int, cuttable: bool) -> tuple[str, ...]:
    cut = (
        "the frozen part is computed once: of 1 view for head, of 6 or, for few images, more for last"
        if cuttable
        else "this network cannot be cut before its last stages: last runs all of it in every epoch"
    )
    return (
        f"medians of {_ROUNDS} batches of {batch} images, each epoch as fast as these",
        "all epochs run: early stopping often ends sooner",
        cut,
        "not in it: comparing recipes (--minutes), loading libraries",
    )


def _cost(
    recipe: Recipe, parts: _Parts, augment_s: float, batch: int, images: tuple[int, int], cuttable: bool
) -> RecipeCost:
    """Without preparing the images, which every recipe needs."""
    train, val = images
    once = not recipe.thawed or (recipe.thawed < 1 and cuttable)
    views = max(1, views_of(recipe, train)) if once else 0
    augmented = augment_s if recipe.thawed else 0.0
    once_s = (views * train * (parts.frozen + augmented) + val * parts.frozen) / batch if once else 0.0
    before, varied = (0.0, 0.0) if once else (parts.frozen, augmented)
    epoch_s = (train * (varied + before + parts.trained) + val * (before + parts.forward)) / batch
    return RecipeCost(
        recipe=recipe.name,
        minutes=(once_s + recipe.epochs * epoch_s) / 60,
        epochs=recipe.epochs,
        once_minutes=once_s / 60,
        epoch_seconds=epoch_s,
        computed_once=once,
        frozen_ms=1000 * parts.frozen / batch,
        step_ms=1000 * parts.trained / batch,
    )


def _cuttable(module: nn.Module) -> bool:
    """Whether the frozen part can be left out of an epoch: not where parameters are added in passing (transformers)."""
    return next(module.parameters(recurse=False), None) is None


class _Step:
    """One train step, timed in parts: the clock is read as the first trained layer is reached."""

    def __init__(
        self, module: nn.Module, recipe: Recipe, inputs: Tensor, labels: Tensor, precision: torch.dtype | None = None
    ) -> None:
        self._module, self._inputs, self._labels, self._precision = module, inputs, labels, precision
        self._recipe = recipe
        groups = param_groups(module, recipe)
        # The rate is 0: what is timed must not wander off to where numbers overflow.
        self._optimizer = torch.optim.AdamW(
            [{"params": list(group.parameters)} for group in groups], lr=0.0, fused=True
        )
        self._first = trained_stages(module, recipe)[0].modules[0]

    def __call__(self) -> _Parts:
        self._set_modes()
        reached: list[float] = []
        handle = self._first.register_forward_pre_hook(lambda *_: reached.append(self._now()))
        try:
            started = self._now()
            with self._autocast():
                logits = self._module(self._inputs)
            loss = F.cross_entropy(logits.float(), self._labels)
            after_forward = self._now()
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            ended = self._now()
        finally:
            handle.remove()
        split = reached[0] if reached else started
        return _Parts(split - started, after_forward - split, ended - after_forward)

    def _set_modes(self) -> None:
        trained = {id(part) for stage in trained_stages(self._module, self._recipe) for part in stage.modules}
        for stage in stages(self._module):
            for part in stage.modules:
                part.training = id(part) in trained

    def _autocast(self) -> Any:
        if self._precision is None:
            return nullcontext()
        return torch.autocast(self._inputs.device.type, dtype=self._precision)

    def _now(self) -> float:
        if self._inputs.device.type == "cuda":
            torch.cuda.synchronize(self._inputs.device)
        return time.perf_counter()


def _compare(module: nn.Module, recipe: Recipe, inputs: Tensor, labels: Tensor) -> tuple[_Parts, tuple[Speedup, ...]]:
    """Seconds of the step as training takes it (channels last, float32), and what the settings bring, interleaved."""
    plain = copy.deepcopy(module).to(memory_format=torch.contiguous_format)
    module = module.to(memory_format=torch.channels_last)
    steps = {
        "contiguous": _Step(plain, recipe, inputs.contiguous(), labels),
        "channels last": _Step(module, recipe, inputs, labels),
        "bf16": _Step(copy.deepcopy(module), recipe, inputs, labels, torch.bfloat16),
    }
    first = {name: parts for name, step in steps.items() if (parts := _tried(step, name == "bf16"))}
    hopeless = [name for name in first if first[name].all > _HOPELESS * first["channels last"].all]
    timed: dict[str, list[_Parts]] = {name: [] for name in first}
    for _ in range(_ROUNDS):
        for name in first:
            if name not in hopeless:
                timed[name].append(steps[name]())
    medians = {name: _median(timed[name] or [first[name]]) for name in first}
    return medians["channels last"], _speedups(medians)


def _tried(step: _Step, may_fail: bool) -> _Parts | None:
    """The first step; None where the network has operations that this processor does not have in bf16."""
    try:
        return step()
    except RuntimeError:
        if may_fail:
            return None
        raise


def _speedups(medians: Mapping[str, _Parts]) -> tuple[Speedup, ...]:
    plain, layout = medians["contiguous"].all, medians["channels last"].all
    found = [Speedup(name="channels last", ratio=plain / layout, flag=None, worth_it=plain / layout >= WORTH)]
    if "bf16" in medians:
        half = medians["bf16"].all
        # It must beat what is on anyway.
        worth_it = layout / half >= WORTH
        found.append(Speedup(name="bf16", ratio=plain / half, flag="--precision bf16", worth_it=worth_it))
    return tuple(found)


def _spread(parts: list[_Parts]) -> float:
    return max(part.all for part in parts) / max(1e-9, min(part.all for part in parts))


def _median(parts: list[_Parts]) -> _Parts:
    return _Parts(
        statistics.median(part.frozen for part in parts),
        statistics.median(part.forward for part in parts),
        statistics.median(part.backward for part in parts),
    )


def _augment_seconds(inputs: Tensor) -> float:
    draws = torch.rand(len(inputs), _DRAWS, device=inputs.device)
    seconds = []
    for _ in range(1 + _ROUNDS):
        started = time.perf_counter()
        float(augment(inputs, draws)[0, 0, 0, 0])  # reading a value waits for the device
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])
