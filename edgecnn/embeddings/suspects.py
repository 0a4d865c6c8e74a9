"""Images to look at: near and exact duplicates, and labels that the features contradict."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecnn.documents import Frozen
from edgecnn.embeddings.baselines import Folds, folds, probe
from edgecnn.embeddings.features import Embedded, labels_of

SAME_PICTURE = 0.97
"""Least correlation of grey 32×32 pictures of what is called a near duplicate."""
SAME_WITHOUT_LIGHT = 0.9
"""Least correlation once the light is taken out: two plain surfaces under one lamp are alike by the lamp alone."""
_CHUNK = 1024
_NEIGHBOURS = 10
_PENALTY = 0.01


class Duplicate(Frozen):
    """Two images that show the same."""

    first: str
    second: str
    exact: bool
    """Equal bytes."""
    cosine: float
    """Of their centred features."""
    correlation: float
    """Of their grey 32×32 pictures."""
    straddles: bool
    """They are in different splits: what one teaches, the other tests."""
    labels_differ: bool


class Mislabelled(Frozen):
    """An image whose label the others contradict."""

    image: str
    split: str
    label: str
    suggested: str
    probability: float
    """Of the suggested class, by a probe that has not seen the image."""
    label_probability: float
    neighbours_agree: float
    """Share of the nearest images that have the suggested label."""


def duplicates(embedded: Embedded, similar: float) -> tuple[Duplicate, ...]:
    """Pairs whose features and whose pixels agree, leaks between splits first. No n × n matrix is held."""
    rows = _unit(embedded.features)
    images, unlit = embedded.images, _without_light(embedded.thumbnails)
    found = []
    for start in range(0, len(rows), _CHUNK):
        for first, second in _pairs(rows, start, similar):
            correlation = min(1.0, float(embedded.thumbnails[first] @ embedded.thumbnails[second]))
            one, other = images.items[first], images.items[second]
            exact = one.sha256 == other.sha256
            same = correlation >= SAME_PICTURE and float(unlit[first] @ unlit[second]) >= SAME_WITHOUT_LIGHT
            if exact or same:
                found.append(
                    Duplicate(
                        first=one.name,
                        second=other.name,
                        exact=exact,
                        cosine=min(1.0, float(rows[first] @ rows[second])),
                        correlation=correlation,
                        straddles=images.splits[first] != images.splits[second],
                        labels_differ=one.label != other.label,
                    )
                )
    return tuple(sorted(found, key=lambda pair: (not pair.straddles, not pair.labels_differ, -pair.correlation)))


def mislabelled(embedded: Embedded) -> tuple[Mislabelled, ...]:
    """Confident learning (Northcutt et al., 2021, arXiv:1911.00068): images that a probe, which has not seen them, puts
    into another class with at least the confidence that images of that class have on average. The clearest first."""
    images, labels = embedded.images, labels_of(embedded.images)
    held_out = folds(images, np.arange(len(labels)))
    if not held_out:
        return ()
    chances = _held_out(embedded, labels, held_out)
    known = np.unique(labels)
    confident = np.array([chances[labels == label, column].mean() for column, label in enumerate(known)])
    above = np.where(chances >= confident, chances, 0.0)
    suggested = above.argmax(1)
    own = chances[np.arange(len(labels)), np.searchsorted(known, labels)]
    best = chances[np.arange(len(labels)), suggested]
    places = np.flatnonzero((above.max(1) > 0) & (known[suggested] != labels) & (best > own))
    order = places[np.argsort(own[places] - best[places], kind="stable")]
    agreement = _agreement(_unit(embedded.features), labels, order, known[suggested])
    return tuple(
        Mislabelled(
            image=images.items[place].name,
            split=images.splits[place],
            label=images.classes[labels[place]],
            suggested=images.classes[known[suggested[place]]],
            probability=float(best[place]),
            label_probability=float(own[place]),
            neighbours_agree=share,
        )
        for place, share in zip(order.tolist(), agreement, strict=True)
    )


def _held_out(embedded: Embedded, labels: NDArray[np.int64], held_out: Folds) -> NDArray[np.float64]:
    """(n, classes): each image's probabilities from a probe on the other folds."""
    from sklearn.model_selection import cross_val_predict

    rows = embedded.features.astype(np.float64)
    found: NDArray[np.float64] = cross_val_predict(probe(_PENALTY), rows, labels, cv=held_out, method="predict_proba")
    return found


def _agreement(
    rows: NDArray[np.float32], labels: NDArray[np.int64], places: NDArray[np.int64], suggested: NDArray[np.int64]
) -> list[float]:
    shares = []
    for place in places:
        cosine = rows @ rows[place]
        cosine[place] = -2
        nearest = np.argsort(-cosine)[:_NEIGHBOURS]
        shares.append(float((labels[nearest] == suggested[place]).mean()))
    return shares


def _pairs(rows: NDArray[np.float32], start: int, similar: float) -> list[tuple[int, int]]:
    """Positions (i, j), i < j, of similar rows, for i in one chunk."""
    cosine = rows[start : start + _CHUNK] @ rows[start:].T
    left, right = np.nonzero(np.triu(cosine >= similar, 1))
    return [(start + i, start + j) for i, j in zip(left.tolist(), right.tolist(), strict=True)]


def _without_light(thumbnails: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, side²), length 1: less the surface of second degree that fits each best."""
    side = round(thumbnails.shape[1] ** 0.5)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].reshape(2, -1)
    light = np.linalg.qr(np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], 1))[0].astype(np.float32)
    left = thumbnails - (thumbnails @ light) @ light.T
    unlit: NDArray[np.float32] = left / np.maximum(np.linalg.norm(left, axis=1, keepdims=True), 1e-6)
    return unlit


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centred, then of length 1."""
    centred = features - features.mean(0)
    unit: NDArray[np.float32] = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    return unit
