"""The networks that the ladder starts from, each made once per export and shared by all engines."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch.fx import GraphModule

from edgecnn.formats import Source
from edgecnn.quantize.ladder import TuningSet
from edgecnn.quantize.network import WeightedLayer, flatten, layers_of
from edgecnn.quantize.observe import OBSERVERS, Histogram, Range
from edgecnn.quantize.repair import correct_bias, equalise, train_with_rounding
from edgecnn.quantize.simulate import histograms_of, logits_of, run_simulated, sensitivities, simulated, sqnr

_HELD_IN = 48
"""Calibration images that simulations run on."""
_RANKED_ON = 8
_SAME = 1e-3
"""Largest logit error, relative to their scale, of a network that shall answer the same in float."""


class Networks:
    """As trained (flat), equalised, bias-corrected, trained with rounding; observers and layers by simulated SQNR."""

    def __init__(self, source: Source, tuning: TuningSet) -> None:
        self.source = source
        self.tuning = tuning
        self._histograms: dict[str, Mapping[str, Histogram]] = {}
        self._made: dict[str, Source | None] = {}
        self._qat: dict[str, Mapping[str, Any]] = {}

    def with_io(self, io: Literal["uint8", "int8"]) -> Networks:
        """The same networks for a file that takes other pixels."""
        if io == self.source.io:
            return self
        other = copy.copy(self)
        other.source = replace(self.source, io=io)
        other._made = {name: source and replace(source, io=io) for name, source in self._made.items()}
        for name in ("plain", "equalised"):
            if (source := self.__dict__.get(name)) is not None:
                other.__dict__[name] = replace(source, io=io)
        return other

    @cached_property
    def plain(self) -> Source:
        """As trained, flat, BatchNorm folded."""
        return self._source("flat", flatten(self.source.module, self.source.height, self.source.width))

    @cached_property
    def held_in(self) -> NDArray[np.uint8]:
        """Calibration images that observers are chosen on."""
        return self.tuning.calibration[:: max(1, len(self.tuning.calibration) // _HELD_IN)][:_HELD_IN]

    @cached_property
    def observers(self) -> dict[str, float]:
        """Each observer's SQNR (dB) of the logits of `held_in`, simulated on the plain network, best first."""
        found = {name: self.simulated_sqnr(self.plain, name) for name in OBSERVERS}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @cached_property
    def observer(self) -> str:
        """The best one."""
        return next(iter(self.observers))

    def simulated_sqnr(self, start: Source, observer: str) -> float:
        """SQNR (dB) of the logits of `held_in` against the trained network's, INT8 simulated."""
        rounded = run_simulated(simulated(start.module, self._ranges(start, observer)), self.held_in)
        return sqnr(self._float_logits, rounded.numpy())

    @cached_property
    def equalised(self) -> Source | None:
        """Cross-layer equalised; None where there is no pair to equalise or float answers would change."""
        module = equalise(self.plain.module, self.tuning.calibration)
        if module is None:
            return None
        error = np.abs(logits_of(module, self.held_in).numpy() - self._float_logits).max() / self._float_logits.std()
        return self._source("equalised", module) if error <= _SAME else None

    def corrected(self, start: Source) -> Source:
        """`start` with its biases corrected for rounded weights."""
        name = f"{start.work.name}-corrected"
        if name not in self._made:
            self._made[name] = self._source(name, correct_bias(start.module, self.held_in))
        return _there(self._made[name])

    def trained(self, start: Source) -> tuple[Source, Mapping[str, Any]]:
        """`start` after short quantisation-aware training, and the record of it."""
        name = f"{start.work.name}-trained"
        if name not in self._made:
            ranges = self._ranges(start, self.observer)
            module, record = train_with_rounding(start.module, self.plain.module, ranges, self.tuning.calibration)
            self._qat[name] = record
            self._made[name] = self._source(name, module)
        return _there(self._made[name]), self._qat[name]

    @cached_property
    def sensitive(self) -> list[tuple[WeightedLayer, float]]:
        """Layers with the SQNR (dB) of the logits when that layer alone is rounded, worst first."""
        ranges = self._ranges(self.plain, self.observer)
        layers = {layer.node: layer for layer in layers_of(self.plain.module)}
        found = sensitivities(self.plain.module, ranges, self.held_in[:_RANKED_ON])
        return [(layers[node], value) for node, value in found.items()]

    def layers_like(self, start: Source, wanted: list[WeightedLayer]) -> tuple[WeightedLayer, ...]:
        """The same layers with the weights that they have in `start`."""
        names = {layer.name for layer in wanted}
        return tuple(layer for layer in layers_of(start.module) if layer.name in names)

    @cached_property
    def _float_logits(self) -> NDArray[np.float32]:
        return np.asarray(logits_of(self.plain.module, self.held_in).numpy())

    def _ranges(self, start: Source, observer: str) -> dict[str, Range]:
        if start.work.name not in self._histograms:
            self._histograms[start.work.name] = histograms_of(start.module, self.held_in)
        return {name: OBSERVERS[observer](one) for name, one in self._histograms[start.work.name].items()}

    def _source(self, name: str, module: GraphModule) -> Source:
        work = self.source.work / name
        work.mkdir(exist_ok=True)
        return replace(self.source, module=module, work=work)


def _there(source: Source | None) -> Source:
    assert source is not None
    return source
