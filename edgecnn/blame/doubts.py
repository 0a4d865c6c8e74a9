"""Whether a network that somebody else trained fits what is said of it, by its answers to labelled images alone.

Whoever hands over a network says, or leaves to be assumed, in which order its classes stand and how images are prepared
for it. Where it answers no better than by guessing, or shown to be much better with another order of its classes, other
colours, another normalisation or another fit, there is a doubt.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Doubt, Preprocess
from edgecnn.blame.orders import order_words, usual_orders
from edgecnn.blame.outputs import Answers
from edgecnn.blame.pipeline import EncodedImage, Pipeline, own_pipeline, trained_pipeline
from edgecnn.blame.prices import Mistake, mistakes
from edgecnn.blame.stages import words
from edgecnn.data import Item
from edgecnn.errors import BadImage, UserError
from edgecnn.intervals import clopper_pearson, paired_difference
from edgecnn.judge import Labels

Answer: TypeAlias = Callable[[NDArray[np.generic]], Answers]
"""RGB pixels 0 to 255, (n, height, width, 3), uint8 or float32, to (n, classes)."""

MOST_IMAGES = 240
MOST_FOR_OTHERS = 96
"""With other preprocessings, each of which is answered anew."""
LEAST_IMAGES = 24
"""Where there are so many. Between the two, the network's size decides: the answers shall take seconds."""
MARGIN = 0.05
"""Another reading is much better where the share of right answers is shown to be more than this higher…"""
ERROR = 0.05
"""…with this probability of error, one-sided, over all readings that are tried."""
_MACS = 30e9
GUESSING = 0.05
"""Probability, one-sided, with which a network that guesses is taken for a better one…"""
FAR = 0.02
"""…and with which one that is right half-way from guessing to always is said not to be."""
_FEW = 8
"""A class may be judged by so many images even where the rarest has fewer."""
_FOLDS = 10
_SHUFFLES = 200
_BATCH = 32
_STAGES = ("colour order", "normalisation", "fit")


@dataclass(frozen=True)
class Other:
    """Another reading of the network, with what it then decides."""

    stage: str
    assumed: str
    needed: str
    decided: NDArray[np.int64]
    """(n,), of the first n images."""
    loss: float = 0.0
    """Cross-entropy of these images' labels: tells which of two readings that get equally many right it is."""


def doubts(
    answer: Answer, spec: Preprocess, classes: Sequence[str], items: Sequence[Item], macs: int
) -> tuple[Doubt, ...]:
    """What speaks against the classes' order and the preprocessing; nothing where the network fits them.

    `classes`: in the order of the outputs, which the items' labels count. `macs`: of one image.
    """
    chosen = judged(items, _images(macs, MOST_IMAGES))
    labels = np.array([item.label for item in chosen], np.int64)
    balanced = min(_balanced(items), len(chosen))
    own = own_pipeline(spec)
    answers = _answers(answer, chosen, [own])[0]
    wrong = [one for one in mistakes(spec) if one.stage in _STAGES and one.pipeline.colour != "grey"]
    fewer = min(balanced, _images(macs * len(wrong), MOST_FOR_OTHERS))
    decided = answers.argmax(1)
    others = other_orders(labels[:balanced], answers[:balanced], classes)
    errors = int((decided[:fewer] != labels[:fewer]).sum())
    if _shown(errors, 0, fewer, len(others) + len(wrong)):
        found = _answers(answer, chosen[:fewer], [one.pipeline for one in wrong])
        others = [_other(one, spec, got, labels[:fewer]) for one, got in zip(wrong, found, strict=True)] + others
    return judge(labels, decided, others, classes)


def judged(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` images, the classes in turn: about equally many of each come first, what is left of others last.

    Readings are compared on the first ones, of which guessing gets few right; guessing is told by all.
    """
    by_class: dict[int, list[Item]] = defaultdict(list)
    for item in sorted(items, key=lambda item: item.sha256):
        by_class[item.label].append(item)
    ranked = [(rank, label) for label, found in by_class.items() for rank in range(len(found))]
    return [by_class[label][rank] for rank, label in sorted(ranked)[:most]]


def _balanced(items: Sequence[Item]) -> int:
    """How many of the images in turn are about equally many of each class."""
    counts = Counter(item.label for item in items).values()
    each = max(_FEW, min(counts, default=0))
    return sum(min(each, count) for count in counts)


def other_orders(labels: Labels, answers: Answers, classes: Sequence[str]) -> list[Other]:
    """The orders in which programs sort names, and the one that fits best, judged by images that did not choose it.

    The latter is left out where the decisions have no more to do with the labels, in whatever order, than by chance.
    """
    decided = answers.argmax(1)
    place = {name: number for number, name in enumerate(classes)}
    meanings = [np.array([place[name] for name in order]) for order in usual_orders(classes).values()]
    read = [meaning[decided] for meaning in meanings]
    best = _best_meaning(labels, decided, len(classes))
    if (best != np.arange(len(classes))).any() and _tell_an_order(labels, decided, len(classes)):
        meanings.append(best)
        read.append(_out_of_fold(labels, decided, len(classes)))
    return [
        Other(
            stage="class order",
            assumed=_listed(classes),
            needed=order_words(classes, [classes[i] for i in meaning.tolist()]),
            decided=then,
            loss=_loss(answers[:, np.argsort(meaning)], labels),
        )
        for meaning, then in zip(meanings, read, strict=True)
    ]


def judge(
    labels: Labels, decided: NDArray[np.int64], others: Sequence[Other], classes: Sequence[str]
) -> tuple[Doubt, ...]:
    """The doubt that these decisions raise.

    Paired, on the same images: another reading counts where the lower bound of what it gains (Tango's interval, ERROR
    shared among all) is above MARGIN; the one that gets most right is told, among equals the one with the least loss.
    Else the network is in doubt where it answers one class alone, or guesses: a mean recall of the classes above that
    of always answering one is not shown, and half-way from there to all right is shown not to be reached (GUESSING,
    FAR). Of means, as a network that is nearly always right may still be right less often than 'good' is the label.
    Of two balanced classes it takes 18 images to doubt whatever gets half of them right, of three classes 12.
    """
    right = decided == labels
    better: list[tuple[float, Other]] = []
    for other in others:
        n = len(other.decided)
        then = other.decided == labels[:n]
        gained, lost = int((then & ~right[:n]).sum()), int((right[:n] & ~then).sum())
        if _shown(gained, lost, n, len(others)):
            better.append((float(then.mean()), other))
    if better:
        share, best = max(better, key=lambda one: (one[0], -one[1].loss))
        n = len(best.decided)
        text = (
            f"{best.stage} ({best.assumed} assumed, where the labels need {best.needed}): "
            f"{right[:n].mean():.1%} of {n} labelled images right, {share:.1%} then"
        )
        return (Doubt(stage=best.stage, words=text),)
    if (decided == decided[0]).all() or _guesses(right, labels):
        return (_guessing(right, labels, classes),)
    return ()


def _guesses(right: NDArray[np.bool_], labels: Labels) -> bool:
    recalls, counts = _recalls(right, labels)
    recall, chance = float(recalls.mean()), 1 / len(counts)
    # So many images, equally many of each class, tell the mean recall as well: just these where they are balanced.
    worth = max(1, math.floor(len(counts) ** 2 / float((1 / counts).sum()) + 1e-9))
    low = clopper_pearson(math.floor(recall * worth + 1e-9), worth, 1 - 2 * GUESSING)[0]
    high = clopper_pearson(math.ceil(recall * worth - 1e-9), worth, 1 - 2 * FAR)[1]
    return low <= chance and high < (1 + chance) / 2


def _recalls(right: NDArray[np.bool_], labels: Labels) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Of each class that there are images of, and how many."""
    _, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return np.bincount(place, weights=right) / counts, counts


def _guessing(right: NDArray[np.bool_], labels: Labels, classes: Sequence[str]) -> Doubt:
    recalls, counts = _recalls(right, labels)
    commonest = classes[int(np.bincount(labels).argmax())]
    of_each = "" if counts.min() == counts.max() else f", {recalls.mean():.1%} of a class on average"
    text = (
        f"answers ({right.mean():.1%} of {len(right)} labelled images right{of_each}, hardly more than always "
        f"answering {commonest!r} or less): no other order of the classes, colours, normalisation or fit is "
        "shown to be better: other weights, other classes or other images than it was trained with"
    )
    return Doubt(stage="answers", words=text)


def _shown(gained: int, lost: int, n: int, tried: int) -> bool:
    """Whether the gain is shown to be above the margin, `tried` readings sharing the error."""
    if gained - lost <= MARGIN * n:
        return False
    return paired_difference(gained, lost, n, 1 - 2 * ERROR / max(tried, 1))[0] > MARGIN


def _best_meaning(labels: Labels, decided: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Which class each output is, so that most decisions are right; the given one where nothing tells."""
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((classes, classes))
    np.add.at(counts, (decided, labels), 1)
    counts += 0.5 / len(labels) * np.eye(classes) if len(labels) else np.eye(classes)
    meaning: NDArray[np.int64] = linear_sum_assignment(counts, maximize=True)[1]
    return meaning


def _tell_an_order(labels: Labels, decided: NDArray[np.int64], classes: int) -> bool:
    """Whether the best of all orders fits better than the best of each shuffling of the labels does: not by chance."""
    rng = np.random.default_rng(len(labels))

    def hits(given: Labels) -> int:
        return int((_best_meaning(given, decided, classes)[decided] == given).sum())

    reached = hits(labels)
    return all(hits(rng.permutation(labels)) < reached for _ in range(_SHUFFLES if classes <= 100 else 20))


def _out_of_fold(labels: Labels, decided: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Decisions read with the order that the other folds' images tell, each class spread over the folds.

    K! orders can fit few images well by chance; images that took no part in the choice do not flatter it.
    """
    fold = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        fold[mine] = (np.arange(len(mine)) + label) % _FOLDS
    read = decided.copy()
    for number in range(_FOLDS):
        mine = fold == number
        read[mine] = _best_meaning(labels[~mine], decided[~mine], classes)[decided[mine]]
    return read


def _listed(classes: Sequence[str], most: int = 12) -> str:
    return ", ".join(classes) if len(classes) <= most else f"{', '.join(classes[:3])}, …"


def _other(mistake: Mistake, spec: Preprocess, answers: Answers, labels: Labels) -> Other:
    stage = mistake.stage
    assumed = words(stage, trained_pipeline(spec))
    needed = mistake.words if stage == "normalisation" else words(stage, mistake.pipeline)
    return Other(stage, assumed, needed, answers.argmax(1), _loss(answers, labels))


def _loss(answers: Answers, labels: Labels) -> float:
    """Mean cross-entropy."""
    logits = np.maximum(answers.astype(np.float64), -1e6)
    logits -= logits.max(1, keepdims=True)
    return float((np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]).mean())


def _answers(answer: Answer, items: Sequence[Item], pipelines: Sequence[Pipeline]) -> list[Answers]:
    """(n, classes) for each pipeline; what is not finite counts least. Each image is decoded once."""
    floats = [replace(one, dtype="float32") for one in pipelines] if len(pipelines) > 1 else list(pipelines)
    together = max(1, _BATCH // len(pipelines))
    rows = []
    for start in range(0, len(items), together):
        entering = [pixels for item in items[start : start + together] for pixels in _entering(item, floats)]
        answers = answer(np.stack(entering))
        rows.append(np.where(np.isfinite(answers), answers, -np.inf).reshape(-1, len(pipelines), answers.shape[1]))
    every: NDArray[np.float32] = np.concatenate(rows)
    return [every[:, number] for number in range(len(pipelines))]


def _entering(item: Item, pipelines: Sequence[Pipeline]) -> list[NDArray[np.generic]]:
    image = EncodedImage(item.path.read_bytes())
    try:
        return [image.enter(pipeline, "nhwc")[0] for pipeline in pipelines]
    except BadImage as error:
        raise UserError(f"{item.path}: {error}") from None


def _images(macs: int, most: int) -> int:
    return int(min(max(_MACS / max(macs, 1), LEAST_IMAGES), most))
