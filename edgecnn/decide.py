"""From logits to a decision: the largest of them, and its softmax."""

from __future__ import annotations

import math
from typing import NamedTuple

from edgecnn.errors import UserError
from edgecnn.runtimes import Logits


class Decided(NamedTuple):
    """The class that an image is decided to be."""

    class_index: int
    """Into the bundle's classes."""
    probability: float
    """Softmax."""


def decide(logits: Logits) -> Decided:
    """Logits (1, classes) of one image to the class of the largest (the first of equals) and its softmax probability.

    Raises UserError where a logit is not finite: such an output decides nothing.
    """
    scores = logits[0].tolist()
    largest = max(scores)
    weight = math.fsum(math.exp(score - largest) for score in scores) if math.isfinite(largest) else math.nan
    if not math.isfinite(weight):
        raise UserError("the network's output is not finite: verify the artifact before it decides anything")
    return Decided(scores.index(largest), 1.0 / weight)
