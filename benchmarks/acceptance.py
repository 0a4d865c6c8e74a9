"""What acceptance lets pass and what it refuses, by simulation through the real `measure` and `judge`.

    python benchmarks/acceptance.py [--runs 2000] [--jobs 2]    # writes benchmarks/results/acceptance.jsonl

Answers of fp32 and of eight variants to the same labelled images are drawn; what they truly lose is known. Streams are
not well-behaved: errors shared by the variants, six exposures of one part that flip together, rare and many classes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Judged
from edgecnn.judge import Yardstick, judge, measure

RESULTS = Path(__file__).parent / "results" / "acceptance.jsonl"
LIMIT = 1.0
"""Points."""
AT_MOST = 0.05


@dataclass(frozen=True)
class Stream:
    """How images and errors come."""

    name: str
    images: int = 300
    shares: tuple[float, ...] = (0.25, 0.25, 0.5)
    """Of the classes; the last is the good one."""
    accuracy: float = 0.95
    """fp32's."""
    variants: int = 8
    alike: float = 0.0
    """Correlation of what flips between the variants."""
    exposures: int = 1
    """Images of one part, whose flips are correlated by 0.95."""
    parts_known: bool = True


@dataclass(frozen=True)
class Truth:
    """What a variant truly does to an image: chance that fp32's right answer is lost, its wrong one put right."""

    lost: float = 0.0
    gained: float = 0.0
    finds: int | None = None
    """A class of which fp32 is right on every image."""
    also: Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]] | None = None
    """(labels, fp32's decisions, variant's decisions) to the variant's decisions: a certain harm."""


@dataclass(frozen=True)
class Promise:
    """Something that must not happen in more than a share of the runs."""

    name: str
    stream: Stream
    truth: Truth
    broken: Callable[[Sequence[Judged]], bool]
    """Of one run, by the judgements of all variants."""
    at_most: float = AT_MOST
    kept: bool = field(default=True)
    """False: shown for comparison, not promised."""


def answers(promise: Promise, rng: np.random.Generator) -> Iterator[Judged]:
    """The judgements of one run."""
    stream, truth = promise.stream, promise.truth
    count = len(stream.shares)
    parts = np.arange(stream.images) // stream.exposures
    labels = _labels(stream, rng)[parts]
    fp32 = np.where(rng.random(stream.images) < stream.accuracy, labels, (labels + 1) % count)
    fp32 = np.where(labels == truth.finds, labels, fp32)
    yardstick = Yardstick(
        LIMIT, classes=tuple(map(str, range(count))), good_class=str(count - 1), together=stream.variants
    )
    groups = parts if stream.exposures > 1 and stream.parts_known else None
    reference = np.eye(count, dtype=np.float32)[fp32]
    together = rng.standard_normal(stream.images)
    for _ in range(stream.variants):
        chance = _chances(stream, parts, together, rng)
        right = fp32 == labels
        lost = right & (chance < truth.lost / stream.accuracy)
        gained = ~right & (chance < truth.gained / max(1 - stream.accuracy, 1e-9))
        decided = np.where(lost, (labels + 1) % count, np.where(gained, labels, fp32))
        if truth.also is not None:
            decided = truth.also(labels, fp32, decided)
        logits = np.eye(count, dtype=np.float32)[decided]
        yield judge(measure(logits, reference, labels, groups), yardstick, "int8")


def rate(promise: Promise, runs: int, seed: int = 0) -> float:
    """Share of the runs in which a promise is broken."""
    rng = np.random.default_rng(seed)
    return sum(promise.broken(list(answers(promise, rng))) for _ in range(runs)) / runs


def promises() -> list[Promise]:
    """All of them, with the comparison that shows what parts are named for."""
    few, many = Stream("independent"), Stream("100 classes", shares=(0.01,) * 100, images=2000)
    streams = [
        few,
        replace(few, name="variants err alike", alike=0.8),
        replace(few, name="six exposures of a part", images=600, exposures=6),
        replace(few, name="rare classes", shares=(0.01, 0.03, 0.06, 0.9), images=600),
        many,
    ]
    twice = [replace(stream, images=images) for stream in streams for images in (150, 600, 3000)]
    found = [
        Promise("loses 2 x the limit, any of 8 shown within", stream, Truth(0.02 + gained, gained), _any_within)
        for stream in twice
        for gained in (0.0, 0.01)
    ]
    unknown = replace(few, name="six exposures, parts not told", images=600, exposures=6, parts_known=False)
    found.append(Promise(found[0].name, unknown, Truth(0.02), _any_within, kept=False))
    found += [
        Promise("loses nothing, any of 8 refused", replace(stream, images=images), Truth(flips, flips), _any_refused)
        for stream in streams
        for images in (150, 600, 3000)
        for flips in (0.003, 0.01)
    ]
    found.append(Promise("loses nothing, any of 8 refused", unknown, Truth(0.01, 0.01), _any_refused, kept=False))
    alone = replace(few, shares=(0.5, 0.5))
    for stream in (alone, replace(alone, variants=1, name="one variant")):
        found.append(Promise("8 more missed of 150 defects, silent", stream, Truth(also=_miss_eight), _any_silent, 0.0))
        found.append(
            Promise(
                "8 more missed of about 150, 0 before: kept",
                replace(stream, accuracy=1.0),
                Truth(also=_miss_eight),
                lambda judged: not all(one.refused for one in judged),
                0.0,
            )
        )
    for images in (1, 3, 5, 12):
        rare = Stream(f"{images} images of the class", images=600, shares=(0.5, images / 600, 0.5 - images / 600))
        found.append(
            Promise("a rare class is lost, silent", rare, Truth(0.002, 0.002, 1, _lose_class), _any_silent, 0.0)
        )
    for images in (20, 60, 300, 1000):
        stream = replace(few, images=images, accuracy=0.85)
        found.append(Promise("agreement of 80 %, silent", stream, Truth(0.1, 0.1), _any_silent, 0.0))
    return found


def _any_within(judged: Sequence[Judged]) -> bool:
    return any(one.shown == "shown within" for one in judged)


def _any_refused(judged: Sequence[Judged]) -> bool:
    return any(one.refused for one in judged)


def _any_silent(judged: Sequence[Judged]) -> bool:
    """Neither refused nor marked anywhere."""
    return any(one.shown == "shown within" for one in judged)


def _labels(stream: Stream, rng: np.random.Generator) -> NDArray[np.int64]:
    """Of the parts: as many of each class as its share says."""
    parts = -(-stream.images // stream.exposures)
    ends = np.round(np.cumsum(stream.shares) * parts).astype(int)
    return rng.permutation(np.searchsorted(ends, np.arange(parts), side="right")).astype(np.int64)


def _chances(
    stream: Stream, parts: NDArray[np.int64], together: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Uniform in 0..1 for each image, correlated as the stream says (Gaussian copula)."""
    own = rng.standard_normal(stream.images)
    if stream.exposures > 1:
        of_part = rng.standard_normal(parts[-1] + 1)[parts]
        own = np.sqrt(0.95) * of_part + np.sqrt(0.05) * own
    mixed = np.sqrt(stream.alike) * together + np.sqrt(1 - stream.alike) * own
    return _normal_cdf(mixed)


_GRID = np.linspace(-6, 6, 4001)
_CDF = np.array([NormalDist().cdf(float(x)) for x in _GRID])


def _normal_cdf(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.interp(values, _GRID, _CDF)


def _miss_eight(labels: NDArray[np.int64], fp32: NDArray[np.int64], decided: NDArray[np.int64]) -> NDArray[np.int64]:
    """Eight defects that fp32 finds are called good, and as many false alarms are none any more."""
    good = labels.max()
    decided = decided.copy()
    decided[np.flatnonzero((labels != good) & (fp32 != good))[:8]] = good
    decided[np.flatnonzero((labels == good) & (fp32 != good))[:8]] = good
    return decided


def _lose_class(labels: NDArray[np.int64], fp32: NDArray[np.int64], decided: NDArray[np.int64]) -> NDArray[np.int64]:
    """Class 1 is never answered where it is right."""
    return np.where(labels == 1, 0, decided)


def _row(number: int, runs: int) -> dict[str, Any]:
    promise = promises()[number]
    stream, truth = promise.stream, promise.truth
    return {
        "promise": promise.name,
        "stream": stream.name,
        "images": stream.images,
        "classes": len(stream.shares),
        "variants": stream.variants,
        "lost": truth.lost,
        "gained": truth.gained,
        "rate": rate(promise, runs),
        "at_most": promise.at_most if promise.kept else None,
        "runs": runs,
        "date": datetime.now(UTC).date().isoformat(),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: the worst rate of each promise and stream."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault((row["promise"], row["stream"]), []).append(row)
    lines = ["| what | stream | images | runs | rate, at worst | promised at most |", "|---|---|---|---|---|---|"]
    for (promise, stream), found in grouped.items():
        sizes = ", ".join(f"{images:,}" for images in sorted({row["images"] for row in found}))
        limit = "–" if found[0]["at_most"] is None else f"{found[0]['at_most']:.0%}"
        runs, worst = sum(row["runs"] for row in found), max(row["rate"] for row in found)
        lines.append(f"| {promise} | {stream} | {sizes} | {runs:,} | {worst:.1%} | {limit} |")
    return "\n".join(lines)


def main() -> None:
    """Simulate, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="of each promise")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    arguments = parser.parse_args()
    count = len(promises())
    with ProcessPoolExecutor(arguments.jobs) as pool:
        rows = []
        for row in pool.map(_row, range(count), [arguments.runs] * count):
            print(json.dumps(row), flush=True)
            rows.append(row)
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(table(rows))
    broken = [row for row in rows if row["at_most"] is not None and row["rate"] > row["at_most"]]
    print(f"{len(rows)} rows, {len(broken)} broken")
    raise SystemExit(bool(broken))


if __name__ == "__main__":
    main()
