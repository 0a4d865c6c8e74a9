"""Which libraries are here, whether they load, and what each engine, format and verb lacks."""

from __future__ import annotations

import importlib.metadata
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from edgecnn.documents import Frozen
from edgecnn.ending import bound
from edgecnn.installed import is_installed, module_of
from edgecnn.origin import install_command, pip

_TIMEOUT_S = 120
"""An engine's first import from a slow SD card takes tens of seconds."""
_CHILD = "import importlib, sys; sys.path.append(sys.argv[2]); import edgecnn; importlib.import_module(sys.argv[1])"
"""edgecnn comes first because it keeps the module from reporting home: see `edgecnn.telemetry`."""
_NOT_SHOWN = ("all", "dev", "line", "ray")
"""The last two are of what edgecnn does not do yet."""

Probe: TypeAlias = Callable[[str], str | None]
"""Module to why it cannot be imported; None where it can."""


class Library(Frozen):
    """A distribution that something needs."""

    name: str
    version: str | None
    """None where it is not installed."""
    problem: str | None
    """Why it is of no use: missing, too old, or how its import failed."""


class Engine(Frozen):
    """A runtime and whether it loads here."""

    runtime: str
    opens: tuple[str, ...]
    """Formats."""
    library: Library
    fix: str | None


class Converter(Frozen):
    """A format to export to and what is missing for it."""

    format: str
    precisions: tuple[str, ...]
    missing: tuple[str, ...]
    """Distributions."""
    fix: str | None


class Extra(Frozen):
    """An optional set of libraries."""

    name: str
    missing: tuple[str, ...]
    """Distributions that are not installed or too old."""
    fix: str | None


class Verb(Protocol):
    """A verb of the command line, as far as the doctor asks."""

    @property
    def name(self) -> str: ...
    @property
    def extras(self) -> tuple[str, ...]:
        """That it needs; none where the base install is enough."""
        ...

    @property
    def engines(self) -> bool:
        """Whether it also needs the engine of each variant."""
        ...


class Readiness(Frozen):
    """Whether a verb of the command line can be used."""

    name: str
    needs: tuple[str, ...]
    """Extras; none where the base install is enough."""
    engines: bool
    """Whether it also needs the engine of each variant."""
    ready: bool
    fix: str | None


def import_in_child(module: str, timeout_s: float = _TIMEOUT_S) -> str | None:
    """Import a module in a fresh interpreter: None, or how it failed, an illegal instruction included."""
    try:
        done = subprocess.run(
            bound([sys.executable, "-P", "-c", _CHILD, module, str(Path(__file__).parents[2])]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return f"import takes more than {timeout_s:g} s"
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return _death(-done.returncode)
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return f"import fails: {lines[-1]}" if lines else f"import fails with exit code {done.returncode}"


def requirements() -> dict[str, dict[str, str]]:
    """Extra ("" for the base) to {distribution: least version} from the metadata of the installed edgecnn.

    Empty where edgecnn runs from a folder without having been installed.
    """
    try:
        declared = importlib.metadata.requires("edgecnn") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, dict[str, str]] = {}
    for line in declared:
        requirement, _, marker = line.partition(";")
        name = re.match(r"[\w.-]+", requirement.strip())
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        system = re.search(r"sys_platform == ['\"](\w+)['\"]", marker)
        if name is None or name[0] == "edgecnn" or (extra and extra[1] in _NOT_SHOWN):
            continue
        if system and system[1] != sys.platform:
            continue
        least = re.search(r">=\s*([\d.]+)", requirement)
        found.setdefault(extra[1] if extra else "", {})[name[0]] = least[1] if least else ""
    return found


def library_here(name: str, least: str | None, probe: Probe) -> Library:
    """What is known of a distribution and whether its module loads. `least`: version."""
    version = _version(name)
    if not is_installed(name):
        return Library(name=name, version=version, problem="not installed")
    problem = _too_old(version, least or "") or probe(module_of(name))
    return Library(name=name, version=version, problem=problem)


def engines(probe: Probe) -> tuple[Engine, ...]:
    """Every runtime. Comes with numpy: call it where the base install loads."""
    from edgecnn import runtimes

    found = []
    for name in runtimes.names():
        runtime = runtimes.get(name)
        library = library_here(runtime.library, None, probe)
        if library.problem == "not installed":
            fix = str(runtime.missing()) if runtime.missing else install_command(runtime.extra or "")
        elif library.problem:
            fix = f"{pip()} install --force-reinstall {runtime.library}, an older version where this one dies again"
        else:
            fix = None
        found.append(Engine(runtime=name, opens=runtime.runs, library=library, fix=fix))
    return tuple(found)


def converters() -> tuple[Converter, ...]:
    """Every format. Comes with numpy: call it where the base install loads."""
    from edgecnn import formats, quantize

    found = []
    for name in formats.names():
        known = formats.get(name)
        missing = tuple(library for library in known.libraries if not is_installed(library))
        fix = install_command(known.extra) if missing else None
        int8 = ("int8",) if name in quantize.names() else ()
        found.append(Converter(format=name, precisions=(*known.precisions, *int8), missing=missing, fix=fix))
    return tuple(found)


def extra_here(name: str, libraries: Mapping[str, str]) -> Extra:
    """What of an extra is missing."""
    versions = {library: _version(library) for library in libraries}
    missing = tuple(
        library if versions[library] is None else f"{library} (≥ {least})"
        for library, least in libraries.items()
        if versions[library] is None or _too_old(versions[library], least)
    )
    return Extra(name=name, missing=missing, fix=install_command(name) if missing else None)


def verb_here(verb: Verb, extras: Sequence[Extra], base_works: bool) -> Readiness:
    """Whether a verb can be used."""
    known = {extra.name: extra for extra in extras}
    # Without edgecnn's own metadata nothing is known of the extras.
    lacking = [extra for extra in verb.extras if extra not in known or known[extra].missing]
    fix = install_command(*lacking) if lacking else None if base_works else "mend the base install first"
    return Readiness(name=verb.name, needs=verb.extras, engines=verb.engines, ready=base_works and not lacking, fix=fix)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _too_old(version: str | None, least: str) -> str | None:
    if version is None or not least or numbers(version) >= numbers(least):
        return None
    return f"{version} is older than {least}"


def numbers(version: str) -> tuple[int, ...]:
    """The release part of a version, at least three numbers."""
    release = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in release[0].split(".")] if release else []
    return tuple([*numbers, 0, 0, 0][: max(3, len(numbers))])


def _death(number: int) -> str:
    if number == signal.SIGILL:
        return "import dies with SIGILL (illegal instruction): the wheel was built for a newer processor"
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"import dies with {name}"
