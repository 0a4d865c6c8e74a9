"""Which variants of a bundle can be run here, and on what their decisions are proven, before anything is run."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.doctor.libraries import Engine
from edgecnn.documents import Frozen

if TYPE_CHECKING:
    from edgecnn.artifact import Bundle


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


class BundleHere(Frozen):
    """A bundle on this machine."""

    runs: bool
    """Whether any variant that may be deployed runs here."""
    answer: tuple[str, ...]
    """In words: what can be run, then a line for each engine that is missing, with the command."""
    variants: tuple[VariantHere, ...]


def bundle_here(folder: Path, engines: tuple[Engine, ...]) -> BundleHere:
    """Whether this machine can run the bundle in `folder`. Comes with numpy. UserError where there is no whole one."""
    from edgecnn.artifact import load_bundle

    bundle, variants = load_bundle(folder), variants_here(folder, engines)
    able = [one.variant for one in variants if one.engine is None and one.variant not in _vetoed(bundle)]
    return BundleHere(
        runs=bool(able), answer=(_first_line(folder, bundle, variants, able), *_engines(variants)), variants=variants
    )


def variants_here(folder: Path, engines: tuple[Engine, ...]) -> tuple[VariantHere, ...]:
    """Every variant of the bundle. UserError where there is no whole one."""
    from edgecnn import runtimes
    from edgecnn.artifact import load_bundle
    from edgecnn.proof import other_version, without_looking

    known = {engine.runtime: engine for engine in engines}
    found = []
    bundle = load_bundle(folder)
    for artifact in bundle.artifacts:
        engine = known.get(artifact.runtime)
        problem = f"{artifact.runtime}: unknown to this edgecnn" if engine is None else _problem(engine)
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


def _first_line(folder: Path, bundle: Bundle, variants: Sequence[VariantHere], able: Sequence[str]) -> str:
    choice = bundle.choice.variant if bundle.choice else None
    here = platform.machine()
    elsewhere = "" if here == bundle.machine else f" (it is for {bundle.machine} machines, and this one is {here})"
    if not able:
        why = "the network itself is in doubt" if bundle.doubts else "no variant that may be used has its engine here"
        return f"this machine cannot run {folder}: {why}{elsewhere}"
    if choice is None:
        return f"this machine can run {folder}: {', '.join(able)} (none is chosen yet: edgecnn bench){elsewhere}"
    if choice in able:
        others = f"; {', '.join(one for one in able if one != choice)} too" if len(able) > 1 else ""
        return f"this machine can run {folder}: {choice} (the bundle's choice){others}{elsewhere}"
    why = next((one.engine for one in variants if one.variant == choice), None) or "it may not be used"
    return f"this machine cannot run {folder} as chosen, {choice}: {why}; it can run {', '.join(able)}{elsewhere}"


def _engines(variants: Sequence[VariantHere]) -> list[str]:
    """What is missing for which variants, and what to do."""
    lacking: dict[tuple[str, str], list[str]] = {}
    for one in variants:
        if one.engine is not None:
            lacking.setdefault((one.engine, one.fix or ""), []).append(one.variant)
    return [f"for {', '.join(names)}: {problem}: {fix}" for (problem, fix), names in lacking.items()]


def _problem(engine: Engine) -> str | None:
    return f"{engine.library.name}: {engine.library.problem}" if engine.library.problem else None


def _vetoed(bundle: Bundle) -> set[str]:
    return {one.variant for one in bundle.artifacts if bundle.unusable(one) is not None}
