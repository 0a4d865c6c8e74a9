"""The verdict of a latency budget, from order statistics alone: no distribution is assumed, and no mean is taken.

The k-th smallest of n samples is above the p-quantile with probability P(Bin(n, p) ≤ k − 1), whatever the distribution
(David and Nagaraja, Order Statistics, 3rd ed., 2003, section 7.1). The smallest such k that reaches the confidence
gives the upper bound, its mirror image the lower one. What this does assume is that samples are independent and that
the machine does not change while they are taken; `verdict` looks for the ways in which that fails in practice: drift,
and slow units that come in bursts (see `burst_length`), of which n samples say only as much as n / burst independent
ones. What happens more rarely than once in a run, such as a nightly backup, no run can show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecnn.documents import Frozen
from edgecnn.intervals import binomial_cdf, mcnemar, samples_to_bound
from edgecnn.numbers import plain, rounded, unlike
from edgecnn.profiles import BUDGET_CONFIDENCE, Budget

Latencies: TypeAlias = Sequence[float] | NDArray[np.float64]
"""Milliseconds, in the order in which they were measured."""
Outcome: TypeAlias = Literal["PASS", "FAIL", "INCONCLUSIVE"]

CONFIDENCE = BUDGET_CONFIDENCE
"""Of each bound: a budget that is not met passes in about 1 % of runs at most, one that is met fails as rarely.

That holds where slow units are independent, where the run shows their bursts, and for bursts that it does not show of
up to samples / `min_samples` units: 2 in 1,000 samples at p99, 5 in 2,300. A run without a single one of its machine's
longer bursts is no different from a run on a machine that has none, so it passes: where a budget is missed by a hair
with bursts of 5, so do 1 in 7 runs of 1,000 samples.
"""
EXIT_CODES: dict[Outcome, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}
"""2 is a usage error."""

_MOST_SAMPLES = 100_000
_BLOCKS = 30
_PART_SIGNIFICANCE = 0.01
_BURST_SIGNIFICANCE = 0.005
_BURST_SHARE = 3
"""Bursts are sought among the slowest samples: from this many times those that may exceed the percentile …"""
_BURST_STEP = 1.25
"""… down to two, each time fewer by this factor: noise hides a burst where the share is too large."""
_PASSES = 3
"""Fewest passes over the images that tell a slow image from a slow moment."""


class Verdict(Frozen):
    """Whether a budget is met. `upper_ms` and `lower_ms` bound the budget's percentile, None for too few samples.

    With a `burst_length` too few are more: a FAIL may then have no `upper_ms`.
    """

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


class _Bounds(NamedTuple):
    lower: float | None
    upper: float | None
    burst: float


def verdict(
    samples_ms: Latencies,
    budget: Budget,
    *,
    doubts: Sequence[str] = (),
    slowed: Sequence[str] = (),
    images: int = 1,
    confidence: float = CONFIDENCE,
) -> Verdict:
    """PASS where the percentile's upper bound is within the budget, FAIL where its lower bound is above it.

    INCONCLUSIVE where the budget lies between the two: the reason says about how many more samples would decide.
    Also INCONCLUSIVE: too few samples, a run whose parts disagree, a trend that would carry the bound across the budget
    within one more run, and any of `doubts` (what the caller knows of the host: throttled, another architecture, …).
    `slowed`: what the host did that can only have made the run slower (starved, …). It undoes a FAIL, but no PASS: the
    machine left to itself is no slower, so that an upper bound within the budget is one for it too.
    Where slow units come in bursts, the bounds are wider; `images` as of `burst_length`.
    """
    samples = np.asarray(samples_ms, np.float64)
    bounds = _bounds(samples, budget, confidence)
    drifted = _drift(samples, budget, bounds, confidence)
    if drifted is None:
        burst = burst_length(samples, budget.percentile, images)
        bounds = _bounds(samples, budget, confidence, burst)
        drifted = _drift(samples, budget, bounds, confidence)
    outcome = _outcome(samples, budget, bounds, confidence)
    reason, more = _explained(samples, budget, bounds, confidence, more_may_decide=not doubts)
    reasons = [*doubts, *(() if outcome == "PASS" else slowed), *([drifted] if drifted else [])]
    return Verdict(
        outcome="INCONCLUSIVE" if reasons else outcome,
        reason="; ".join([*reasons, reason]),
        samples=samples.size,
        confidence=confidence,
        lower_ms=bounds.lower,
        upper_ms=bounds.upper,
        more_samples=more,
    )


def burst_length(samples_ms: Latencies, percent: float, images: int = 1) -> float:
    """How many units a burst of slow ones covers, as its average unit sees it; 1 where chance may explain the bursts.

    A preemption slows several consecutive units: their overruns are no independent evidence. Among the slowest samples,
    for several shares of them that belong to this percentile, a burst is a run of consecutive ones (Smith and Weissman,
    J. R. Statist. Soc. B 56, 1994), and there are bursts where the runs are too few for chance (exact test: Wald and
    Wolfowitz, Ann. Math. Statist. 11, 1940). The largest length of any share is given.

    Units cycle through `images`: where large ones are neighbours, slow units are as well, in every pass. That is no
    burst, so that bursts must also show after each latency is divided by its image's median. This needs three passes.
    """
    samples = np.asarray(samples_ms, np.float64)
    longest = _longest_burst(samples, percent)
    if longest == 1 or not 1 < images <= samples.size / _PASSES:
        return longest
    return min(longest, _longest_burst(_without_images(samples, images), percent))


def percentile(samples_ms: Latencies, percent: float) -> float:
    """The smallest sample that at least `percent` % of samples do not exceed: always one that was measured."""
    ordered = np.sort(np.asarray(samples_ms, np.float64))
    if ordered.size == 0:
        raise ValueError("no samples: a percentile of nothing")
    return float(ordered[max(1, math.ceil(round(percent * ordered.size / 100, 9))) - 1])


def upper_bound(
    samples_ms: Latencies, percent: float, confidence: float = CONFIDENCE, burst: float = 1.0
) -> float | None:
    """A sample that is at least the true percentile with this confidence; None for fewer than `min_samples` × burst."""
    ordered = np.sort(np.asarray(samples_ms, np.float64))
    rank = upper_rank(ordered.size, percent, confidence, burst)
    return None if rank is None else float(ordered[rank - 1])


def lower_bound(
    samples_ms: Latencies, percent: float, confidence: float = CONFIDENCE, burst: float = 1.0
) -> float | None:
    """A sample that is at most the true percentile with this confidence; None where there are too few."""
    ordered = np.sort(np.asarray(samples_ms, np.float64))
    rank = lower_rank(ordered.size, percent, confidence, burst)
    return None if rank is None else float(ordered[rank - 1])


def min_samples(percent: float, confidence: float = CONFIDENCE) -> int:
    """Fewest samples of which the largest bounds the percentile: smallest n with (percent / 100)ⁿ ≤ 1 − confidence."""
    _check(percent, confidence)
    return samples_to_bound(percent, confidence)


@lru_cache(maxsize=1024)
def upper_rank(samples: int, percent: float, confidence: float = CONFIDENCE, burst: float = 1.0) -> int | None:
    """Rank (1 is the smallest) of the sample that is the upper bound: samples − (most overruns that still pass).

    With overruns in bursts: as many bursts as independent overruns still pass in samples / burst.
    """
    _check(percent, confidence)
    independent = int(samples / burst)
    over = _last(independent, lambda over: _at_most(over, independent, percent) <= 1 - confidence)
    return None if over is None else samples - int(over * burst)


@lru_cache(maxsize=1024)
def lower_rank(samples: int, percent: float, confidence: float = CONFIDENCE, burst: float = 1.0) -> int | None:
    """Rank (1 is the smallest) of the sample that is the lower bound: samples + 1 − (fewest overruns that fail).

    With overruns in bursts: as many bursts as independent overruns fail in samples / burst.
    """
    _check(percent, confidence)
    independent = int(samples / burst)
    # P(at least `over` overruns) ≤ 1 − confidence holds from some number of overruns on.
    below = _last(independent, lambda over: 1 - _at_most(over - 1, independent, percent) > 1 - confidence)
    over = 0 if below is None else below + 1
    return None if over > independent else samples + 1 - math.ceil(over * burst)


def _bounds(samples: NDArray[np.float64], budget: Budget, confidence: float, burst: float = 1.0) -> _Bounds:
    lower = lower_bound(samples, budget.percentile, confidence, burst)
    return _Bounds(lower, upper_bound(samples, budget.percentile, confidence, burst), burst)


def _outcome(samples: NDArray[np.float64], budget: Budget, bounds: _Bounds, confidence: float) -> Outcome:
    if bounds.upper is not None and bounds.upper <= budget.milliseconds:
        return "PASS"
    enough = samples.size >= min_samples(budget.percentile, confidence)
    fails = enough and bounds.lower is not None and bounds.lower > budget.milliseconds
    return "FAIL" if fails else "INCONCLUSIVE"


def _explained(
    samples: NDArray[np.float64], budget: Budget, bounds: _Bounds, confidence: float, more_may_decide: bool
) -> tuple[str, int | None]:
    """What the bounds say, and about how many more samples would decide, where any number would."""
    name, lower, upper = f"p{plain(budget.percentile)}", bounds.lower, bounds.upper
    sure, limit = f"at {100 * confidence:g} % confidence", f"the budget is {plain(budget.milliseconds)} ms"

    def ms(bound: float | None) -> str:
        return f"{unlike(bound or 0.0, budget.milliseconds)} ms"

    outcome = _outcome(samples, budget, bounds, confidence)
    if outcome == "PASS":
        return f"{name} is at most {ms(upper)} {sure}; {limit}", None
    if outcome == "FAIL":
        return f"{name} is at least {ms(lower)} {sure}; {limit}", None
    needed = min_samples(budget.percentile, confidence)
    so_far = f"; it is at least {ms(lower)} so far" if lower is not None else ""
    if samples.size < needed:
        reason = f"{samples.size:,} samples are too few to bound {name} {sure} ({needed:,} needed){so_far}; {limit}"
        return reason, needed - samples.size if more_may_decide else None
    over = int((samples > budget.milliseconds).sum())
    more = _more_samples(samples.size, over, budget.percentile, confidence, bounds.burst)
    hint = f"about {more:,} more samples may decide" if more else "too close to the budget for more samples to decide"
    bursts = f"slow units come in bursts of about {rounded(bounds.burst, 2)}"
    if upper is None:
        too_few = f"{samples.size:,} are too few to bound {name} {sure} ({math.ceil(needed * bounds.burst):,} needed)"
        reason = f"{bursts}, which takes {rounded(bounds.burst, 2)} × as many samples: {too_few}{so_far}"
    else:
        reason = f"{name} is between {ms(lower).removesuffix(' ms')} and {ms(upper)} {sure}"
        reason += f"; {bursts}" if bounds.burst > 1 else ""
    return (f"{reason}; {limit}: {hint}", more) if more_may_decide else (f"{reason}; {limit}", None)


@lru_cache(maxsize=1024)
def _more_samples(samples: int, over: int, percent: float, confidence: float, burst: float) -> int | None:
    """Further samples until a bound clears the budget, if overruns keep the share and bursts seen so far."""
    share, total = over / samples, float(samples)
    towards_pass = share < 1 - percent / 100
    while total < _MOST_SAMPLES * burst:
        total *= 1.1
        size = math.ceil(total / burst)
        overruns = math.ceil(share * size) if towards_pass else math.floor(share * size)
        chance = _at_most(overruns, size, percent) if towards_pass else 1 - _at_most(overruns - 1, size, percent)
        if chance <= 1 - confidence:
            return _two_digits(math.ceil(total) - samples)
    return None


def _two_digits(number: int) -> int:
    """Rounded up to two significant digits: an estimate must not look like a count."""
    unit = int(10 ** max(0, math.floor(math.log10(number)) - 1))
    return math.ceil(number / unit) * unit


def _longest_burst(samples: NDArray[np.float64], percent: float) -> float:
    ordered = np.sort(samples)
    above = [samples > ordered[-slowest - 1] for slowest in _burst_levels(samples.size, percent)]
    return max((_mean_burst(slow) for slow in above), default=1.0)


def _burst_levels(samples: int, percent: float) -> list[int]:
    """How many of the slowest samples to look for bursts in."""
    slowest, levels = min(_BURST_SHARE * (1 - percent / 100), 0.5) * samples, []
    while slowest >= 2:
        levels.append(int(slowest))
        slowest /= _BURST_STEP
    return levels


def _mean_burst(slow: NDArray[np.bool_]) -> float:
    """Mean length of the run of slow samples that a slow sample lies in, over that by chance; 1 for a chance order.

    A mean over slow samples, not over runs: it is the factor by which the variance of the number of slow samples grows
    where bursts are independent of each other (a compound Poisson process: variance / mean = E[length²] / E[length]).
    """
    edges = np.flatnonzero(np.diff(slow, prepend=False, append=False))
    runs, count = np.diff(edges)[::2], int(slow.sum())
    if count < 2 or _fewer_runs(runs.size, count, slow.size) > _BURST_SIGNIFICANCE:
        return 1.0
    share = count / slow.size
    return max(1.0, round(float((runs**2).sum()) / count * (1 - share) / (1 + share), 1))


@lru_cache(maxsize=16384)
def _fewer_runs(runs: int, slow: int, samples: int) -> float:
    """P(at most so many runs of consecutive slow samples, were their order chance): exact, hypergeometric."""
    if runs > slow * (samples - slow + 1) / samples:  # their mean: no need for the sum
        return 1.0
    ways = _log_choose(samples, slow)
    gaps = samples - slow + 1
    logs = (_log_choose(gaps, run) + _log_choose(slow - 1, run - 1) - ways for run in range(1, runs + 1))
    return math.fsum(math.exp(log) for log in logs)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _without_images(samples: NDArray[np.float64], images: int) -> NDArray[np.float64]:
    """Each latency over the median of its image's latencies; the i-th unit is of image i % images."""
    medians = np.array([np.median(samples[image::images]) or 1.0 for image in range(images)])
    return samples / np.resize(medians, samples.size)


def _drift(samples: NDArray[np.float64], budget: Budget, bounds: _Bounds, confidence: float) -> str | None:
    """Why a run cannot be trusted to have measured one steady machine, where that changes the outcome; else None."""
    outcome = _outcome(samples, budget, bounds, confidence)
    if outcome == "INCONCLUSIVE":
        return None
    bound = bounds.lower if outcome == "FAIL" else bounds.upper
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
