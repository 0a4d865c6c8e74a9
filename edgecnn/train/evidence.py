"""Which recipe suits these images, by trying them: within a time box, on training and validation images alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.checkpoint import Recipe, RecipeName
from edgecnn.data import Dataset, Item, fold_numbers
from edgecnn.documents import Frozen, parse, write_atomically
from edgecnn.recipes import RECIPES, named, recommend
from edgecnn.train.folder import EVIDENCE, STATE
from edgecnn.train.loop import train
from edgecnn.train.options import TrainOptions
from edgecnn.train.progress import ProgressBar, Silent
from edgecnn.train.sources import Source, pixel_source, prepared, subset
from edgecnn.train.state import Epoch
from edgecnn.train.task import Start, Task, computed_once, cut_for, key_of, ordered, views_of, with_options
from edgecnn.transfer import recipe_for, starting_point

_MOST = 1_000
"""Images that are compared on at most."""
_FOLDS = 3
_WAYS = ((3, 1.0), (2, 1.0), (1, 1.0), (1, 0.5), (1, 0.25))
"""Folds and share of the epochs, the best first."""
_SHORTEST = 3
"""Epochs below which a short run says nothing."""

Build = Callable[[Recipe], Start]
"""A fresh network with its weights for one trial."""


class Trial(Frozen):
    """One recipe, tried."""

    recipe: RecipeName
    folds: int
    epochs: int
    """That a fold was given; early stopping may have ended it before."""
    full_epochs: int
    """That the recipe takes when it is chosen."""
    recalls: tuple[float, ...]
    """Mean recall of the classes on the held-out images of each fold, of its best epoch."""
    top1: float
    loss: float
    """Cross-entropy on held-out images, of the best epoch."""
    minutes: float
    history: tuple[Epoch, ...]
    """Of the first fold."""

    @property
    def balanced(self) -> float:
        """Mean recall over the folds."""
        return float(np.mean(self.recalls))

    @property
    def spread(self) -> float:
        """Standard deviation over the folds; 0 with one."""
        return float(np.std(self.recalls))


class Evidence(Frozen):
    """What was tried, what was chosen, and why."""

    images: int
    trials: tuple[Trial, ...]
    chosen: RecipeName
    reason: str
    symptoms: tuple[str, ...]
    """Of negative transfer and other trouble, where seen."""
    minutes: float
    limit_minutes: float


def gather(
    data: Dataset, options: TrainOptions, build: Build, cache: Path, out: Path | None, progress: ProgressBar
) -> tuple[Evidence, Recipe]:
    """Try every recipe on the training and validation images and choose the best; the test split is never read.

    `out` keeps the folds and epochs that the clock allowed, and finished trials: a killed run goes on with the next.
    The head is trained on features computed once, partial recipes on activations computed once.
    """
    file = out / EVIDENCE if out else None
    recipes = _recipes(options)
    if file and file.is_file():
        found = parse(Evidence, file.read_bytes(), str(file))
        return found, recipes[found.chosen]
    started = time.monotonic()
    lab = _Lab(data, options, build, cache, progress)
    plan = _kept_plan(lab, recipes, out / STATE / "plan.json" if out else None)
    trials = [_tried(lab, recipes[name], *plan[name], out) for name in plan]
    evidence = _judge(lab, trials, (time.monotonic() - started) / 60)
    if file:
        write_atomically(file, evidence.model_dump_json(indent=1) + "\n")
    return evidence, recipes[evidence.chosen]


def worth_comparing(options: TrainOptions) -> bool:
    """Whether there is time for it, and more than one recipe to choose from."""
    return options.recipe == "auto" and options.minutes > 0 and len(_recipes(options)) > 1


def symptoms(trials: Sequence[Trial], chosen: RecipeName) -> tuple[str, ...]:
    """What the trials show of trouble: negative transfer, and a plateau or overfitting of the chosen one."""
    found = []
    scratch = next((trial for trial in trials if trial.recipe == "scratch"), None)
    transferred = [trial for trial in trials if trial.recipe != "scratch"]
    if scratch and transferred:
        best = min(transferred, key=lambda trial: trial.loss)
        if best.loss > scratch.loss:
            found.append(
                f"negative transfer: validation loss {best.loss:.3f} with the pretrained weights ({best.recipe}) is "
                f"above {scratch.loss:.3f} from scratch: the weights' domain is far from these images; train from "
                "scratch (--recipe scratch) or take other weights"
            )
    for trial in [trial for trial in transferred if trial.recipe == chosen]:
        losses = [row.val_loss for row in trial.history]
        half = len(losses) // 2
        if half < 3:
            continue
        gained = min(losses[:half]) - min(losses[half:])
        if gained < 0.01 * min(losses[:half]) and trial.balanced < 0.8:
            found.append(
                f"plateau: {trial.recipe}'s validation loss did not fall by 1 % in the second half of its epochs "
                f"(mean recall {trial.balanced:.0%}): train more stages, or look at the labels"
            )
        fell = trial.history[-1].train_loss < 0.8 * trial.history[half].train_loss
        if losses[-1] > 1.25 * min(losses) and fell:
            found.append(
                f"overfitting: {trial.recipe}'s validation loss rose to {losses[-1]:.3f} from {min(losses):.3f} while "
                "the training loss fell: freeze more, augment more, or add images"
            )
    return tuple(found)


@dataclass(frozen=True)
class _Lab:
    """What all trials share."""

    data: Dataset
    options: TrainOptions
    build: Build
    cache: Path
    progress: ProgressBar

    @property
    def items(self) -> list[Item]:
        """Training and validation images, at most so many, the classes in proportion."""
        every = ordered((*self.data.train, *self.data.val))
        rows = _spread([item.label for item in every])
        return [every[row] for row in np.sort(rows[:_MOST])]


def _recipes(options: TrainOptions) -> dict[RecipeName, Recipe]:
    """Those to try, cheap ones first; the rule's alone where it leaves nothing to compare."""
    start = starting_point(options.model, options.weights or "")
    names = [known.name for known in RECIPES if known.tried_for is not None]
    if start.random or start.features_only:
        names = [recommend(0, start).recipe]
    return {name: with_options(recipe_for(name, start), options) for name in names}


def _kept_plan(lab: _Lab, recipes: dict[RecipeName, Recipe], file: Path | None) -> dict[RecipeName, tuple[int, int]]:
    """The plan that an earlier process had made, else one made now."""
    if file and file.is_file():
        return {name: (folds, epochs) for name, (folds, epochs) in json.loads(file.read_bytes()).items()}
    plan = _plan(lab, recipes)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(plan))
    return plan


def _plan(lab: _Lab, recipes: dict[RecipeName, Recipe]) -> dict[RecipeName, tuple[int, int]]:
    """(folds, epochs) of each recipe that is tried, by a probe of what an epoch takes.

    Cheap recipes first, each with the most folds and epochs that its share of the time left allows, so that what is
    cheap is tried in full: a run cut short would speak for the recipe that learns fastest.
    """
    left = 60 * lab.options.minutes
    plan: dict[RecipeName, tuple[int, int]] = {}
    for name, recipe in recipes.items():
        once, an_epoch = _probe(lab, recipe)
        ways = [(folds, max(_SHORTEST, round(part * recipe.epochs))) for folds, part in _WAYS]
        costs = [once + folds * epochs * an_epoch for folds, epochs in ways]
        fits = [place for place, cost in enumerate(costs) if cost <= (named(name).tried_for or 1.0) * left]
        if not fits and plan:
            lab.progress.text(
                f"{name} is not tried: it would take {costs[-1] / 60:.1f} of the {left / 60:.1f} min left (--minutes)"
            )
            continue
        place = fits[0] if fits else _WAYS.index((1, 1.0))  # the first is tried in any case
        plan[name] = ways[place]
        left -= costs[place]
        folds, epochs = ways[place]
        minutes = costs[place] / 60
        of = "1 fold" if folds == 1 else f"{folds} folds"
        lab.progress.text(f"{name}: {of}, {epochs} of {recipe.epochs} epochs, about {minutes:.1f} min")
    return plan


def _probe(lab: _Lab, recipe: Recipe) -> tuple[float, float]:
    """Seconds for what is computed once, and for an epoch of one fold, from an epoch over a few batches."""
    start = lab.build(recipe.model_copy(update={"epochs": 1, "thaw_by": 0.0}))
    pixels = _pixels(lab, start, lab.items)
    few = _spread(pixels.labels.tolist())[: 2 * lab.options.batch]
    began = time.monotonic()
    net, rows, _ = _inputs(lab, start, subset(pixels, few), None)
    once = 0.0 if net is start.built.module else (time.monotonic() - began) * len(pixels.labels) / len(few)
    task = _task(lab, start, net, rows, subset(rows, np.arange(min(8, len(few)))))
    row = train(task, None, Silent()).history[0]
    views = 1 + max(1, views_of(recipe, len(pixels.labels), lab.options))  # with the one without augmentation
    return views * once, row.seconds * len(pixels.labels) * (1 - 1 / _FOLDS) / len(few)


def _tried(lab: _Lab, recipe: Recipe, folds: int, epochs: int, out: Path | None) -> Trial:
    """One recipe in its folds; read back where an earlier process had finished it."""
    stored = out / STATE / f"trial-{recipe.name}.json" if out else None
    if stored and stored.is_file():
        return Trial.model_validate_json(stored.read_bytes())
    started, histories, bests = time.monotonic(), [], []
    for fold in range(folds):
        lab.progress.text(f"trying {recipe.name}, fold {fold + 1} of {folds}")
        start = lab.build(recipe.model_copy(update={"epochs": epochs}))
        pixels = _pixels(lab, start, lab.items)
        net, train_on, val_on = _inputs(lab, start, pixels, lab.cache)
        learn, hold = _fold(lab.items, fold)
        position = train(
            _task(lab, start, net, subset(train_on, learn), subset(val_on, hold)), None, _Quiet(lab.progress)
        )
        histories.append(position.history)
        bests.append(position.history[position.best_epoch - 1])
    trial = Trial(
        recipe=recipe.name,
        folds=folds,
        epochs=epochs,
        full_epochs=recipe.epochs,
        recalls=tuple(best.val_balanced for best in bests),
        top1=float(np.mean([best.val_top1 for best in bests])),
        loss=float(np.mean([best.val_loss for best in bests])),
        minutes=(time.monotonic() - started) / 60,
        history=histories[0],
    )
    if stored:
        stored.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(stored, trial.model_dump_json())
    return trial


def expected(trial: Trial, trials: Sequence[Trial]) -> float:
    """Mean recall to compare by: that of the trial with the most folds, and the difference on the folds of both."""
    most = max(trials, key=lambda other: other.folds)
    differences = [ours - theirs for ours, theirs in zip(trial.recalls, most.recalls, strict=False)]
    return most.balanced + float(np.mean(differences))


def _judge(lab: _Lab, trials: Sequence[Trial], minutes: float) -> Evidence:
    """The best by `expected`; but the stated rule's recipe stands where the time box cut it short."""
    scores = {trial.recipe: expected(trial, trials) for trial in trials}
    best = max(trials, key=lambda trial: (round(scores[trial.recipe], 3), -trial.loss))
    others = ", ".join(f"{trial.recipe} {scores[trial.recipe]:.1%}" for trial in trials if trial is not best)
    short = "" if best.epochs >= best.full_epochs else f" after {best.epochs} of {best.full_epochs} epochs"
    reason = f"{best.recipe} has mean recall {scores[best.recipe]:.1%}{short} on held-out images"
    # Of fewer folds than the best: what their own folds say is in the table, this is what they are compared by.
    partly = len({trial.folds for trial in trials}) > 1
    reason = f"{reason}; {others}{' by the folds that they share' if partly else ''}" if others else reason
    rule = recommend(len(lab.data.train), starting_point(lab.options.model, lab.options.weights or ""))
    in_full = any(trial.recipe == rule.recipe and trial.epochs >= trial.full_epochs for trial in trials)
    chosen = best.recipe if in_full else rule.recipe
    if chosen != best.recipe:
        reason = (
            f"{rule.text}, and {lab.options.minutes:g} min were too few to try {chosen} in full (--minutes); {reason}"
        )
    return Evidence(
        images=len(lab.items),
        trials=tuple(trials),
        chosen=chosen,
        reason=reason,
        symptoms=symptoms(trials, chosen),
        minutes=minutes,
        limit_minutes=lab.options.minutes,
    )


def _pixels(lab: _Lab, start: Start, items: Sequence[Item]) -> Source:
    pixels = prepared(items, start.preprocess, lab.cache, lab.progress)
    return pixel_source(pixels, [item.label for item in items], start.preprocess, start.device, lab.options)


def _inputs(lab: _Lab, start: Start, pixels: Source, cache: Path | None) -> tuple[torch.nn.Module, Source, Source]:
    """What is trained, its inputs with augmentation, and without."""
    module, options = start.built.module, lab.options
    half = (
        None
        if options.views == 0 or (cache is None and start.recipe.thaw_by)
        else cut_for(module, start.recipe, pixels)
    )
    if half is None:
        return module, pixels, pixels
    if cache is None:  # a probe: what is computed once is not part of an epoch
        given = half.front(pixels.batch(np.arange(len(pixels.labels)), None))
        rows = Source(pixels.labels, lambda positions, epoch: given[torch.from_numpy(positions)])
        return half.tail, rows, rows
    everything = replace(lab.data, train=tuple(lab.items), val=())
    folder = cache / key_of(half, start, options, everything)
    stored = computed_once(half, (pixels, pixels), options, start.recipe, folder, lab.progress)
    return (half.tail, *stored) if stored else (module, pixels, pixels)


def _task(lab: _Lab, start: Start, net: torch.nn.Module, train_on: Source, val_on: Source) -> Task:
    options, built = lab.options, start.built
    classes = len(lab.data.classes)
    return Task(built.module, net, start.recipe, options, classes, train_on, val_on, built.weights, start.fabric)


def _fold(items: Sequence[Item], fold: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions to learn from and to hold out: a third of each class, parts whole."""
    held = fold_numbers(items, _FOLDS) == fold
    return np.flatnonzero(~held), np.flatnonzero(held)


def _spread(labels: Sequence[int]) -> NDArray[np.int64]:
    """All positions, ordered so that any beginning holds the classes in proportion, and each at least once."""
    values = np.array(labels)
    place = np.zeros(len(values))
    for label in set(labels):
        rows = np.flatnonzero(values == label)
        place[rows] = np.arange(len(rows)) / len(rows)
    return np.argsort(place, kind="stable")


class _Quiet:
    """A bar without a line an epoch."""

    def __init__(self, progress: ProgressBar) -> None:
        self._progress = progress

    def start(self, total: int, text: str) -> None:
        self._progress.start(total, text)

    def advance(self, steps: int = 1, status: str = "") -> None:
        self._progress.advance(steps, status)

    def text(self, text: str) -> None:
        del text


def read_evidence(folder: Path) -> Evidence | None:
    """What a run's recipe was chosen from; None where it was not chosen so."""
    file = folder / EVIDENCE
    return Evidence.model_validate(json.loads(file.read_bytes()), strict=False) if file.is_file() else None
