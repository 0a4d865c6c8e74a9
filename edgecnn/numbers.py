"""Numbers to text that keeps what they say: no exponents, nothing rounded onto the bound that it is held against."""

from __future__ import annotations

import math
from decimal import Decimal


def plain(value: float) -> str:
    """The shortest text that reads back as the same number: 1000000, 99.99999, 0.00001; never 1e+06."""
    text = format(Decimal(repr(float(value))), "f")
    return text.removesuffix(".0")


def rounded(value: float, digits: int) -> str:
    """So many significant digits, without trailing zeros: 29.97, 12350000."""
    return plain(float(f"{value:.{digits - 1}e}"))


def unlike(value: float, bound: float, digits: int = 4) -> str:
    """At least so many significant digits, and as many more as still tell the number from the bound: 30.00004."""
    texts = (rounded(value, more) for more in range(digits, 17))
    return next((text for text in texts if _side(float(text), bound) == _side(value, bound)), plain(value))


def duration(seconds: float) -> str:
    """A rough length of time for people: 12 s, 23 minutes, 3.8 hours, 4,378 years."""
    units = (("s", 60.0), ("minutes", 60.0), ("hours", 24.0), ("days", 365.25), ("years", math.inf))
    for name, next_larger in units:
        if seconds < 2 * next_larger:
            return f"{seconds:,.0f} {name}" if seconds >= 10 else f"{rounded(seconds, 2)} {name}"
        seconds /= next_larger
    raise AssertionError("a last unit holds everything")


def _side(value: float, bound: float) -> int:
    return (value > bound) - (value < bound)
