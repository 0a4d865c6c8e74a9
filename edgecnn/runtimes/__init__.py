"""The engines: one file each, found by listing this folder. An engine is imported by the function that opens it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Artifact, Precision
from edgecnn.errors import MissingExtra, UserError, not_one_of
from edgecnn.executed import Executed
from edgecnn.imaging import Images
from edgecnn.installed import is_installed
from edgecnn.processor import instruction_set_here

Logits: TypeAlias = NDArray[np.float32]
"""float32 (n, classes)."""


class Session(Protocol):
    """An open artifact. An engine's session names this class as its own, which makes it a context manager."""

    def run(self, images: Images) -> Logits:
        """uint8 (n, h, w, 3) RGB at model size to float32 (n, classes)."""
        ...

    def executed(self) -> Executed:
        """What the engine really runs, read from the engine."""
        ...

    def close(self) -> None:
        """Free the engine. The session must not be used afterwards."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(frozen=True)
class Runtime:
    """An engine."""

    runs: tuple[str, ...]
    """Formats that it opens."""
    libraries: tuple[str, ...]
    """The engine, and what it needs beside it, by the names that pip knows: their versions are recorded."""
    extra: str | None
    """The extra of edgecnn that installs it; None where the base install has it."""
    open: Callable[[Path, Precision, int], Session]
    """(main file, precision, threads) to a session."""
    missing: Callable[[], UserError] | None = None
    """What to say where it is not installed and no extra can install it."""
    obeys: tuple[str, ...] = ()
    """Environment variables that hold its int8 to a lower instruction set than the processor has: see `processor`."""
    obeys_beside: tuple[str, ...] = ()
    """Those that hold only the rest of it: they are set to hold it back, and say nothing of what int8 uses."""

    @property
    def library(self) -> str:
        """The engine itself."""
        return self.libraries[0]


def names() -> list[str]:
    """Every runtime there is, without importing one."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Runtime:
    """The runtime of that name. UserError where there is none."""
    if name not in names():
        raise not_one_of("runtime", name, names())
    runtime: Runtime = importlib.import_module(f"{__name__}.{name}").RUNTIME
    return runtime


def installed(name: str) -> bool:
    """Whether the runtime's engine can be imported here (without importing it)."""
    return is_installed(get(name).library)


def libraries() -> list[str]:
    """Every library that runs a file."""
    return sorted({library for name in names() for library in get(name).libraries})


def instruction_set(name: str) -> str | None:
    """The instruction set that this engine works with here; None where the system does not tell."""
    return instruction_set_here(get(name).obeys)


def open_session(folder: Path, artifact: Artifact, threads: int) -> Session:
    """Open a bundle's artifact in its runtime: `with open_session(…) as session:`.

    Raises MissingExtra where the engine is not installed.
    """
    return open_file(folder / artifact.files[0], artifact.runtime, artifact.precision, threads)


def open_file(path: Path, runtime_name: str, precision: Precision, threads: int) -> Session:
    """Open an artifact's main file."""
    runtime = get(runtime_name)
    if not installed(runtime_name) and runtime.missing is not None:
        raise runtime.missing()
    if not installed(runtime_name):
        raise MissingExtra(runtime.library, runtime.extra or "all")
    return runtime.open(path, precision, threads)
