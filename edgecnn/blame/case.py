"""A model file, open, with test images and the answers to expect; and the search for how it wants to be fed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Preprocess
from edgecnn.blame.answers import Effect, Expected, class_order, effect
from edgecnn.blame.engines import Opened, Refused
from edgecnn.blame.outputs import Answers, Kind, Output, fitted, kinds_like
from edgecnn.blame.pipeline import (
    Colour,
    EncodedImage,
    Layout,
    Pipeline,
    Shape,
    layout_of,
    normalised,
    own_pipeline,
    swapped,
)
from edgecnn.errors import BadImage, UserError

SEARCH_IMAGES = 24
"""How many images the search for what a file takes runs on; its finding is judged on all."""
SAME_NET = 0.98
"""Least correlation of answers by which two files are taken for the same net: two trainings on the same images can have
a lower one."""
_INSIDE = {
    "normalised as the checkpoint's": (1.0, 0.0),
    "times 255: it divides by 255 itself": (1 / 255, 0.0),
    "with (x - 0.5) / 0.5 undone: it does that itself": (2.0, -1.0),
    "with x / 127.5 - 1 undone: it does that itself": (1 / 127.5, -1.0),
}
"""What a file may do to its input before the net, as (scale, shift)."""


@dataclass(frozen=True)
class Case:
    """What is judged, and by what."""

    path: Path
    engine: str
    opened: Opened
    takes: Layout | None
    """Of the file's input."""
    spec: Preprocess
    classes: tuple[str, ...]
    file_classes: tuple[str, ...]
    """In the file's order, as far as anybody says."""
    expected: Expected
    paths: tuple[Path, ...]
    """Encoded images."""
    tolerance: float

    def answers(self, pipelines: Sequence[Pipeline], index: NDArray[np.int64] | None = None) -> list[Answers]:
        """(n, classes) for each pipeline, of all images or of `index`. Each is decoded once. Raises Refused."""
        rows: list[list[NDArray[np.float32]]] = [[] for _ in pipelines]
        for path in self.paths if index is None else [self.paths[i] for i in index.tolist()]:
            image = EncodedImage(path.read_bytes(), self.spec.bits)
            for pipeline, into in zip(pipelines, rows, strict=True):
                try:
                    into.append(self._one(image.enter(pipeline, self.takes)))
                except BadImage as error:
                    raise UserError(f"{path}: {error}") from None
        return [self._in_our_order(np.stack(one)) for one in rows]

    def some(self, count: int) -> NDArray[np.int64]:
        """Evenly spaced images, at most `count`."""
        return np.unique(np.linspace(0, len(self.paths) - 1, count).astype(np.int64))

    def _one(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        """(classes,). A file may answer each image with as many numbers as it likes."""
        row = self.opened.run(values)
        if len(row) != len(self.classes):
            raise UserError(
                f"{self.path}: it answers with {len(row)} numbers, the checkpoint has {len(self.classes)} "
                "classes: it is another network's file"
            )
        return row

    def _in_our_order(self, answers: Answers) -> Answers:
        return answers[:, [self.file_classes.index(name) for name in self.classes]]


@dataclass(frozen=True)
class Reading:
    """How a file wants to be fed and read."""

    pipeline: Pipeline
    words: str
    output: Output
    order: tuple[int, ...] | None
    """The column of each of our classes, where the file has them in another order than said."""
    effect: Effect

    def read(self, answers: Answers) -> Answers:
        """Answers in our order of classes."""
        return answers if self.order is None else answers[:, self.order]


def input_layout(opened: Opened, described: Pipeline) -> Layout | None:
    """The layout of a file's input; where its shape does not tell, the one that it does not refuse."""
    known = layout_of(opened.shape)
    if known is not None:
        return known
    taken: list[Layout] = []
    layouts: tuple[Layout, ...] = ("nchw", "nhwc")
    for layout in layouts:
        size = (described.height, described.width)
        try:
            opened.run(np.zeros((1, 3, *size) if layout == "nchw" else (1, *size, 3), described.dtype))
        except Refused:
            continue
        taken.append(layout)
    return taken[0] if len(taken) == 1 else None


def input_size(shape: Shape, layout: Layout | None) -> tuple[int | None, int | None]:
    """(height, width) that a file takes; None where any goes."""
    if layout is None or len(shape) != 4:
        return None, None
    return (shape[2], shape[3]) if layout == "nchw" else (shape[1], shape[2])


def search(case: Case, described: Pipeline, answers: Answers) -> Reading:
    """The way of feeding it our own pixels that brings the file's answers closest to the checkpoint's.

    `answers`: to what is described, of all images. A description that comes closer than all that is known stands.
    """
    index = case.some(SEARCH_IMAGES)
    expected = case.expected.some(index)
    readings = []
    for pipeline, words in _entries(case, described):
        try:
            readings.append(read_answers(case.answers([pipeline], index)[0], expected, pipeline, words))
        except Refused:
            continue
    if not readings:
        return read_answers(answers, case.expected, described, "as described")
    best = min(readings, key=lambda reading: reading.effect.mean_error)
    return read_answers(case.answers([best.pipeline])[0], case.expected, best.pipeline, best.words)


def _entries(case: Case, described: Pipeline) -> Iterator[tuple[Pipeline, str]]:
    """Our own pixels, entering in every way that files are known to want them."""
    height, width = input_size(case.opened.shape, case.takes)
    spec = case.spec
    sized = spec.model_copy(update={"height": height or spec.height, "width": width or spec.width})
    base = replace(own_pipeline(sized), layout=case.takes or described.layout, dtype=described.dtype)
    yield replace(base, colour=described.colour, gain=described.gain, offset=described.offset), "as described"
    colours: tuple[Colour, ...] = ("rgb", "bgr")
    for colour in colours:
        name = colour.upper()
        if described.dtype == "uint8":
            yield replace(base, colour=colour), f"{name} pixels 0 to 255"
            continue
        gain, offset = normalised(spec)
        for words, (scale, shift) in _INSIDE.items():
            # The file computes y·scale + shift itself: what enters is what that turns into the checkpoint's values.
            inner = [g / scale for g in gain], [(o - shift) / scale for o in offset]
            yield _entering(base, colour, *inner), f"{name}, {words}"
        for words, one in (("pixels 0 to 255", 1.0), ("pixels 0 to 1", 1 / 255)):
            yield _entering(base, colour, [one] * 3, [0.0] * 3), f"{name}, {words}: it normalises itself"


def _entering(base: Pipeline, colour: Colour, gain: Sequence[float], offset: Sequence[float]) -> Pipeline:
    """Gain and offset are given RGB, and go with their channel."""
    numbers = [(one[0], one[1], one[2]) for one in (gain, offset)]
    if colour == "bgr":
        numbers = [swapped(one) for one in numbers]
    return replace(base, colour=colour, gain=numbers[0], offset=numbers[1])


def read_answers(answers: Answers, expected: Expected, pipeline: Pipeline, words: str) -> Reading:
    """Judge answers, allowing for what a file may do to its logits and for classes in another order.

    What is simpler stands unless something else makes it the same net at a third of the error.
    """
    best: Reading | None = None
    for kind in kinds_like(answers):
        for order, output in _explanations(answers, expected, kind):
            given = answers if order is None else answers[:, order]
            found = Reading(pipeline, words, output, order, effect(given, expected, output))
            better = best is None or (
                found.effect.correlation >= SAME_NET and found.effect.mean_error < best.effect.mean_error / 3
            )
            best = found if better else best
    assert best is not None
    return best


def _explanations(answers: Answers, expected: Expected, kind: Kind) -> Iterator[tuple[tuple[int, ...] | None, Output]]:
    """What the answers may be, the simplest first."""
    yield None, Output(kind)
    if not np.isfinite(answers).all():
        return
    order = class_order(answers, Output(kind).of(expected.logits))
    turned = order != tuple(range(len(order)))
    if turned:
        yield order, Output(kind)
    for columns in (None, order) if turned else (None,):
        output = fitted(kind, answers if columns is None else answers[:, columns], expected.logits)
        if output is not None and not output.plain:
            yield columns, output
