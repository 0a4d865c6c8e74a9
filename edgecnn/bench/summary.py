"""What is derived from a raw run: percentiles, bounds, the verdict. Never stored."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgecnn.bench import host, stats
from edgecnn.bench.measure import STAGES
from edgecnn.bench.records import NULL_VARIANT, Run
from edgecnn.bench.stats import Verdict
from edgecnn.documents import Frozen
from edgecnn.executed import Executed
from edgecnn.profiles import Budget
from edgecnn.proof import Proof

_STEAL_WORTH_SAYING = 0.01
_LOAD_WORTH_SAYING = 0.5
_STARVED = 0.1
"""Share of the time without a processor: on an idle machine it is below 0.01."""
_HARDLY_RUNNING = 0.8
"""Share of the time on a processor: on an idle machine it is above 0.95."""
_ELSEWHERE = ("tensorrt", "pytorch")
"""Engines that may wait for a device, asleep."""


class Stage(Frozen):
    """One stage's latencies, in milliseconds."""

    p50_ms: float
    p99_ms: float


class Summary(Frozen):
    """One row: what a run showed. Latencies end to end, in milliseconds, from encoded bytes in memory to decision."""

    variant: str
    runtime: str | None
    precision: str | None
    chosen: bool
    """Whether it is the variant that the bundle says to deploy."""
    budget: Budget
    params: int | None
    macs: int | None
    flops: int | None
    """2 × macs."""
    file_bytes: int | None
    stages: Mapping[str, Stage]
    """decode, prepare, infer, decide. Percentiles of stages do not add up to those of the total."""
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    over_budget: int
    """Units that took longer than the budget's milliseconds."""
    lower_ms: float | None
    """Lower 99 % confidence bound of the budget's percentile."""
    upper_ms: float | None
    """Upper 99 % confidence bound of the budget's percentile; None for too few samples, or too few for their bursts."""
    samples: int
    warmup: int
    """Units of warm-up, not among `samples`."""
    threads: int
    """Asked of the engine."""
    threads_used: float
    """Processor seconds per second."""
    os_threads: int | None
    baseline_rss_bytes: int | None
    peak_rss_bytes: int | None
    open_ms: float
    int8_layers: int | None
    """Layers that the engine really ran in int8; None where it does not say."""
    float_layers: int | None
    int8_share: float | None
    """Of the multiply-accumulates."""
    executed: Executed | None
    """What the engine ran, as it told."""
    proof: Proof | None
    """Whether the variant decides here as where it was made."""
    verdict: Verdict | None
    """Of its latency; None for the null session, which nobody deploys."""
    notes: tuple[str, ...]
    """What to know of this run without its deciding anything."""
    unusable: str | None = None
    """Why the variant must not be deployed, however fast: see `Bundle.unusable`."""


def summarize(run: Run, budget: Budget, chosen: bool = False, unusable: str | None = None) -> Summary:
    """Derive a row from a run. The verdict is INCONCLUSIVE where `doubts` finds something."""
    subject, measured = run.subject, run.samples.measured
    total = np.asarray(measured.total) / 1e6
    ran = run.executed if run.executed and run.executed.layers else None
    judged = stats.verdict(total, budget, doubts=doubts(run), slowed=slowed(run, budget), images=len(run.images))
    return Summary(
        variant=subject.variant,
        runtime=subject.runtime,
        precision=subject.precision,
        chosen=chosen,
        budget=budget,
        params=subject.params,
        macs=subject.macs,
        flops=None if subject.macs is None else 2 * subject.macs,
        file_bytes=subject.file_bytes,
        stages={name: _stage(getattr(measured, name)) for name in STAGES},
        p50_ms=stats.percentile(total, 50),
        p90_ms=stats.percentile(total, 90),
        p99_ms=stats.percentile(total, 99),
        max_ms=float(total.max()),
        over_budget=int((total > budget.milliseconds).sum()),
        lower_ms=judged.lower_ms,
        upper_ms=judged.upper_ms,
        samples=total.size,
        warmup=len(run.samples.warmup.decode),
        threads=run.threads,
        threads_used=run.samples.threads_used,
        os_threads=run.samples.os_threads,
        baseline_rss_bytes=run.baseline_rss_bytes,
        peak_rss_bytes=run.peak_rss_bytes,
        open_ms=run.open_ns / 1e6,
        int8_layers=ran.int8_layers if ran else None,
        float_layers=ran.float_layers if ran else None,
        int8_share=ran.int8_share if ran else None,
        executed=run.executed,
        proof=run.proof,
        verdict=None if subject.variant == NULL_VARIANT else judged,
        notes=(*notes(run), *(slowed(run, budget) if judged.outcome == "PASS" else ())),
        unusable=unusable,
    )


def doubts(run: Run) -> tuple[str, ...]:
    """Why a run says nothing of the target's latency: another architecture, emulation, throttling."""
    found = []
    here, target = run.host.machine, run.subject.target_machine
    if here != target:
        found.append(f"measured on {here}, the target is {target}: run `edgecnn bench` on the target")
    elif run.host.kernel_machine not in (None, here):
        emulated = f"{here} on a {run.host.kernel_machine} kernel"
        found.append(f"measured under emulation ({emulated}): run `edgecnn bench` on the target")
    throttled = host.throttled(run.before, run.after)
    return (*found, throttled) if throttled else tuple(found)


def slowed(run: Run, budget: Budget) -> tuple[str, ...]:
    """What made a run slower than the target is: a FAIL shows nothing then; a PASS stands, and this is noted."""
    told = (_starved(run), _stopped(run, budget), host.slow_clock(run.after), _crowded(run))
    return tuple(found for found in told if found)


def notes(run: Run) -> tuple[str, ...]:
    """What may have disturbed a run or what is odd about it."""
    told = (
        _proof_note,
        _warmup_note,
        _load_note,
        _steal_note,
        _images_note,
        _decision_note,
    )
    engine = (f"engine: {remark}" for remark in (run.executed.remarks if run.executed else ()))
    return tuple(note for note in (*(tell(run) for tell in told), *engine) if note)


def _stage(nanoseconds: tuple[int, ...]) -> Stage:
    milliseconds = np.asarray(nanoseconds) / 1e6
    return Stage(p50_ms=stats.percentile(milliseconds, 50), p99_ms=stats.percentile(milliseconds, 99))


def _proof_note(run: Run) -> str | None:
    proof = run.proof
    return None if proof is None or proof.outcome == "proven" else proof.text


def _warmup_note(run: Run) -> str | None:
    if run.samples.steady:
        return None
    return f"latencies were not steady after {run.plan.warmup_seconds:g} s of warm-up"


def _load_note(run: Run) -> str | None:
    load, cores = run.before.load_average, run.host.cores
    if load is None or cores is None or load[0] <= _LOAD_WORTH_SAYING * cores:
        return None
    return f"load average {load[0]:.1f} on {cores} processors before the run: other work disturbs the tail"


def _steal_note(run: Run) -> str | None:
    share = host.steal_share(run.before, run.after)
    if share is None or not _STEAL_WORTH_SAYING <= share < _STARVED:
        return None
    return f"other virtual machines took {100 * share:.0f} % of the processors' time"


def _starved(run: Run) -> str | None:
    """Other work on the same processors, or a quota that is not seen from here."""
    cure = "stop what else runs there, or give it a processor of its own, then measure again"
    steal, samples = host.steal_share(run.before, run.after), run.samples
    if steal is not None and steal >= _STARVED:
        return f"starved: other virtual machines took {100 * steal:.0f} % of the processors' time: measure without them"
    if samples.ready_ns is not None:
        # By a thread that works: what engines keep asleep waits for no processor.
        share = samples.ready_ns / max(1, samples.wall_ns) / run.threads
        if share >= _STARVED:
            return f"starved: ready to run and without a processor {100 * min(share, 1):.0f} % of the time: {cure}"
        return None
    # Nothing tells waiting from sleeping. Alone on a processor, one thread of an engine that runs on it never sleeps.
    if run.threads == 1 and run.subject.runtime not in _ELSEWHERE and samples.threads_used < _HARDLY_RUNNING:
        return f"starved: on a processor {100 * samples.threads_used:.0f} % of the time: {cure}"
    return None


def _stopped(run: Run, budget: Budget) -> str | None:
    """By a quota, where as many units fewer would not have failed."""
    stops = run.samples.quota_stops
    if stops is None:  # of an older edgecnn: counted with the opening of the engine
        stops = (run.after.quota_throttles or 0) - (run.before.quota_throttles or 0)
    if stops <= 0:
        return None
    total = np.asarray(run.samples.measured.total) / 1e6
    slowest = np.argsort(total)[max(0, total.size - stops) :]
    rest = np.delete(total, slowest)
    if rest.size and stats.verdict(rest, budget).outcome == "FAIL":
        return None
    return f"stopped {stops:,} times at its processor quota (a container's or a slice's): raise it, then measure again"


def _crowded(run: Run) -> str | None:
    usable = run.host.usable_cpus
    if usable is None or run.threads <= usable:
        return None
    cure = "measure with --threads as many, or give it more" if usable >= 1 else "give it more"
    return f"{run.threads} thread{'s' * (run.threads > 1)} on {usable:g} usable processors: {cure}"


def _images_note(run: Run) -> str | None:
    if len(run.images) == run.images_found:
        return None
    return f"{len(run.images)} of {run.images_found:,} images, evenly spaced by name"


def _decision_note(run: Run) -> str | None:
    """Latency of wrong decisions is worth nothing; parity proper is `edgecnn verify`."""
    if run.subject.variant == NULL_VARIANT:
        return None
    pairs = zip(run.images, run.samples.decisions, strict=False)
    known = [(image.expected, decision[0]) for image, decision in pairs if image.expected is not None]
    differ = sum(expected != decided for expected, decided in known)
    if not differ:
        return None
    return f"{differ} of {len(known)} golden images are decided otherwise than in fp32; `edgecnn verify` judges that"
