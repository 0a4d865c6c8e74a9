"""The largest compound-scaled network within a budget of multiply-accumulates, or of latency on this machine."""

from __future__ import annotations

import functools
import math
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn import formats, runtimes
from edgecnn.cost import measure_cost
from edgecnn.errors import UserError
from edgecnn.formats import Source
from edgecnn.models import Deployed, build
from edgecnn.models.scaling import PHI_LIMITS

BASE = "timm:efficientnet_b0"
STEPS_PER_PHI = 20
"""φ is searched in steps of 0.05."""

MAX_EXPORTS = 6
_LATENCY_GAP = 2
"""Steps between a network within a latency budget and one above it that end the search: less is the machine's noise."""
_WARM_UP_RUNS, _RUNS, _SECONDS = 10, 50, 10.0
_CLASSES = 1000
_NEAR = 0.95
"""Share of a latency budget from which a network counts as the largest within it."""
_UNSTEADY = 1.25


@dataclass(frozen=True)
class Timing:
    """How long a network takes, of many runs one after the other."""

    median_ms: float
    p90_ms: float

    @property
    def steady(self) -> bool:
        """False where other work on the machine shows."""
        return self.p90_ms <= _UNSTEADY * self.median_ms


@dataclass(frozen=True)
class Scaled:
    """A compound-scaled network."""

    name: str
    """As --model takes it."""
    phi: float
    size: int
    """Input side in pixels."""
    params: int
    """With a head for 1,000 classes."""
    macs: int


@dataclass(frozen=True)
class Searched:
    """The largest network within a latency budget, with all that was measured on the way."""

    best: Scaled
    timing: Timing
    """Of the best."""
    measured: tuple[tuple[float, Timing], ...]
    """All, by φ."""


def scaled(phi: float, base: str = BASE) -> Scaled:
    """The base network at φ, really built and counted. UserError for a base that has no depth multiplier."""
    return _scaled(round(phi, 4) + 0.0, base)


def largest_within(max_macs: int, base: str = BASE) -> Scaled:
    """The network of the largest φ (in steps of 0.05) with at most so many multiply-accumulates.

    They do not fall as φ rises, so the range is halved until one step is left. UserError where even the smallest
    network has more.
    """
    low, high = (round(limit * STEPS_PER_PHI) for limit in PHI_LIMITS)
    # MACs are about base · 2^φ: begin around that, since the largest networks take long to build.
    guess = round(math.log2(max_macs / scaled(0.0, base).macs) * STEPS_PER_PHI)
    within = _first(range(max(low, min(high, guess)), low - 1, -STEPS_PER_PHI), base, lambda macs: macs <= max_macs)
    if within is None:
        within = low
        smallest = scaled(low / STEPS_PER_PHI, base)
        if smallest.macs > max_macs:
            raise UserError(
                f"--max-macs: {max_macs:,} is less than the {smallest.macs:,} of {smallest.name}, the smallest: "
                "allow more, or choose another --base"
            )
    above = _first(range(within + 1, high + 1, STEPS_PER_PHI), base, lambda macs: macs > max_macs)
    return _bisect(within, high + 1 if above is None else above, max_macs, base)


def largest_within_latency(
    budget_ms: float, base: str = BASE, timing_of: Callable[[str], Timing] | None = None
) -> Searched:
    """The network of the largest φ whose median latency here is within budget; `timing_of` measures one by name.

    Latency grows about geometrically with φ: a line through the logarithms proposes the next φ, every answer is
    measured, and at most MAX_EXPORTS networks are. UserError where even the smallest network takes longer.
    """
    measure = timing_of or time_network
    measured: dict[int, Timing] = {}
    step: int | None = -2 * STEPS_PER_PHI
    while step is not None and len(measured) < MAX_EXPORTS:
        measured[step] = measure(scaled(step / STEPS_PER_PHI, base).name)
        step = _next_step({step: timing.median_ms for step, timing in measured.items()}, budget_ms)
    fitting = [step for step, timing in measured.items() if timing.median_ms <= budget_ms]
    if not fitting:
        smallest = min(measured)
        raise UserError(
            f"--budget: {budget_ms:g} ms is not met by the {len(measured)} networks tried, the smallest "
            f"φ {smallest / STEPS_PER_PHI:g} with {measured[smallest].median_ms:.2f} ms: "
            "allow more, or choose another --base"
        )
    best = max(fitting)
    tried = tuple((step / STEPS_PER_PHI, measured[step]) for step in sorted(measured))
    return Searched(scaled(best / STEPS_PER_PHI, base), measured[best], tried)


def time_network(name: str) -> Timing:
    """Latency of a network by name in ONNX Runtime, fp32, one thread, batch 1; random weights.

    Exported as `edgecnn export` does it: uint8 pixels in, normalisation inside the clock, decoding not.
    """
    built = build(name, _CLASSES, "none")
    side = built.preprocess.height
    with tempfile.TemporaryDirectory() as folder:
        source = Source(Deployed(built.module, built.preprocess), side, side, Path(folder))
        converted = formats.convert("onnx", source, "fp32", Path(folder) / "out")
        images = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
        with runtimes.open_file(Path(folder) / "out" / converted.files[0], "onnxruntime", "fp32", 1) as session:
            latencies = _time_runs(lambda: session.run(images))
    return Timing(statistics.median(latencies), statistics.quantiles(latencies, n=10)[-1])


def parse_latency(text: str) -> float:
    """`30ms` to milliseconds. UserError where it is anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*ms", text.strip())
    if not match or float(match[1]) <= 0:
        raise UserError(
            f"--budget: {text!r} is not a median latency such as 30ms (a percentile, 30ms@p99, is for `edgecnn bench`)"
        )
    return float(match[1])


@functools.lru_cache(maxsize=256)
def _scaled(phi: float, base: str) -> Scaled:
    built = build(f"{base}@phi={phi:g}", _CLASSES, "none")
    cost = measure_cost(built.module, built.preprocess.height, built.preprocess.width)
    return Scaled(built.name, phi, built.preprocess.height, cost.params, cost.macs)


def _first(steps: range, base: str, holds: Callable[[int], bool]) -> int | None:
    return next((step for step in steps if holds(scaled(step / STEPS_PER_PHI, base).macs)), None)


def _bisect(within: int, above: int, max_macs: int, base: str) -> Scaled:
    while above - within > 1:
        middle = (within + above) // 2
        if scaled(middle / STEPS_PER_PHI, base).macs <= max_macs:
            within = middle
        else:
            above = middle
    return scaled(within / STEPS_PER_PHI, base)


def _next_step(measured: dict[int, float], budget_ms: float) -> int | None:
    """The step to measure next; None where the largest network within budget is found."""
    low, high = (round(limit * STEPS_PER_PHI) for limit in PHI_LIMITS)
    within = max((step for step, latency in measured.items() if latency <= budget_ms), default=low - 1)
    above = min((step for step in measured if step > within and measured[step] > budget_ms), default=high + 1)
    if above - within <= _LATENCY_GAP or (within in measured and measured[within] >= _NEAR * budget_ms):
        return None
    steps, margin = sorted(measured), 1
    if within in measured and above in measured:
        # A quarter from either end: a noisy slope must not make the bracket shrink step by step.
        pair, margin = [within, above], max(1, (above - within) // 4)
    else:
        pair = steps[-2:] if within in measured else steps[:2]
    start = min(pair, key=lambda step: abs(math.log(measured[step] / budget_ms)))
    proposed = math.floor(start + math.log(budget_ms / measured[start]) / _slope(measured, pair))
    return max(within + margin, min(above - margin, proposed))


def _slope(measured: dict[int, float], pair: list[int]) -> float:
    """Of ln(latency) by step, through two measurements; what MACs promise where there is one, or noise hides it."""
    expected = math.log(2) / STEPS_PER_PHI
    if len(pair) < 2:
        return expected
    slope = math.log(measured[pair[1]] / measured[pair[0]]) / (pair[1] - pair[0])
    return min(max(slope, expected / 2), expected * 2)


def _time_runs(run: Callable[[], object]) -> list[float]:
    """Milliseconds of each run after the warm-up: 50, or as many (at least 10) as fit into 10 seconds."""
    for _ in range(_WARM_UP_RUNS):
        run()
    latencies: list[float] = []
    began = time.perf_counter()
    while len(latencies) < _RUNS and (len(latencies) < 10 or time.perf_counter() - began < _SECONDS):
        start = time.perf_counter()
        run()
        latencies.append(1000 * (time.perf_counter() - start))
    return latencies
