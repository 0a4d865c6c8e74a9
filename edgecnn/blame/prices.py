"""What the usual mistakes of preprocessing cost on the user's own images: each is made on purpose, and counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Artifact, Bundle, Interval, Preprocess
from edgecnn.blame import engines
from edgecnn.blame.answers import Effect, Expected, effect
from edgecnn.blame.images import GivenImages
from edgecnn.blame.pipeline import EncodedImage, PerChannel, Pipeline, normalised, own_pipeline, swapped
from edgecnn.documents import Frozen
from edgecnn.errors import BadImage, MissingExtra, UserError
from edgecnn.imaging import orientation
from edgecnn.progress import Progress
from edgecnn.runtimes import Session, open_session


class Price(Frozen):
    """What one mistake costs."""

    mistake: str
    stage: str
    points: float
    """Change of top-1 in points: negative where the mistake costs accuracy."""
    interval: Interval
    """95 %, of the paired difference."""
    agreement: float
    flipped: int
    top1: float
    pixel_error: float
    """Mean |difference| to the right pixels, in levels of 255."""
    note: str | None = None


class Prices(Frozen):
    """The usual mistakes, the dearest first."""

    variant: str
    images: int
    top1: float
    """With the right pixels."""
    prices: tuple[Price, ...]
    not_priced: tuple[str, ...] = ()
    """Mistakes that cannot be made here, with the reason."""


@dataclass(frozen=True)
class Mistake:
    """A wrong pipeline; gain and offset turn pixels into what our graph, which normalises, would have to be given."""

    words: str
    stage: str
    pipeline: Pipeline

    @property
    def needs_float(self) -> bool:
        """Whether what enters is not whole pixels between 0 and 255."""
        ends = [g * end + o for g, o in zip(self.pipeline.gain, self.pipeline.offset, strict=True) for end in (0, 255)]
        return min(ends) < 0 or max(ends) > 255 or max(self.pipeline.gain) < 1 / 16


def mistakes(spec: Preprocess) -> tuple[Mistake, ...]:
    """Every mistake that is tried, in the order of the stages."""
    own = own_pipeline(spec)
    library = replace(own, decode="whole", resize="bilinear")
    crops = spec.fit == "center-crop"
    other_fit = replace(own, fit="stretch", crop=1.0) if crops else replace(own, fit="center-crop", crop=1.0)
    made = [
        Mistake("whole image decoded, then Pillow's bilinear", "decode", library),
        Mistake("decoded to grey", "colour order", replace(own, colour="grey")),
        Mistake("Exif orientation ignored", "orientation", replace(own, orientation="ignored")),
        Mistake("BGR instead of RGB", "colour order", replace(own, colour="bgr")),
        Mistake("stretch instead of centre crop" if crops else "centre crop instead of stretch", "fit", other_fit),
        Mistake("cv2 linear resize (not antialiased)", "antialias", replace(library, resize="opencv-linear")),
        Mistake("cv2 cubic resize (not antialiased)", "antialias", replace(library, resize="opencv-cubic")),
        Mistake("cv2 area resize", "resize filter", replace(library, resize="opencv-area")),
        Mistake("nearest-neighbour resize", "resize filter", replace(library, resize="nearest")),
        Mistake("bicubic resize, antialiased", "resize filter", replace(library, resize="bicubic")),
        Mistake("Lanczos resize, antialiased", "resize filter", replace(library, resize="lanczos")),
        *_normalisations(own, spec),
        Mistake("NCHW buffer read as NHWC", "layout", replace(own, layout="nchw")),
    ]
    return tuple(made)


def price(
    folder: Path, bundle: Bundle, artifact: Artifact, given: GivenImages, progress: Progress = lambda text: None
) -> Prices:
    """Make every mistake with one variant on all the given images.

    Raises MissingExtra where the variant's engine is not installed.
    """
    wrong = list(mistakes(bundle.preprocess))
    turned = sum(orientation(path.read_bytes()) != 1 for path in given.paths)
    not_priced = []
    if not turned:
        wrong = [one for one in wrong if one.stage != "orientation"]
        not_priced.append("Exif orientation ignored: no test image has an orientation other than upright")
    with_floats, reason = float_pixels(folder, artifact, bundle.threads)
    if with_floats is None:
        not_priced += [f"{one.words}: {reason}" for one in wrong if one.needs_float]
        wrong = [one for one in wrong if not one.needs_float]
    progress(f"{artifact.variant}: {len(wrong)} mistakes on {len(given.paths)} images")
    with open_session(folder, artifact, bundle.threads) as session:
        tried = _run(session, with_floats, bundle.preprocess, wrong, given.paths)
    right = Expected(tried.right, given.expected.labels)
    found = [_price(one, effect(rows, right), pixels, turned) for one, rows, pixels in tried.wrong]
    return Prices(
        variant=artifact.variant,
        images=len(given.paths),
        top1=float((right.logits.argmax(1) == right.labels).mean()),
        prices=tuple(sorted(found, key=lambda one: (one.points, one.agreement))),
        not_priced=tuple(not_priced),
    )


@dataclass(frozen=True)
class _Tried:
    right: NDArray[np.float32]
    wrong: list[tuple[Mistake, NDArray[np.float32], float]]
    """(mistake, answers, mean pixel error)."""


def _run(
    session: Session,
    with_floats: engines.Opened | None,
    spec: Preprocess,
    wrong: Sequence[Mistake],
    paths: Sequence[Path],
) -> _Tried:
    own = own_pipeline(spec)
    right: list[NDArray[np.float32]] = []
    rows: list[list[NDArray[np.float32]]] = [[] for _ in wrong]
    errors = np.zeros(len(wrong))
    for path in paths:
        image = EncodedImage(path.read_bytes(), spec.bits)
        try:
            pixels = image.pixels(own)[None]
            right.append(session.run(pixels)[0])
            for index, mistake in enumerate(wrong):
                entering = image.enter(mistake.pipeline, "nhwc")
                whole = np.clip(np.rint(entering), 0, 255).astype(np.uint8)
                errors[index] += np.abs(whole.astype(np.int16) - pixels).mean() / len(paths)
                if mistake.needs_float and with_floats is not None:
                    rows[index].append(with_floats.run(entering.astype(np.float32)))
                else:
                    rows[index].append(session.run(whole)[0])
        except BadImage as error:
            raise UserError(f"{path}: {error}") from None
    answers = [np.stack(one) for one in rows]
    return _Tried(np.stack(right), list(zip(wrong, answers, errors.tolist(), strict=True)))


def _price(mistake: Mistake, found: Effect, pixel_error: float, turned: int) -> Price:
    low, high = -found.loss_interval.high, -found.loss_interval.low
    return Price(
        mistake=mistake.words,
        stage=mistake.stage,
        points=0.0 - found.loss_points,
        interval=Interval(low=low, high=high),
        agreement=found.agreement,
        flipped=found.flipped,
        top1=found.top1,
        pixel_error=pixel_error,
        note=f"{turned} images are concerned" if mistake.stage == "orientation" else None,
    )


def float_pixels(folder: Path, artifact: Artifact, threads: int) -> tuple[engines.Opened | None, str]:
    """The variant with an entrance for float pixels, or why there is none."""
    engine = engines.get(artifact.runtime)
    if engine is None or engine.float_pixels is None:
        return None, f"{artifact.variant} takes only whole pixels from 0 to 255: price it with an ONNX variant"
    try:
        return engine.float_pixels(folder / artifact.files[0], threads), ""
    except MissingExtra as error:
        return None, str(error)


def _normalisations(own: Pipeline, spec: Preprocess) -> Iterator[Mistake]:
    """Wrong numbers before the net, turned into the pixels from which our graph computes just these."""
    gain, offset = normalised(spec)
    half: PerChannel = (0.5, 0.5, 0.5)
    no_mean: PerChannel = (0.0, 0.0, 0.0)
    ones: PerChannel = (1.0, 1.0, 1.0)
    imagenet = Preprocess(height=own.height, width=own.width)
    candidates: list[tuple[str, float, PerChannel, PerChannel]] = [
        ("mean 0.5, std 0.5", 1 / 255, half, half),
        ("ImageNet's mean and std", 1 / 255, imagenet.mean, imagenet.std),
        ("mean and std in BGR order", 1 / 255, swapped(spec.mean), swapped(spec.std)),
        ("pixels 0 to 1, no mean and std", 1 / 255, no_mean, ones),
        ("pixels 0 to 255 normalised as if they were 0 to 1", 1.0, spec.mean, spec.std),
        ("pixels 0 to 255, no mean and std", 1.0, no_mean, ones),
        ("divided by 255 twice", 1 / 255**2, spec.mean, spec.std),
    ]
    for words, scale, mean, std in candidates:
        # The graph computes pixel·gain + offset; it shall come out as (pixel·scale − mean)/std.
        entering = [(scale / s / g, (-m / s - o) / g) for m, s, g, o in zip(mean, std, gain, offset, strict=True)]
        (g0, o0), (g1, o1), (g2, o2) = entering
        pipeline = replace(own, gain=(g0, g1, g2), offset=(o0, o1, o2), dtype="float32")
        if not np.allclose([*pipeline.gain, *pipeline.offset], [1, 1, 1, 0, 0, 0], atol=1e-6):
            yield Mistake(words, "normalisation", pipeline)
