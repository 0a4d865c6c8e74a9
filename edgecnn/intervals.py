"""Exact binomial intervals and tests, in plain Python: a device needs them and must not need scipy."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache


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


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a proportion (Clopper and Pearson, Biometrika 26, 1934). (0, 1) for no trials."""
    if trials == 0:
        return 0.0, 1.0
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes == 0 else _solve(lambda p: 1.0 - binomial_cdf(successes - 1, trials, p) - tail)
    high = 1.0 if successes == trials else _solve(lambda p: tail - binomial_cdf(successes, trials, p))
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


def paired_difference(only_first: int, only_second: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of (first's accuracy − second's) on the same images, conditional on the discordant ones, which it takes
    as exact binomial: d/n × (2p − 1) with Clopper–Pearson p; where none differ, the bound that zero flips still allow.
    """
    if trials == 0:
        return -1.0, 1.0
    discordant = only_first + only_second
    if discordant == 0:
        bound = clopper_pearson(0, trials, confidence)[1]
        return -bound, bound
    low, high = clopper_pearson(only_first, discordant, confidence)
    return discordant / trials * (2 * low - 1), discordant / trials * (2 * high - 1)


def _solve(rising: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
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
