"""What a report is about: a bundle with the latest run of each of its variants, all of one host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecnn.artifact import Artifact, Bundle, load_bundle
from edgecnn.bench import NULL_VARIANT, Overall, Run, Skipped, Summary, overall, read_runs, summarize
from edgecnn.errors import UserError
from edgecnn.parity import REFERENCE_FILE, Reference, load_reference
from edgecnn.profiles import Budget, parse_budget
from edgecnn.progress import Progress


@dataclass(frozen=True)
class Variant:
    """An artifact and how it was measured."""

    artifact: Artifact
    run: Run | None
    """None where no run of these very files was given; then there is no summary either."""
    summary: Summary | None
    chosen: bool

    @property
    def name(self) -> str:
        """format-precision."""
        return self.artifact.variant

    @property
    def bound_ms(self) -> float:
        """Upper bound of the budget's percentile; p99 where there is none; infinite where it was not measured."""
        if self.summary is None:
            return math.inf
        return self.summary.p99_ms if self.summary.upper_ms is None else self.summary.upper_ms


@dataclass(frozen=True)
class Material:
    """All that a report shows."""

    folder: Path
    bundle: Bundle
    budget: Budget
    variants: tuple[Variant, ...]
    harness: Summary | None
    """The null session: what decoding, resizing and the clock cost without an engine."""
    runs: tuple[Run, ...]
    """Those that are shown, in the order of the variants, the harness last."""
    ignored: int
    """Runs of other files, and older runs of the same ones."""
    overall: Overall
    reference: Reference | None
    """Eager fp32 on the test split."""

    @property
    def measured(self) -> tuple[Variant, ...]:
        """Variants with a run."""
        return tuple(variant for variant in self.variants if variant.summary)

    @property
    def subject(self) -> Variant | None:
        """The variant that the headline is about: the chosen one, else the best measured, of what may be deployed."""
        chosen = [variant for variant in self.variants if variant.chosen]
        order = {"PASS": 0, "INCONCLUSIVE": 1, "FAIL": 2}
        usable = [variant for variant in self.measured if self.bundle.unusable(variant.artifact) is None]
        ranked = sorted(usable or self.measured, key=lambda variant: (order[_outcome(variant)], variant.bound_ms))
        return next(iter([*chosen, *ranked]), None)


def gather(
    bundle_folder: Path, runs: Path | Sequence[Path], budget: Budget | None, say: Progress = lambda text: None
) -> Material:
    """Match runs to the bundle's artifacts by the hashes of their files; the latest run of each counts.

    `say` is told of lines that were skipped.

    Raises UserError: not a whole bundle, no runs there, none of this bundle, runs of more than one host.
    """
    bundle = load_bundle(bundle_folder)
    budget = budget or parse_budget(bundle.budget)
    given = [run for path in _run_files(runs) for run in read_runs(path, say)]
    matching = [run for run in given if _is_of(run, bundle)]
    if not matching:
        raise UserError(
            f"{bundle_folder}: none of the {len(given)} runs is of these files: measure them with `edgecnn bench`"
        )
    _refuse_mixed_hosts(matching)
    latest = {run.subject.variant: run for run in sorted(matching, key=lambda run: run.started)}
    variants = tuple(_variant(bundle, artifact, latest, budget) for artifact in bundle.artifacts)
    null = latest.get(NULL_VARIANT)
    rows: list[Summary | Skipped] = [
        variant.summary
        or Skipped(
            variant=variant.name,
            chosen=variant.chosen,
            reason="no run of it was given",
            unusable=bundle.unusable(variant.artifact),
        )
        for variant in variants
    ]
    return Material(
        folder=bundle_folder,
        bundle=bundle,
        budget=budget,
        variants=variants,
        harness=summarize(null, budget) if null else None,
        runs=(*(variant.run for variant in variants if variant.run), *([null] if null else [])),
        ignored=len(given) - len(latest),
        overall=overall(rows),
        reference=_reference(bundle_folder),
    )


def host_words(run: Run) -> str:
    """The machine in words: board or processor, architecture, processors."""
    host = run.host
    name = host.board or host.cpu or host.system
    usable = f", {host.usable_cpus:g} of {host.cores} processors usable" if host.usable_cpus and host.cores else ""
    return f"{name} ({host.machine}{usable})"


def _run_files(runs: Path | Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in [runs] if isinstance(runs, Path) else runs:
        found = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
        if not found:
            raise UserError(f"{path}: no .jsonl file in it (expected runs, made by `edgecnn bench`)")
        files += found
    if not files:
        raise UserError("runs: none given: give the .jsonl file that `edgecnn bench` wrote, or its folder")
    return files


def _is_of(run: Run, bundle: Bundle) -> bool:
    """Whether a run measured this bundle's very files."""
    subject = run.subject
    if (subject.bundle, subject.target) != (bundle.name, bundle.target):
        return False
    if subject.variant == NULL_VARIANT:
        return True
    names = [artifact.variant for artifact in bundle.artifacts]
    if subject.variant not in names or not subject.files:
        return False
    return all(name in bundle.files and bundle.files[name].sha256 == sha for name, sha in subject.files.items())


def _refuse_mixed_hosts(runs: Sequence[Run]) -> None:
    hosts = sorted({host_words(run) for run in runs})
    if len(hosts) > 1:
        raise UserError(f"runs of {len(hosts)} hosts ({'; '.join(hosts)}): a report is of one: give one host's runs")


def _variant(bundle: Bundle, artifact: Artifact, latest: dict[str, Run], budget: Budget) -> Variant:
    run = latest.get(artifact.variant)
    chosen = bundle.choice is not None and bundle.choice.variant == artifact.variant
    summary = summarize(run, budget, chosen, bundle.unusable(artifact)) if run else None
    return Variant(artifact, run, summary, chosen)


def _reference(folder: Path) -> Reference | None:
    path = folder / REFERENCE_FILE
    return load_reference(path) if path.is_file() else None


def _outcome(variant: Variant) -> str:
    return variant.summary.verdict.outcome if variant.summary and variant.summary.verdict else "INCONCLUSIVE"
