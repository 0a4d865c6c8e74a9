"""Rungs of increasing effort; the first that is good enough on validation images is taken. Test is never seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import sha256_of
from edgecnn.imaging import Images
from edgecnn.runtimes import open_file

GOOD_AGREEMENT = 0.99
"""A rung with this agreement with fp32 on validation ends the search."""


@dataclass(frozen=True)
class TuningSet:
    """What INT8 may be tuned with. No image of the test split is in it."""

    calibration: Images
    """From the train split."""
    validation: Images
    validation_labels: NDArray[np.int64]
    validation_logits: NDArray[np.float32]
    """Eager fp32's."""
    accuracy_loss_limit: float
    """Points of top-1."""
    threads: int


@dataclass(frozen=True)
class Rung:
    """One way to quantise."""

    name: str
    make: Callable[[Path], None]
    """Writes the quantised model to a path."""


@dataclass(frozen=True)
class Tried:
    """What a rung did to the validation images."""

    rung: str
    loss_points: float
    """Of top-1 against fp32."""
    agreement: float
    logit_error: float
    """Root mean square, relative to the logit scale."""
    largest_class_share: float
    """Share of the images in the most frequent decision: near 1 the model has collapsed."""


def climb(rungs: Sequence[Rung], runtime: str, tuning: TuningSet, work: Path, name: str) -> tuple[Path, dict[str, Any]]:
    """Try the rungs in order; return the taken one's main file and the notes for the record.

    Taken is the first whose loss is at most half the target's limit with an agreement of at least GOOD_AGREEMENT, else
    the one with the highest agreement (then the smallest logit error). `name` is the file's, in a folder of `work`.
    """
    tried: list[Tried] = []
    paths: list[Path] = []
    for index, rung in enumerate(rungs):
        path = work / f"rung-{index}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rung.make(path)
        tried.append(_judge(rung.name, path, runtime, tuning))
        paths.append(path)
        if tried[-1].agreement >= GOOD_AGREEMENT and tried[-1].loss_points <= tuning.accuracy_loss_limit / 2:
            best = index
            break
    else:
        best = min(range(len(tried)), key=lambda i: (-tried[i].agreement, tried[i].logit_error))
    notes = {
        "rung": tried[best].rung,
        "rungs_tried_on_validation": [asdict(row) for row in tried],
        "calibration_images": len(tuning.calibration),
        "calibration_pixels_sha256": sha256_of(tuning.calibration.tobytes()),
        "validation_images": len(tuning.validation),
    }
    return paths[best], notes


def _judge(rung: str, path: Path, runtime: str, tuning: TuningSet) -> Tried:
    session = open_file(path, runtime, "int8", tuning.threads)
    try:
        logits = np.concatenate([session.run(image[None]) for image in tuning.validation])
    finally:
        session.close()
    reference, labels = tuning.validation_logits, tuning.validation_labels
    decisions, expected = logits.argmax(1), reference.argmax(1)
    loss = 100 * (np.mean(expected == labels) - np.mean(decisions == labels))
    error = float(np.sqrt(np.mean((logits - reference) ** 2)) / reference.std())
    shares = np.bincount(decisions) / len(decisions)
    return Tried(rung, float(loss), float(np.mean(decisions == expected)), error, float(shares.max()))
