"""One variant of a bundle, open to decide images: what `edgecnn.load` gives."""

from __future__ import annotations

import math
import os
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np

from edgecnn import runtimes
from edgecnn.artifact import Artifact, Bundle, Preprocess, load_bundle
from edgecnn.decide import decide
from edgecnn.errors import BadImage, UserError, must_be_file
from edgecnn.imaging import Pixels, Preparer
from edgecnn.profiles import refuse_threads
from edgecnn.proof import DecidesOtherwise, Proof, prove_here
from edgecnn.runtimes import Session

Image: TypeAlias = "str | os.PathLike[str] | bytes | Pixels"
"""A path; the bytes of an encoded file; or a raw frame, uint8 (h, w, 3) RGB or (h, w) grey, of any size."""


@dataclass(frozen=True)
class Decision:
    """What a variant says of one image."""

    label: str
    """The class that it decides on."""
    index: int
    """Of that class, in the bundle's order."""
    probability: float
    """Of that class, by softmax: how sure the network is, which is not how often it is right."""
    is_good: bool | None
    """Whether it is the class of parts without a defect; None where the bundle has no such class."""
    milliseconds: float
    """From the encoded bytes, or the raw frame, in memory to here, as `edgecnn bench` counts them. The first few images
    take longer than those after them."""
    logits: tuple[float, ...] = field(repr=False)
    """What the network answered, in the order of `classes`."""
    classes: tuple[str, ...] = field(repr=False)

    @property
    def probabilities(self) -> dict[str, float]:
        """Of each class, by softmax."""
        largest = max(self.logits)
        shares = [math.exp(logit - largest) for logit in self.logits]
        whole = math.fsum(shares)
        return {name: share / whole for name, share in zip(self.classes, shares, strict=True)}


def load(bundle: str | os.PathLike[str], variant: str | None = None, threads: int | None = None) -> Predictor:
    """Open one variant of a bundle, to decide images with.

    `variant`: such as "onnx-int8"; without it the one that the bundle chose, or its only one. `threads` of the engine:
    the target's, if not given.

    Every hash of the bundle is checked first. An int8 variant that is not proven on this processor runs the bundle's
    golden images, for five seconds at most, as `edgecnn bench` does. Warns (UserWarning) where they show too little,
    and where the variant must not be deployed by its test images.

    Raises UserError: no whole bundle there, no such variant, none chosen among several, the engine is not installed
    (MissingExtra), or the variant decides otherwise on this processor (DecidesOtherwise).

    >>> with edgecnn.load("bundle", variant="onnx-int8") as predictor:
    ...     decision = predictor.predict("part.jpg")
    >>> decision.label in predictor.classes
    True
    """
    folder = Path(bundle)
    known = load_bundle(folder)
    artifact = known.artifact(variant) if variant is not None else _default(folder, known)
    threads = known.threads if threads is None else threads
    refuse_threads(threads)
    session = runtimes.open_session(folder, artifact, threads)
    try:
        proof = prove_here(folder, known, artifact, session)
        if proof.refused:
            raise DecidesOtherwise(f"{folder}: {artifact.variant}: {proof.text}: choose another variant")
    except BaseException:
        session.close()
        raise
    for remark in (known.unusable(artifact), proof.text if proof.outcome == "too few" else None):
        if remark is not None:
            warnings.warn(f"{folder}: {artifact.variant}: {remark}", stacklevel=2)
    return Predictor(known, artifact, threads, session, proof)


class Predictor:
    """An open variant: made by `load`, closed by `with` or `close`.

    Threads may share it: their images are decided one after the other, whoever comes first. To decide several at once,
    load one for each thread, or better each process. One that was loaded before a fork is not for the child.
    """

    def __init__(self, bundle: Bundle, artifact: Artifact, threads: int, session: Session, proof: Proof) -> None:
        self.bundle = bundle
        """All that bundle.json says."""
        self.threads = threads
        self.proof = proof
        """What is known of the variant on this processor."""
        self._artifact, self._session = artifact, session
        self._preparer = Preparer(bundle.preprocess)
        self._lock = threading.Lock()
        self._closed = False

    @property
    def variant(self) -> str:
        """Such as onnx-int8."""
        return self._artifact.variant

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the network's outputs."""
        return self.bundle.classes

    @property
    def preprocess(self) -> Preprocess:
        """What is done to an image before it enters the network. `predict` does it."""
        return self.bundle.preprocess

    def predict(self, image: Image) -> Decision:
        """Decide one image: a path, the bytes of a file, or a raw frame (uint8, RGB or grey).

        A frame gives the pixels of a losslessly encoded file. One that was decoded from a JPEG may differ by a little:
        `bundle.frames` says how little. Raises BadImage where it cannot be read, UserError where it is none of these.

        >>> with edgecnn.load("bundle", variant="onnx-int8") as predictor:
        ...     from_path = predictor.predict("part.jpg")
        ...     from_bytes = predictor.predict(Path("part.jpg").read_bytes())
        >>> from_path.logits == from_bytes.logits
        True
        """
        given = _read(image)
        with self._lock:
            if self._closed:
                raise UserError(f"{self.variant}: the predictor is closed: load the bundle again")
            begun = time.perf_counter_ns()
            try:
                pixels = self._prepared(given)
            except BadImage as error:
                raise (error if isinstance(image, bytes) else BadImage(f"{image}: {error}")) from None
            logits = self._session.run(pixels[np.newaxis])
            index, probability = decide(logits)
            milliseconds = (time.perf_counter_ns() - begun) / 1e6
            answers = tuple(logits[0].tolist())
        label, good = self.classes[index], self.bundle.good_class
        is_good = None if good is None else label == good
        return Decision(label, index, probability, is_good, milliseconds, answers, self.classes)

    def decide_many(self, images: Iterable[Image]) -> Iterator[Decision]:
        """Decide images one after the other, as they are asked for, in their order.

        One that cannot be read raises BadImage, as in `predict`; the next call of `next` goes on behind it.

        >>> with edgecnn.load("bundle", variant="onnx-int8") as predictor:
        ...     paths = sorted(Path("parts").glob("*/*.png"))
        ...     labels = [decision.label for decision in predictor.decide_many(paths)]
        >>> len(labels) == len(paths)
        True
        """
        if isinstance(images, str | bytes | os.PathLike) or (isinstance(images, np.ndarray) and images.ndim < 4):
            raise UserError("decide_many takes several images, in a list or the like: give one alone to predict")
        return map(self.predict, images)

    def close(self) -> None:
        """Free the engine. To be called once or more; nothing is decided afterwards."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._session.close()

    def _prepared(self, given: bytes | Pixels) -> Pixels:
        return self._preparer.prepare(given) if isinstance(given, bytes) else self._preparer.prepare_frame(given)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"<Predictor {self.bundle.name} {self.variant}, {len(self.classes)} classes{state}>"


def _default(folder: Path, bundle: Bundle) -> Artifact:
    """The chosen variant, or the only one that may be used. UserError where somebody has to choose."""
    if bundle.choice is not None:
        return bundle.artifact(bundle.choice.variant)
    usable = [artifact for artifact in bundle.artifacts if bundle.unusable(artifact) is None]
    if len(usable) == 1:
        return usable[0]
    if usable:
        names = ", ".join(repr(artifact.variant) for artifact in usable)
        why = f"only `edgecnn run` on the target's own kind of machine chooses one: give variant=, one of {names}"
    else:
        reasons = (bundle.unusable(artifact) for artifact in bundle.artifacts)
        why = next((reason for reason in reasons if reason is not None), "it has none")
    raise UserError(f"{folder}: the bundle has no chosen variant: {why}")


def _read(image: Image) -> bytes | Pixels:
    """Encoded bytes or a frame, outside of the clock."""
    if isinstance(image, bytes | np.ndarray):
        return image
    if isinstance(image, str | os.PathLike):
        return must_be_file(Path(image), "an image").read_bytes()
    raise UserError(
        f"image: {type(image).__name__} is not a path, the bytes of an image file, or a uint8 array (h, w, 3) of RGB: "
        "of a Pillow image give numpy.asarray(image.convert('RGB'))"
    )
