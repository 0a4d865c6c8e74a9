"""What features are worth as they are: nearest neighbours and a linear probe, judged on the test split."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Interval
from edgecnn.data import fold_numbers
from edgecnn.documents import Frozen
from edgecnn.embeddings.features import Embedded, Shown, labels_of, places_in
from edgecnn.installed import need
from edgecnn.intervals import clopper_pearson

_NEIGHBOURS = (1, 3, 5, 11)
_PENALTIES = (0.001, 0.01, 0.1)
_FOLDS = 3

Folds: TypeAlias = tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]
"""Positions to learn from and to hold out, of each fold."""


class Baseline(Frozen):
    """A simple classifier on the features."""

    name: str
    setting: str
    """Chosen by cross-validation on training images."""
    test_images: int
    top1: float
    interval: Interval
    """95 %, Clopper–Pearson."""
    balanced: float
    """Mean recall of the classes."""


def baselines(embedded: Embedded) -> tuple[Baseline, ...]:
    """Both, fitted on training and validation images; empty where a class has too few parts to choose a setting."""
    labels = labels_of(embedded.images)
    known, test = places_in(embedded.images, ("train", "val")), places_in(embedded.images, ("test",))
    held_out = folds(embedded.images, known)
    if not held_out or not len(test):
        return ()
    seen = min(len(learn) for learn, _ in held_out)
    candidates = (
        ("nearest neighbours", [(f"k = {k}, cosine", neighbours(k)) for k in _NEIGHBOURS if k <= seen]),
        ("linear probe", [(f"C = {c:g}", probe(c)) for c in _PENALTIES]),
    )
    rows = embedded.features.astype(np.float64)
    found = []
    for name, ways in candidates:
        setting, model = max(ways, key=lambda way: _validated(way[1], rows[known], labels[known], held_out))
        decided = model.fit(rows[known], labels[known]).predict(rows[test])
        found.append(_judged(name, setting, decided, labels[test]))
    return tuple(found)


def probe(penalty: float) -> Any:
    """Logistic regression on standardised features, scikit-learn's."""
    need_sklearn()
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(), LogisticRegression(C=penalty, tol=1e-3, max_iter=3000, class_weight="balanced")
    )


def neighbours(k: int) -> Any:
    """The k most similar images vote."""
    need_sklearn()
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(k, metric="cosine")


def folds(images: Shown, places: NDArray[np.int64]) -> Folds:
    """What to learn from and what to hold out, as positions in `places`: the same everywhere, parts whole.

    Empty where there is one class only, or a class is missing from what a fold learns from or holds out.
    """
    items = [images.items[place] for place in places.tolist()]
    labels = np.array([item.label for item in items])
    held = fold_numbers(items, _FOLDS)
    found = tuple((np.flatnonzero(held != fold), np.flatnonzero(held == fold)) for fold in range(_FOLDS))
    classes = len(np.unique(labels))
    whole = all(len(np.unique(labels[part])) == classes for fold in found for part in fold)
    return found if classes > 1 and whole else ()


def _validated(model: Any, rows: NDArray[np.float64], labels: NDArray[np.int64], held_out: Folds) -> float:
    from sklearn.model_selection import cross_val_score

    return float(np.mean(cross_val_score(model, rows, labels, cv=held_out, scoring="balanced_accuracy")))


def _judged(name: str, setting: str, decided: NDArray[np.int64], labels: NDArray[np.int64]) -> Baseline:
    right = decided == labels
    low, high = clopper_pearson(int(right.sum()), len(right))
    return Baseline(
        name=name,
        setting=setting,
        test_images=len(right),
        top1=float(right.mean()),
        interval=Interval(low=low, high=high),
        balanced=float(np.mean([right[labels == label].mean() for label in np.unique(labels)])),
    )


def need_sklearn() -> None:
    """Raises MissingExtra where scikit-learn is not installed."""
    need("train", "scikit-learn")
