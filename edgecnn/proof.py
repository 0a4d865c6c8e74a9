"""Whether a variant decides here as it did where it was made: known from the bundle, else seen on its golden images.

INT8 may decide otherwise on another instruction set, silently: on the engines' fastest kernels of processors without
VNNI a MobileNetV2 fell from 99 to 65 %. So a variant that was not proven on the set that its engine works with here
runs the golden images first. That takes seconds, and nothing where it is proven.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from edgecnn import runtimes
from edgecnn.artifact import Artifact, Bundle, Flip, Golden
from edgecnn.documents import Frozen, sha256_of
from edgecnn.errors import UserError
from edgecnn.imaging import Preparer
from edgecnn.runtimes import Session

Outcome = Literal["proven", "same", "differs", "too few", "not looked at"]
"""proven: known from the bundle. same, differs, too few: what the golden images showed. not looked at: no int8."""

FEWEST_IMAGES = 16
"""Fewer show nothing: the mildest saturation met flipped 18 % of the decisions, which 16 images show in 95 %."""
LIMIT_S = 5.0
"""After which no further golden image is begun, once FEWEST_IMAGES are done."""
AGREEMENT = 0.98
"""Least share of decisions that must be the exporting machine's own."""


class DecidesOtherwise(UserError):
    """A variant must not be used on this processor."""


class Proof(Frozen):
    """What is known of one variant on one instruction set."""

    variant: str
    instruction_set: str | None
    """None: the system does not tell."""
    outcome: Outcome
    images: int = 0
    flips: tuple[Flip, ...] = ()
    """Golden images that are decided unlike eager fp32, and were decided like it on the exporting machine."""
    text: str
    """For a person, in one line."""

    @property
    def refused(self) -> bool:
        """Whether the variant must not be used here."""
        return self.outcome == "differs"


def is_proven(artifact: Artifact) -> bool:
    """Whether the bundle says that a variant decides well on the instruction set that its engine works with here."""
    return runtimes.instruction_set(artifact.runtime) in artifact.proven_on


def prove_here(
    folder: Path,
    bundle: Bundle,
    artifact: Artifact,
    session: Session,
    limit_s: float = LIMIT_S,
    clock: Callable[[], float] = time.monotonic,
) -> Proof:
    """What is known of an open variant here. Runs golden images where it is an int8 one that was not proven here."""
    here = runtimes.instruction_set(artifact.runtime)
    if here in artifact.proven_on or artifact.precision != "int8":
        return without_looking(artifact, here)
    preparer, begun = Preparer(bundle.preprocess), clock()
    decided: list[int] = []
    for golden in bundle.golden:
        if len(decided) >= FEWEST_IMAGES and clock() - begun > limit_s:
            break
        pixels = preparer.prepare((folder / golden.file).read_bytes())
        if sha256_of(pixels.tobytes()) != golden.pixels_sha256:
            text = f"prepares {golden.file} to other pixels than the exporting machine: install the bundle's versions"
            return Proof(variant=artifact.variant, instruction_set=here, outcome="differs", text=text)
        decided.append(int(session.run(pixels[None])[0].argmax()))
    return judged(artifact, bundle.golden, bundle.classes, decided, here)


def without_looking(artifact: Artifact, here: str | None) -> Proof:
    """What the bundle alone tells of a variant on an instruction set."""
    if here in artifact.proven_on:
        return Proof(variant=artifact.variant, instruction_set=here, outcome="proven", text=f"proven on {here}")
    outcome: Outcome = "too few" if artifact.precision == "int8" else "not looked at"
    return Proof(variant=artifact.variant, instruction_set=here, outcome=outcome, text=_not_proven(artifact, here))


def judged(
    artifact: Artifact, golden: Sequence[Golden], classes: Sequence[str], decided: Sequence[int], here: str | None
) -> Proof:
    """Judge the decisions (class indices) of the first golden images on the instruction set `here`."""
    new = new_flips([one.logits.index(max(one.logits)) for one in golden], decided, artifact.golden_decisions)
    flips = tuple(
        Flip(
            image=golden[i].file,
            label=golden[i].label,
            reference=classes[golden[i].logits.index(max(golden[i].logits))],
            variant=classes[decided[i]],
        )
        for i in new
    )
    outcome = verdict(len(decided), len(flips))
    found = f"{len(flips)} of {len(decided)} golden images decided unlike the exporting machine"
    text = {
        "differs": f"decides otherwise on {here or 'this processor'}: {found}",
        "too few": f"{_not_proven(artifact, here)}; {found}, which shows too little",
    }.get(outcome, f"{_not_proven(artifact, here)}; {found}")
    return Proof(
        variant=artifact.variant, instruction_set=here, outcome=outcome, images=len(decided), flips=flips, text=text
    )


def new_flips(trained: Sequence[int], decided: Sequence[int], exporter: Sequence[int]) -> list[int]:
    """Places of images that are decided unlike eager fp32 and not so by the exporting machine (empty: not known)."""
    at_home = exporter or trained
    return [i for i, one in enumerate(decided) if one != trained[i] and one != at_home[i]]


def verdict(images: int, flips: int, agreement: float = AGREEMENT) -> Outcome:
    """One new flip beyond what the agreement allows may be a near tie between classes, a second one is none."""
    allowed = (1 - agreement) * images
    if flips > allowed + 1:
        return "differs"
    return "too few" if images < FEWEST_IMAGES or flips > allowed else "same"


def _not_proven(artifact: Artifact, here: str | None) -> str:
    on = f"only on {', '.join(artifact.proven_on)}" if artifact.proven_on else "on no instruction set"
    return f"not proven on {here or 'this processor'} ({on})"
