"""The networks that the ladder starts from, each made once per export and shared by all engines."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import GraphModule

from edgecnn.formats import Source
from edgecnn.quantize.constant import lift_constants
from edgecnn.quantize.flat import WeightedLayer, flatten, layers_of
from edgecnn.quantize.grid import Grid
from edgecnn.quantize.ladder import Attempt, TuningSet
from edgecnn.quantize.observe import FOR_ALL, OBSERVERS, Histogram, Range
from edgecnn.quantize.repair import equalise, train_with_rounding
from edgecnn.quantize.rounding import correct_bias, round_by_data
from edgecnn.quantize.simulate import (
    better_observers,
    histograms_of,
    logits_of,
    run_simulated,
    sensitivities,
    simulated,
    sqnr,
    usual_observers,
)

_HELD_IN = 48
"""Calibration images that simulations run on."""
_RANKED_ON, _OF_PIXELS = 16, 160 * 160
"""Images that single tensors and layers are judged on; half as many where they have more pixels than that."""
_SAME = 1e-3
"""Largest logit error, relative to their scale, of a network that shall answer the same in float."""


class Networks:
    """As trained (flat), equalised, bias-corrected, trained with rounding; observers and layers by simulated SQNR."""

    def __init__(self, source: Source, tuning: TuningSet) -> None:
        self.source = source
        self.tuning = tuning
        self._histograms: dict[str, Mapping[str, Histogram]] = {}
        self._made: dict[tuple[str, tuple[str, ...]], Source] = {}
        self._rounded: dict[str, dict[str, Tensor]] = {}
        self._sensitive: dict[str, list[tuple[WeightedLayer, float]]] = {}
        self.training: Mapping[str, int | float] | None = None
        """The record of quantisation-aware training, once there was any."""

    def with_io(self, io: Literal["uint8", "int8"]) -> Networks:
        """The same networks for a file that takes other pixels."""
        if io == self.source.io:
            return self
        other = copy.copy(self)
        other.source = replace(self.source, io=io)
        other._made = {key: replace(source, io=io) for key, source in self._made.items()}
        for name in ("plain", "equalised"):
            if (source := self.__dict__.get(name)) is not None:
                other.__dict__[name] = replace(source, io=io)
        return other

    @cached_property
    def plain(self) -> Source:
        """As trained, flat, BatchNorm folded, no constant channel lost among larger ones."""
        flat = flatten(self.source.module, self.source.height, self.source.width)
        return self._source("flat", lift_constants(flat, self.held_in))

    @cached_property
    def held_in(self) -> NDArray[np.uint8]:
        """Calibration images that observers are chosen on."""
        return self.tuning.calibration[:: max(1, len(self.tuning.calibration) // _HELD_IN)][:_HELD_IN]

    @cached_property
    def observers(self) -> dict[str, float]:
        """Each observer's SQNR (dB) of the logits of `held_in`, the plain network's activations rounded, best first."""
        found = {name: self.simulated_sqnr(self.plain, name) for name in FOR_ALL}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @cached_property
    def observer(self) -> str:
        """The best one."""
        return next(iter(self.observers))

    @cached_property
    def exceptions(self) -> dict[str, str]:
        """Nodes of the noisiest tensors to the observer that is better for them than `observer`."""
        return better_observers(self.plain.module, self._observed(self.plain), self.observer, self._ranked_on)

    def attempt(
        self,
        name: str,
        grid: Grid,
        source: Source,
        start: Source | None = None,
        in_float: tuple[WeightedLayer, ...] = (),
    ) -> Attempt:
        """One way to quantise `source`, which was made from `start`, with the chosen observers."""
        seen = self._observed(start or source)
        exceptions = tuple((seen[node], observer) for node, observer in self.exceptions.items())
        return Attempt(name, source, self.observer, in_float, exceptions, start, grid)

    def simulated_sqnr(self, start: Source, observer: str) -> float:
        """SQNR (dB) of the logits of `held_in` against the trained network's, its activations rounded.

        Weights are not: rounded by the data they add little, rounded to the nearest they would hide what equalising
        does to the activations.
        """
        rounded = run_simulated(simulated(start.module, self._ranges(start, observer), grid=None), self.held_in)
        return sqnr(self._float_logits, rounded.numpy())

    @cached_property
    def equalised(self) -> Source | None:
        """Cross-layer equalised; None where there is no pair to equalise or float answers would change."""
        module = equalise(self.plain.module, self.tuning.calibration)
        if module is None:
            return None
        error = np.abs(logits_of(module, self.held_in).numpy() - self._float_logits).max() / self._float_logits.std()
        return self._source("equalised", module) if error <= _SAME else None

    def corrected(self, start: Source, grid: Grid, in_float: Collection[str] = ()) -> Source:
        """`start` with weights rounded by the data and biases corrected for it, but for the nodes in `in_float`."""
        key = f"{start.work.name}-corrected-{grid}", tuple(sorted(in_float))
        if key[0] not in self._rounded:
            self._rounded[key[0]] = round_by_data(start.module, self.held_in, grid)
        if key not in self._made:
            name = f"{key[0]}-{len(self._made)}"
            module = correct_bias(start.module, self.held_in, in_float, self._rounded[key[0]], grid)
            self._made[key] = self._source(name, module)
        return self._made[key]

    def trained(self, source: Source, start: Source, grid: Grid) -> Source:
        """`source`, which was made from `start`, after short quantisation-aware training."""
        key = f"{source.work.name}-trained", ()
        if key not in self._made:
            ranges, images = self.chosen_ranges(start), self.tuning.calibration
            images = images if self.tuning.training is None else self.tuning.training
            module, record = train_with_rounding(source.module, self.plain.module, ranges, images, grid)
            self.training = record
            self._made[key] = self._source(key[0], module)
        return self._made[key]

    def sensitive(self, source: Source, start: Source, grid: Grid) -> list[tuple[WeightedLayer, float]]:
        """Layers of `source`, which was made from `start`, with the SQNR (dB) of the logits when that layer alone is
        rounded, worst first.
        """
        name = source.work.name
        if name not in self._sensitive:
            layers = {layer.node: layer for layer in layers_of(source.module)}
            found = sensitivities(source.module, self.chosen_ranges(start), self._ranked_on, grid)
            self._sensitive[name] = [(layers[node], value) for node, value in found.items()]
        return self._sensitive[name]

    def chosen_ranges(self, start: Source) -> dict[str, Range]:
        """Name of each rounded tensor to the range that its observer gives it."""
        seen = self._observed(start)
        return {name: OBSERVERS[self.exceptions.get(name, self.observer)](one) for name, one in seen.items()}

    @cached_property
    def _float_logits(self) -> NDArray[np.float32]:
        return np.asarray(logits_of(self.plain.module, self.held_in).numpy())

    @property
    def _ranked_on(self) -> NDArray[np.uint8]:
        few = self.source.height * self.source.width > _OF_PIXELS
        return self.held_in[: _RANKED_ON // 2 if few else _RANKED_ON]

    def _observed(self, start: Source) -> Mapping[str, Histogram]:
        """Of all calibration images, as the engines observe them."""
        if start.work.name not in self._histograms:
            self._histograms[start.work.name] = histograms_of(start.module, self.tuning.calibration)
        return self._histograms[start.work.name]

    def _ranges(self, start: Source, observer: str) -> dict[str, Range]:
        seen = self._observed(start)
        usual = usual_observers(start.module, seen.keys(), observer)
        return {name: OBSERVERS[usual[name]](one) for name, one in seen.items()}

    def _source(self, name: str, module: GraphModule) -> Source:
        work = self.source.work / name
        work.mkdir(exist_ok=True)
        return replace(self.source, module=module, work=work, twin=None if name == "flat" else self.plain)
