"""The verdict of a latency budget, from order statistics alone: no distribution is assumed, and no mean is taken.

The k-th smallest of n samples is above the p-quantile with probability P(Bin(n, p) ≤ k − 1), whatever the distribution
(David and Nagaraja, Order Statistics, 3rd ed., 2003, section 7.1). The smallest such k that reaches the confidence
gives the upper bound, its mirror image the lower one. What this does assume is that samples are independent and that
the machine does not change while they are taken; `verdict` looks for the ways in which that fails in practice. What
happens more rarely than once in a run, such as a nightly backup, no run can show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Frozen
from edgecnn.intervals import binomial_cdf, mcnemar
from edgecnn.profiles import Budget

Latencies: TypeAlias = Sequence[float] | NDArray[np.float64]
"""Milliseconds, in the order in which they were measured."""
Outcome: TypeAlias = Literal["PASS", "FAIL", "INCONCLUSIVE"]

CONFIDENCE = 0.99
"""Of each bound: a budget that is not met passes in at most 1 % of runs, one that is met fails in at most 1 %."""
EXIT_CODES: dict[Outcome, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}
"""2 is a usage error."""

_MOST_SAMPLES = 100_000
_BLOCKS = 30
_PART_SIGNIFICANCE = 0.01


class Verdict(Frozen):
    """Whether a budget is met. `upper_ms` and `lower_ms` bound the budget's percentile, None for too few samples."""

    outcome: Outcome
    reason: str
    samples: int
    confidence: float
    lower_ms: float | None
    upper_ms: float | None
    more_samples: int | None = None
    """About how many further samples would decide it; None where it is decided, or where more would not help."""

    @property
    def exit_code(self) -> int:
        """PASS 0, FAIL 1, INCONCLUSIVE 3."""
        return EXIT_CODES[self.outcome]


def verdict(
    samples_ms: Latencies, budget: Budget, *, doubts: Sequence[str] = (), confidence: float = CONFIDENCE
) -> Verdict:
    """PASS where the percentile's upper bound is within the budget, FAIL where its lower bound is above it.

    INCONCLUSIVE where the budget lies between the two: the reason says about how many more samples would decide.
    Also INCONCLUSIVE: too few samples, a run whose parts disagree, a trend that would carry the bound across the budget
    within one more run, and any of `doubts` (what the caller knows of the host: throttled, another architecture, …).
    """
    samples = np.asarray(samples_ms, np.float64)
    lower = lower_bound(samples, budget.percentile, confidence)
    upper = upper_bound(samples, budget.percentile, confidence)
    outcome, reason, more = _from_bounds(samples, budget, lower, upper, confidence)
    reasons = list(doubts)
    if outcome != "INCONCLUSIVE":
        drifted = _drift(samples, budget, outcome, lower if outcome == "FAIL" else upper)
        reasons += [drifted] if drifted else []
    if reasons:
        outcome = "INCONCLUSIVE"
    return Verdict(
        outcome=outcome,
        reason="; ".join([*reasons, reason]),
        samples=samples.size,
        confidence=confidence,
        lower_ms=lower,
        upper_ms=upper,
        more_samples=more,
    )


def percentile(samples_ms: Latencies, percent: float) -> float:
    """The smallest sample that at least `percent` % of samples do not exceed: always one that was measured."""
    ordered = np.sort(np.asarray(samples_ms, np.float64))
    if ordered.size == 0:
        raise ValueError("no samples: a percentile of nothing")
    return float(ordered[max(1, math.ceil(round(percent * ordered.size / 100, 9))) - 1])


def upper_bound(samples_ms: Latencies, percent: float, confidence: float = CONFIDENCE) -> float | None:
    """A sample that is at least the true percentile with this confidence; None for fewer than `min_samples`."""
    ordered = np.sort(np.asarray(samples_ms, np.float64))
    rank = upper_rank(ordered.size, percent, confidence)
    return None if rank is None else float(ordered[rank - 1])


def lower_bound(samples_ms: Latencies, percent: float, confidence: float = CONFIDENCE) -> float | None:
    """A sample that is at most the true percentile with this confidence; None where there are too few."""
    ordered = np.sort(np.asarray(samples_ms, np.float64))
    rank = lower_rank(ordered.size, percent, confidence)
    return None if rank is None else float(ordered[rank - 1])


def min_samples(percent: float, confidence: float = CONFIDENCE) -> int:
    """Fewest samples of which the largest bounds the percentile: smallest n with (percent / 100)ⁿ ≤ 1 − confidence."""
    _check(percent, confidence)
    return math.ceil(math.log1p(-confidence) / math.log(percent / 100))


@lru_cache(maxsize=1024)
def upper_rank(samples: int, percent: float, confidence: float = CONFIDENCE) -> int | None:
    """Rank (1 is the smallest) of the sample that is the upper bound: samples − (most overruns that still pass)."""
    _check(percent, confidence)
    over = _last(samples, lambda over: _at_most(over, samples, percent) <= 1 - confidence)
    return None if over is None else samples - over


@lru_cache(maxsize=1024)
def lower_rank(samples: int, percent: float, confidence: float = CONFIDENCE) -> int | None:
    """Rank (1 is the smallest) of the sample that is the lower bound: samples + 1 − (fewest overruns that fail)."""
    _check(percent, confidence)
    # P(at least `over` overruns) ≤ 1 − confidence holds from some number of overruns on.
    below = _last(samples, lambda over: 1 - _at_most(over - 1, samples, percent) > 1 - confidence)
    over = 0 if below is None else below + 1
    return None if over > samples else samples + 1 - over


def _from_bounds(
    samples: NDArray[np.float64], budget: Budget, lower: float | None, upper: float | None, confidence: float
) -> tuple[Outcome, str, int | None]:
    name, needed = f"p{budget.percentile:g}", min_samples(budget.percentile, confidence)
    sure, limit = f"at {100 * confidence:g} % confidence", f"the budget is {budget.milliseconds:g} ms"
    if upper is None:
        so_far = f"; it is at least {lower:.4g} ms so far" if lower is not None else ""
        reason = f"{samples.size} samples are too few to bound {name} {sure} ({needed} needed){so_far}; {limit}"
        return "INCONCLUSIVE", reason, needed - samples.size
    if upper <= budget.milliseconds:
        return "PASS", f"{name} is at most {upper:.4g} ms {sure}; {limit}", None
    if lower is not None and lower > budget.milliseconds:
        return "FAIL", f"{name} is at least {lower:.4g} ms {sure}; {limit}", None
    more = _more_samples(samples.size, int((samples > budget.milliseconds).sum()), budget.percentile, confidence)
    between = f"{name} is between {lower or 0:.4g} and {upper:.4g} ms {sure}; {limit}"
    hint = f"about {more:,} more samples may decide" if more else "too close to the budget for more samples to decide"
    return "INCONCLUSIVE", f"{between}: {hint}", more


@lru_cache(maxsize=1024)
def _more_samples(samples: int, over: int, percent: float, confidence: float) -> int | None:
    """Further samples until a bound clears the budget, if overruns go on at the share seen so far."""
    share, total = over / samples, float(samples)
    towards_pass = share < 1 - percent / 100
    while total < _MOST_SAMPLES:
        total *= 1.1
        size = math.ceil(total)
        overruns = math.ceil(share * size) if towards_pass else math.floor(share * size)
        chance = _at_most(overruns, size, percent) if towards_pass else 1 - _at_most(overruns - 1, size, percent)
        if chance <= 1 - confidence:
            return _two_digits(size - samples)
    return None


def _two_digits(number: int) -> int:
    """Rounded up to two significant digits: an estimate must not look like a count."""
    unit = int(10 ** max(0, math.floor(math.log10(number)) - 1))
    return math.ceil(number / unit) * unit


def _drift(samples: NDArray[np.float64], budget: Budget, outcome: Outcome, bound: float | None) -> str | None:
    """Why a run cannot be trusted to have measured one steady machine, where that would change `outcome`; else None."""
    return _uneven(samples, budget, outcome) or _trend(samples, budget, outcome, bound)


def _uneven(samples: NDArray[np.float64], budget: Budget, outcome: Outcome) -> str | None:
    """A FAIL that one stretch of the run caused: another third alone was within the budget, with too many fewer
    overruns for chance (exact binomial test, corrected for three pairs)."""
    if outcome != "FAIL":
        return None
    thirds = np.array_split(samples, 3)
    overruns = [int((third > budget.milliseconds).sum()) for third in thirds]
    fewest, most = int(np.argmin(overruns)), int(np.argmax(overruns))
    within = overruns[fewest] <= (1 - budget.percentile / 100) * thirds[fewest].size
    if not within or mcnemar(overruns[fewest], overruns[most]) >= _PART_SIGNIFICANCE / 3:
        return None
    counts = ", ".join(str(count) for count in overruns)
    return f"drift: the thirds of the run had {counts} overruns: find what else was running, then measure again"


def _trend(samples: NDArray[np.float64], budget: Budget, outcome: Outcome, bound: float | None) -> str | None:
    """A shift of the median that would carry the bound across the budget within one more run of the same length.

    The run is cut into 30 blocks; it has shifted only where the medians of all of the last ten lie on one side of all
    of the first ten (by chance 1 in 92,378). Noise that lasts less than a block, or that comes and goes, does not.
    """
    if samples.size < _BLOCKS or bound is None:
        return None
    medians = [float(np.median(block)) for block in np.array_split(samples, _BLOCKS)]
    first, last = medians[: _BLOCKS // 3], medians[-_BLOCKS // 3 :]
    if not (min(last) > max(first) or max(last) < min(first)):
        return None
    shift = float(np.median(last) - np.median(first))
    ahead = bound + 1.5 * shift  # first and last third are two thirds of a run apart
    if (outcome == "PASS") == (ahead <= budget.milliseconds):
        return None
    return f"drift: the median moved by {shift:+.4g} ms during the run: let the machine settle, then measure longer"


def _at_most(over: int, samples: int, percent: float) -> float:
    """P(at most `over` of the samples exceed their true percentile)."""
    return binomial_cdf(over, samples, 1 - percent / 100)


def _last(samples: int, holds: Callable[[int], bool]) -> int | None:
    """The largest number from 0 to `samples` for which `holds`, which holds up to some number; None where for none."""
    low, high = -1, samples
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return None if low < 0 else low


def _check(percent: float, confidence: float) -> None:
    if not 0 < percent < 100 or not 0 < confidence < 1:
        raise ValueError(f"percentile {percent} and confidence {confidence} must lie inside 0..100 and 0..1")
