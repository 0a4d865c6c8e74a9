"""Measures a bundle's variants on this machine against a latency budget, and gives a verdict for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edgecnn import outputs, runtimes
from edgecnn.artifact import Artifact, Bundle, load_bundle
from edgecnn.bench import host, stats
from edgecnn.bench.images import find_images
from edgecnn.bench.measure import DEFAULT_SAMPLES, MeasurePlan
from edgecnn.bench.process import measure_in_child
from edgecnn.bench.records import NULL_VARIANT, Run, read_runs, refuse_other_content, write_run
from edgecnn.bench.rows import COLUMNS, Overall, Row, Skipped, as_json, overall, table, unmet_by
from edgecnn.bench.stats import Verdict
from edgecnn.bench.summary import Summary, summarize
from edgecnn.called import let_call
from edgecnn.disk import FullDisk
from edgecnn.errors import MissingExtra, UserError
from edgecnn.profiles import MOST_SAMPLES, Budget, parse_budget, refuse_threads
from edgecnn.progress import Progress, Stage
from edgecnn.proof import DecidesOtherwise

__all__ = [
    "COLUMNS",
    "NULL_VARIANT",
    "Overall",
    "Row",
    "Run",
    "Skipped",
    "Summary",
    "Verdict",
    "as_json",
    "bench",
    "overall",
    "plan_for",
    "read_runs",
    "results_path",
    "samples_for",
    "summarize",
    "table",
    "unmet_by",
]
let_call(__name__)


LONGEST_SECONDS = 180.0
"""A second run of a variant that would take longer is left to the user, who reads how many samples it takes."""


def bench(
    bundle_folder: Path,
    *,
    variants: Sequence[str] | None = None,
    images: Path | None = None,
    budget: Budget | None = None,
    threads: int | None = None,
    samples: int | None = None,
    out: Path | None = None,
    null: bool = True,
    progress: Progress | None = None,
) -> list[Row]:
    """Measure variants one after the other, each in a process of its own, and the harness itself with a null session.

    Defaults: every variant, the bundle's golden images, its budget and its threads, and 2,300 samples (more where the
    budget's percentile needs them; fewer only where asked for, and then the verdict is INCONCLUSIVE). Where bursts of
    slow units leave too few to bound the percentile at all, a longer run follows once, whatever the first one's
    latencies, so that no verdict is looked for until it comes. Raw runs are
    appended to `results_path(...)` as they come; `overall(rows)` gives the exit code. A variant whose engine is missing
    or fails is a `Skipped` row. Raises UserError: not a whole bundle, an unknown variant, no usable images, no place
    for the raw runs.
    """
    say = progress or (lambda message: None)
    bundle = load_bundle(bundle_folder)
    budget = budget or parse_budget(bundle.budget)
    threads = bundle.threads if threads is None else threads
    plan = plan_for(budget, threads, samples)
    artifacts = _asked_for(bundle, bundle_folder, variants)
    find_images(bundle_folder, bundle, images)
    path = results_path(bundle_folder, bundle, out)
    refuse_other_content(path)
    with outputs.files(path, least_bytes=outputs.LITTLE):
        job = _Bench(bundle_folder, bundle, images, budget, plan, threads, path, say)
        rows: list[Row] = [_harness(job)] if null else []
        for index, artifact in enumerate(artifacts):
            words = f"bench: {artifact.variant}, {plan.samples:,} samples in {artifact.runtime}"
            say(Stage(words, index, len(artifacts)))
            rows.append(_row(job, artifact, longer=samples is None))
        if any(isinstance(row, Summary) for row in rows):
            say(f"raw runs: {path}")
    return rows


@dataclass(frozen=True)
class _Bench:
    """What the variants of one bench share."""

    folder: Path
    bundle: Bundle
    images: Path | None
    budget: Budget
    plan: MeasurePlan
    threads: int
    path: Path
    """Where raw runs go."""
    say: Progress


def _harness(job: _Bench) -> Row:
    job.say(Stage(f"bench: {NULL_VARIANT}, {job.plan.samples:,} samples"))
    run = measure_in_child(job.folder, None, job.images, job.plan, job.threads)
    write_run(job.path, run)
    return summarize(run, job.budget)


def _row(job: _Bench, artifact: Artifact, longer: bool) -> Row:
    """One variant, measured. `longer`: once more, where bursts left too few samples."""
    choice, unusable = job.bundle.choice, job.bundle.unusable(artifact)
    chosen = choice is not None and choice.variant == artifact.variant
    measured = _measure_variant(job.folder, artifact, job.images, job.plan, job.threads)
    again = _longer(summarize(measured, job.budget), job.plan) if isinstance(measured, Run) and longer else None
    if isinstance(measured, Run) and again is not None:
        write_run(job.path, measured)
        job.say(f"{artifact.variant}: slow units come in bursts: measured again with {again.samples:,} samples")
        measured = _measure_variant(job.folder, artifact, job.images, again, job.threads)
    if isinstance(measured, Run):
        write_run(job.path, measured)
        return summarize(measured, job.budget, chosen, unusable)
    job.say(f"{artifact.variant}: {'refused' if measured.refused else 'skipped'}: {measured.reason}")
    return measured.model_copy(update={"chosen": chosen, "unusable": unusable})


def _longer(row: Summary, plan: MeasurePlan) -> MeasurePlan | None:
    """The plan of a second run; None where the first had enough samples for a bound, or a second would take minutes."""
    verdict = row.verdict
    if verdict is None or verdict.upper_ms is not None or verdict.outcome != "INCONCLUSIVE":
        return None
    if not verdict.more_samples:
        return None
    # Half as many again: the next run's bursts may be longer.
    samples = round(1.5 * (plan.samples + verdict.more_samples))
    if samples * row.p50_ms > 1e3 * LONGEST_SECONDS:
        return None
    return plan.model_copy(update={"samples": samples})


def results_path(bundle_folder: Path, bundle: Bundle, out: Path | None = None) -> Path:
    """The file for a bench that starts now: `out` where it ends in .jsonl, else <bundle name>-<UTC>.jsonl in the folder
    `out`, else in runs/bench/<host>/ below the current folder.

    UserError where it would lie inside the bundle, whose files are listed by hash: one more would break it.
    """
    name = f"{bundle.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl"
    folder = out or Path("runs") / "bench" / host.slug(host.fingerprint())
    path = folder if folder.suffix.lower() == ".jsonl" else folder / name
    if path.resolve().is_relative_to(bundle_folder.resolve()):
        raise UserError(
            f"{path}: lies inside the bundle, whose files are listed by hash: choose a folder outside of it"
        )
    return path


def plan_for(budget: Budget, threads: int, samples: int | None) -> MeasurePlan:
    """How a bench with these arguments measures. UserError where a number makes no sense."""
    refuse_threads(threads)
    if samples is not None and samples < 1:
        raise UserError(f"samples: {samples} is not a number of samples: give at least 1")
    if samples is not None and samples > MOST_SAMPLES:
        raise UserError(f"samples: {samples:,}: at most {MOST_SAMPLES:,} are measured, since each is stored")
    return MeasurePlan(samples=samples_for(str(budget), samples))


def samples_for(budget: str, samples: int | None) -> int:
    """Units of each variant that a bench measures at first."""
    needed = stats.min_samples(parse_budget(budget).percentile)
    return max(DEFAULT_SAMPLES, needed) if samples is None else samples


def _asked_for(bundle: Bundle, folder: Path, variants: Sequence[str] | None) -> list[Artifact]:
    if variants is not None:
        return [bundle.artifact(variant) for variant in dict.fromkeys(variants)]
    if not bundle.artifacts:
        raise UserError(
            f"{folder}: the bundle has no variant to measure: export it again and read why they were left out"
        )
    return list(bundle.artifacts)


def _measure_variant(
    folder: Path, artifact: Artifact, images: Path | None, plan: MeasurePlan, threads: int
) -> Run | Skipped:
    """The run, or why there is none."""
    try:
        runtime = runtimes.get(artifact.runtime)
        if not runtimes.installed(artifact.runtime):
            raise MissingExtra(runtime.library, runtime.extra or "all")
        return measure_in_child(folder, artifact.variant, images, plan, threads)
    except FullDisk:
        raise
    except UserError as error:
        refused = isinstance(error, DecidesOtherwise)
        return Skipped(variant=artifact.variant, chosen=False, reason=str(error), refused=refused)
