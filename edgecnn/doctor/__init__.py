"""What this machine has, what is missing for which verb, and what to do about it.

Libraries are imported in a child process each: a wheel built for another processor dies there, not here. Nothing of
edgecnn that imports numpy is loaded before numpy has proved to load.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from edgecnn import __version__
from edgecnn.doctor.bundle import BundleHere, bundle_here
from edgecnn.doctor.libraries import (
    Converter,
    Engine,
    Extra,
    Library,
    Probe,
    Readiness,
    Verb,
    converters,
    engines,
    extra_here,
    import_in_child,
    library_here,
    requirements,
    verb_here,
)
from edgecnn.doctor.machine import Machine, Processor, machine_here, processor_here, system_problems
from edgecnn.doctor.wording import converter_line, engine_line, extra_line, machine_lines, processor_lines, verb_line
from edgecnn.documents import Frozen
from edgecnn.installed import PREPARING
from edgecnn.origin import install_command

__all__ = ["Diagnosis", "examine", "import_in_child", "lines"]

BASE = (*PREPARING, "typer", "rich", "onnxruntime")
"""What every verb needs."""


class Diagnosis(Frozen):
    """Everything that `edgecnn doctor` found."""

    edgecnn: str
    problems: tuple[str, ...]
    """Why the base install does not work; empty where it does."""
    base: tuple[Library, ...]
    engines: tuple[Engine, ...]
    """Empty, as converters, where the base install does not work."""
    converters: tuple[Converter, ...]
    extras: tuple[Extra, ...]
    verbs: tuple[Readiness, ...]
    processor: Processor
    machine: Machine
    bundle: BundleHere | None = None
    """The one that was asked for."""

    @property
    def exit_code(self) -> int:
        """1 where the base install is broken, or no variant of the bundle runs here. Missing extras are no fault."""
        return 1 if self.problems or (self.bundle is not None and not self.bundle.runs) else 0


def examine(verbs: Iterable[Verb], probe: Probe = import_in_child, bundle: Path | None = None) -> Diagnosis:
    """Look at everything, at what `verbs` need, and at the variants of a bundle. Imports no torch here.

    Takes seconds: each library is imported in a child process.
    """
    probe = cache(probe)  # onnxruntime is both of the base and an engine
    needs = requirements()
    base = tuple(library_here(name, needs.get("", {}).get(name), probe) for name in BASE)
    problems = (*system_problems(), *(f"{item.name}: {item.problem}" for item in base if item.problem))
    loads = not any(item.problem for item in base)
    found = engines(probe) if loads else ()
    extras = tuple(extra_here(name, libraries) for name, libraries in needs.items() if name)
    return Diagnosis(
        edgecnn=__version__,
        problems=problems,
        base=base,
        engines=found,
        converters=converters() if loads else (),
        extras=extras,
        verbs=tuple(verb_here(verb, extras, not problems) for verb in verbs),
        processor=processor_here(loads),
        machine=machine_here(loads),
        bundle=_asked(bundle, found, problems) if bundle else None,
    )


def lines(diagnosis: Diagnosis) -> list[tuple[str, str, str]]:
    """(area, finding, what to do); nothing to do is an empty text."""
    return [
        *_base_lines(diagnosis),
        *(
            (f"variant {one.variant}", one.text, one.fix or "")
            for one in (diagnosis.bundle.variants if diagnosis.bundle else ())
        ),
        *map(engine_line, diagnosis.engines),
        *map(converter_line, diagnosis.converters),
        *map(verb_line, diagnosis.verbs),
        *map(extra_line, diagnosis.extras),
        *processor_lines(diagnosis.processor),
        *machine_lines(diagnosis.machine),
    ]


def _asked(folder: Path, found: tuple[Engine, ...], problems: Sequence[str]) -> BundleHere:
    if problems:
        return BundleHere(runs=False, answer=(f"this machine cannot run {folder}: {'; '.join(problems)}",), variants=())
    return bundle_here(folder, found)


def _base_lines(diagnosis: Diagnosis) -> list[tuple[str, str, str]]:
    good = [f"{item.name} {item.version or ''}".strip() for item in diagnosis.base if not item.problem]
    rows = [("edgecnn", diagnosis.edgecnn, "" if diagnosis.extras else f"{install_command()}: it is not installed")]
    rows += [("base", ", ".join(good) + ": they load", "")] if good else []
    fix = f"{install_command()} --force-reinstall, on a supported Python and processor"
    return rows + [("base", problem, fix) for problem in diagnosis.problems]
