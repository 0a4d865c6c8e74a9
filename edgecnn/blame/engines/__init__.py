"""Engines as blame needs them, one file each, found by listing this folder: any input, every inner tensor."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgecnn.blame.pipeline import Shape
from edgecnn.errors import UserError
from edgecnn.imaging import Images
from edgecnn.installed import need

Tensors: TypeAlias = Mapping[str, "Tensor"]
"""Name to tensor, in the order in which the engine computes them."""


class Refused(Exception):
    """The engine does not take such an input; the message is its own."""


@dataclass(frozen=True)
class Tensor:
    """What one step of a net gave for some images, in float whatever it is stored as."""

    kind: str
    """The operation, in the format's own words."""
    values: NDArray[np.float32]
    """(n, …)."""
    clamp: str | None = None
    """The ReLU or Clip that alone reads it, by its own tensor's name. A quantiser may leave it to the int8 range."""


class Opened(Protocol):
    """A model file, open, whatever its input."""

    @property
    def shape(self) -> Shape:
        """Of its input, with the batch."""
        ...

    def run(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        """One image (1, …), float32 or uint8, to (classes,). Raises Refused."""
        ...

    def precision(self) -> str | None:
        """What the file says of low precision in it, such as '53 int8 weights'; None for plain fp32."""
        ...


@dataclass(frozen=True)
class Engine:
    """An engine."""

    suffixes: tuple[str, ...]
    """Of the foreign files that it opens."""
    library: str
    """By the name that pip knows."""
    extra: str
    open: Callable[[Path, int], Opened]
    """(file, threads). UserError where it cannot be opened."""
    plain: Callable[[Path, int], Opened] | None = None
    """The same file without the engine's own optimisations: what the file says, computed literally."""
    float_pixels: Callable[[Path, int], Opened] | None = None
    """One of our files, made to take its pixels as float32, so that wrong scales can be tried."""
    tensors: Callable[[Path, Images], Tensors] | None = None
    """Every inner tensor of one of our files; None where the engine gives none."""


def names() -> list[str]:
    """Every engine that blame can ask, without importing one."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Engine | None:
    """The engine of that name; None where blame has none."""
    if name not in names():
        return None
    engine: Engine = importlib.import_module(f"{__name__}.{name}").ENGINE
    return engine


def for_file(path: Path) -> tuple[str, Engine]:
    """The engine for a foreign file, by its name's end. UserError where there is none; MissingExtra."""
    known = {suffix: name for name in names() for suffix in _engine(name).suffixes}
    name = known.get(path.suffix.lower())
    if name is None:
        raise UserError(f"{path}: not one of {', '.join(sorted(known))}: which engine should run it?")
    if not path.is_file():
        raise UserError(f"{path}: no such file (expected a model file)")
    engine = _engine(name)
    require(engine)
    return name, engine


def require(engine: Engine) -> None:
    """MissingExtra where the engine is not installed."""
    need(engine.extra, engine.library)


def one_row(output: NDArray[np.generic]) -> NDArray[np.float32]:
    """A file's output for one image (or the same one many times) as (classes,). Refused where it is something else."""
    row = np.asarray(output, np.float32)
    row = row[0] if row.ndim > 1 else row
    if row.size != max(row.shape, default=0):
        raise Refused(f"its output has shape {output.shape}, not one number for each class")
    return row.reshape(-1)


def as_taken(values: NDArray[np.generic], dtype: DTypeLike, scale: float = 0.0, zero: int = 0) -> NDArray[np.generic]:
    """Values in the type of a file's input. Refused where that would change what was described."""
    dtype = np.dtype(dtype)
    if values.dtype == dtype:
        return values
    if values.dtype == np.uint8 and dtype == np.int8:
        return (values.astype(np.int16) - 128).astype(np.int8)
    if values.dtype == np.float32 and dtype == np.float16:
        return values.astype(np.float16)
    if values.dtype == np.float32 and dtype in (np.dtype(np.int8), np.dtype(np.uint8)) and scale:
        limits = np.iinfo(dtype)
        quantised: NDArray[np.generic] = np.clip(
            np.rint(values.astype(np.float32) / scale) + zero, limits.min, limits.max
        ).astype(dtype)
        return quantised
    raise Refused(f"it takes {dtype}, described is {values.dtype}")


def repeated(values: NDArray[np.generic], shape: Shape) -> NDArray[np.generic]:
    """One image as often as a file with a fixed batch wants it."""
    batch = shape[0] if shape else None
    return np.repeat(values, batch, axis=0) if batch not in (None, 1) else values


def _engine(name: str) -> Engine:
    engine = get(name)
    if engine is None:
        raise UserError(f"engine {name}: not one of {', '.join(names())}")
    return engine
