"""Exports that cannot go through or are cut off: one line, nothing half-written, and nothing is done twice."""

from __future__ import annotations

import errno
import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from edgecnn import formats, installed
from edgecnn.artifact import Artifact, load_bundle
from edgecnn.bench import Summary, Verdict
from edgecnn.checkpoint import read_checkpoint
from edgecnn.data import load_folder, load_split
from edgecnn.export import bundle as bundling
from edgecnn.export import variant as making
from edgecnn.formats import Converted
from edgecnn.models import Deployed
from edgecnn.origin import install_command
from edgecnn.pipeline import choose
from edgecnn.quantize import ladder as climbing
from edgecnn.rehearse.short import Shown
from edgecnn.train import fine_tune
from tests.cli.test_cli import call, refused
from tests.training import options, write_images

TARGET = """
name = "trial"
description = "fp32 alone"
machine = "x86_64"
threads = 1
budget = "30ms@p99"
accuracy_loss_limit = 50.0
"""
FLOAT = (("torchscript", "pytorch"), ("onnx", "onnxruntime"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, its images beside it."""
    root = tmp_path_factory.mktemp("run")
    write_images(root / "parts")
    fine_tune(load_folder(root / "parts"), options(model="edgecnn:resnet_small_32", epochs=1), root / "train")
    return root / "train"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return write_target(tmp_path, "fp32", FLOAT)


def write_target(folder: Path, precision: str, variants: tuple[tuple[str, str], ...], text: str = "") -> Path:
    path = folder / "trial.toml"
    tables = [
        f'[[variants]]\nformat = "{name}"\nprecision = "{precision}"\nruntime = "{runtime}"\n'
        for name, runtime in variants
    ]
    path.write_text(TARGET + text + "\n".join(tables))
    return path


def beside(out: Path) -> list[str]:
    """What is in the folder of `out` but the target and the log."""
    return sorted(path.name for path in out.parent.iterdir() if path.suffix not in (".toml", ".log"))


def failing_at(name: str, error: BaseException) -> Callable[..., Converted]:
    """`formats.convert` until that format's turn."""
    real = formats.convert

    def convert(wanted: str, *given: Any) -> Converted:
        if wanted == name:
            given[-1].mkdir(parents=True)
            (given[-1] / "model.onnx").write_bytes(b"half of it")
            raise error
        return real(wanted, *given)

    return convert


def test_one_class_to_calibrate_with_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = write_target(tmp_path, "int8", FLOAT[1:], "calibration_images = 1\n")
    line = refused(monkeypatch, capsys, "export", run, "--target", target, "--out", tmp_path / "bundle")
    assert "calibration: all 1 images are 'dark'" in line
    assert "raise calibration_images" in line
    assert not (tmp_path / "bundle").exists()


def test_a_variant_that_decides_otherwise_on_an_older_processor_is_left_out(
    run: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prove(artifact: Artifact, *given: Any, older: bool, needs: str | None) -> Shown:
        assert older
        assert needs is None
        assert len(artifact.golden_decisions) == len(given[1])
        if artifact.format == "onnx":
            return Shown(("x86-64-vnni",), "decides otherwise on x86-64-v3: 9 of 16 golden images", ())
        return Shown(("x86-64-vnni", "x86-64-v3"), None, ("not proven on x86-64-v2: no emulator here",))

    monkeypatch.setattr(making, "prove", prove)
    assert call(monkeypatch, "export", run, "--target", target, "--out", tmp_path / "bundle") == 1
    bundle = load_bundle(tmp_path / "bundle")
    assert [one.proven_on for one in bundle.artifacts] == [("x86-64-vnni", "x86-64-v3")]
    assert [(one.variant, one.reason, one.final) for one in bundle.left_out] == [
        ("onnx-fp32", "decides otherwise on x86-64-v3: 9 of 16 golden images", True)
    ]
    assert not (tmp_path / "bundle/onnx-fp32").exists()
    assert "torchscript-fp32: not proven on x86-64-v2: no emulator here" in (tmp_path / "bundle.log").read_text()


def test_a_disk_that_is_full_half_way(
    run: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    words = ("export", run, "--target", target, "--out", out)
    full = OSError(errno.ENOSPC, "No space left on device", str(out))
    with monkeypatch.context() as patch:
        patch.setattr(formats, "convert", failing_at("onnx", full))
        line = refused(patch, capsys, *words)
        assert line.startswith(f"edgecnn: {out}: the disk /")
        assert "is full" in line
    assert beside(out) == [".bundle.part"]
    assert sorted(path.name for path in (tmp_path / ".bundle.part").glob("*.json")) == [
        "key.json",
        "torchscript-fp32.json",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(bundling, "save_reference", raising(full))
        assert "is full" in refused(patch, capsys, *words)
    assert beside(out) == [".bundle.part"]
    assert call(monkeypatch, *words, "-v") == 0
    progress = capsys.readouterr().err
    for variant in ("torchscript-fp32", "onnx-fp32"):
        assert f"{variant}: kept from the export that was cut off" in progress
    assert beside(out) == ["bundle"]
    assert {one.variant for one in load_bundle(out).artifacts} == {"torchscript-fp32", "onnx-fp32"}


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*given: object, **options: object) -> None:
        raise error

    return fail


def test_an_interrupted_export_goes_on(
    run: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    words = ("export", run, "--target", target, "--out", out)
    with monkeypatch.context() as patch:
        patch.setattr(formats, "convert", failing_at("onnx", KeyboardInterrupt()))
        assert call(patch, *words) == 130
    assert "Traceback" not in capsys.readouterr().err
    assert beside(out) == [".bundle.part"]
    assert call(monkeypatch, *words, "-v") == 0
    progress = capsys.readouterr().err
    assert "torchscript-fp32: kept from the export that was cut off" in progress
    assert "onnx-fp32: convert" in progress
    assert beside(out) == ["bundle"]
    bundle = load_bundle(out)
    assert {one.variant for one in bundle.artifacts} == {"torchscript-fp32", "onnx-fp32"}
    assert call(monkeypatch, *words) == 0
    assert "export: already done" in capsys.readouterr().err
    assert load_bundle(out) == bundle


def test_other_rules_make_a_bundle_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An upgraded edgecnn, or one with other rules: neither the bundle nor what was cut off is kept."""
    target, out = write_target(tmp_path, "fp32", FLOAT[:1]), tmp_path / "bundle"
    words = ("export", run, "--target", target, "--out", out)
    for module, name, value in ((installed, "__version__", "9.8.7"), (bundling, "EXPORT_RULES", -1)):
        assert call(monkeypatch, *words) == 0
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            assert call(patch, *words) == 0
        assert "already done" not in capsys.readouterr().err
    assert load_bundle(out).provenance.tools["edgecnn's export rules"] == "-1"


def test_a_record_that_does_not_parse_is_made_anew(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target, out = write_target(tmp_path, "fp32", FLOAT[:1]), tmp_path / "bundle"
    words = ("export", run, "--target", target, "--out", out)
    with monkeypatch.context() as patch:
        patch.setattr(bundling, "save_reference", raising(OSError(errno.ENOSPC, "No space left on device")))
        refused(patch, capsys, *words)
    record = tmp_path / ".bundle.part" / "torchscript-fp32.json"
    record.write_text(record.read_text().replace('"runtime"', '"engine"'))
    assert call(monkeypatch, *words) == 0
    assert "kept from the export" not in capsys.readouterr().err


def test_a_bundle_in_the_current_folder_is_replaced(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.test_artifact import small_bundle

    target = write_target(tmp_path, "fp32", FLOAT[:1])
    small_bundle(tmp_path / "bundle")
    monkeypatch.chdir(tmp_path / "bundle")
    assert call(monkeypatch, "export", run, "--target", target, "--out", ".") == 0
    assert [one.variant for one in load_bundle(tmp_path / "bundle").artifacts] == ["torchscript-fp32"]
    assert beside(tmp_path / "bundle") == ["bundle"]


def test_a_library_that_is_not_installed_is_told_before_anything_is_done(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "openvino")
    target, out = write_target(tmp_path, "fp32", (FLOAT[0], ("openvino", "openvino"))), tmp_path / "bundle"
    words = ("export", run, "--target", target, "--out", out)
    line = refused(monkeypatch, capsys, *words)
    assert line == (
        f"edgecnn: not installed: openvino (for openvino-fp32): {install_command('train')}, "
        "or leave them out: --only torchscript"
    )
    assert beside(out) == []
    assert call(monkeypatch, *words, "--only", "torchscript") == 0
    assert [one.variant for one in load_bundle(out).artifacts] == ["torchscript-fp32"]


def test_a_bundle_of_some_variants_is_not_the_whole_one(
    run: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("export", run, "--target", target, "--out", tmp_path / "bundle")
    for only, variants in (("ONNX", {"onnx-fp32"}), (None, {"torchscript-fp32", "onnx-fp32"})):
        assert call(monkeypatch, *words, *(("--only", only) if only else ())) == 0
        told = capsys.readouterr().err
        assert told.startswith(f"to make for trial: {'' if only else 'torchscript fp32 · '}onnx fp32\n")
        assert "already done" not in told
        assert {one.variant for one in load_bundle(tmp_path / "bundle").artifacts} == variants
    assert call(monkeypatch, *words) == 0
    assert "already done" in capsys.readouterr().err


def test_a_quick_export_takes_the_first_rung_and_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = write_target(tmp_path, "int8", FLOAT[1:])
    words = ("export", run, "--target", target, "--out", tmp_path / "bundle")
    monkeypatch.setattr(climbing, "_good", lambda row, tuning: False)
    call(monkeypatch, *words, "--quick")
    shown = capsys.readouterr()
    assert "quick: first rung only" in shown.err
    assert "quick: first rung only" in shown.out
    (made,) = load_bundle(tmp_path / "bundle").artifacts
    assert made.notes["quick"] is True
    assert len(made.notes["rungs_tried"]) == 1
    assert made.notes["unfinished"][-1] == "further rungs: not tried (quick: first rung only)"


def without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda module, package=None: None if module == name else real(module, package)
    )


@torch.library.custom_op("edgecnn_tests::strange", mutates_args=(), schema="(Tensor x) -> Tensor")
def strange(x: Tensor) -> Tensor:
    return x.clone()


def test_a_network_that_a_format_cannot_hold_leaves_its_variant_out(
    run: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A custom operation: TorchScript traces it, torch.export cannot say what it gives."""
    real = Deployed.forward
    monkeypatch.setattr(Deployed, "forward", lambda self, images: strange(real(self, images)))
    out = tmp_path / "bundle"
    assert call(monkeypatch, "export", run, "--target", target, "--out", out) == 1
    bundle = load_bundle(out)
    assert [one.variant for one in bundle.artifacts] == ["torchscript-fp32"]
    (left,) = bundle.left_out
    assert left.variant == "onnx-fp32"
    assert left.final
    assert "\n" not in left.reason
    assert "edgecnn_tests.strange" in left.reason.replace("::", ".")
    assert left.reason[:80] in " ".join(capsys.readouterr().out.split())
    assert left.reason in " ".join((tmp_path / "bundle.log").read_text().split())


@pytest.mark.parametrize("verb", ["bench", "verify"])
def test_a_bundle_of_a_newer_version_is_refused(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.test_artifact import small_bundle

    small_bundle(tmp_path / "bundle")
    path = tmp_path / "bundle" / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    shutil.copytree(tmp_path / "bundle", tmp_path / "before")
    words = ("--data", tmp_path) if verb == "verify" else ()
    line = refused(monkeypatch, capsys, verb, tmp_path / "bundle", *words)
    assert "bundle version 99, this edgecnn reads version" in line
    assert "install a matching edgecnn" in line
    assert path.read_bytes() == (tmp_path / "before" / "bundle.json").read_bytes()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["before", "bundle"]


def test_a_network_that_answers_one_class_is_to_blame_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Black images in every class: INT8 answers as fp32 does, which is what is wrong."""
    for name in ("dark", "good", "spot"):
        (tmp_path / "parts" / name).mkdir(parents=True)
        for number in range(12):
            black = np.zeros((40, 40, 3), np.uint8)
            black[0, 0] = (ord(name[0]) % 7, number, 1)  # so that no two files are the same
            Image.fromarray(black).save(tmp_path / "parts" / name / f"{number}.png")
    data = load_folder(tmp_path / "parts")
    fine_tune(data, options(model="edgecnn:resnet_small_32", epochs=1), tmp_path / "run")
    target = write_target(tmp_path, "int8", FLOAT[1:], "int8_minutes = 0.01\n")
    assert call(monkeypatch, "export", tmp_path / "run", "--target", target, "--out", tmp_path / "bundle") == 1
    said = " ".join("".join(capsys.readouterr()).split())
    assert "the network answers one class: fp32 already says" in said
    assert "collapsed" not in said
    bundle = load_bundle(tmp_path / "bundle")
    assert [one.variant for one in bundle.artifacts] == ["onnx-int8"]
    assert bundle.doubts


def altered(real: Any, images: int) -> Any:
    """`run_files` whose answers are turned where there are so many images: those of one split."""

    def run_files(session: Any, paths: Any, spec: Any) -> Any:
        logits = real(session, paths, spec)
        return np.roll(logits, 1, axis=1) if len(paths) == images else logits

    return run_files


def test_test_images_select_nothing_and_what_they_show_is_never_silent(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target, out = write_target(tmp_path, "fp16", (("openvino", "openvino"),)), tmp_path / "bundle"
    target.write_text(target.read_text().replace("50.0", "1.0"))
    images = len(load_split(None, run / "split.json").test)
    monkeypatch.setattr(making, "run_files", altered(making.run_files, images))
    monkeypatch.setattr(bundling, "check_frames", lambda *given: None)
    assert call(monkeypatch, "export", run, "--target", target, "--out", out) == 1
    said = " ".join(capsys.readouterr().out.split())
    bundle = load_bundle(out)
    (artifact,) = bundle.artifacts
    assert artifact.selection is not None
    assert artifact.selection.on == "validation images"
    assert artifact.selection.judged.acceptable
    assert artifact.check.judged.shown == "shown beyond"
    assert artifact.check.loss_points > 1
    assert "NOT WITHIN THE TARGET ON TEST IMAGES, never chosen" in said
    row = Summary.model_construct(variant="openvino-fp16", verdict=Verdict.model_construct(outcome="PASS"), p50_ms=1.0)
    assert choose(out, [row]).choice is None


def test_validation_images_leave_out_what_is_beyond_a_limit(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only what validation images are answered is turned; the test images are as good as ever."""
    target = write_target(tmp_path, "fp16", (("openvino", "openvino"),))
    target.write_text(target.read_text().replace("50.0", "1.0"))
    real = making._run

    def turned(*given: Any) -> Any:
        selecting, logits, executed = real(*given)
        return np.roll(selecting, 1, axis=1), logits, executed

    monkeypatch.setattr(making, "_run", turned)
    line = refused(monkeypatch, capsys, "export", run, "--target", target, "--out", tmp_path / "bundle")
    assert "no variant of trial passed" in line
    assert "validation images: " in line


def test_a_strict_target_refuses_what_so_few_images_cannot_show(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = write_target(tmp_path, "fp16", (("openvino", "openvino"),), 'not_shown = "refuse"\n')
    target.write_text(target.read_text().replace("50.0", "1.0"))
    line = refused(monkeypatch, capsys, "export", run, "--target", target, "--out", tmp_path / "bundle")
    assert "not shown to be within 1; about" in line


def test_without_validation_images_nothing_is_called_validated(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same run with its validation images gone: train images outside the calibration, then calibration images."""
    exporting = importlib.import_module("edgecnn.export")
    real = exporting.load_split

    def without_validation(*given: Any) -> Any:
        return replace(real(*given), val=())

    monkeypatch.setattr(exporting, "load_split", without_validation)
    monkeypatch.setattr(exporting, "split_hashes", lambda data: read_checkpoint(run).splits)
    for calibration, on in ((8, "train images outside the calibration"), (512, "calibration images")):
        target = write_target(tmp_path, "int8", FLOAT[1:], f"int8_minutes = 0.01\ncalibration_images = {calibration}\n")
        out = tmp_path / f"bundle-{calibration}"
        call(monkeypatch, "export", run, "--target", target, "--out", out)
        (artifact,) = load_bundle(out).artifacts
        assert artifact.selection is not None
        assert (artifact.selection.on, artifact.selection.validated) == (on, False)
        assert artifact.notes["judged_on"] == on
        assert artifact.selection.judged.shown != "shown within"
        assert f"not validated: no validation images, kept by {artifact.selection.images} {on}" in (
            " ".join(capsys.readouterr().out.split())
        )
