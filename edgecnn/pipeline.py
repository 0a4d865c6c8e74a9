"""The main job: from data to a verified bundle with a verdict and a report, in stages that are not done twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from edgecnn.artifact import Bundle, load_bundle, write_bundle
from edgecnn.bench import NULL_VARIANT, Summary, bench, plan_for, read_runs, summarize
from edgecnn.bench.host import fingerprint
from edgecnn.bench.records import subject_of
from edgecnn.bench.rows import Row
from edgecnn.choice import chosen
from edgecnn.pooled import POOLED
from edgecnn.profiles import parse_budget
from edgecnn.progress import Stage

Say = Callable[[str], None]


def bench_once(folder: Path, runs: Path, samples: int | None, say: Say) -> list[Row]:
    """Rows of a bench of this very bundle: from `runs` where a bench now would repeat it, else measured now.

    Runs that left a variant INCONCLUSIVE are measured again. `runs` is written whole or not at all.
    """
    bundle = load_bundle(folder)
    if runs.is_file():
        rows = _rows_of(bundle, runs, samples, say)
        if rows:
            say(Stage(f"bench: already done ({runs})"))
            return rows
    part = runs.with_name(f"{runs.stem}.part.jsonl")
    part.unlink(missing_ok=True)
    rows = bench(folder, samples=samples, out=part, progress=say)
    part.replace(runs)
    return rows


def choose(folder: Path, rows: Sequence[Row]) -> Bundle:
    """Record in the bundle which variant to deploy: see `edgecnn.choice.chosen`.

    Validation images have selected the variants already; the test images rank none, but one that they show to be beyond
    a limit is never chosen. Where none meets the budget, one is chosen all the same and the reason says so. None is
    chosen where the network itself is in doubt, where none was measured, or on another processor than the target's:
    which is fastest there is for a bench on the target to say.
    """
    bundle = load_bundle(folder)
    usable = {one.variant for one in bundle.artifacts if bundle.unusable(one) is None}
    measured = [row for row in rows if isinstance(row, Summary) and row.verdict is not None and row.variant in usable]
    choice = chosen(bundle, measured) if fingerprint().machine == bundle.machine else None
    if choice != bundle.choice:
        bundle = bundle.model_copy(update={"choice": choice})
        write_bundle(folder, bundle)
    return bundle


def remove_results(folder: Path) -> None:
    """Forget the bundle, the runs and the folds of an earlier `edgecnn run`."""
    if (folder / "bundle" / "bundle.json").is_file():
        shutil.rmtree(folder / "bundle")
    for name in ("bench.jsonl", POOLED):
        (folder / name).unlink(missing_ok=True)
    for fold in folder.glob("fold-*"):
        if fold.name.removeprefix("fold-").isdigit() and (fold / "train").is_dir():
            shutil.rmtree(fold)


def with_choice(rows: Sequence[Row], bundle: Bundle) -> list[Row]:
    """The rows with the bundle's choice marked."""
    variant = bundle.choice.variant if bundle.choice else None
    return [row.model_copy(update={"chosen": row.variant == variant}) for row in rows]


def _rows_of(bundle: Bundle, runs: Path, samples: int | None, say: Say) -> list[Row]:
    """Stored rows; empty where they are not of all that a bench now would measure, in the same way, on this host."""
    budget = parse_budget(bundle.budget)
    plan, here = plan_for(budget, bundle.threads, samples), fingerprint()
    golden = {bundle.files[one.file].sha256 for one in bundle.golden}
    stored = read_runs(runs, say)
    by_variant = {run.subject.variant: run for run in stored}
    wanted = (NULL_VARIANT, *(artifact.variant for artifact in bundle.artifacts))
    for variant in wanted:
        run = by_variant.get(variant)
        if run is None or run.subject != subject_of(bundle, None if variant == NULL_VARIANT else variant):
            return []
        at_least = run.plan.samples >= plan.samples if samples is None else run.plan.samples == samples
        same = run.plan.model_copy(update={"samples": plan.samples}) == plan
        if not (at_least and same) or (run.host, run.threads) != (here, bundle.threads):
            return []
        if {image.sha256 for image in run.images} != golden:
            return []
    unusable = {artifact.variant: bundle.unusable(artifact) for artifact in bundle.artifacts}
    rows = [summarize(by_variant[variant], budget, unusable=unusable.get(variant)) for variant in wanted]
    undecided = [row for row in rows if row.verdict is not None and row.verdict.outcome == "INCONCLUSIVE"]
    # Too few samples stay too few; whatever else made a run inconclusive may be gone by now.
    return [] if undecided and samples is None else list(rows)
