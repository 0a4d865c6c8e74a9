"""A mistake inside a file, which no pixels that it takes put right: found by making it with our own variant."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecnn.artifact import Artifact, Bundle
from edgecnn.blame.answers import Expected
from edgecnn.blame.case import SAME_NET, SEARCH_IMAGES, Case, read_answers
from edgecnn.blame.engines import Opened
from edgecnn.blame.pipeline import EncodedImage, Pipeline, trained_pipeline
from edgecnn.blame.prices import Mistake, float_pixels, mistakes
from edgecnn.blame.stages import words

_INSIDE = ("colour order", "normalisation")
"""Stages that a graph can hold."""


def baked_in(case: Case, described: Pipeline, folder: Path, bundle: Bundle) -> tuple[str, str] | None:
    """(stage, words) of the mistake by which the checkpoint's network answers as the file does; None where none does.

    Each is made with a variant of the bundle that takes float pixels, on a few images.
    """
    ours = _own_variant(folder, bundle)
    if ours is None:
        return None
    index = case.some(SEARCH_IMAGES)
    answers = case.answers([described], index)[0]
    found: tuple[float, Mistake] | None = None
    for mistake in mistakes(case.spec):
        if mistake.stage not in _INSIDE or mistake.pipeline.colour == "grey":
            continue
        expected = Expected(_answers(ours, case, mistake.pipeline, index.tolist()), case.expected.labels[index])
        reading = read_answers(answers, expected, mistake.pipeline, mistake.words)
        same = reading.order is None and reading.effect.correlation >= SAME_NET
        if same and (found is None or reading.effect.mean_error < found[0]):
            found = reading.effect.mean_error, mistake
    if found is None:
        return None
    right = words("normalisation", trained_pipeline(case.spec))
    return found[1].stage, (
        f"inside the file: {found[1].words}, where the checkpoint's is RGB, {right}: no pixels that the file takes put "
        "that right, write it again"
    )


def _own_variant(folder: Path, bundle: Bundle) -> Opened | None:
    exact: list[Artifact] = [one for one in bundle.artifacts if one.precision == "fp32"]
    opened = (float_pixels(folder, one, bundle.threads)[0] for one in exact)
    return next((one for one in opened if one is not None), None)


def _answers(ours: Opened, case: Case, pipeline: Pipeline, chosen: list[int]) -> np.ndarray:
    rows = [
        ours.run(EncodedImage(case.paths[i].read_bytes()).enter(pipeline, "nhwc").astype(np.float32)) for i in chosen
    ]
    return np.stack(rows)
