"""Numbers to text: a share always with its count, a latency with three digits, nothing known as a dash."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from fractions import Fraction

from edgecnn.intervals import clopper_pearson
from edgecnn.mistakes import Share
from edgecnn.numbers import plain, rounded, unlike
from edgecnn.profiles import Budget

UNKNOWN = "–"
_SPACE = "\N{NO-BREAK SPACE}"
_MINUS = "\N{MINUS SIGN}"
_MIB = 1024 * 1024


def milliseconds(value: float | None, budget: Budget | None = None) -> str:
    """Three significant digits, without the unit; four where it is held against a budget, and as many more as tell it
    from that: the same digits in each sentence, table and chart, and in the words of the bench."""
    if value is None:
        return UNKNOWN
    return _three_digits(value) if budget is None else unlike(value, budget.milliseconds)


def mebibytes(size: int | None) -> str:
    """Bytes to MiB, without the unit."""
    if size is None:
        return UNKNOWN
    return "< 0.01" if 0 < size < 0.01 * _MIB else _three_digits(size / _MIB)


def percent(share: float | None) -> str:
    """0.9561 to 95.6 %; only a share of exactly 1 is shown as 100, and only one of exactly 0 as 0."""
    if share is None:
        return UNKNOWN
    value = 100 * share
    if 99.95 <= value < 100:
        return f"{value:.2f}".replace("100.00", "99.99") + f"{_SPACE}%"
    if 0 < value < 0.05:
        return f"{max(value, 0.01):.2f}{_SPACE}%"
    return f"{value:.0f}{_SPACE}%" if value in (0, 100) else f"{value:.1f}{_SPACE}%"


def between(low: float, high: float) -> str:
    """Two shares to [92.9, 97.4] (percent)."""
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def proportion(share: float, images: int) -> str:
    """A share of images with its count and its 95 % interval (Clopper and Pearson)."""
    count = round(share * images)
    return f"{percent(share)} ({count:,}/{images:,}) {between(*clopper_pearson(count, images))}"


def points(value: float) -> str:
    """Percentage points, signed, with a true minus; zero has no sign."""
    return signed(value, 1)


def signed(value: float, digits: int) -> str:
    """A signed number with a true minus."""
    text = f"{value:+.{digits}f}".replace("-", _MINUS)
    return text[1:] if float(f"{value:.{digits}f}") == 0 else text


def probability(value: float) -> str:
    """A p-value: two digits, tiny ones as a limit."""
    return "< 0.001" if value < 0.001 else f"{value:.2g}" if value < 1 else "1"


def millions(value: int) -> str:
    """A count in millions, without the unit."""
    if value >= 1e5:
        return f"{value / 1e6:,.1f}"
    return f"{value / 1e6:.3f}" if value >= 1e3 or not value else rounded(value / 1e6, 2)


def moment(iso: str) -> str:
    """ISO 8601 to 2026-11-20 23:40 UTC; as it came where it is not one."""
    try:
        return f"{datetime.fromisoformat(iso).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return iso


def counted(number: int, word: str) -> str:
    """1 image, 2 images."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def of_parts(percentile: float) -> str:
    """99 to '99 of 100 parts', 99.9 to '999 of 1,000 parts'."""
    share, of = Fraction(plain(percentile)) / 100, 100
    while (share * of).denominator != 1:
        of *= 10
    return f"{int(share * of):,} of {of:,} parts"


def count_of(share: Share) -> str:
    """7 of 172."""
    return f"{share.count:,} of {share.of:,}"


def limit_words(points: float) -> str:
    """1 point, 0.5 points."""
    return f"{points:g} point" + ("" if points == 1 else "s")


def _three_digits(value: float) -> str:
    if value >= 100 or not value:
        return f"{value:,.0f}"
    digits = 2 - math.floor(math.log10(float(f"{value:.2e}")))
    return f"{value:.{digits}f}"
