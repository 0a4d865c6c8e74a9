"""From raw images again: each variant is opened in its own engine and must answer as the trained network did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Check, FrameCheck, Precision, Preprocess
from edgecnn.data import Sought, locate
from edgecnn.errors import BadImage, UserError
from edgecnn.evaluate import compare, frames_against_files
from edgecnn.executed import Executed
from edgecnn.imaging import Images, Pixels, Preparer, decode_whole
from edgecnn.judge import Labels, Yardstick
from edgecnn.progress import Progress
from edgecnn.runtimes import Session

REFERENCE_FILE = "reference.npz"


@dataclass(frozen=True)
class Reference:
    """Eager fp32 on the test split."""

    names: tuple[str, ...]
    sha256: tuple[str, ...]
    labels: Labels
    logits: NDArray[np.float32]
    """(n, classes)."""
    groups: NDArray[np.int64] | None = None
    """(n,): images with one number show one part; None: each shows its own."""


def prepare_files(paths: Sequence[Path], spec: Preprocess) -> Images:
    """Encoded files to uint8 (n, height, width, 3)."""
    images = np.empty((len(paths), spec.height, spec.width, 3), np.uint8)
    for index, pixels in enumerate(_prepared(paths, Preparer(spec).prepare)):
        images[index] = pixels
    return images


def prepare_as_frames(paths: Sequence[Path], spec: Preprocess) -> Images:
    """The same files as if a camera had delivered their full-size pixels: uint8 (n, height, width, 3)."""
    preparer = Preparer(spec)
    return np.stack(
        list(map(np.array, _prepared(paths, lambda data: preparer.prepare_frame(decode_whole(data, spec.bits)))))
    )


def run_files(session: Session, paths: Sequence[Path], spec: Preprocess) -> NDArray[np.float32]:
    """Logits (n, classes) from encoded files, one by one as a device would."""
    return np.concatenate([session.run(pixels[None]) for pixels in _prepared(paths, Preparer(spec).prepare)])


def _prepared(paths: Sequence[Path], prepare: Callable[[bytes], Pixels]) -> Iterator[Pixels]:
    for path in paths:
        try:
            yield prepare(path.read_bytes())
        except BadImage as error:
            raise UserError(f"{path}: {error}") from None


def check_frames(
    session: Session, paths: Sequence[Path], spec: Preprocess, limit: float, file_logits: NDArray[np.float32]
) -> FrameCheck:
    """Measure what a raw frame changes against its encoded file: pixels, logits, decisions.

    One decision that differs is within any limit below 1, however few the images: it may be a near tie of two classes.
    """
    frames = prepare_as_frames(paths, spec)
    logits = np.concatenate([session.run(frame[None]) for frame in frames])
    found = frames_against_files(frames, prepare_files(paths, spec), logits, file_logits)
    flips = round((1 - found["agreement"]) * len(paths))
    within = flips <= max(round((1 - limit) * len(paths), 6), limit < 1)
    return FrameCheck.model_validate({**found, "limit": limit, "within": within})


def save_reference(reference: Reference, path: Path) -> None:
    """Write reference.npz (arrays only, no pickle)."""
    np.savez_compressed(
        path,
        names=np.array(reference.names),
        sha256=np.array(reference.sha256),
        labels=reference.labels,
        logits=reference.logits,
        groups=np.arange(len(reference.names)) if reference.groups is None else reference.groups,
    )


def load_reference(path: Path) -> Reference:
    """Read reference.npz."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Reference(
                names=tuple(str(name) for name in arrays["names"]),
                sha256=tuple(str(digest) for digest in arrays["sha256"]),
                labels=arrays["labels"],
                logits=arrays["logits"],
                groups=_groups(arrays["groups"]),
            )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a reference file ({error}): export the bundle again") from None


def _groups(groups: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """None where no two images are of one group."""
    return groups if len(np.unique(groups)) < len(groups) else None


def find_test_images(
    data: Path, reference: Reference, classes: Sequence[str], progress: Progress | None = None
) -> list[Path]:
    """Where the reference's images lie now, found by content; told to `progress` where that is not where they were.

    UserError where any is missing.
    """
    labels = [classes[label] for label in reference.labels.tolist()]
    sought = [Sought(*image) for image in zip(reference.names, reference.sha256, labels, strict=True)]
    located = locate(data, sought, classes)
    located.refuse_missing("test images")
    if progress:
        for line in located.words("test images"):
            progress(line)
    return [place for place in located.places if place is not None]


def compare_with(
    reference: Reference,
    logits: NDArray[np.float32],
    yardstick: Yardstick,
    precision: Precision,
    executed: Executed | None,
) -> Check:
    """Judge logits of the reference's images."""
    expected, labels = reference.logits, reference.labels
    return compare(logits, expected, labels, reference.names, yardstick, precision, executed, reference.groups)
