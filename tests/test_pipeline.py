"""The main job on a small drawn set: every stage for real, once; then what each verb does with its results."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgecnn import pipeline, runtimes
from edgecnn.artifact import Bundle, load_bundle, write_bundle
from edgecnn.bench import NULL_VARIANT, bench, read_runs
from edgecnn.bench.records import Run, write_run
from edgecnn.bench.rows import Row
from edgecnn.data import calibration_items, load_split, split_hash
from edgecnn.data.surfaces import write_demo_data
from edgecnn.parity import load_reference
from edgecnn.profiles import load_target
from edgecnn.verify import verify
from tests.bench.conftest import write_tiny_bundle
from tests.conftest import call

VERDICTS = (0, 1, 3)
WORDS = ("--model", "edgecnn:resnet_small_32", "--weights", "none", "--size", "48", "--epochs", "2", "--samples", "60")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """desktop-cpu with a limit that an untrained network's INT8 stays within, one rung each, no slow converter."""
    text = (Path(__file__).parents[1] / "export" / "desktop-cpu.toml").read_text()
    limits = "accuracy_loss_limit = 60.0\nint8_minutes = 0.01\ncalibration_images = 24"
    head, *variants = text.replace("accuracy_loss_limit = 1.0", limits).split("[[variants]]")
    path = tmp_path_factory.mktemp("target") / "lenient.toml"
    path.write_text("[[variants]]".join([head, *(variant for variant in variants if '"litert"' not in variant)]))
    return path


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "surfaces"
    write_demo_data(folder, 80, 0)
    return folder


@pytest.fixture(scope="module")
def ran(surfaces: Path, target: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished `edgecnn run`."""
    out = tmp_path_factory.mktemp("run") / "out"
    assert call("run", surfaces, "--target", target, "--out", out, *WORDS) in VERDICTS
    return out


@pytest.fixture(scope="module")
def bundle(ran: Path) -> Bundle:
    return load_bundle(ran / "bundle")


def test_every_variant_is_accounted_for(bundle: Bundle, target: Path) -> None:
    names = [one.variant for one in (*bundle.artifacts, *bundle.left_out)]
    assert sorted(names) == sorted(variant.variant for variant in load_target(str(target)).variants)
    assert {"torchscript-fp32", "onnx-fp32", "openvino-fp32"} <= {artifact.variant for artifact in bundle.artifacts}
    for artifact in bundle.artifacts:
        if artifact.precision == "fp32":
            assert artifact.check.max_logit_error <= 1e-4
            assert artifact.check.agreement == 1


def test_int8_saw_no_test_image(bundle: Bundle, ran: Path) -> None:
    data = load_split(None, ran / "train" / "split.json")
    assert bundle.provenance.splits["calibration"] == split_hash(calibration_items(data, 24))
    assert bundle.provenance.splits["test"] == split_hash(data.test)
    reference = load_reference(ran / "bundle" / "reference.npz")
    assert set(reference.sha256) == {item.sha256 for item in data.test}
    assert {item.sha256 for item in data.train} & set(reference.sha256) == set()


def test_the_choice_is_recorded_with_its_reason(bundle: Bundle) -> None:
    assert bundle.choice is not None
    assert bundle.choice.variant in {artifact.variant for artifact in bundle.artifacts}
    assert "p99" in bundle.choice.reason


def test_golden_images_carry_what_fp32_answered(bundle: Bundle, ran: Path) -> None:
    assert {golden.label for golden in bundle.golden} == set(bundle.classes)
    assert all((ran / "bundle" / golden.file).is_file() for golden in bundle.golden)
    assert all(len(golden.logits) == len(bundle.classes) for golden in bundle.golden)


def test_variants_record_where_they_are_proven_and_what_they_decided(bundle: Bundle) -> None:
    for artifact in bundle.artifacts:
        here = runtimes.instruction_set(artifact.runtime)
        assert artifact.proven_on[:1] == ((here,) if here else ())
        trained = [golden.logits.index(max(golden.logits)) for golden in bundle.golden]
        assert len(artifact.golden_decisions) == len(bundle.golden)
        if artifact.precision == "fp32":
            assert list(artifact.golden_decisions) == trained


def test_raw_frames_were_compared(bundle: Bundle) -> None:
    assert bundle.frames is not None
    assert bundle.frames.images == bundle.artifacts[0].check.images


def test_the_raw_runs_are_kept(ran: Path, bundle: Bundle) -> None:
    runs = {run.subject.variant: run for run in read_runs(ran / "bench.jsonl")}
    assert {artifact.variant for artifact in bundle.artifacts} < set(runs)
    assert all(len(run.samples.measured.infer) == 60 for run in runs.values())


def test_the_report_opens_offline(ran: Path) -> None:
    html = (ran / "report.html").read_text()
    assert "<html" in html
    assert 'src="http' not in html
    assert (ran / "report.md").read_text().startswith("#")


def test_nothing_is_done_twice(
    ran: Path, surfaces: Path, target: Path, capsys: pytest.CaptureFixture[str], bundle: Bundle
) -> None:
    assert call("run", surfaces, "--target", target, "--out", ran, *WORDS, "--json") in VERDICTS
    output = capsys.readouterr()
    assert "export: already done" in output.err
    assert "bench: already done" in output.err
    assert json.loads(output.out)["choice"]["variant"] == bundle.choice.variant  # type: ignore[union-attr]
    assert load_bundle(ran / "bundle") == bundle


@pytest.mark.parametrize("change", ["nothing", "engine", "pixels", "version"])
def test_rows_are_reused_only_where_a_bench_now_would_repeat_them(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ran, copy)
    bundle = load_bundle(copy / "bundle")
    if change == "engine":  # the same file in another engine
        first, *others = bundle.artifacts
        bundle = bundle.model_copy(update={"artifacts": (first.model_copy(update={"runtime": "ncnn"}), *others)})
    elif change == "pixels":  # the same file, its images cut otherwise
        other = bundle.preprocess.model_copy(update={"fit": "center-crop"})
        bundle = bundle.model_copy(update={"preprocess": other})
    elif change == "version":
        version = importlib.metadata.version
        monkeypatch.setattr(
            importlib.metadata, "version", lambda name: "9.8.7" if name == "onnxruntime" else version(name)
        )
    write_bundle(copy / "bundle", bundle)

    def measured_again(folder: Path, out: Path, **options: object) -> list[Row]:
        out.write_text("measured again")
        return []

    monkeypatch.setattr(pipeline, "bench", measured_again)
    rows = pipeline.bench_once(copy / "bundle", copy / "bench.jsonl", 60, lambda text: None)
    assert bool(rows) == (change == "nothing")
    assert ((copy / "bench.jsonl").read_text() == "measured again") == (change != "nothing")


def test_stored_rows_are_of_this_bundle_and_host_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, runs = write_tiny_bundle(tmp_path / "bundle"), tmp_path / "bench.jsonl"
    bench(folder, samples=30, out=runs)
    null, run = read_runs(runs)

    def stored(*kept: Run) -> list[str]:
        runs.unlink()
        for one in kept:
            write_run(runs, one)
        return [row.variant for row in pipeline.bench_once(folder, runs, 30, lambda text: None)]

    def measured_again(folder: Path, out: Path, **options: object) -> list[Row]:
        out.write_text("measured again")
        return []

    monkeypatch.setattr(pipeline, "bench", measured_again)
    gone = run.model_copy(update={"subject": run.subject.model_copy(update={"variant": "onnx-int8"})})
    assert stored(null, run, gone) == [NULL_VARIANT, "onnx-fp32"]
    elsewhere = null.model_copy(update={"host": null.host.model_copy(update={"cpu": "another"})})
    assert stored(elsewhere, run) == []
    assert stored(run) == []


def test_no_fold_of_an_earlier_run_is_left(tmp_path: Path) -> None:
    for name in ("fold-2/train", "fold-3/train", "fold-mine/train", "fold-4"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "folds.json").write_text("{}")
    pipeline.remove_results(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fold-4", "fold-mine"]


def test_a_damaged_bundle_is_refused(ran: Path, surfaces: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ran, copy)
    (copy / "bundle" / "labels.txt").write_text("tampered")
    assert call("verify", copy / "bundle", "--data", surfaces) == 2
    assert call("bench", copy / "bundle") == 2


def test_verify_finds_the_images_by_content(ran: Path, surfaces: Path, bundle: Bundle, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(surfaces.rglob("*.jpg"))):
        shutil.copy(path, flat / f"{number}.jpg")
    rows = verify(ran / "bundle", flat, ["onnx-fp32"])
    assert rows[0].passed
    assert rows[0].check == bundle.artifact("onnx-fp32").check


def test_verify_on_a_processor_where_int8_decides_otherwise(
    ran: Path, surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(ran / "bundle", folder)
    whole = load_bundle(folder)
    int8 = next(one for one in whole.artifacts if one.precision == "int8")
    # As if the golden images had been decided otherwise where the bundle comes from: two of three, the next class.
    turned = tuple(
        one.model_copy(update={"logits": one.logits[1:] + one.logits[:1]}) if place % 3 else one
        for place, one in enumerate(whole.golden)
    )
    artifact = int8.model_copy(update={"proven_on": ("elsewhere",), "golden_decisions": ()})
    write_bundle(folder, whole.model_copy(update={"artifacts": (artifact,), "golden": turned}))
    assert call("verify", folder, "--data", surfaces) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{int8.variant}: decides otherwise on" in printed
    (row,) = verify(folder, surfaces)
    assert row.passed is False
    assert row.proof is not None
    assert row.proof.refused

    write_bundle(folder, whole.model_copy(update={"artifacts": (artifact,)}))
    (row,) = verify(folder, surfaces)
    assert row.passed
    assert row.proof is not None
    assert row.proof.outcome == "same"
    assert "only on elsewhere" in row.proof.text


def test_verify_names_missing_images(ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("verify", ran / "bundle", "--data", tmp_path) == 2
    assert "test images are not there" in capsys.readouterr().err


def test_export_replaces_nothing_but_a_bundle(ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious.txt").write_text("not a bundle")
    assert call("export", ran / "train", "--out", tmp_path) == 2
    assert "is not a bundle" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_strict_target_leaves_out_what_loses_too_much_and_says_so(
    ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: Path
) -> None:
    strict = tmp_path / "strict.toml"
    name = 'name = "desktop-cpu"'
    head, *variants = target.read_text().replace(name, f"{name}\nfp32_tolerance = 1e-12").split("[[variants]]")
    strict.write_text("[[variants]]".join([head, *(variant for variant in variants if '"int8"' not in variant)]))
    code = call("export", ran / "train", "--target", strict, "--out", tmp_path / "bundle")
    output = capsys.readouterr()
    assert "logits differ from the trained network's" in output.out + output.err
    # 2 where nothing at all was left.
    assert code == (1 if (tmp_path / "bundle").exists() else 2)
    assert not (tmp_path / "bundle" / "onnx-fp32").exists()


def test_bench_runs_where_torch_cannot_be_imported(ran: Path, tmp_path: Path) -> None:
    """A device: the base install and one engine. torch is hidden from the bench and from its children."""
    for name in ("torch", "torchvision", "timm", "onnx", "nncf"):
        (tmp_path / "hidden" / name).mkdir(parents=True)
        (tmp_path / "hidden" / name / "__init__.py").write_text("raise ImportError('hidden')")
    command = [sys.executable, "-m", "edgecnn", "bench", str(ran / "bundle"), "--variant", "onnx-fp32"]
    done = subprocess.run(
        [*command, "--samples", "20", "--out", str(tmp_path / "runs.jsonl"), "--json"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "hidden")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in VERDICTS, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert "onnx-fp32" in {row["variant"] for row in rows}
