"""The main job: from data to a verified bundle with a verdict and a report, in stages that are not done twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgecnn.artifact import Bundle, Choice, load_bundle, write_bundle
from edgecnn.bench import Skipped, Summary, bench, read_runs, summarize
from edgecnn.bench.host import fingerprint
from edgecnn.bench.rows import Row
from edgecnn.checkpoint import WEIGHTS, read_checkpoint
from edgecnn.errors import UserError
from edgecnn.export import export
from edgecnn.profiles import Budget, Target, parse_budget

Say = Callable[[str], None]


def export_once(run: Path, target: Target, out: Path, say: Say, data_root: Path | None = None) -> Bundle:
    """The bundle of this checkpoint and target: the one that is there where it is whole and of both, else a new one."""
    if (out / "bundle.json").is_file():
        try:
            bundle = load_bundle(out)
        except UserError as error:
            say(f"export: made again, {error}")
        else:
            if _is_of(bundle, run, target):
                say(f"export: already done ({out})")
                return bundle
    return export(run, target, out, data_root, say)


def bench_once(folder: Path, runs: Path, samples: int | None, budget: Budget | None, say: Say) -> list[Row]:
    """Rows of a bench of this very bundle's files: from `runs` where it holds them, else measured now.

    `runs` is written whole or not at all.
    """
    bundle = load_bundle(folder)
    if runs.is_file():
        rows = _rows_of(bundle, runs, samples, budget)
        if rows:
            say(f"bench: already done ({runs})")
            return rows
    part = runs.with_name(f"{runs.stem}.part.jsonl")
    part.unlink(missing_ok=True)
    rows = bench(folder, budget=budget, samples=samples, out=part, progress=say)
    part.replace(runs)
    return rows


def choose(folder: Path, rows: Sequence[Row]) -> Bundle:
    """Record in the bundle which variant to deploy: the fastest, by median, of those that meet the budget.

    Every variant in a bundle is within the accuracy limit already. Where none meets the budget, the fastest is chosen
    and the reason says so; where none could be measured, none is.
    """
    measured = [row for row in rows if isinstance(row, Summary) and row.verdict is not None]
    bundle = load_bundle(folder)
    choice = _choice(measured) if measured else None
    if choice != bundle.choice:
        bundle = bundle.model_copy(update={"choice": choice})
        write_bundle(folder, bundle)
    return bundle


def with_choice(rows: Sequence[Row], bundle: Bundle) -> list[Row]:
    """The rows with the bundle's choice marked."""
    variant = bundle.choice.variant if bundle.choice else None
    return [row.model_copy(update={"chosen": row.variant == variant}) for row in rows]


def _choice(measured: Sequence[Summary]) -> Choice:
    passing = [row for row in measured if row.verdict is not None and row.verdict.outcome == "PASS"]
    best = min(passing or measured, key=lambda row: row.p50_ms)
    if passing:
        reason = f"fastest of {len(passing)} variants that meet {best.budget} and the accuracy limit"
    else:
        reason = f"fastest of {len(measured)} variants within the accuracy limit; none was shown to meet {best.budget}"
    return Choice(variant=best.variant, reason=f"{reason}: p50 {best.p50_ms:.2f} ms")


def _is_of(bundle: Bundle, run: Path, target: Target) -> bool:
    asked = {spec.variant for spec in target.variants}
    there = {artifact.variant for artifact in bundle.artifacts} | {left.variant for left in bundle.left_out}
    return (
        bundle.provenance.checkpoint_sha256 == read_checkpoint(run).files[WEIGHTS]
        and (bundle.target, bundle.budget, bundle.threads) == (target.name, target.budget, target.threads)
        and bundle.accuracy_loss_limit == target.accuracy_loss_limit
        and asked == there
    )


def _rows_of(bundle: Bundle, runs: Path, samples: int | None, budget: Budget | None) -> list[Row]:
    """Stored rows; empty where they are not of all the bundle's files, this host and its versions, these samples."""
    here = fingerprint()
    stored = read_runs(runs)
    by_variant = {run.subject.variant: run for run in stored}
    for artifact in bundle.artifacts:
        run = by_variant.get(artifact.variant)
        if run is None or dict(run.subject.files) != {name: bundle.files[name].sha256 for name in artifact.files}:
            return []
        if run.host != here or run.threads != bundle.threads:
            return []
        if samples is not None and run.plan.samples != samples:
            return []
    return [summarize(run, budget or parse_budget(bundle.budget)) for run in stored]


__all__ = ["Skipped", "bench_once", "choose", "export_once", "with_choice"]
