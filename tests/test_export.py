"""Exports that cannot go through or are cut off: one line, nothing half-written, and nothing is done twice."""

from __future__ import annotations

import errno
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edgecnn import formats
from edgecnn.artifact import Artifact, load_bundle
from edgecnn.data import load_folder
from edgecnn.export import bundle as bundling
from edgecnn.export import variant as making
from edgecnn.formats import Converted
from edgecnn.models import Deployed
from edgecnn.rehearse.short import Shown
from edgecnn.train import fine_tune
from tests.test_cli import call, refused
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
    """What is in the folder of `out` but the target."""
    return sorted(path.name for path in out.parent.iterdir() if path.suffix != ".toml")


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
    def prove(artifact: Artifact, *given: Any, older: bool) -> Shown:
        assert older
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
    assert "torchscript-fp32: not proven on x86-64-v2: no emulator here" in capsys.readouterr().out


def test_a_disk_that_is_full_half_way(
    run: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    words = ("export", run, "--target", target, "--out", out)
    full = OSError(errno.ENOSPC, "No space left on device", str(out))
    with monkeypatch.context() as patch:
        patch.setattr(formats, "convert", failing_at("onnx", full))
        assert refused(patch, capsys, *words) == f"edgecnn: {out}: No space left on device"
    assert beside(out) == [".bundle.part"]
    assert sorted(path.name for path in (tmp_path / ".bundle.part").glob("*.json")) == [
        "key.json",
        "torchscript-fp32.json",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(bundling, "save_reference", raising(full))
        assert "No space left on device" in refused(patch, capsys, *words)
    assert beside(out) == [".bundle.part"]
    assert call(monkeypatch, *words) == 0
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
    assert call(monkeypatch, *words) == 0
    progress = capsys.readouterr().err
    assert "torchscript-fp32: kept from the export that was cut off" in progress
    assert "onnx-fp32: convert" in progress
    assert beside(out) == ["bundle"]
    bundle = load_bundle(out)
    assert {one.variant for one in bundle.artifacts} == {"torchscript-fp32", "onnx-fp32"}
    assert call(monkeypatch, *words) == 0
    assert "export: already done" in capsys.readouterr().err
    assert load_bundle(out) == bundle


def test_an_engine_that_is_not_installed_leaves_its_variants_out(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "openvino")
    target, out = write_target(tmp_path, "fp32", (FLOAT[0], ("openvino", "openvino"))), tmp_path / "bundle"
    assert call(monkeypatch, "export", run, "--target", target, "--out", out) == 1
    assert "openvino is not installed: pip install 'edgecnn[" in capsys.readouterr().out.replace("\n", " ")
    bundle = load_bundle(out)
    assert [one.variant for one in bundle.artifacts] == ["torchscript-fp32"]
    assert [one.variant for one in bundle.left_out] == ["openvino-fp32"]
    assert not (out / "openvino-fp32").exists()
    target = write_target(tmp_path, "fp32", (("openvino", "openvino"),))
    line = refused(monkeypatch, capsys, "export", run, "--target", target, "--out", tmp_path / "none")
    assert "no variant of trial passed, nothing was written: openvino-fp32: openvino is not installed" in line
    assert not (tmp_path / "none").exists()


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
    assert left.reason in " ".join(capsys.readouterr().out.split())


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
