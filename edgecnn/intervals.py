"""Exact binomial intervals and tests, in plain Python: a device needs them and must not need scipy."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import lru_cache
from statistics import NormalDist

_EXACT_UP_TO = 30
"""Lost images; beyond them the score bound is the exact one's equal."""
_MOST_TRIALS = 100_000_000
_FEW_PARTS = 15
"""Whose images differ from the others': too few for the variance between parts."""


def binomial_cdf(successes: int, trials: int, probability: float) -> float:
    """P(X ≤ successes) for X ~ Binomial(trials, probability)."""
    if successes < 0:
        return 0.0
    if successes >= trials:
        return 1.0
    if probability <= 0.0:
        return 1.0
    if probability >= 1.0:
        return 0.0
    return min(1.0, math.fsum(_pmf(k, trials, probability) for k in range(successes + 1)))


def samples_to_bound(percent: float, confidence: float) -> int:
    """Fewest samples of which the largest bounds a percentile: smallest n with (percent / 100)ⁿ ≤ 1 − confidence."""
    # Of the number as it is written: near 100, what is left of a float is mostly its last bit.
    rest = float(100 - Decimal(repr(float(percent)))) / 100
    log = math.log1p(-rest) if rest < 0.5 else math.log(percent) - math.log(100)
    return max(1, math.ceil(math.log1p(-confidence) / log))


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a proportion (Clopper and Pearson, Biometrika 26, 1934). (0, 1) for no trials."""
    if trials == 0:
        return 0.0, 1.0
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes == 0 else _root(lambda p: 1.0 - binomial_cdf(successes - 1, trials, p) - tail)
    high = 1.0 if successes == trials else _root(lambda p: tail - binomial_cdf(successes, trials, p))
    return low, high


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value that two classifiers err equally often on the same images.

    `only_first`, `only_second`: images that just the first, just the second got right (McNemar,
    Psychometrika 12, 1947).
    """
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    return min(1.0, 2.0 * binomial_cdf(min(only_first, only_second), discordant, 0.5))


def paired_difference(
    only_first: float, only_second: float, trials: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of (first's accuracy − second's) on the same images; arguments as of `mcnemar`. (-1, 1) for no trials.

    Tango's score interval (Statistics in Medicine 17, 1998): it stays honest where few images or none differ, unlike
    intervals that take the number of differing images as given.
    """
    if trials == 0:
        return -1.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    estimate = (only_first - only_second) / trials
    low = _root(lambda difference: z - _tango(only_first, only_second, trials, difference), -1.0, estimate)
    high = _root(lambda difference: -z - _tango(only_first, only_second, trials, difference), estimate, 1.0)
    return low, high


def paired_bounds(lost: float, gained: float, trials: float, alpha: float) -> tuple[float, float]:
    """One-sided bounds of (first's accuracy − second's) on the same images, each wrong with chance `alpha` at most.

    `lost`, `gained`: images that just the first, just the second got right; need not be whole where several images
    count as one. Tango's score bounds; where nothing was gained (or lost) and few were lost, also Clopper and Pearson's
    of that alone, which the score falls short of where next to nothing differs. (-1, 1) for no trials.
    """
    return _upper_bound(gained, lost, trials, alpha) * -1, _upper_bound(lost, gained, trials, alpha)


@lru_cache(maxsize=65536)
def _upper_bound(lost: float, gained: float, trials: float, alpha: float) -> float:
    if trials < 1:
        return 1.0
    z = NormalDist().inv_cdf(1 - alpha)
    estimate = (lost - gained) / trials
    high = _root(lambda difference: -z - _tango(lost, gained, trials, difference), estimate, 1.0)
    if gained or lost > _EXACT_UP_TO:
        return high
    count, whole = math.ceil(lost), math.floor(trials)
    exact = 1.0 if count >= whole else _root(lambda p: alpha - binomial_cdf(count, whole, p))
    return max(high, exact)


@lru_cache(maxsize=65536)
def trials_needed(lost: float, gained: float, trials: float, limit: float, alpha: float) -> int | None:
    """So many trials, with the same shares of lost and gained, put the upper `paired_bounds` within `limit`.

    None where no number below a hundred million does: what was lost is the limit or more.
    """
    if trials <= 0 or (lost - gained) / trials >= limit:
        return None

    def enough(n: int) -> bool:
        return _bounded(lost * n / trials, gained * n / trials, n, limit, alpha)

    high = 1
    while not enough(high):
        high *= 2
        if high > _MOST_TRIALS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _bounded(lost: float, gained: float, trials: float, limit: float, alpha: float) -> bool:
    """Whether `_upper_bound` is within a limit that is above the estimate, without looking for the bound."""
    if _tango(lost, gained, trials, limit) > NormalDist().inv_cdf(alpha):
        return False
    exact = not gained and lost <= _EXACT_UP_TO
    return not exact or binomial_cdf(math.ceil(lost), math.floor(trials), limit) <= alpha


def worse_p(worse: int, better: int) -> float:
    """Exact one-sided p-value of so many images worse, so many better, where both are equally likely (sign test)."""
    return 1.0 if worse + better == 0 else min(1.0, binomial_cdf(better, worse + better, 0.5))


def share_by_part(hits: Sequence[bool], parts: Sequence[str], confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a share of images where images of one part are alike: `clopper_pearson` for as many independent
    images as say as much (Korn and Graubard, Survey Methodology 24, 1998). (0, 1) for no images."""
    count = len(hits)
    share = sum(hits) / count if count else 0.0
    independent = share * (1 - share) / count if count else 0.0
    worth = _worth([float(hit) for hit in hits], parts, independent)
    # An even share of whole images on the safe side of the interval's two ends.
    low = clopper_pearson(math.floor(share * worth + 1e-9), worth, confidence)[0]
    high = clopper_pearson(math.ceil(share * worth - 1e-9), worth, confidence)[1]
    return low, high


def difference_by_part(
    first: Sequence[bool], second: Sequence[bool], parts: Sequence[str], confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of (first's accuracy − second's) on the same images where images of one part are alike:
    `paired_difference` for as many independent images as say as much."""
    count = len(first)
    if not count:
        return -1.0, 1.0
    change = [float(one) - float(other) for one, other in zip(first, second, strict=True)]
    lost, gained = change.count(1.0), change.count(-1.0)
    independent = ((lost + gained) / count - ((lost - gained) / count) ** 2) / count
    factor = _worth(change, parts, independent) / count
    return paired_difference(lost * factor, gained * factor, count * factor, confidence)


def _worth(values: Sequence[float], parts: Sequence[str], independent: float) -> int:
    """Independent images that say as much of the mean as these of parts: at most as many as there are images.

    By the variance between parts. Where few parts have such a value, or few are without, the parts that would tell it
    may be missing: then as if all images of a part were the same (Kish, Survey Sampling, 1965: n² / Σ nᵢ²).
    `benchmarks/shares.py` simulates both. Where all values are equal, their variance says nothing either.
    """
    sums: dict[str, list[float]] = defaultdict(list)
    for value, part in zip(values, parts, strict=True):
        sums[part].append(value)
    count, clusters = len(values), len(sums)
    if clusters == count:
        return count
    same = max(1, math.floor(count**2 / sum(len(found) ** 2 for found in sums.values())))
    if independent <= 0 or clusters < 2:
        return same
    mean = sum(values) / count
    spread = sum(sum(value - mean for value in found) ** 2 for found in sums.values())
    variance = spread * clusters / (clusters - 1) / count**2
    # Student's quantile for few parts, relative to the normal one (Cornish and Fisher's expansion).
    z, free = 1.96, clusters - 1
    student = 1 + (z**2 + 1) / (4 * free) + (5 * z**4 + 16 * z**2 + 3) / (96 * free**2)
    worth = max(1, math.floor(count / max(1.0, variance / independent * student**2)))
    having = sum(any(found) for found in sums.values())
    lacking = sum(not all(found) for found in sums.values())
    return min(worth, same) if min(having, lacking) < _FEW_PARTS else worth


def _tango(only_first: float, only_second: float, trials: float, difference: float) -> float:
    """The score of a supposed difference; falls as the difference grows."""
    a = 2 * trials
    b = (2 * trials - only_first + only_second) * difference - only_first - only_second
    c = -only_second * difference * (1 - difference)
    second = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = trials * (2 * second + difference * (1 - difference))
    gap = only_first - only_second - trials * difference
    return gap / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, gap) if gap else 0.0


def _root(rising: Callable[[float], float], low: float = 0.0, high: float = 1.0) -> float:
    for _ in range(60):
        middle = (low + high) / 2
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _pmf(k: int, trials: int, probability: float) -> float:
    return math.exp(_log_choose(trials, k) + k * math.log(probability) + (trials - k) * math.log1p(-probability))


@lru_cache(maxsize=65536)
def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
