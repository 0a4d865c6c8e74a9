"""How often `bench` excuses a machine that could measure, and blames a network for one that could not, by simulation.

    python benchmarks/starved.py [--runs 1000]    # writes benchmarks/results/starved.jsonl

Units of a known processor time are scheduled among other work: a unit runs for a slice, then each busy neighbour does.
Latencies and the time without a processor go through the real `summarize`; excused is a run that is INCONCLUSIVE for
what the machine did, and would not be so otherwise. Budget 30 ms at p99, 2,300 units, one thread.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgecnn.bench import stats
from edgecnn.bench.host import Fingerprint, State
from edgecnn.bench.measure import MeasurePlan, Samples, Stages
from edgecnn.bench.records import BenchImage, Run, Subject
from edgecnn.bench.summary import summarize
from edgecnn.profiles import Budget

RESULTS = Path(__file__).parent / "results" / "starved.jsonl"
BUDGET = Budget(milliseconds=30.0, percentile=99.0)
UNITS, SLICE_MS = 2300, 3.0
OUTCOMES = ("PASS", "FAIL", "INCONCLUSIVE", "excused")
Times = NDArray[np.float64]


@dataclass(frozen=True)
class Machine:
    """A machine, what runs on it, and what must not come more often than in `at_most` of its runs."""

    name: str
    wrong: Literal["excused", "FAIL"]
    at_most: float
    unit_ms: float = 6.0
    neighbours: int = 1
    """Always busy processes on the same processor, while there are any."""
    busy: float = 0.0
    """Share of the time that they are there."""
    spell: float = 20.0
    """Mean number of units that they stay."""
    told: bool = True
    """Whether the system tells waiting from sleeping."""
    quota: float | None = None
    """Processors, in periods of 100 ms."""
    stops_besides: int = 0
    """Stops at a quota that no unit was slow for."""
    governor: str = "performance"


MACHINES = (
    Machine("calm, fast network", "excused", 0.01),
    Machine("calm, slow network", "excused", 0.01, unit_ms=45),
    Machine("a neighbour 1 % of the time, fast", "excused", 0.01, busy=0.01),
    Machine("a neighbour 5 % of the time, fast", "excused", 0.01, busy=0.05),
    Machine("a neighbour half of the time, fast", "excused", 0.01, busy=0.5),
    Machine("a neighbour always, fast", "excused", 0.01, busy=1),
    Machine("a neighbour 1 % of the time, slow", "excused", 0.01, unit_ms=45, busy=0.01),
    Machine("a neighbour 5 % of the time, slow", "excused", 0.1, unit_ms=45, busy=0.05),
    Machine("3 stops at a quota, slow", "excused", 0.01, unit_ms=45, stops_besides=3),
    Machine("8 neighbours on the same processor", "FAIL", 0.0, neighbours=8, busy=1),
    Machine("8 neighbours, the system does not tell", "FAIL", 0.0, neighbours=8, busy=1, told=False),
    Machine("8 neighbours half of the time", "FAIL", 0.0, neighbours=8, busy=0.5, spell=200),
    Machine("8 neighbours a fifth of the time", "FAIL", 0.0, neighbours=8, busy=0.2, spell=50),
    Machine("a quota of half a processor", "FAIL", 0.0, quota=0.5),
    Machine("a quota of half a processor, the system does not tell", "FAIL", 0.0, quota=0.5, told=False),
    Machine("powersave, half the clock", "FAIL", 0.0, unit_ms=32, governor="powersave"),
)


def simulated(machine: Machine, rng: np.random.Generator) -> Run:
    """A run on it."""
    work = machine.unit_ms * rng.lognormal(0, 0.05, UNITS)
    waits = rng.exponential(0.01, UNITS) + _among_neighbours(machine, work, rng)
    stopped, stops = _at_quota(machine, work)
    ready = float((waits + stopped).sum()) if machine.told else None
    return _run(machine, work + waits + stopped, float(work.sum()), ready, stops + machine.stops_besides)


def _among_neighbours(machine: Machine, work: Times, rng: np.random.Generator) -> Times:
    """Waiting of each unit: after each slice of its own, one of every neighbour that is there."""
    there = _spells(machine.busy, machine.spell, rng)
    turns = np.floor(work / SLICE_MS + rng.random(UNITS))
    return np.asarray(there * turns * machine.neighbours * SLICE_MS * rng.uniform(0.9, 1.1, UNITS))


def _spells(share: float, length: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    if share in (0.0, 1.0):
        return np.full(UNITS, bool(share))
    there, state = np.empty(UNITS, bool), rng.random() < share
    leave, come = 1 / length, share / (1 - share) / length
    for unit in range(UNITS):
        there[unit] = state
        state ^= rng.random() < (leave if state else come)
    return there


def _at_quota(machine: Machine, work: Times) -> tuple[Times, int]:
    """Time that each unit was stopped for, and how often in all."""
    if machine.quota is None:
        return np.zeros(UNITS), 0
    allowed = 100 * machine.quota
    used = np.floor(work.cumsum() / allowed)
    stops = np.diff(used, prepend=0.0)
    return stops * (100 - allowed), int(used[-1])


def _run(machine: Machine, latencies_ms: Times, work_ms: float, ready_ms: float | None, stops: int) -> Run:
    nanoseconds = tuple(int(value) for value in latencies_ms * 1e6)
    nothing = (0,) * len(nanoseconds)
    measured = Stages(decode=nothing, prepare=nothing, infer=nanoseconds, decide=nothing)
    state = State(
        load_average=None,
        mhz=None,
        governor=machine.governor,
        temperature_c=None,
        pi_throttled=None,
        thermal_throttles=None,
        quota_throttles=None,
        steal_ticks=None,
        idle_ticks=None,
        total_ticks=None,
        memory_available_bytes=None,
    )
    host = Fingerprint(
        machine="aarch64",
        kernel_machine=None,
        board=None,
        cpu=None,
        cores=4,
        usable_cpus=4.0,
        flags=None,
        memory_bytes=None,
        system="Linux",
        kernel="",
        python="",
        libraries={},
    )
    return Run(
        started="2026-11-30T00:00:00+00:00",
        subject=Subject(bundle="", target="", target_machine="aarch64", variant="onnx-fp32", files={}),
        plan=MeasurePlan(samples=UNITS),
        threads=1,
        images=(BenchImage(name="0", sha256="0" * 64, bytes=1),),
        images_found=1,
        host=host,
        before=state,
        after=state,
        open_ns=0,
        samples=Samples(
            warmup=Stages(decode=(1,), prepare=(0,), infer=(0,), decide=(0,)),
            steady=True,
            measured=measured,
            decisions=((0, 1.0),),
            wall_ns=sum(nanoseconds),
            cpu_ns=int(work_ms * 1e6),
            os_threads=1,
            ready_ns=None if ready_ms is None else int(ready_ms * 1e6),
            quota_stops=stops if machine.told else None,
        ),
        executed=None,
        baseline_rss_bytes=None,
        peak_rss_bytes=None,
    )


def _row(machine: Machine, runs: int) -> dict[str, object]:
    outcomes: list[str] = []
    for number in range(runs):
        run = simulated(machine, np.random.default_rng(number))
        given = summarize(run, BUDGET).verdict
        assert given is not None
        # The same latencies on a machine of which nothing is known.
        bare = stats.verdict(np.asarray(run.samples.measured.total) / 1e6, BUDGET)
        outcomes.append("excused" if given.outcome != bare.outcome else given.outcome)
    rates = {outcome: round(outcomes.count(outcome) / runs, 4) for outcome in OUTCOMES}
    return {
        **asdict(machine),
        **rates,
        "rate": rates[machine.wrong],
        "runs": runs,
        "date": datetime.now(UTC).date().isoformat(),
    }


def main() -> None:
    """Simulate, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="of each machine")
    runs = parser.parse_args().runs
    rows = [_row(machine, runs) for machine in MACHINES]
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print("| machine | PASS | FAIL | INCONCLUSIVE | excused | at most |\n|---|---|---|---|---|---|")
    for row in rows:
        shown = " | ".join(f"{row[outcome]:.1%}" for outcome in OUTCOMES)
        print(f"| {row['name']} | {shown} | {row['at_most']:.0%} {row['wrong']} |")
    broken = [row for row in rows if row["rate"] > row["at_most"]]  # type: ignore[operator]
    print(f"{len(rows)} machines, {len(broken)} broken")
    raise SystemExit(bool(broken))


if __name__ == "__main__":
    main()
