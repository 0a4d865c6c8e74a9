"""Whether pretrained features suit the images: measured against the features of the same network untrained."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecnn.advice import Nearness
from edgecnn.documents import Frozen
from edgecnn.models import Built, build, head_of
from edgecnn.plan.sample import Sample

FOLDS = 3
_LEAST = 24
"""Images below which folds say nothing."""
_RIDGE = 0.1
"""Penalty, relative to the mean squared length of the standardised features."""
_EASY = 0.95
"""Accuracy of random features from which the task is too easy to tell domains apart."""
_BATCH = 16
_DEAD = 1e-30
"""Spread of features below which float32 has lost them."""
_NORMS = nn.modules.batchnorm._BatchNorm


class Domain(Frozen):
    """The verdict and the two numbers that it rests on."""

    verdict: Nearness
    reason: str
    images: int
    pretrained: float | None = None
    """Share of held-out images that a linear probe on the pretrained features gets right."""
    random: float | None = None
    """The same on features of the network with random weights."""


def judge_domain(built: Built, classes: int, sample: Sample, device: torch.device) -> Domain:
    """near: the pretrained features at least halve the error of random ones; far: they do not.

    3-fold ridge probe on the inputs of the head. unknown: random weights, too few images, or random features that
    already do (95 %).
    """
    labels, chosen = _usable(sample)
    images = len(chosen)
    if built.weights == "none":
        return Domain(verdict="unknown", reason="the weights are random", images=0)
    if images < _LEAST or len(set(labels)) < 2:
        reason = f"{images} images in classes of at least {FOLDS}: {_LEAST} in two classes are needed"
        return Domain(verdict="unknown", reason=reason, images=images)
    untrained = build(built.name, classes, "none", size=sample.preprocess.height).module.to(device)
    pretrained = probe_accuracy(features(built.module, sample, device)[chosen], labels)
    random = probe_accuracy(_alive(untrained, sample, device)[chosen], labels)
    verdict, reason = _verdict(pretrained, random)
    return Domain(verdict=verdict, reason=reason, images=images, pretrained=pretrained, random=random)


def features(module: nn.Module, sample: Sample, device: torch.device) -> NDArray[np.float64]:
    """float64 (n, features): what the head gets, averaged over positions where it gets maps. In eval mode."""
    reached: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        given = inputs[0].detach()
        reached.append((given.mean((2, 3)) if given.ndim == 4 else given.flatten(1)).float().cpu())

    module = module.eval()
    handle = head_of(module)[1].register_forward_pre_hook(keep)
    try:
        with torch.no_grad():
            for start in range(0, len(sample.labels), _BATCH):
                module(sample.inputs(start, start + _BATCH, device))
    finally:
        handle.remove()
    return torch.cat(reached).double().numpy()


def probe_accuracy(values: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Share of held-out rows that a ridge classifier gets right, over 3 folds that each hold every class."""
    if not np.isfinite(values).all():
        return 0.0
    fold = _folds(labels)
    right = 0
    for held in range(FOLDS):
        train, test = fold != held, fold == held
        scores = _ridge(values[train], labels[train], values[test])
        right += int((scores.argmax(1) == labels[test]).sum())
    return right / len(labels)


def _verdict(pretrained: float, random: float) -> tuple[Nearness, str]:
    if random >= _EASY:
        return "unknown", f"random features already get {random:.0%} right: the task is too easy to tell"
    if 1 - pretrained <= (1 - random) / 2:
        return "near", "pretrained features at least halve the error of random ones"
    return "far", "pretrained features do not halve the error of random ones"


def _usable(sample: Sample) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels and positions of images whose class has one for each fold."""
    counts = Counter(sample.labels)
    chosen = np.array([place for place, label in enumerate(sample.labels) if counts[label] >= FOLDS], np.int64)
    return np.array(sample.labels, np.int64)[chosen], chosen


def _folds(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Images of a class go to the folds in turn."""
    seen: Counter[int] = Counter()
    fold = np.empty(len(labels), np.int64)
    for place, label in enumerate(labels.tolist()):
        fold[place] = seen[label] % FOLDS
        seen[label] += 1
    return fold


def _ridge(train: NDArray[np.float64], labels: NDArray[np.int64], test: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores (n, classes) of the test rows, in the dual form: there are fewer images than features."""
    mean, spread = train.mean(0), train.std(0)
    spread[spread <= 1e-6 * spread.max()] = np.inf  # what hardly varies says nothing
    train, test = (train - mean) / spread, (test - mean) / spread
    kernel = train @ train.T
    kernel += np.eye(len(train)) * max(1e-9, _RIDGE * float(np.trace(kernel)) / len(train))
    targets = np.eye(int(labels.max()) + 1)[labels]
    weights = np.linalg.solve(kernel, targets - targets.mean(0))
    scores: NDArray[np.float64] = test @ train.T @ weights + targets.mean(0)
    return scores


def _alive(untrained: nn.Module, sample: Sample, device: torch.device) -> NDArray[np.float64]:
    """Features of a random network. Its norms are as built, which tells images apart better than settled ones, unless
    the signal dies away in it."""
    values = features(untrained, sample, device)
    if np.isfinite(values).all() and values.std(0).max() > _DEAD:
        return values
    _settle_norms(untrained, sample, device)
    return features(untrained, sample, device)


def _settle_norms(module: nn.Module, sample: Sample, device: torch.device) -> None:
    """Gives BatchNorm the images' own statistics."""
    norms = [part for part in module.modules() if isinstance(part, _NORMS)]
    module.eval()
    for part in norms:
        part.momentum = None  # a plain average over the batches
        part.reset_running_stats()
        part.train()
    with torch.no_grad():
        for start in range(0, min(3 * _BATCH, len(sample.labels) - 1), _BATCH):
            module(sample.inputs(start, start + _BATCH, device))
    module.eval()
