"""The report of a bundle: self-contained, complete, and unharmed by hostile names."""

from __future__ import annotations

import importlib.util
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgecnn.artifact import (
    Artifact,
    Bundle,
    Choice,
    Cost,
    Doubt,
    FrameCheck,
    Golden,
    Grouping,
    LeftOut,
    Preprocess,
    inventory,
    load_bundle,
    write_bundle,
)
from edgecnn.bench import NULL_VARIANT, Run
from edgecnn.bench.records import Subject, write_run
from edgecnn.bench.report import wording, write_report
from edgecnn.bench.report.charts import accuracy_against_latency
from edgecnn.bench.report.findings import parts_line
from edgecnn.bench.report.material import gather
from edgecnn.documents import sha256_of
from edgecnn.errors import MissingExtra, UserError
from edgecnn.evaluate import compare
from edgecnn.judge import Yardstick
from edgecnn.parity import REFERENCE_FILE, Reference, save_reference
from edgecnn.profiles import Budget
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
HOSTILE = "<script>alert('x')</script>|`$1$"


def write_case(root: Path, make_run: Callable[..., Run], classes: Sequence[str] = CLASSES, **changes: Any) -> Path:
    """A bundle at root/bundle, its images at root/data, its runs at root/bench.jsonl."""
    folder = root / "bundle"
    reference = _write_images(root / "data", folder / "golden", classes)
    save_reference(reference, folder / REFERENCE_FILE)
    artifacts = tuple(_artifact(folder, reference, classes, variant) for variant in VARIANTS)
    bundle = _bundle(folder, classes, artifacts, reference).model_copy(update=changes)
    write_bundle(folder, bundle)
    for variant in (*VARIANTS, NULL_VARIANT):
        write_run(root / "bench.jsonl", _run(make_run, bundle, variant))
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


def _run(make_run: Callable[..., Run], bundle: Bundle, variant: str, scale: float = 1.0, **changes: Any) -> Run:
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


@pytest.fixture
def case(tmp_path: Path, make_run: Callable[..., Run]) -> Path:
    return write_case(tmp_path, make_run)


@pytest.fixture(autouse=True)
def no_charts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds: only the tests that ask for `charts` do."""
    if "charts" not in request.fixturenames:
        for name in ("histograms", "stages", "accuracy_against_latency"):
            monkeypatch.setattr(f"edgecnn.bench.report.charts.{name}", lambda material: "<svg></svg>")


@pytest.fixture
def charts() -> None:
    """Draw them."""


def _report(case: Path, **options: Any) -> tuple[str, str]:
    options = {"runs": case / "bench.jsonl", "data": case / "data", **options}
    markdown, html = write_report(case / "bundle", out=case / "out", **options)
    return markdown.read_text(), html.read_text()


def test_html_loads_nothing(case: Path, charts: None) -> None:
    _, html = _report(case)
    # xmlns attributes are names, not addresses that anything loads.
    assert not re.findall(r"https?://", re.sub(r'xmlns(:\w+)?="[^"]*"', "", html))
    assert not re.search(r"<(script|link|iframe|object|embed|base|form)\b|@import|@font-face", html)
    sources = re.findall(r"\b(?:src|srcset|poster|data)\s*=\s*[\"']([^\"']*)", html)
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert all(link.startswith("#") for link in re.findall(r'(?:xlink:)?href="([^"]*)"', html))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    assert "default-src 'none'" in html
    assert html.count("<svg") == 3
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert all(f">{variant}</text>" in html for variant in VARIANTS)


@pytest.mark.parametrize("typical", [0.0123, 0.7, 30.0, 1e4])
def test_variants_that_are_equally_fast_are_drawn(
    case: Path, make_run: Callable[..., Run], charts: None, typical: float
) -> None:
    bundle = load_bundle(case / "bundle")
    for variant in VARIANTS:
        write_run(case / "equal.jsonl", _run(make_run, bundle, variant, typical / VARIANTS[variant][1]))
    drawn = accuracy_against_latency(gather(case / "bundle", case / "equal.jsonl", None))
    assert drawn is not None
    assert all(variant in drawn for variant in VARIANTS)


def test_headline_has_verdict_bound_host_date_and_accuracy_with_its_interval(case: Path) -> None:
    subject = next(
        variant for variant in gather(case / "bundle", case / "bench.jsonl", None).variants if variant.chosen
    )
    assert subject.summary is not None
    check = subject.artifact.check
    for page in _report(case):
        assert "PASS" in page
        for part in (
            "onnx-int8",
            wording.milliseconds(subject.summary.upper_ms),
            "30ms@p99",
            "Raspberry Pi 5",
            "2026-11-02 10:00 UTC",
            f"{100 * check.top1:.1f} % of 60 test images",
            f"{100 * check.top1_interval.low:.1f} to {100 * check.top1_interval.high:.1f} %",
        ):
            assert part in page.replace("\\", "").replace("\u00a0", " ")


def test_both_pages_have_every_variant_and_section(case: Path) -> None:
    markdown, html = _report(case)
    assert re.search(r"^\| onnx-int8 \(chosen\) onnxruntime · n = 1,000 \|.*\| ✓ PASS \|$", markdown, re.MULTILINE)
    for page in (markdown, html):
        for variant in (*VARIANTS, "harness alone", "openvino-int8", "has collapsed"):
            assert variant in page
        for text in (
            "McNemar",
            "300.8 M MACs",
            "Confusion of onnx-int8",
            "Recall per class",
            "Calibration",
            "b (taken)",
        ):
            assert text in page
        for text in (
            "59/60",
            "c" * 64,
            "judged on 417 validation images",
            "Beware",
            "not shown to be within",
            "does not show",
            "d" * 64,
            "2.14.1",
        ):
            assert text in page


def test_doubts_stand_above_the_verdict(tmp_path: Path, make_run: Callable[..., Run]) -> None:
    doubt = Doubt(stage="colour order", words="BGR is right 40 points more often")
    case = write_case(tmp_path, make_run, doubts=(doubt,))
    for page, verdict in zip(_report(case), ("Decided by", '<section class="verdict'), strict=True):
        warned = page.index("the network does not fit what is assumed of it: BGR is right 40 points more often")
        assert "WARNING" in page[:warned]
        assert warned < page.index(verdict)


def test_without_doubts_nothing_is_warned_of(case: Path) -> None:
    for page in _report(case):
        assert "WARNING" not in page


def test_look_alikes_that_a_rule_keeps_apart_are_said(case: Path) -> None:
    whole = load_bundle(case / "bundle")
    grouping = Grouping(by="names", rule="_([0-9])", images=80, parts=4, largest=20, sha256="0" * 64)
    for apart in (0, 1, 20):
        told = whole.provenance.model_copy(update={"grouping": grouping.model_copy(update={"alike_apart": apart})})
        line = parts_line(whole.model_copy(update={"provenance": told}))
        assert "named by '_([0-9])'" in line
        assert ("of images that look alike are in several splits" in line) == bool(apart)


def test_a_budget_that_is_missed_says_so_in_words(case: Path) -> None:
    markdown, html = _report(case, budget=Budget(milliseconds=2.0, percentile=99.0))
    assert "FAIL" in markdown.splitlines()[0] and "misses 2ms@p99" in html  # noqa: PT018
    assert '<section class="verdict FAIL">' in html


@pytest.mark.parametrize("classes", [(HOSTILE, "<img src=x onerror=y>", "a|b\n# c"), ("$x$", "日本", "_*_")])
def test_hostile_names_are_text(tmp_path: Path, make_run: Callable[..., Run], classes: Sequence[str]) -> None:
    case = write_case(tmp_path, make_run, classes, name=HOSTILE)
    markdown, html = _report(case)
    for page in (markdown, html):
        assert "<script" not in page
        assert "<img src=x" not in page
    assert "&lt;script&gt;" in html or classes[0] != HOSTILE
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)
    assert not any(line.startswith("# c") for line in markdown.splitlines())


def test_pictures_come_from_the_golden_images_where_there_is_no_data_folder(case: Path) -> None:
    check = gather(case / "bundle", case / "bench.jsonl", None).bundle.artifact("onnx-int8").check
    golden = [flip.image for flip in check.flips if flip.image.endswith("/000.jpg")]
    lost = [flip.image for flip in check.flips if not flip.image.endswith("/000.jpg")]
    assert golden
    assert lost
    _, html = _report(case, data=None)
    assert html.count("<img ") == len(golden)
    assert "Without a picture" in html
    assert all(f"<code>{name}</code>" in html for name in lost)


def test_an_image_that_was_replaced_is_not_shown_for_the_one_that_was_judged(case: Path) -> None:
    check = gather(case / "bundle", case / "bench.jsonl", None).bundle.artifact("onnx-int8").check
    name = next(flip.image for flip in check.flips if not flip.image.endswith("/000.jpg"))
    (case / "data" / name).write_bytes(b"another")
    _, html = _report(case)
    assert f"<code>{name}</code>" in html
    assert html.count("<img ") == len(check.flips) - 1


def test_pictures_are_found_through_links_and_by_content(case: Path) -> None:
    check = gather(case / "bundle", case / "bench.jsonl", None).bundle.artifact("onnx-int8").check
    (case / "data").rename(case / "kept")
    (case / "data").mkdir()
    for folder in (case / "kept").iterdir():
        (case / "data" / folder.name).symlink_to(folder)
    name = next(flip.image for flip in check.flips if not flip.image.endswith("/000.jpg"))
    (case / "kept" / name).rename(case / "kept" / Path(name).parent / "renamed.jpg")
    _, html = _report(case)
    assert html.count("<img ") == len(check.flips)


def test_missing_data_folder(case: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        _report(case, data=case / "nowhere")


def test_report_inside_the_bundle_is_refused(case: Path) -> None:
    with pytest.raises(UserError, match="inside the bundle"):
        write_report(case / "bundle", case / "bench.jsonl", case / "bundle" / "report")


@pytest.mark.parametrize("library", ["jinja2", "matplotlib"])
def test_missing_library_names_the_extra(case: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == library else find(name))
    with pytest.raises(MissingExtra, match=rf"{library} is not installed: .*pip install .*\[report\]"):
        _report(case)


def test_runs_of_other_files_do_not_count(case: Path, make_run: Callable[..., Run]) -> None:
    other = case / "other.jsonl"
    write_run(other, make_run())
    with pytest.raises(UserError, match="none of the 1 runs is of these files"):
        _report(case, runs=other)
    material = gather(case / "bundle", [case / "bench.jsonl", other], None)
    assert material.ignored == 1


def test_runs_of_two_hosts_are_refused(case: Path, make_run: Callable[..., Run]) -> None:
    bundle = gather(case / "bundle", case / "bench.jsonl", None).bundle
    host = make_run().host.model_copy(update={"board": "Raspberry Pi 4 Model B"})
    write_run(case / "other.jsonl", _run(make_run, bundle, "onnx-fp32", host=host))
    with pytest.raises(UserError, match="runs of 2 hosts"):
        _report(case, runs=[case / "bench.jsonl", case / "other.jsonl"])


def test_the_latest_run_counts(case: Path, make_run: Callable[..., Run]) -> None:
    bundle = gather(case / "bundle", case / "bench.jsonl", None).bundle
    later = _run(make_run, bundle, "onnx-int8", scale=20.0, started="2026-11-03T10:00:00+00:00")
    (case / "more").mkdir()
    write_run(case / "more" / "a.jsonl", later)
    material = gather(case / "bundle", [case / "more", case / "bench.jsonl"], None)
    assert next(variant for variant in material.variants if variant.chosen).run == later
    assert material.overall.outcome == "FAIL"


def test_an_unmeasured_chosen_variant_is_inconclusive(case: Path, make_run: Callable[..., Run]) -> None:
    bundle = gather(case / "bundle", case / "bench.jsonl", None).bundle
    write_run(case / "one.jsonl", _run(make_run, bundle, "onnx-fp32"))
    markdown, html = _report(case, runs=case / "one.jsonl")
    assert "INCONCLUSIVE" in markdown.splitlines()[0]
    assert "In the bundle, not measured" in html


def test_another_architecture_is_said(tmp_path: Path, make_run: Callable[..., Run]) -> None:
    case = write_case(tmp_path, make_run, machine="x86_64")
    _, html = _report(case)
    assert "measured on aarch64, not on x86_64" in html


def test_many_classes_are_listed_instead_of_a_matrix(tmp_path: Path, make_run: Callable[..., Run]) -> None:
    case = write_case(tmp_path, make_run, tuple(f"c{number:02d}" for number in range(24)), frames=None, choice=None)
    markdown, html = _report(case)
    assert "| label | decision | images |" in markdown
    assert "Not measured in this bundle" in html
    assert "names no choice" in html


@pytest.mark.parametrize(
    ("value", "text"), [(0.9561, "95.6\u00a0%"), (1.0, "100\u00a0%"), (0.99999, "99.99\u00a0%"), (0.0, "0\u00a0%")]
)
def test_percent(value: float, text: str) -> None:
    assert wording.percent(value) == text


def test_milliseconds_have_three_digits() -> None:
    assert [wording.milliseconds(value) for value in (0.01234, 4.8, 47.36, 812.4, 1234.5, None)] == [
        *("0.0123", "4.80", "47.4", "812", "1,234", "–"),
    ]


def test_proportion_has_count_and_interval() -> None:
    assert wording.proportion(0.95, 20) == "95.0\u00a0% (19/20) [75.1, 99.9]"


def _write_run(run: Path) -> Path:
    run.mkdir()
    (run / "run.json").write_text("{}")
    rows = [
        {"epoch": n, "train_loss": 1 / n, "val_loss": 1.1 / n, "val_top1": 1 - 0.5 / n, "val_balanced": 1 - 0.5 / n}
        for n in (1, 2, 3)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trial = {"recipe": "head", "folds": 2, "epochs": 5, "full_epochs": 60, "recalls": [0.5, 0.75], "loss": 0.4}
    evidence = {"chosen": "head", "reason": "mean recall 62.5%", "symptoms": ["plateau: head"]}
    evidence["trials"] = [{**trial, "minutes": 1.25}]
    (run / "evidence.json").write_text(json.dumps(evidence))
    return run


def test_training_curves_and_compared_recipes_are_shown(case: Path, tmp_path: Path) -> None:
    markdown, html = _report(case, run=_write_run(tmp_path / "trained"))
    assert "Training and validation loss" in html
    for text in (markdown, html):
        assert "50.0, 75.0" in text
        assert "head (chosen)" in text
        assert "plateau: head" in text
    assert "Recipes that were compared" not in _report(case)[1]


def test_a_folder_without_a_run_is_refused(case: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no training run"):
        _report(case, run=tmp_path)
    run = _write_run(tmp_path / "trained")
    (run / "metrics.jsonl").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        _report(case, run=run)
