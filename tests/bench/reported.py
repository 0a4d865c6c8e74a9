"""A bundle with four variants, its images and its runs, for the tests of its report."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgecnn.artifact import (
    Artifact,
    Bundle,
    Choice,
    Cost,
    FrameCheck,
    Golden,
    LeftOut,
    Preprocess,
    inventory,
    write_bundle,
)
from edgecnn.bench import NULL_VARIANT, Run
from edgecnn.bench.records import Subject, write_run
from edgecnn.bench.report import write_report
from edgecnn.documents import sha256_of
from edgecnn.evaluate import compare
from edgecnn.judge import Yardstick
from edgecnn.parity import REFERENCE_FILE, Reference, save_reference
from tests.conftest import provenance

CLASSES = ("good", "scratch", "dent")
PER_CLASS = 20
VARIANTS = {
    # variant: runtime, typical latency in ms, disturbance of the logits
    "torchscript-fp32": ("pytorch", 11.0, 0.0),
    "onnx-fp32": ("onnxruntime", 6.0, 0.0),
    "openvino-fp16": ("openvino", 5.0, 0.05),
    "onnx-int8": ("onnxruntime", 3.5, 1.0),
}


def write_case(root: Path, make_run: Callable[..., Run], classes: Sequence[str] = CLASSES, **changes: Any) -> Path:
    """A bundle at root/bundle, its images at root/data, its runs at root/bench.jsonl."""
    folder = root / "bundle"
    reference = _write_images(root / "data", folder / "golden", classes)
    save_reference(reference, folder / REFERENCE_FILE)
    artifacts = tuple(_artifact(folder, reference, classes, variant) for variant in VARIANTS)
    bundle = _bundle(folder, classes, artifacts, reference).model_copy(update=changes)
    write_bundle(folder, bundle)
    for variant in (*VARIANTS, NULL_VARIANT):
        write_run(root / "bench.jsonl", run_of(make_run, bundle, variant))
    return root


def _write_images(data: Path, golden: Path, classes: Sequence[str]) -> Reference:
    """Noise, a folder for each class (by number: a class may have any name); the first of each is golden."""
    rng = np.random.default_rng(0)
    golden.mkdir(parents=True)
    names, hashes, labels = [], [], []
    for label in range(len(classes)):
        (data / f"class{label}").mkdir(parents=True)
        for number in range(PER_CLASS):
            stream = io.BytesIO()
            pixels = rng.integers(0, 256, (6, 8, 3)).repeat(20, 0).repeat(20, 1)
            Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG")
            name = f"class{label}/{number:03d}.jpg"
            (data / name).write_bytes(stream.getvalue())
            if number == 0:
                (golden / f"{label:03d}.jpg").write_bytes(stream.getvalue())
            names.append(name)
            hashes.append(sha256_of(stream.getvalue()))
            labels.append(label)
    logits = rng.normal(0, 1, (len(labels), len(classes))) + 3 * np.eye(len(classes))[labels]
    return Reference(tuple(names), tuple(hashes), np.array(labels), logits.astype(np.float32))


def _artifact(folder: Path, reference: Reference, classes: Sequence[str], variant: str) -> Artifact:
    runtime, _, disturbance = VARIANTS[variant]
    (folder / variant).mkdir()
    (folder / variant / "model").write_text(variant)
    noise = np.random.default_rng(1).normal(0, 1, reference.logits.shape).astype(np.float32)
    logits = reference.logits + np.float32(disturbance) * noise
    format_name, _, precision = variant.partition("-")
    yardstick = Yardstick(1.0, classes=tuple(classes), good_class=classes[0])
    rung = {"rung": "a", "loss_points": 0.5, "agreement": 0.98, "logit_error": 0.07, "largest_class_share": 0.3}
    notes = {"rung": "b", "rungs_tried": [rung, {**rung, "rung": "b"}], "calibration_images": 300}
    notes |= {"calibration_pixels_sha256": "c" * 64, "judged_on": "validation images", "judged_images": 417}
    return Artifact(
        variant=variant,
        format=format_name,
        precision=precision,  # type: ignore[arg-type]
        runtime=runtime,
        files=(f"{variant}/model",),
        bytes=9_000_000,
        notes=notes if precision == "int8" else {},
        check=compare(logits, reference.logits, reference.labels, reference.names, yardstick, precision),  # type: ignore[arg-type]
    )


def _bundle(folder: Path, classes: Sequence[str], artifacts: tuple[Artifact, ...], reference: Reference) -> Bundle:
    return Bundle(
        name="tiles",
        target="raspberry-pi-5",
        budget="30ms@p99",
        threads=2,
        machine="aarch64",
        accuracy_loss_limit=1.0,
        fp32_tolerance=1e-4,
        classes=tuple(classes),
        good_class=classes[0],
        preprocess=Preprocess(height=224, width=224),
        cost=Cost(params=2_230_000, macs=300_800_000),
        artifacts=artifacts,
        left_out=(LeftOut(variant="openvino-int8", reason="has collapsed", check=artifacts[-1].check),),
        frames=FrameCheck(
            images=60,
            mean_pixel_error=1.2,
            max_pixel_error=30,
            mean_logit_error=0.02,
            max_logit_error=0.2,
            agreement=59 / 60,
            limit=0.98,
            within=True,
        ),
        golden=tuple(
            Golden(
                file=f"golden/{label:03d}.jpg",
                label=name,
                logits=tuple(map(float, reference.logits[label])),
                pixels_sha256="0" * 64,
            )
            for label, name in enumerate(classes)
        ),
        choice=Choice(variant="onnx-int8", reason="the fastest within the accuracy-loss limit"),
        provenance=provenance(
            "2026-11-02T09:00:00+00:00",
            "timm:mobilenetv2_100",
            "last",
            weights="hub",
            checkpoint_sha256="c" * 64,
            target_sha256="d" * 64,
            tools={"torch": "2.14.1"},
            host={"machine": "x86_64"},
            splits={"train": "d" * 64, "test": "e" * 64},
        ),
        files=inventory(folder),
    )


def run_of(make_run: Callable[..., Run], bundle: Bundle, variant: str, scale: float = 1.0, **changes: Any) -> Run:
    typical = 1.5 if variant == NULL_VARIANT else VARIANTS[variant][1]
    latencies = scale * typical * np.random.default_rng(2).lognormal(0, 0.08, 1000)
    if variant == NULL_VARIANT:
        subject = Subject(bundle=bundle.name, target=bundle.target, target_machine="aarch64", variant=variant, files={})
        return make_run(latencies, subject=subject, executed=None, **changes)
    artifact = bundle.artifact(variant)
    subject = Subject(
        bundle=bundle.name,
        target=bundle.target,
        target_machine="aarch64",
        variant=variant,
        format=artifact.format,
        precision=artifact.precision,
        runtime=artifact.runtime,
        files={name: bundle.files[name].sha256 for name in artifact.files},
        file_bytes=artifact.bytes,
        params=bundle.cost.params,
        macs=bundle.cost.macs,
    )
    return make_run(latencies, subject=subject, **changes)


def report_of(case: Path, **options: Any) -> tuple[str, str]:
    """report.md and report.html of a case."""
    options = {"runs": case / "bench.jsonl", "data": case / "data", **options}
    markdown, html = write_report(case / "bundle", out=case / "out", **options)
    return markdown.read_text(), html.read_text()
