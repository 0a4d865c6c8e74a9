"""Whether a variant decides here as it did where it was made: known from the bundle, else seen on its golden images.

INT8 may decide otherwise on another instruction set, silently: on the engines' fastest kernels of processors without
VNNI a MobileNetV2 fell from 99 to 65 %. So a variant that was not proven on the set that its engine works with here
runs the golden images first. That takes seconds, and nothing where it is proven. Another version of an engine has other
kernels, so it proves nothing either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from edgecnn import runtimes
from edgecnn.artifact import Artifact, Bundle, Flip, Golden
from edgecnn.documents import Frozen, sha256_of
from edgecnn.errors import UserError
from edgecnn.imaging import Preparer
from edgecnn.installed import installed_versions
from edgecnn.judge import FEWEST_IMAGES, Yardstick, flips_of, newly_flipped, verdict, yardstick_of
from edgecnn.runtimes import Session

Outcome = Literal["proven", "same", "differs", "too few", "not looked at"]
"""proven: known from the bundle. same, differs, too few: what the golden images showed. not looked at: no int8."""

LIMIT_S = 5.0
"""After which no further golden image is begun, once FEWEST_IMAGES are done."""


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


def prove_here(
    folder: Path,
    bundle: Bundle,
    artifact: Artifact,
    session: Session,
    limit_s: float = LIMIT_S,
    clock: Callable[[], float] = time.monotonic,
) -> Proof:
    """What is known of an open variant here. Runs golden images where it is an int8 one that was not proven here."""
    here, other = runtimes.instruction_set(artifact.runtime), other_version(bundle, artifact)
    if artifact.precision != "int8" or (here in artifact.proven_on and other is None):
        return without_looking(artifact, here, other)
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
    return judged(artifact, bundle.golden, yardstick_of(bundle), decided, here, other)


def other_version(bundle: Bundle, artifact: Artifact, versions: Mapping[str, str] | None = None) -> str | None:
    """In words, the engine's versions where it is another one than the one that the bundle was made with; else None.

    `versions`: of the libraries there; None: those that are installed here. A build's local part (+cpu) is no version.
    """
    if artifact.runtime not in runtimes.names():
        return None
    library = runtimes.get(artifact.runtime).library
    there = installed_versions([library]) if versions is None else versions
    made, found = bundle.provenance.tools.get(library), there.get(library)
    if made is None or found is None or made.partition("+")[0] == found.partition("+")[0]:
        return None
    return f"{library} {made}, not {found}"


def without_looking(artifact: Artifact, here: str | None, other: str | None = None) -> Proof:
    """What the bundle alone tells of a variant on an instruction set. `other`: as `other_version` says."""
    if here in artifact.proven_on and other is None:
        return Proof(variant=artifact.variant, instruction_set=here, outcome="proven", text=f"proven on {here}")
    outcome: Outcome = "too few" if artifact.precision == "int8" else "not looked at"
    text = _not_proven(artifact, here, other)
    return Proof(variant=artifact.variant, instruction_set=here, outcome=outcome, text=text)


def judged(
    artifact: Artifact,
    golden: Sequence[Golden],
    yardstick: Yardstick,
    decided: Sequence[int],
    here: str | None,
    other: str | None = None,
) -> Proof:
    """Judge the decisions (class indices) of the first golden images on the instruction set `here`."""
    images = len(decided)
    trained = np.array([one.logits.index(max(one.logits)) for one in golden[:images]])
    at_home = np.array(artifact.golden_decisions[:images]) != trained if artifact.golden_decisions else None
    here_decided = np.array(decided)
    flips = flips_of(
        here_decided,
        trained,
        [one.file for one in golden[:images]],
        [one.label for one in golden[:images]],
        yardstick.classes,
        among=newly_flipped(here_decided != trained, at_home),
    )
    outcome = verdict(images, len(flips), yardstick.agreement)
    found = f"{len(flips)} of {images} golden images decided unlike the exporting machine"
    unproven, with_other = _not_proven(artifact, here, other), f" (made with {other})" if other else ""
    text = {
        "differs": f"decides otherwise on {here or 'this processor'}{with_other}: {found}",
        "too few": f"{unproven}; {found}, which shows too little",
    }.get(outcome, f"{unproven}; {found}")
    return Proof(variant=artifact.variant, instruction_set=here, outcome=outcome, images=images, flips=flips, text=text)


def _not_proven(artifact: Artifact, here: str | None, other: str | None) -> str:
    if here in artifact.proven_on and other:
        return f"not proven with this version (proven on {here} with {other})"
    on = f"only on {', '.join(artifact.proven_on)}" if artifact.proven_on else "on no instruction set"
    return f"not proven on {here or 'this processor'} ({on})"
