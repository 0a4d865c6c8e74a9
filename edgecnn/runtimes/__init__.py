"""The engines: one file each, found by listing this folder. An engine is imported by the function that opens it."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Artifact, Precision
from edgecnn.errors import MissingExtra, UserError, not_one_of
from edgecnn.imaging import Images
from edgecnn.installed import is_installed
from edgecnn.processor import instruction_set_here

Logits: TypeAlias = NDArray[np.float32]
"""float32 (n, classes)."""


class Session(Protocol):
    """An open artifact."""

    def run(self, images: Images) -> Logits:
        """uint8 (n, h, w, 3) RGB at model size to float32 (n, classes)."""
        ...

    def executed(self) -> Mapping[str, Any]:
        """What the engine really runs, read from the engine: the mapping that `executed_report` makes."""
        ...

    def close(self) -> None:
        """Free the engine. The session must not be used afterwards."""
        ...


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
    """Environment variables that hold it to a lower instruction set than the processor has: see `processor`."""

    @property
    def library(self) -> str:
        """The engine itself."""
        return self.libraries[0]


@dataclass(frozen=True)
class Executed:
    """A convolution, linear layer or matrix product as the engine ran it."""

    name: str
    kind: str
    """The engine's own word for its kernel."""
    precision: str
    """Of the arithmetic: int8, fp16, bf16 or fp32."""
    macs: int
    """Multiply-accumulates for one image."""


def executed_report(
    layers: Sequence[Executed], providers: Sequence[str], remarks: Sequence[str] = (), **details: Any
) -> dict[str, Any]:
    """What `Session.executed` returns, the same keys for every engine.

    `remarks` name what nobody asked for: a fallback to another provider, INT8 run as fp16, a graph that a delegate did
    not take. `details` are the engine's own: `quantize_ops` (conversions between int8 and float), `partitions`, …
    """
    macs: Counter[str] = Counter()
    for layer in layers:
        macs[layer.precision] += layer.macs
    total = sum(macs.values())
    int8 = sum(layer.precision == "int8" for layer in layers)
    return {
        "providers": sorted(set(providers)),
        "int8_layers": int8,
        "float_layers": len(layers) - int8,
        "mac_shares": {precision: count / total for precision, count in sorted(macs.items())} if total else {},
        "layers": [
            {"name": one.name, "kind": one.kind, "precision": one.precision, "macs": one.macs} for one in layers
        ],
        "remarks": list(remarks),
        **details,
    }


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
    """Open a bundle's artifact in its runtime. Raises MissingExtra where the engine is not installed."""
    return open_file(folder / artifact.files[0], artifact.runtime, artifact.precision, threads)


def open_file(path: Path, runtime_name: str, precision: Precision, threads: int) -> Session:
    """Open an artifact's main file."""
    runtime = get(runtime_name)
    if not installed(runtime_name) and runtime.missing is not None:
        raise runtime.missing()
    if not installed(runtime_name):
        raise MissingExtra(runtime.library, runtime.extra or "all")
    return runtime.open(path, precision, threads)
