"""Tests of the timing loop, on a clock that only moves when told."""

from __future__ import annotations

import gc
import math

import numpy as np
import pytest

from edgecnn.artifact import Preprocess
from edgecnn.bench.measure import MeasurePlan, NullSession, measure
from edgecnn.decide import decide
from edgecnn.errors import BadImage, UserError
from edgecnn.imaging import Preparer

QUICK = MeasurePlan(samples=10, window=2, windows=2)


def test_each_nanosecond_belongs_to_its_stage(clock, fake_preparer, fake_session) -> None:
    session = fake_session(lambda number: 1000 + number)

    def deciding(logits: np.ndarray):
        clock.advance(50)
        return decide(logits)

    samples = measure(session, fake_preparer, [b"\0", b"\1", b"\2"], QUICK, deciding, clock, clock)
    warm = len(samples.warmup.decode)
    measured = samples.measured
    assert measured.decode == (300,) * 10
    assert measured.prepare == (200,) * 10
    assert measured.infer == tuple(1000 + warm + number for number in range(10))
    assert measured.decide == (50,) * 10
    assert measured.total == tuple(1550 + warm + number for number in range(10))
    assert samples.wall_ns == sum(measured.total)
    assert samples.cpu_ns == samples.wall_ns
    assert samples.threads_used == 1.0


def test_the_engine_gets_a_batch_of_one_and_images_take_turns(clock, fake_preparer, fake_session) -> None:
    session = fake_session(lambda number: 1000)
    samples = measure(session, fake_preparer, [b"\2", b"\0", b"\1"], QUICK, clock=clock, cpu_clock=clock)
    assert set(session.shapes) == {((1, 8, 8, 3), np.dtype(np.uint8))}
    assert [index for index, _ in samples.decisions] == [2, 0, 1]


def test_warm_up_ends_when_windows_agree_and_its_units_are_kept_apart(clock, fake_preparer, fake_session) -> None:
    """Latency falls for 40 units, then stays: three windows of 20 must agree."""
    session = fake_session(lambda number: 100_000 - 2_000 * min(number, 40))
    samples = measure(session, fake_preparer, [b"\0"], MeasurePlan(samples=5), clock=clock, cpu_clock=clock)
    assert samples.steady
    assert len(samples.warmup.infer) == 100
    assert samples.warmup.infer[0] == 100_000
    assert samples.measured.infer == (20_000,) * 5


def test_a_steady_session_still_gets_the_least_warm_up(clock, fake_preparer, fake_session) -> None:
    samples = measure(
        fake_session(lambda n: 1), fake_preparer, [b"\0"], MeasurePlan(samples=5), clock=clock, cpu_clock=clock
    )
    assert len(samples.warmup.infer) == 60


def test_warm_up_that_never_settles_ends_at_its_cap(clock, fake_preparer, fake_session) -> None:
    session = fake_session(lambda number: 10_000_000 * (1 + number // 20 % 2))
    plan = MeasurePlan(samples=5, warmup_seconds=3.0)
    samples = measure(session, fake_preparer, [b"\0"], plan, clock=clock, cpu_clock=clock)
    assert not samples.steady
    assert 3e9 <= sum(samples.warmup.total) < 3.1e9


def test_a_session_slower_than_the_cap_warms_up_once(clock, fake_preparer, fake_session) -> None:
    session = fake_session(lambda number: 60_000_000_000)
    samples = measure(session, fake_preparer, [b"\0"], QUICK, clock=clock, cpu_clock=clock)
    assert len(samples.warmup.total) == 1
    assert not samples.steady


def test_images_of_different_cost_do_not_look_like_a_slow_warm_up(clock, fake_preparer, fake_session) -> None:
    """Windows hold whole passes over seven images, one of which is ten times as slow."""
    session = fake_session(lambda number: 10_000 if number % 7 == 0 else 1_000)
    samples = measure(session, fake_preparer, [b"\0"] * 7, MeasurePlan(samples=7), clock=clock, cpu_clock=clock)
    assert samples.steady
    assert len(samples.warmup.total) == 63


def test_the_collector_is_off_while_measuring_and_back_on_after(clock, fake_preparer, fake_session) -> None:
    seen = []

    def run_ns(number: int) -> int:
        seen.append(gc.isenabled())
        return 1

    measure(fake_session(run_ns), fake_preparer, [b"\0"], QUICK, clock=clock, cpu_clock=clock)
    assert not any(seen)
    assert gc.isenabled()


def test_the_collector_comes_back_after_a_failure_too(clock, fake_session) -> None:
    preparer = Preparer(Preprocess(height=8, width=8))
    with pytest.raises(BadImage):
        measure(fake_session(lambda n: 1), preparer, [b"not an image"], QUICK, clock=clock, cpu_clock=clock)
    assert gc.isenabled()


def test_no_images_are_refused(fake_preparer, fake_session) -> None:
    with pytest.raises(UserError, match="no images"):
        measure(fake_session(lambda n: 1), fake_preparer, [], QUICK)


def test_the_null_session_takes_nothing_and_decides_the_first_class(clock, fake_preparer) -> None:
    samples = measure(NullSession(4), fake_preparer, [b"\0"], QUICK, clock=clock, cpu_clock=clock)
    assert samples.measured.infer == (0,) * 10
    assert samples.measured.total == (500,) * 10
    assert samples.decisions == ((0, 0.25),)


def test_a_decision_is_the_largest_logit_with_its_softmax() -> None:
    decision = decide(np.array([[1.0, 3.0, 2.0]], np.float32))
    assert decision.class_index == 1
    assert decision.probability == pytest.approx(math.exp(3) / (math.exp(1) + math.exp(3) + math.exp(2)))
    assert decide(np.array([[1e4, -1e4]], np.float32)) == (0, 1.0)
    assert decide(np.array([[5.0, 5.0]], np.float32)) == (0, 0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_an_output_that_is_not_finite_decides_nothing(bad: float, place: int) -> None:
    logits = np.zeros((1, 2), np.float32)
    logits[0, place] = bad
    with pytest.raises(UserError, match="not finite"):
        decide(logits)
