"""INT8: one file for each format that can be quantised, found by listing `engines/`, and the ladder they all climb.

What can be quantised is told without torch, which the ladder needs.
"""

from __future__ import annotations

import importlib
import pkgutil
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn import formats
from edgecnn.errors import not_one_of
from edgecnn.formats import Converted
from edgecnn.installed import need
from edgecnn.progress import Progress
from edgecnn.quantize import engines

if TYPE_CHECKING:
    from edgecnn.quantize.candidates import Networks
    from edgecnn.quantize.ladder import Quantizer


def names() -> list[str]:
    """Formats that can be quantised, without importing a converter."""
    return sorted({module.name for module in pkgutil.iter_modules(engines.__path__)} & set(formats.names()))


def get(name: str) -> Quantizer:
    """How a format's int8 file is written. UserError where it has none, MissingExtra where a library is missing."""
    if name not in names():
        raise not_one_of("int8: format", name, names())
    found = declared(name)
    need(found.extra, *found.libraries)
    return found


def libraries() -> list[str]:
    """Every library that writes an int8 file."""
    return sorted({library for name in names() for library in declared(name).libraries})


def declared(name: str) -> Quantizer:
    """The same, whether its libraries are there or not. Imports torch."""
    quantizer: Quantizer = importlib.import_module(f"{engines.__name__}.{name}").QUANTIZER
    return quantizer


def quantize(name: str, networks: Networks, out: Path, progress: Progress = lambda text: None) -> Converted:
    """Write the int8 variant of a format: climb its ladder on validation images, keep the rung that was taken.

    UserError where the format has no int8, a library is missing, no rung could be written or INT8 is not worth it.
    """
    from edgecnn.quantize.grid import refuse_saturation
    from edgecnn.quantize.ladder import TRAINED, climb, rungs

    quantizer = get(name)
    folder, files, notes = climb(
        rungs(quantizer, networks), quantizer.runtime, networks.tuning, networks.source.work / f"{name}-int8", progress
    )
    if quantizer.worth is not None:
        notes |= quantizer.worth(folder / files[0], networks.plain, networks.tuning)
    grid = quantizer.grid(networks.tuning)
    if quantizer.in_pairs is not None and grid == "paired":
        notes["largest_pair"] = refuse_saturation(quantizer.in_pairs(folder / files[0]))
    if notes["rung"] == TRAINED:
        notes["training"] = networks.training
    out.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(folder / file, out / file)
    return Converted(
        files,
        {
            **quantizer.notes,
            **notes,
            "grid": grid,
            "observers_sqnr_db": networks.observers,
            "observer": networks.observer,
            "observers_of_single_tensors": networks.exceptions,
        },
    )
