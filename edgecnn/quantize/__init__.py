"""INT8: one file for each format that can be quantised, found by listing this folder."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

from edgecnn import formats
from edgecnn.errors import not_one_of
from edgecnn.formats import Converted, Source
from edgecnn.quantize.ladder import TuningSet

Quantize = Callable[[Source, TuningSet, Path], Converted]
"""(source, tuning set, existing folder to write into). Each file of the folder has one, as QUANTIZE."""


def names() -> list[str]:
    """Formats that can be quantised, without importing a converter."""
    return sorted({module.name for module in pkgutil.iter_modules(__path__)} & set(formats.names()))


def quantize(name: str, source: Source, tuning: TuningSet, out: Path) -> Converted:
    """Write the int8 variant of a format. UserError where it has none or a library is missing."""
    if name not in names():
        raise not_one_of("int8: format", name, names())
    formats.require(name)
    out.mkdir(parents=True, exist_ok=True)
    make: Quantize = importlib.import_module(f"{__name__}.{name}").QUANTIZE
    return make(source, tuning, out)
