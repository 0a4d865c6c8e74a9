"""How often the intervals of missed defects, false alarms and what is lost hold the truth, by simulation.

    python benchmarks/shares.py [--runs 4000] [--jobs 2]    # writes benchmarks/results/shares.jsonl

Decisions on drawn test sets go through the real `share_by_part` and `difference_by_part`. Streams are not well-behaved:
several exposures of a part that are wrong together, parts of very different size, a few parts that hold all mistakes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.intervals import clopper_pearson, difference_by_part, share_by_part

RESULTS = Path(__file__).parent / "results" / "shares.jsonl"
CLASSES = 3
"""The first is the good one."""


@dataclass(frozen=True)
class Stream:
    """How test images and mistakes come."""

    name: str
    parts: int
    """Of each class."""
    exposures: tuple[int, ...] = (1,)
    """Images of a part, drawn from these."""
    missed: float = 0.04
    """True share of defects that are called good."""
    together: float = 0.0
    """Correlation of the mistakes on one part's images."""
    known: bool = True
    """Whether the bundle knows which images show one part."""


def _streams() -> Iterator[Stream]:
    for missed in (0.01, 0.04, 0.2):
        yield Stream("independent images", 80, missed=missed)
        yield Stream("six exposures of a part", 40, (6,), missed, together=0.9)
        yield Stream("parts of 1 to 20 images", 60, (1, 1, 2, 3, 8, 20), missed, together=0.7)
    yield Stream("few parts", 8, (6,), 0.1, together=0.9)
    yield Stream("large set", 600, missed=0.04)
    yield Stream("six exposures, parts not told", 40, (6,), 0.04, together=0.9, known=False)


def _wrong(stream: Stream, groups: NDArray[np.int64], share: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Which images are decided wrongly: a part's own share is drawn around the true one (beta-binomial)."""
    if not stream.together:
        return random.random(len(groups)) < share
    worth = 1 / stream.together - 1
    own = random.beta(share * worth, (1 - share) * worth, groups.max() + 1)
    return random.random(len(groups)) < own[groups]


def _once(stream: Stream, number: int) -> dict[str, tuple[bool, bool]]:
    """For each figure: whether its upper end is at least the truth, and whether the interval holds it.

    The loss is of a variant that makes eight tenths of the mistakes, against one that makes one of a hundred others.
    """
    random = np.random.default_rng(number)
    sizes = random.choice(stream.exposures, CLASSES * stream.parts)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.repeat(np.arange(len(sizes)) % CLASSES, sizes)
    wrong = _wrong(stream, groups, stream.missed, random)
    parts = [str(part) for part in groups] if stream.known else [str(image) for image in range(len(labels))]
    found = {}
    for name, among in (("missed", labels != 0), ("false alarms", labels == 0)):
        low, high = share_by_part(wrong[among].tolist(), [parts[image] for image in np.flatnonzero(among)])
        found[name] = high >= stream.missed, low <= stream.missed <= high
    worse, better = wrong & (random.random(len(wrong)) < 0.8), ~wrong & _wrong(stream, groups, 0.01, random)
    low, high = difference_by_part((~better).tolist(), (~worse).tolist(), parts)
    truth = 0.8 * stream.missed - 0.01 * (1 - stream.missed)
    return {**found, "loss": (high >= truth, low <= truth <= high)}


def _rates(stream: Stream, runs: int) -> dict[str, object]:
    outcomes = [_once(stream, number) for number in range(runs)]
    rates = {}
    for name in outcomes[0]:
        safe, held = (sum(one[name][place] for one in outcomes) for place in (0, 1))
        low, high = clopper_pearson(held, runs)
        rates[name] = {"safe side": safe / runs, "holds": held / runs, "holds, 95 %": [low, high]}
    return {**asdict(stream), "runs": runs, "rates": rates}


def main() -> None:
    """Simulate each stream and write a line for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    streams = list(_streams())
    with ProcessPoolExecutor(arguments.jobs) as pool, RESULTS.open("w", encoding="utf-8") as out:
        out.write(json.dumps({"date": datetime.now(UTC).date().isoformat(), "promise": 0.95}) + "\n")
        for found in pool.map(_rates, streams, [arguments.runs] * len(streams)):
            out.write(json.dumps(found) + "\n")
            rates = {name: f"{rate['holds']:.3f}/{rate['safe side']:.3f}" for name, rate in found["rates"].items()}  # type: ignore[attr-defined]
            print(f"{found['name']} ({found['missed']}): {rates}", flush=True)


if __name__ == "__main__":
    main()
