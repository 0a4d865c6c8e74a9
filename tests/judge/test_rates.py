"""How often judging errs, by simulation through the real functions; the whole table is `benchmarks/acceptance.py`."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "acceptance.py"
RUNS = 25
SIMULATION = runpy.run_path(str(BENCHMARK))
PROMISED = [promise for promise in SIMULATION["promises"]() if promise.kept and promise.stream.images in (300, 600)]


@pytest.mark.parametrize("promise", PROMISED, ids=lambda one: f"{one.name}-{one.stream.name}-{one.stream.images}")
def test_a_promise_holds(promise: Any) -> None:
    """Of so few runs, a rate of 5 % breaks more than five in one of a thousand series."""
    broken = round(SIMULATION["rate"](promise, RUNS, seed=1) * RUNS)
    assert broken <= (5 if promise.at_most else 0)


def test_the_stored_rates_are_of_these_promises_and_hold() -> None:
    rows = [json.loads(line) for line in SIMULATION["RESULTS"].read_text().splitlines()]
    assert [row["promise"] for row in rows] == [promise.name for promise in SIMULATION["promises"]()]
    assert all(row["rate"] <= row["at_most"] for row in rows if row["at_most"] is not None)


def test_the_simulation_can_find_a_promise_broken() -> None:
    """Parts that are not told: their images pass for independent."""
    (untold,) = (one for one in SIMULATION["promises"]() if not one.kept and "refused" in one.name)
    assert SIMULATION["rate"](untold, RUNS, seed=1) > untold.at_most
