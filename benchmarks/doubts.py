"""How often a network that is taken in is doubted, rightly and wrongly: the very rule, on drawn decisions.

    python benchmarks/doubts.py [--draws 200] [--case order]

Each case is drawn many times and judged by the functions that `edgecnn export model.onnx` calls (`other_orders`,
`judge`). Replaces these cases' rows in benchmarks/results/doubts.jsonl: the share of draws that were warned at, and the
share in which the stage that is wrong was named.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecnn.blame.doubts import MOST_FOR_OTHERS, MOST_IMAGES, Other, judge, other_orders

RESULTS = Path(__file__).parent / "results" / "doubts.jsonl"
READINGS = 9
"""Other preprocessings that are tried, as of a stretched ImageNet network."""
COSTS = 0.35
"""Share of all images that a wrong preprocessing costs, where it is the mistake."""

Decisions: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Rates:
    """What became of one case."""

    case: str
    classes: int
    each: int
    """Labelled images of each class."""
    top1: float
    """True accuracy of the network, read rightly."""
    draws: int
    warned: float
    named: float
    """Warned at, with the stage that is wrong named first."""


@dataclass(frozen=True)
class Draw:
    """One network on one set of images."""

    decided: Decisions
    others: list[Decisions]
    stage: str | None
    """What is wrong, in the words of a doubt; None: nothing."""


def rates(case: str, *, classes: int, each: int, top1: float, draws: int) -> Rates:
    """Draw a case and judge it, many times."""
    rng = np.random.default_rng([draws, classes, each, round(1000 * top1), sorted(CASES).index(case)])
    names = [f"part {chr(97 + i)}" for i in range(classes)]
    labels = np.arange(min(classes * each, MOST_IMAGES)) % classes
    warned = named = 0
    for _ in range(draws):
        draw = CASES[case](labels, classes, top1, rng)
        answers = 5 * np.eye(classes, dtype=np.float32)[draw.decided]
        others = [Other(f"reading {i}", "", "", one[:MOST_FOR_OTHERS]) for i, one in enumerate(draw.others)]
        found = judge(labels, draw.decided, others + other_orders(labels, answers, names), names)
        warned += bool(found)
        named += bool(found) and found[0].stage == draw.stage
    return Rates(case, classes, each, top1, draws, warned / draws, named / draws)


def _decisions(labels: Decisions, classes: int, top1: float, rng: np.random.Generator) -> Decisions:
    """Right with that probability; two of three errors go to the next class, which is easily mistaken for it."""
    step = np.where(rng.random(len(labels)) < 2 / 3, 1, rng.integers(1, classes, len(labels)))
    return np.where(rng.random(len(labels)) < top1, labels, (labels + step) % classes)


def _worse(decided: Decisions, classes: int, rng: np.random.Generator) -> Decisions:
    """Another preprocessing of a network that was right: up to half of the decisions are changed."""
    changed = rng.random(len(decided)) < rng.uniform(0, 0.5)
    return np.where(changed, rng.integers(0, classes, len(decided)), decided)


def _right(labels: Decisions, classes: int, top1: float, rng: np.random.Generator) -> Draw:
    decided = _decisions(labels, classes, top1, rng)
    return Draw(decided, [_worse(decided, classes, rng) for _ in range(READINGS)], None)


def _others_as_good(labels: Decisions, classes: int, top1: float, rng: np.random.Generator) -> Draw:
    """The hardest for the rule: every other preprocessing is truly as good, and errs on other images."""
    several = [_decisions(labels, classes, top1, rng) for _ in range(READINGS + 1)]
    return Draw(several[0], several[1:], None)


def _order(labels: Decisions, classes: int, top1: float, rng: np.random.Generator) -> Draw:
    order = np.arange(classes)
    while (order == np.arange(classes)).any():
        order = rng.permutation(classes)
    draw = _right(labels, classes, top1, rng)
    return Draw(order[draw.decided], [order[one] for one in draw.others], "class order")


def _preprocessing(labels: Decisions, classes: int, top1: float, rng: np.random.Generator) -> Draw:
    right = _decisions(labels, classes, top1, rng)
    spoilt = rng.random(len(labels)) < COSTS * classes / (classes - 1)
    decided = np.where(spoilt, rng.integers(0, classes, len(labels)), right)
    others = [_worse(decided, classes, rng) for _ in range(READINGS - 1)]
    return Draw(decided, [right, *others], "reading 0")


def _one_class(labels: Decisions, classes: int, top1: float, rng: np.random.Generator) -> Draw:
    constant = np.full(len(labels), rng.integers(classes))
    return Draw(constant, [constant] * READINGS, "answers")


def _guessing(labels: Decisions, classes: int, top1: float, rng: np.random.Generator) -> Draw:
    several = [rng.integers(0, classes, len(labels)) for _ in range(READINGS + 1)]
    return Draw(several[0], several[1:], "answers")


CASES: dict[str, Callable[[Decisions, int, float, np.random.Generator], Draw]] = {
    "right": _right,
    "right, others as good": _others_as_good,
    "order": _order,
    "preprocessing": _preprocessing,
    "one class": _one_class,
    "guessing": _guessing,
}


def main() -> None:
    """Draw every case; print and store a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--case", action="append", choices=list(CASES), help="Only this one; may be repeated.")
    arguments = parser.parse_args()
    cases = arguments.case or list(CASES)
    rows = []
    for case in cases:
        for classes in (2, 3, 11):
            for each in (5, 14, 40) if classes < 11 else (5, 14):
                for top1 in (0.7, 0.95) if case not in ("one class", "guessing") else (0.95,):
                    row = rates(case, classes=classes, each=each, top1=top1, draws=arguments.draws)
                    print(
                        f"{case}: {classes} × {each}, top-1 {top1:.0%}: warned {row.warned:.1%}, named {row.named:.1%}"
                    )
                    rows.append(json.dumps(asdict(row)))
    kept = RESULTS.read_text().splitlines() if RESULTS.is_file() else []
    every = [row for row in kept if json.loads(row)["case"] not in cases] + rows
    RESULTS.write_text("\n".join(every) + "\n")


if __name__ == "__main__":
    main()
