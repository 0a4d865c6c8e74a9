"""One of our own variants, stage by stage from the raw image bytes: the first that differs, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Artifact, Bundle, load_bundle
from edgecnn.blame import engines
from edgecnn.blame.answers import Effect, Expected, effect
from edgecnn.blame.case import SAME_NET, Case, search
from edgecnn.blame.engines import Refused
from edgecnn.blame.images import GivenImages, given_images
from edgecnn.blame.layers import LAYER_IMAGES, Layers, layer_noise
from edgecnn.blame.outputs import Answers
from edgecnn.blame.pipeline import EncodedImage, Shape, own_pipeline
from edgecnn.blame.prices import Prices, price
from edgecnn.blame.stages import walk, words
from edgecnn.documents import Frozen, sha256_of
from edgecnn.errors import UserError
from edgecnn.imaging import prepare
from edgecnn.parity import prepare_files
from edgecnn.progress import Progress
from edgecnn.proof import Proof, prove_here
from edgecnn.runtimes import Session, installed, open_session

EXPLAINED_IMAGES = 400
_JPEG = (".jpg", ".jpeg", ".jfif")
_PIXELS = "decode, orientation, colour order, resize, normalisation, layout"


State = Literal["same", "differs", "unknown"]


class Found(Frozen):
    """What one stage of a variant shows."""

    stage: str
    state: State
    error: float | None
    """Largest difference of logits that the stage makes, in standard deviations of the reference's."""
    words: str


class Explained(Frozen):
    """One variant from bytes to logits."""

    variant: str
    images: int
    first: str | None
    """The first stage that differs; None where none does."""
    verdict: str
    stages: tuple[Found, ...]
    layers: Layers | None = None
    no_layers: str | None = None
    """Why there are none of an int8 variant."""


class Explanation(Frozen):
    """What `edgecnn verify --explain` found."""

    variants: tuple[Explained, ...]
    prices: Prices | None


@dataclass
class _VariantAnswers:
    """Answers of the bundle's variants to the explained images; each variant is run once."""

    folder: Path
    bundle: Bundle
    given: GivenImages
    _known: dict[str, Answers | None] = field(default_factory=dict)
    _proofs: dict[str, Proof] = field(default_factory=dict)

    def answers(self, artifact: Artifact) -> Answers | None:
        """None where the engine is not installed here."""
        if artifact.variant not in self._known:
            self._known[artifact.variant] = self._run(artifact) if installed(artifact.runtime) else None
        return self._known[artifact.variant]

    def proof(self, artifact: Artifact) -> Proof | None:
        """Whether it decides here as where it was made, as `verify` and `bench` ask; None where there is no engine."""
        self.answers(artifact)
        return self._proofs.get(artifact.variant)

    def effect(self, artifact: Artifact) -> Effect | None:
        """Against the reference."""
        answers = self.answers(artifact)
        return None if answers is None else effect(answers, self.given.expected)

    def _run(self, artifact: Artifact) -> Answers:
        own = own_pipeline(self.bundle.preprocess)
        with open_session(self.folder, artifact, self.bundle.threads) as session:
            self._proofs[artifact.variant] = prove_here(self.folder, self.bundle, artifact, session)
            images = (EncodedImage(path.read_bytes(), self.bundle.preprocess.bits) for path in self.given.paths)
            rows = [session.run(image.pixels(own)[None])[0] for image in images]
        return np.stack(rows)


def explain(
    folder: Path,
    data: Path,
    variants: Sequence[str] = (),
    progress: Progress = lambda text: None,
) -> Explanation:
    """Bisect every variant (or those named), and price the usual mistakes with the first of them that runs here.

    On at most EXPLAINED_IMAGES test images, evenly spaced. Raises UserError: a damaged bundle, an unknown variant, test
    images that are not in `data`.
    """
    bundle = load_bundle(folder)
    chosen = [bundle.artifact(name) for name in variants] or list(bundle.artifacts)
    answered = _VariantAnswers(folder, bundle, given_images(folder, data, bundle).at_most(EXPLAINED_IMAGES))
    found = []
    for artifact in chosen:
        if installed(artifact.runtime):
            progress(f"{artifact.variant}: stage by stage")
            found.append(_explained(answered, artifact))
            proof = answered.proof(artifact)
            if proof is not None and proof.refused:
                progress(f"{artifact.variant}: no mistake is priced with it: {proof.text}")
    priced = _to_price(answered, chosen, bool(variants))
    prices = None if priced is None else price(folder, bundle, priced, answered.given, progress)
    return Explanation(variants=tuple(found), prices=prices)


def _to_price(answered: _VariantAnswers, chosen: Sequence[Artifact], named: bool) -> Artifact | None:
    """The variant that was asked for; else ONNX fp32, which takes wrong scales too; else what runs here. None that
    must not be used on this processor: its answers are the price of no mistake."""
    proofs = [(artifact, answered.proof(artifact)) for artifact in chosen]
    there = [artifact for artifact, proof in proofs if proof is not None and not proof.refused]
    if not named:
        there.sort(key=lambda one: (one.precision != "fp32", one.format != "onnx"))
    return there[0] if there else None


def _explained(answered: _VariantAnswers, artifact: Artifact) -> Explained:
    siblings = [one for one in answered.bundle.artifacts if one.format == artifact.format and one.precision == "fp32"]
    exact = artifact if artifact.precision == "fp32" else next(iter(siblings), None)
    stages = [
        _pixels(answered),
        _export(answered, artifact, exact),
        _engine(answered, artifact),
        *_processor(answered, artifact),
        _precision(answered, artifact, exact),
    ]
    first = next((stage for stage in stages if stage.state == "differs"), None)
    layers: Layers | str | None = None
    if artifact.precision == "int8":
        layers = "no fp32 variant of its format is in the bundle"
        if exact is not None:
            images = prepare_files(answered.given.at_most(LAYER_IMAGES).paths, answered.bundle.preprocess)
            layers = layer_noise(answered.folder, artifact, exact, images)
    whole = answered.effect(artifact)
    verdict = "every stage is the checkpoint's"
    if first is not None and whole is not None:
        cost = f"{0.0 - whole.loss_points:+.1f} points, {whole.flipped} of {len(answered.given.paths)} flipped in all"
        verdict = f"first stage that differs: {first.stage} ({first.words}); {cost}"
    return Explained(
        variant=artifact.variant,
        images=len(answered.given.paths),
        first=first.stage if first else None,
        verdict=verdict,
        stages=tuple(stages),
        layers=layers if isinstance(layers, Layers) else None,
        no_layers=layers if isinstance(layers, str) else None,
    )


def _pixels(answered: _VariantAnswers) -> Found:
    """Our graphs take uint8 pixels and normalise inside, so one fp32 variant that answers as the trained network did,
    from these bytes, proves the stages before it."""
    tolerance = answered.bundle.fp32_tolerance
    tried = []
    changed = _changed_pixels(answered)
    if changed is not None:
        return changed
    for artifact in answered.bundle.artifacts:
        found = answered.effect(artifact) if artifact.precision == "fp32" else None
        if found is None:
            continue
        if found.error <= tolerance:
            proof = f"{artifact.variant} answers from these bytes as the trained network did"
            return Found(stage=_PIXELS, state="same", error=found.error, words=proof)
        tried.append(artifact)
    if not tried:
        seen = "no fp32 variant of the bundle runs here to prove them"
        return Found(stage=_PIXELS, state="unknown", error=None, words=seen)
    return _blamed_pixels(answered, tried[0])


def _changed_pixels(answered: _VariantAnswers) -> Found | None:
    """The golden images' pixels here against their hashes from the exporting machine; None where all are equal."""
    spec, golden = answered.bundle.preprocess, answered.bundle.golden
    other = []
    for one in golden:
        path = answered.folder / one.file
        if sha256_of(prepare(path.read_bytes(), spec).tobytes()) != one.pixels_sha256:
            other.append(path)
    if not other:
        return None
    jpegs = [answered.folder / one.file for one in golden if (answered.folder / one.file).suffix.lower() in _JPEG]
    stage = "decode" if set(other) <= set(jpegs) and len(jpegs) < len(golden) else "decode or resize"
    errors = [
        found.error for one in answered.bundle.artifacts if one.precision == "fp32" and (found := answered.effect(one))
    ]
    seen = (
        f"{len(other)} of {len(golden)} golden images prepare to other pixels than on the exporting machine: install "
        "the versions of Pillow and simplejpeg that bundle.json names"
    )
    return Found(stage=stage, state="differs", error=min(errors, default=None), words=seen)


def _blamed_pixels(answered: _VariantAnswers, artifact: Artifact) -> Found:
    """No fp32 variant answers right: does a known change of its pixels heal it?"""
    bundle, own = answered.bundle, own_pipeline(answered.bundle.preprocess)
    answers = answered.answers(artifact)
    with open_session(answered.folder, artifact, bundle.threads) as session:
        case = Case(
            path=answered.folder / artifact.files[0],
            engine=artifact.runtime,
            opened=_OwnSession(session, (None, own.height, own.width, 3)),
            takes="nhwc",
            spec=bundle.preprocess,
            classes=bundle.classes,
            file_classes=bundle.classes,
            expected=answered.given.expected,
            paths=answered.given.paths,
            tolerance=bundle.fp32_tolerance,
        )
        reading = search(case, own, answers) if answers is not None else None
    if reading is None or reading.effect.correlation < SAME_NET:
        seen = f"{artifact.variant} does not answer right from them, nor from BGR"
        return Found(stage=_PIXELS, state="unknown", error=None, words=seen)
    wrong = [stage for stage, _ in walk(reading.pipeline, own)]
    if not wrong:
        seen = f"{artifact.variant} answers nearly right from them"
        return Found(stage=_PIXELS, state="same", error=reading.effect.error, words=seen)
    found = answered.effect(artifact)
    needs = f"{artifact.variant} answers right from {words(wrong[0], reading.pipeline)}"
    return Found(stage=wrong[0], state="differs", error=found.error if found else None, words=needs)


class _OwnSession:
    """One of our sessions, as blame opens files."""

    def __init__(self, session: Session, shape: Shape) -> None:
        self._session, self._shape = session, shape

    @property
    def shape(self) -> Shape:
        return self._shape

    def run(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        row: NDArray[np.float32] = self._session.run(values.astype(np.uint8, casting="no", copy=False))[0]
        return row

    def precision(self) -> str | None:
        return None


def _export(answered: _VariantAnswers, artifact: Artifact, exact: Artifact | None) -> Found:
    found = None if exact is None else answered.effect(exact)
    if exact is None or found is None:
        seen = f"no {artifact.format}-fp32 in the bundle to tell it from precision"
        return Found(stage="export", state="unknown", error=None, words=seen)
    same = found.error <= answered.bundle.fp32_tolerance
    limit = f"limit {answered.bundle.fp32_tolerance:.0e}"
    engine = engines.get(exact.runtime)
    if not same and engine is not None and engine.plain is not None:
        plain = _plain(answered, exact, engine)
        if plain is not None and effect(plain, _first(answered, len(plain))).error <= answered.bundle.fp32_tolerance:
            seen = f"{exact.variant} is right where its engine does not optimise it"
            return Found(stage="export", state="same", error=found.error, words=seen)
    seen = f"{exact.variant} against the trained network: {found.error:.1e} ({limit})"
    return Found(stage="export", state="same" if same else "differs", error=found.error, words=seen)


def _engine(answered: _VariantAnswers, artifact: Artifact) -> Found:
    """The same file, computed literally."""
    engine = engines.get(artifact.runtime)
    if engine is None or engine.plain is None:
        seen = f"{artifact.runtime} has no other way to compute the same file"
        return Found(stage="engine", state="unknown", error=None, words=seen)
    plain, answers = _plain(answered, artifact, engine), answered.answers(artifact)
    if plain is None or answers is None:
        seen = f"{artifact.runtime} cannot compute it without its optimisations"
        return Found(stage="engine", state="unknown", error=None, words=seen)
    answers = answers[: len(plain)]
    found = effect(answers, Expected(plain, answered.given.expected.labels[: len(plain)]))
    same = found.error <= answered.bundle.fp32_tolerance
    if artifact.precision != "fp32":
        # A last bit becomes a whole step of int8, so that kernels differ: an engine is at fault where its answers are
        # much farther from the trained network's than the file's own arithmetic is (sums of int8 that saturate).
        expected = _first(answered, len(plain))
        ran, literal = effect(answers, expected).mean_error, effect(plain, expected).mean_error
        same = same or ran <= _FARTHER * literal
    seen = f"{artifact.runtime} with and without its optimisations: {found.error:.1e}, {found.flipped} flipped"
    return Found(stage="engine", state="same" if same else "differs", error=found.error, words=seen)


def _processor(answered: _VariantAnswers, artifact: Artifact) -> list[Found]:
    """Whether int8 decides on this instruction set as where it was made; nothing of other precisions, which do."""
    proof = answered.proof(artifact)
    if proof is None or artifact.precision != "int8":
        return []
    states: dict[str, State] = {"proven": "same", "same": "same", "differs": "differs"}
    return [Found(stage="processor", state=states.get(proof.outcome, "unknown"), error=None, words=proof.text)]


def _precision(answered: _VariantAnswers, artifact: Artifact, exact: Artifact | None) -> Found:
    if artifact.precision == "fp32":
        return Found(stage="precision", state="same", error=None, words="fp32")
    answers = answered.answers(artifact)
    base = answered.given.expected.logits if exact is None else answered.answers(exact)
    against = "the trained network" if exact is None else exact.variant
    if answers is None or base is None:
        return Found(stage="precision", state="unknown", error=None, words=f"{against} does not run here")
    found = effect(answers, Expected(base, answered.given.expected.labels))
    seen = (
        f"{artifact.variant} against {against}: {found.error:.2g} of the logits' scale, agree {found.agreement:.1%}, "
        f"{0.0 - found.loss_points:+.1f} points"
    )
    same = found.error <= answered.bundle.fp32_tolerance
    return Found(stage="precision", state="same" if same else "differs", error=found.error, words=seen)


_FARTHER = 1.5
_PLAIN_IMAGES = 32
"""Computing a file literally is slow."""


def _plain(answered: _VariantAnswers, artifact: Artifact, engine: engines.Engine) -> Answers | None:
    own = own_pipeline(answered.bundle.preprocess)
    if engine.plain is None:
        return None
    try:
        opened = engine.plain(answered.folder / artifact.files[0], answered.bundle.threads)
        bits, paths = answered.bundle.preprocess.bits, answered.given.paths[:_PLAIN_IMAGES]
        return np.stack([opened.run(EncodedImage(path.read_bytes(), bits).enter(own, "nhwc")) for path in paths])
    except (Refused, UserError):
        return None


def _first(answered: _VariantAnswers, count: int) -> Expected:
    return Expected(answered.given.expected.logits[:count], answered.given.expected.labels[:count])
