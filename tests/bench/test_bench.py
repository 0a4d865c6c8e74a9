"""Tests of a whole bench: a real bundle, a real engine, a process for each variant. No latency is asserted on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgecnn import bench as package
from edgecnn import runtimes
from edgecnn.artifact import Artifact, Choice, Doubt, Judged, load_bundle
from edgecnn.bench import (
    NULL_VARIANT,
    Overall,
    Skipped,
    Summary,
    bench,
    host,
    overall,
    read_runs,
    results_path,
    summarize,
    table,
)
from edgecnn.bench.measure import MeasurePlan
from edgecnn.bench.records import Run
from edgecnn.child import child_environment
from edgecnn.errors import UserError
from edgecnn.origin import install_command
from edgecnn.profiles import Budget
from tests.cli.test_cli import call

GENEROUS = Budget(milliseconds=60_000.0, percentile=90.0)
ENOUGH = 600
"""Samples that pass even where a busy machine slows units in bursts of a dozen."""


def test_a_bundle_is_measured_against_its_budget_and_stays_whole(bundle_folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / "out" / "runs.jsonl"
    rows = bench(bundle_folder, budget=GENEROUS, samples=ENOUGH, out=out, progress=said.append)
    null, row = rows
    assert isinstance(null, Summary)
    assert isinstance(row, Summary)
    assert (null.variant, null.verdict) == (NULL_VARIANT, None)
    assert (row.variant, row.samples, row.int8_layers, row.float_layers) == ("onnx-fp32", ENOUGH, 0, 1)
    assert row.verdict is not None
    assert row.verdict.outcome == "PASS"
    assert overall(rows).exit_code == 0
    assert not [note for note in row.notes if "decided otherwise" in note]
    assert [summarize(run, GENEROUS) for run in read_runs(out)] == rows
    assert len(table(rows)) == 2
    assert said[-1].endswith("runs.jsonl")
    load_bundle(bundle_folder)


def test_the_child_pins_threads_and_takes_memory_of_its_own(bundle_folder: Path, tmp_path: Path) -> None:
    held = bytearray(b"x") * (300 * 2**20)
    bench(bundle_folder, samples=5, out=tmp_path / "runs.jsonl")
    null, run = read_runs(tmp_path / "runs.jsonl")
    assert run.threads == 1
    assert run.host.machine == host.machine()
    if run.peak_rss_bytes is not None and null.peak_rss_bytes is not None:
        # What this process holds is not counted, and the engine's own share shows.
        assert run.peak_rss_bytes < len(held)
        assert run.peak_rss_bytes > null.peak_rss_bytes


def test_fewer_samples_than_the_percentile_needs_are_inconclusive(bundle_folder: Path, tmp_path: Path) -> None:
    rows = bench(bundle_folder, budget=GENEROUS, samples=43, out=tmp_path, null=False)
    assert overall(rows).exit_code == 3
    assert "43 samples are too few to bound p90" in overall(rows).reason
    assert len(list(tmp_path.glob("tiny-*.jsonl"))) == 1


def test_a_missing_engine_is_a_row_with_the_reason(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change_bundle
) -> None:
    change_bundle(choice=Choice(variant="onnx-fp32", reason="the only one"))
    monkeypatch.setattr(package.runtimes, "installed", lambda name: False)
    rows = bench(bundle_folder, out=tmp_path / "runs.jsonl", null=False)
    (row,) = rows
    assert isinstance(row, Skipped)
    assert row.chosen
    assert row.reason == f"onnxruntime is not installed: {install_command('all')}"
    assert overall(rows).exit_code == 3
    assert not (tmp_path / "runs.jsonl").exists()


def test_an_engine_that_refuses_its_file_is_a_row_and_the_others_go_on(
    bundle_folder: Path, tmp_path: Path, change_bundle
) -> None:
    (bundle_folder / "bad.onnx").write_bytes(b"not a network")
    good = load_bundle(change_bundle()).artifacts[0]
    bad = good.model_copy(update={"variant": "onnx-int8", "precision": "int8", "files": ("bad.onnx",)})
    change_bundle(artifacts=(bad, good))
    rows = bench(bundle_folder, budget=GENEROUS, samples=ENOUGH, out=tmp_path / "runs.jsonl", null=False)
    assert [type(row) for row in rows] == [Skipped, Summary]
    assert isinstance(rows[0], Skipped)
    assert "ONNX Runtime cannot open it" in rows[0].reason
    assert overall(rows).outcome == "PASS"


def test_int8_that_decides_otherwise_on_this_processor_is_refused(
    bundle_folder: Path, tmp_path: Path, change_bundle
) -> None:
    bundle = load_bundle(bundle_folder)
    turned = tuple(one.model_copy(update={"logits": one.logits[1:] + one.logits[:1]}) for one in bundle.golden)
    here = runtimes.instruction_set("onnxruntime")
    int8 = bundle.artifacts[0].model_copy(update={"precision": "int8", "proven_on": ("x86-64-of-elsewhere",)})
    change_bundle(artifacts=(int8,), golden=turned)
    rows = bench(bundle_folder, budget=GENEROUS, samples=ENOUGH, out=tmp_path / "runs.jsonl", null=False)
    (row,) = rows
    assert isinstance(row, Skipped)
    assert row.refused
    assert "3 of 3 golden images decided unlike the exporting machine" in row.reason
    assert "only on x86-64-of-elsewhere" not in row.reason
    assert overall(rows).exit_code == 1
    assert table(rows)[0]["verdict"] == "REFUSED"
    assert not (tmp_path / "runs.jsonl").exists()

    change_bundle(artifacts=(int8,))
    (row,) = bench(bundle_folder, budget=GENEROUS, samples=ENOUGH, out=tmp_path / "runs.jsonl", null=False)
    assert isinstance(row, Summary)
    assert row.proof is not None
    assert (row.proof.outcome, row.proof.images) == ("too few", 3)
    assert any("not proven on" in note for note in row.notes)

    change_bundle(artifacts=(int8.model_copy(update={"proven_on": (here,)}),), golden=turned)
    (row,) = bench(bundle_folder, budget=GENEROUS, samples=ENOUGH, out=tmp_path / "runs.jsonl", null=False)
    assert isinstance(row, Summary)
    assert row.proof is not None
    assert (row.proof.outcome, row.proof.images) == ("proven", 0)


def test_a_runtime_that_this_edgecnn_does_not_know_is_a_row(bundle_folder: Path, tmp_path: Path, change_bundle) -> None:
    artifact = load_bundle(bundle_folder).artifacts[0].model_copy(update={"runtime": "abacus"})
    change_bundle(artifacts=(artifact,))
    (row,) = bench(bundle_folder, samples=5, out=tmp_path / "runs.jsonl", null=False)
    assert isinstance(row, Skipped)
    assert "'abacus' is not one of" in row.reason


def test_a_target_of_another_architecture_is_never_judged_here(
    bundle_folder: Path, tmp_path: Path, change_bundle
) -> None:
    change_bundle(machine="riscv64")
    rows = bench(bundle_folder, budget=GENEROUS, samples=50, out=tmp_path / "runs.jsonl", null=False)
    assert overall(rows).outcome == "INCONCLUSIVE"
    assert f"measured on {host.machine()}, the target is riscv64" in overall(rows).reason


def test_a_damaged_bundle_is_not_measured(bundle_folder: Path, tmp_path: Path) -> None:
    (bundle_folder / "onnx-fp32.onnx").write_bytes(b"changed")
    with pytest.raises(UserError, match=r"onnx-fp32\.onnx is damaged"):
        bench(bundle_folder, out=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variants": ["onnx-int4"]}, "'onnx-int4' is not in the bundle: it has onnx-fp32"),
        ({"threads": 0}, "threads: 0 is not a number of threads"),
        ({"threads": 257}, "threads: 257: at most 256"),
        ({"samples": 0}, "samples: 0 is not a number of samples"),
        ({"images": Path("absent")}, "absent: no such folder"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(
    bundle_folder: Path, tmp_path: Path, arguments: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        bench(bundle_folder, out=tmp_path / "runs.jsonl", **arguments)
    assert not (tmp_path / "runs.jsonl").exists()


def test_a_bundle_without_variants_has_nothing_to_measure(bundle_folder: Path, change_bundle) -> None:
    change_bundle(artifacts=())
    with pytest.raises(UserError, match="no variant to measure"):
        bench(bundle_folder)


def test_results_never_go_into_the_bundle(bundle_folder: Path) -> None:
    bundle = load_bundle(bundle_folder)
    for out in (bundle_folder / "runs.jsonl", bundle_folder, bundle_folder / "golden" / ".." / "x"):
        with pytest.raises(UserError, match="inside the bundle"):
            results_path(bundle_folder, bundle, out)


def test_results_go_to_runs_of_this_kind_of_host(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = results_path(bundle_folder, load_bundle(bundle_folder))
    assert path.parts[:3] == ("runs", "bench", host.slug(host.fingerprint()))
    assert path.name.startswith("tiny-")


@pytest.mark.parametrize(("percentile", "samples"), [(50.0, 2300), (99.0, 2300), (99.9, 4603)])
def test_the_default_number_of_samples_is_enough(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, percentile: float, samples: int
) -> None:
    said: list[str] = []
    monkeypatch.setattr(package, "_measure_variant", lambda *_: Skipped(variant="", chosen=False, reason="not today"))
    budget = Budget(milliseconds=1.0, percentile=percentile)
    bench(bundle_folder, budget=budget, out=tmp_path / "runs.jsonl", null=False, progress=said.append)
    assert f"{samples:,} samples" in said[0]


def test_a_run_loads_no_training_library(bundle_folder: Path, tmp_path: Path) -> None:
    """What the child imports, in a fresh interpreter, up to the last unit of a real variant."""
    job = {
        "bundle": str(bundle_folder),
        "variant": "onnx-fp32",
        "images": None,
        "plan": {"samples": 5, "window": 2, "windows": 2},
        "threads": 1,
        "out": str(tmp_path / "run.json"),
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    code = (
        "import json, sys; from edgecnn.bench import child; code = child.main(sys.argv[1:]);"
        "print(json.dumps([code, sorted({name.split('.')[0] for name in sys.modules})]))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(tmp_path / "job.json")],
        env=child_environment(os.environ, 1),
        capture_output=True,
        text=True,
        check=True,
    )
    code_of_child, modules = json.loads(done.stdout)
    assert code_of_child == 0
    assert "onnxruntime" in modules
    assert not {"torch", "torchvision", "timm", "onnx", "nncf", "openvino", "scipy", "sklearn"} & set(modules)


@pytest.mark.parametrize(("samples", "runs"), [(None, 2), (40, 1)])
def test_bursts_that_leave_too_few_samples_are_measured_once_more(
    bundle_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_run: Callable[..., Run],
    samples: int | None,
    runs: int,
) -> None:
    bursty = np.where(np.arange(2300) % 500 < 10, 9.0, 5.0) + np.random.default_rng(0).normal(0, 0.05, 2300)
    asked: list[int] = []

    def measure(folder: Path, artifact: object, images: object, plan: MeasurePlan, threads: int) -> Run:
        asked.append(plan.samples)
        return make_run(tuple(bursty))

    monkeypatch.setattr(package, "_measure_variant", measure)
    budget = Budget(milliseconds=30.0, percentile=99.0)
    bench(bundle_folder, budget=budget, samples=samples, out=tmp_path / "runs.jsonl", null=False)
    assert len(asked) == runs
    assert asked == sorted(asked)
    assert len(read_runs(tmp_path / "runs.jsonl")) == runs


def test_what_must_not_be_deployed_never_passes_however_fast(
    bundle_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change_bundle: Callable[..., Path],
    make_run: Callable[..., Run],
) -> None:
    """A variant that test images veto, or any of a network in doubt; nothing is chosen, as after an export."""
    run = make_run()

    def measure(folder: Path, artifact: Artifact, *others: object) -> Run:
        latency = 50.0 if artifact.variant == "onnx-fp32" else 10.0
        subject = run.subject.model_copy(update={"variant": artifact.variant})
        return make_run([latency] * 1000, subject=subject)

    monkeypatch.setattr(package, "_measure_variant", measure)
    fp32 = load_bundle(bundle_folder).artifacts[0]
    veto = fp32.check.model_copy(update={"judged": Judged(refused=("loses 9 points",), acceptable=False)})
    int8 = fp32.model_copy(update={"variant": "onnx-int8", "precision": "int8"})

    def verdict(*artifacts: Artifact, **changes: object) -> Overall:
        change_bundle(artifacts=artifacts, **changes)
        return overall(bench(bundle_folder, out=tmp_path / "runs.jsonl", null=False))

    assert verdict(fp32, int8).outcome == "PASS"
    found = verdict(fp32, int8.model_copy(update={"check": veto}))
    assert (found.outcome, found.reason.startswith("onnx-fp32: ")) == ("FAIL", True)
    found = verdict(int8.model_copy(update={"check": veto}))
    assert (found.outcome, "loses 9 points" in found.reason) == ("FAIL", True)
    found = verdict(int8, doubts=(Doubt(stage="answers", words="one class"),))
    assert (found.outcome, "in doubt: one class" in found.reason) == ("FAIL", True)


def test_an_unmet_requirement_fails_an_inconclusive_bench(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch, make_run: Callable[..., Run]
) -> None:
    row = summarize(make_run([10.0] * 100), Budget(milliseconds=30.0, percentile=99.0))
    monkeypatch.setattr(package, "bench", lambda *given, **options: [row])
    assert call(monkeypatch, "bench", bundle_folder) == 3
    assert call(monkeypatch, "bench", bundle_folder, "--require", "int8>=99%") == 1


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_network_in_doubt_is_warned_of(
    change_bundle: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
) -> None:
    folder = change_bundle(doubts=(Doubt(stage="colour order", words="BGR is right 40 points more often"),))
    monkeypatch.setattr(package, "bench", lambda *given, **options: [])
    assert call(monkeypatch, "bench", folder, *words) != 0
    said = capsys.readouterr().err
    assert said.count("WARNING: the network does not fit what is assumed of it: BGR is right 40 points more often") == 1
    change_bundle(doubts=())
    call(monkeypatch, "bench", folder, *words)
    assert "WARNING" not in capsys.readouterr().err
