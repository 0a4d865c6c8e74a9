"""The formats to export to: one file each, found by listing this folder. A converter's libraries are imported by it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgecnn.artifact import Precision
from edgecnn.errors import not_one_of
from edgecnn.installed import need


@dataclass(frozen=True)
class Source:
    """What is converted."""

    module: Any
    """torch.nn.Module in eval mode: uint8 (n, height, width, 3) RGB to float32 (n, classes)."""
    height: int
    width: int
    work: Path
    """A folder for intermediate files, shared by the conversions of one export."""
    described: Mapping[str, str] = field(default_factory=dict)
    """What formats with room for metadata carry: classes and preprocessing, as text. See `edgecnn.metadata`."""
    io: Literal["uint8", "int8"] = "uint8"
    """Of the pixels that a full-integer LiteRT file takes; int8 is the pixel minus 128. Other formats take uint8."""
    twin: Source | None = None
    """The same graph with other weights: what was converted from it may be taken, with these weights put in."""


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote."""

    files: tuple[str, ...]
    """Relative to its folder; the first is the one to open."""
    notes: Mapping[str, Any]
    """How it was made."""


@dataclass(frozen=True)
class Format:
    """A file format."""

    precisions: tuple[Precision, ...]
    """That a conversion alone gives; int8 is in `edgecnn.quantize`."""
    libraries: tuple[str, ...]
    """That write it, by the names that pip knows: they must be installed, and their versions are recorded."""
    extra: str
    """The extra of edgecnn that installs them."""
    convert: Callable[[Source, Precision, Path], Converted]
    """(source, precision, existing empty folder to write into)."""


def names() -> list[str]:
    """Every format there is, without importing one."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Format:
    """The format of that name. UserError where there is none."""
    if name not in names():
        raise not_one_of("format", name, names())
    found: Format = importlib.import_module(f"{__name__}.{name}").FORMAT
    return found


def convert(name: str, source: Source, precision: Precision, out: Path) -> Converted:
    """Write `source` in a format. UserError where the format has no such precision or a library is missing.

    int8 is not converted to but quantised to: see `edgecnn.quantize`.
    """
    target = get(name)
    if precision not in target.precisions:
        raise not_one_of(f"{name}: precision", precision, target.precisions)
    require(name)
    out.mkdir(parents=True, exist_ok=True)
    return target.convert(source, precision, out)


def require(name: str) -> None:
    """MissingExtra where a library that writes the format is not installed."""
    wanted = get(name)
    need(wanted.extra, *wanted.libraries)


def libraries() -> list[str]:
    """Every library that writes a format."""
    return sorted({library for name in names() for library in get(name).libraries})
