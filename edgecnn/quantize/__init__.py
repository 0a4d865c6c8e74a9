"""INT8: one file for each format that can be quantised, found by listing `engines/`, and the ladder they all climb."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn import formats
from edgecnn.errors import not_one_of
from edgecnn.formats import Converted
from edgecnn.installed import need
from edgecnn.progress import Progress
from edgecnn.quantize import engines
from edgecnn.quantize.ladder import Attempt, Quantizer, Rung, climb

if TYPE_CHECKING:
    from edgecnn.quantize.candidates import Networks

KEPT_IN_FLOAT = (1, 3, 6, 12)
"""So many of the most sensitive layers."""
_TRAINED = "trained with rounding"
_LEAST_GAIN = 0.2
"""dB: an equalised network whose simulated logits gain less is not tried."""


def names() -> list[str]:
    """Formats that can be quantised, without importing a converter."""
    return sorted({module.name for module in pkgutil.iter_modules(engines.__path__)} & set(formats.names()))


def get(name: str) -> Quantizer:
    """How a format's int8 file is written. UserError where it has none, MissingExtra where a library is missing."""
    if name not in names():
        raise not_one_of("int8: format", name, names())
    found = _declared(name)
    need(found.extra, *found.libraries)
    return found


def libraries() -> list[str]:
    """Every library that writes an int8 file."""
    return sorted({library for name in names() for library in _declared(name).libraries})


def _declared(name: str) -> Quantizer:
    quantizer: Quantizer = importlib.import_module(f"{engines.__name__}.{name}").QUANTIZER
    return quantizer


def quantize(name: str, networks: Networks, out: Path, progress: Progress = lambda text: None) -> Converted:
    """Write the int8 variant of a format: climb its ladder on validation images, keep the rung that was taken.

    UserError where the format has no int8, a library is missing, no rung could be written or INT8 is not worth it.
    """
    quantizer = get(name)
    folder, files, notes = climb(
        rungs(quantizer, networks), quantizer.runtime, networks.tuning, networks.source.work / f"{name}-int8", progress
    )
    if quantizer.worth is not None:
        notes |= quantizer.worth(folder / files[0], networks.plain, networks.tuning)
    if notes["rung"] == _TRAINED:
        notes["training"] = networks.training
    out.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(folder / file, out / file)
    return Converted(
        files,
        {
            **quantizer.notes,
            **notes,
            "observers_sqnr_db": networks.observers,
            "observer": networks.observer,
            "observers_of_single_tensors": networks.exceptions,
        },
    )


def rungs(quantizer: Quantizer, networks: Networks) -> Iterator[Rung]:
    """The ladder of an engine, from cheap to dear; each network is made when its rung is reached."""
    from edgecnn.quantize.flat import layers_of

    def rung(attempt: Attempt) -> Rung:
        return Rung(attempt.name, partial(quantizer.write, attempt, networks.tuning))

    observer = networks.observer
    several = f"{observer} and {len(networks.exceptions)} by others" if networks.exceptions else observer
    start = networks.plain
    yield rung(networks.attempt(f"per channel, {several}", start))
    equalised = networks.equalised
    if equalised and networks.simulated_sqnr(equalised, observer) >= networks.observers[observer] + _LEAST_GAIN:
        start = equalised
        yield rung(networks.attempt("equalised", start))
    never = {layer.node for layer in layers_of(start.module) if quantizer.always_float(layer)}
    corrected = networks.corrected(start, never)
    yield rung(networks.attempt("rounded by data, bias corrected", corrected, start))
    for name, write in quantizer.own.items():
        yield Rung(name, partial(write, networks.attempt(name, networks.plain), networks.tuning))
    ranked = [layer for layer, _ in networks.sensitive(corrected, start) if layer.node not in never]
    for count in KEPT_IN_FLOAT:
        names = ", ".join(layer.name for layer in ranked[:count])
        kept = {layer.node for layer in ranked[:count]}
        begin = networks.corrected(start, never | kept)
        layers = tuple(layer for layer in layers_of(begin.module) if layer.node in kept)
        yield rung(networks.attempt(f"rounded by data, {count} in float ({names})", begin, start, layers))
    yield rung(networks.attempt(_TRAINED, networks.trained(corrected, start), start))
