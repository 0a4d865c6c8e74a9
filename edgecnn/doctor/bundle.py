"""Which variants of a bundle can be run here, and on what their decisions are proven, before anything is run."""

from __future__ import annotations

from pathlib import Path

from edgecnn.doctor.libraries import Engine
from edgecnn.documents import Frozen


class VariantHere(Frozen):
    """A variant of a bundle on this machine."""

    variant: str
    engine: str | None
    """Why its engine is of no use here; None where it loads."""
    instruction_set: str | None
    """That its engine works with here; None: the system does not tell."""
    proven_on: tuple[str, ...]
    proven: bool
    """Whether its decisions are proven on that instruction set, with the engine's version that is installed here."""
    text: str
    fix: str | None


def variants_here(folder: Path, engines: tuple[Engine, ...]) -> tuple[VariantHere, ...]:
    """Every variant of the bundle in `folder`. Comes with numpy. UserError where there is no whole bundle."""
    from edgecnn import runtimes
    from edgecnn.artifact import load_bundle
    from edgecnn.proof import other_version, without_looking

    known = {engine.runtime: engine for engine in engines}
    found = []
    bundle = load_bundle(folder)
    for artifact in bundle.artifacts:
        engine = known.get(artifact.runtime)
        problem = f"{artifact.runtime}: unknown to this edgecnn" if engine is None else engine.library.problem
        here = runtimes.instruction_set(artifact.runtime) if engine else None
        proof = without_looking(artifact, here, other_version(bundle, artifact))
        if engine is None or problem:
            text, fix = f"cannot be run: {problem}", engine.fix if engine else "install a newer edgecnn"
        else:
            text = f"{artifact.runtime} is here; {proof.text}"
            # `bench` and `verify` look by themselves.
            fix = (
                "edgecnn verify, on your images: golden images alone are a sample"
                if proof.outcome == "too few"
                else None
            )
        found.append(
            VariantHere(
                variant=artifact.variant,
                engine=problem,
                instruction_set=here,
                proven_on=artifact.proven_on,
                proven=proof.outcome == "proven",
                text=text,
                fix=fix,
            )
        )
    return tuple(found)
