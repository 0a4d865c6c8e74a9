"""Times a session from encoded bytes in memory to a decision, stage by stage, one unit after the other (batch 1).

Inside the clock: decoding, resizing, the engine, the decision. Outside: reading files, opening the session, warm-up
(which is stored beside the measured units, never mixed with them).
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from pydantic import Field, model_validator

from edgecnn.bench.waits import ready_between, stops_between, waits
from edgecnn.decide import Decided, decide
from edgecnn.documents import Frozen
from edgecnn.errors import UserError
from edgecnn.executed import Executed
from edgecnn.imaging import Images, Preparer
from edgecnn.runtimes import Logits, Session

DEFAULT_SAMPLES = 2300
"""Five times the least that a bound of p99 takes: enough for slow units in unseen bursts of up to 5."""
STAGES = ("decode", "prepare", "infer", "decide")
"""In the order in which they happen."""

Clock: TypeAlias = Callable[[], int]
"""Nanoseconds since some moment."""


class MeasurePlan(Frozen):
    """How a session is measured."""

    samples: int = Field(default=DEFAULT_SAMPLES, ge=1)
    window: int = Field(default=20, ge=1)
    """Units in a window of the warm-up; rounded up to whole passes over the images, where those are few."""
    windows: int = Field(default=3, ge=2)
    """Windows in a row whose medians must agree. Fewer units than these windows hold are never taken as warm."""
    agreement: float = Field(default=0.05, gt=0)
    """The largest of these medians may exceed the smallest by this share of it."""
    warmup_seconds: float = Field(default=20.0, ge=0)
    """The warm-up ends here, steady or not."""


class Stages(Frozen):
    """Nanoseconds that each unit spent in each stage; the i-th of every tuple is the i-th unit."""

    decode: tuple[int, ...]
    """Encoded bytes to reduced pixels."""
    prepare: tuple[int, ...]
    """Reduced pixels to the network's input, with its batch axis."""
    infer: tuple[int, ...]
    """The engine: uint8 pixels to float32 logits. Mean and scale are inside the graph."""
    decide: tuple[int, ...]
    """Softmax and largest."""

    @model_validator(mode="after")
    def _as_many_in_each(self) -> Stages:
        if len({len(getattr(self, stage)) for stage in STAGES}) != 1:
            raise ValueError("the stages do not have the same number of units")
        return self

    @property
    def total(self) -> tuple[int, ...]:
        """From encoded bytes to decision: the sum of the stages, whose borders are the same clock readings."""
        return tuple(map(sum, zip(self.decode, self.prepare, self.infer, self.decide, strict=True)))


class Samples(Frozen):
    """What was measured, raw."""

    warmup: Stages
    steady: bool
    """Whether the warm-up ended because latencies were steady, not because its time was up."""
    measured: Stages
    decisions: tuple[tuple[int, float], ...]
    """(class index, probability) of the first measured units, at most one for each image, in the images' order."""
    wall_ns: int
    """From the first measured unit's start to the last one's end."""
    cpu_ns: int
    """Processor time that the whole process, all threads, took meanwhile."""
    os_threads: int | None
    """Threads that the process had at the end, those that only wait included."""
    ready_ns: int | None = None
    """Time, all threads together, that they were ready to run and had no processor; None where the system does not
    tell, as in runs of an older edgecnn."""
    quota_stops: int | None = None
    """Times that its cgroup, or one above it, was stopped meanwhile for having used up its processor quota."""

    @property
    def threads_used(self) -> float:
        """Processor seconds per second: how many threads really worked, on average."""
        return self.cpu_ns / self.wall_ns if self.wall_ns else 0.0


class NullSession(Session):
    """An engine that does nothing: measured like the others, it shows what decoding, resizing and the clock cost."""

    def __init__(self, classes: int) -> None:
        self._logits: Logits = np.zeros((1, classes), np.float32)

    def run(self, images: Images) -> Logits:
        """uint8 (1, h, w, 3) to zeros (1, classes)."""
        return self._logits

    def executed(self) -> Executed:
        """Nothing ran."""
        return Executed(layers=())

    def close(self) -> None:
        """Nothing is held."""


def measure(
    session: Session,
    preparer: Preparer,
    encoded: Sequence[bytes],
    plan: MeasurePlan,
    decide: Callable[[Logits], Decided] = decide,
    clock: Clock = time.perf_counter_ns,
    cpu_clock: Clock = time.process_time_ns,
) -> Samples:
    """Warm up until steady, then time `plan.samples` units, cycling through the encoded images.

    Python's cyclic garbage collector is off meanwhile. Raises UserError without images, BadImage for a bad one.
    """
    if not encoded:
        raise UserError("no images to measure with: give at least one")

    def unit(number: int) -> _Unit:
        return _time_unit(session, preparer, encoded[number % len(encoded)], decide, clock)

    with _collector_off():
        warmup, steady = _warm_up(unit, len(encoded), plan)
        before, cpu_start = waits(), cpu_clock()
        measured = [unit(number) for number in range(plan.samples)]
        cpu_ns, after = cpu_clock() - cpu_start, waits()
    return Samples(
        warmup=_stages(warmup),
        steady=steady,
        measured=_stages(measured),
        decisions=tuple((item.decision.class_index, item.decision.probability) for item in measured[: len(encoded)]),
        wall_ns=measured[-1].end - measured[0].start,
        cpu_ns=cpu_ns,
        os_threads=_os_threads(),
        ready_ns=ready_between(before, after),
        quota_stops=stops_between(before, after),
    )


class _Unit(NamedTuple):
    start: int
    decoded: int
    prepared: int
    inferred: int
    end: int
    decision: Decided


def _time_unit(
    session: Session, preparer: Preparer, encoded: bytes, decide: Callable[[Logits], Decided], clock: Clock
) -> _Unit:
    start = clock()
    pixels = preparer.decode(encoded)
    decoded = clock()
    images = preparer.fit(pixels)[np.newaxis]
    prepared = clock()
    logits = session.run(images)
    inferred = clock()
    decision = decide(logits)
    return _Unit(start, decoded, prepared, inferred, clock(), decision)


def _warm_up(unit: Callable[[int], _Unit], images: int, plan: MeasurePlan) -> tuple[list[_Unit], bool]:
    """Units until the medians of the last windows agree, or time is up; at least one."""
    window = _window(images, plan.window)
    units: list[_Unit] = []
    medians: list[float] = []
    while True:
        units.append(unit(len(units)))
        if len(units) % window == 0:
            medians.append(statistics.median(item.end - item.start for item in units[-window:]))
            latest = medians[-plan.windows :]
            if len(latest) == plan.windows and max(latest) <= min(latest) * (1 + plan.agreement):
                return units, True
        if units[-1].end - units[0].start >= plan.warmup_seconds * 1e9:
            return units, False


def _window(images: int, least: int) -> int:
    """Whole passes over the images, so that windows hold the same ones; `least` where a pass would take too long."""
    return math.ceil(least / images) * images if images <= 5 * least else least


def _stages(units: Sequence[_Unit]) -> Stages:
    return Stages(
        decode=tuple(unit.decoded - unit.start for unit in units),
        prepare=tuple(unit.prepared - unit.decoded for unit in units),
        infer=tuple(unit.inferred - unit.prepared for unit in units),
        decide=tuple(unit.end - unit.inferred for unit in units),
    )


@contextmanager
def _collector_off() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _os_threads() -> int | None:
    try:
        return sum(1 for _ in Path("/proc/self/task").iterdir())
    except OSError:
        return None
