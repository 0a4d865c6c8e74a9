"""The report of a bundle: self-contained, complete, and unharmed by hostile names."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edgecnn.artifact import (
    Doubt,
    Grouping,
    load_bundle,
)
from edgecnn.bench import Run
from edgecnn.bench.records import write_run
from edgecnn.bench.report import wording, write_report
from edgecnn.bench.report.charts import accuracy_against_latency
from edgecnn.bench.report.drawing import Chart
from edgecnn.bench.report.findings import parts_line, warnings
from edgecnn.bench.report.material import gather
from edgecnn.errors import MissingExtra, UserError
from edgecnn.profiles import Budget
from tests.bench.reported import VARIANTS, report_of, run_of, write_case

HOSTILE = "<script>alert('x')</script>|`$1$"


@pytest.fixture
def case(tmp_path: Path, make_run: Callable[..., Run]) -> Path:
    return write_case(tmp_path, make_run)


@pytest.fixture(autouse=True)
def no_charts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds: only the tests that ask for `charts` do."""
    if "charts" not in request.fixturenames:
        drawn = Chart("<svg></svg>", "<svg></svg>")
        for name in ("charts.histograms", "charts.stages", "charts.accuracy_against_latency"):
            monkeypatch.setattr(f"edgecnn.bench.report.{name}", lambda material: drawn)
        for name in ("spread", "timeline"):
            monkeypatch.setattr(f"edgecnn.bench.report.tail_charts.{name}", lambda tail, variant: drawn)


@pytest.fixture
def charts() -> None:
    """Draw them."""


def _flips(html: str) -> str:
    """The part on what conversion changed."""
    return html.partition('id="flips"')[2].partition("</details>")[0]


def test_html_loads_nothing(case: Path, charts: None) -> None:
    _, html = report_of(case)
    # xmlns attributes are names, not addresses that anything loads.
    assert not re.findall(r"https?://", re.sub(r'xmlns(:\w+)?="[^"]*"', "", html))
    assert not re.search(r"<(script|link|iframe|object|embed|base|form)\b|@import|@font-face", html)
    sources = re.findall(r"\b(?:src|srcset|poster|data)\s*=\s*[\"']([^\"']*)", html)
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert all(link.startswith("#") for link in re.findall(r'(?:xlink:)?href="([^"]*)"', html))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    assert "default-src 'none'" in html
    assert html.count("<svg") == 10  # five charts, each for wide and narrow pages
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert all(f">{variant}</text>" in html for variant in VARIANTS)


@pytest.mark.parametrize("typical", [0.0123, 0.7, 30.0, 1e4])
def test_variants_that_are_equally_fast_are_drawn(
    case: Path, make_run: Callable[..., Run], charts: None, typical: float
) -> None:
    bundle = load_bundle(case / "bundle")
    for variant in VARIANTS:
        write_run(case / "equal.jsonl", run_of(make_run, bundle, variant, typical / VARIANTS[variant][1]))
    drawn = accuracy_against_latency(gather(case / "bundle", case / "equal.jsonl", None))
    assert drawn is not None
    assert all(variant in page for variant in VARIANTS for page in (drawn.wide, drawn.narrow))


def test_headline_has_verdict_bound_host_date_and_accuracy_with_its_interval(case: Path) -> None:
    subject = next(
        variant for variant in gather(case / "bundle", case / "bench.jsonl", None).variants if variant.chosen
    )
    assert subject.summary is not None
    check = subject.artifact.check
    for page in report_of(case):
        assert "PASS" in page
        for part in (
            "onnx-int8",
            wording.milliseconds(subject.summary.upper_ms, subject.summary.budget),
            "30ms@p99",
            "Raspberry Pi 5",
            "2026-11-02 10:00 UTC",
            f"{100 * check.top1:.1f} % of 60 test images",
            f"{100 * check.top1_interval.low:.1f} to {100 * check.top1_interval.high:.1f} %",
        ):
            assert part in page.replace("\\", "").replace("\u00a0", " ")


def test_both_pages_have_every_variant_and_section(case: Path) -> None:
    markdown, html = report_of(case)
    assert re.search(r"^\| onnx-int8 \(chosen\) onnxruntime · n = 1,000 \|.*\| ✓ PASS \|$", markdown, re.MULTILINE)
    for page in (markdown, html):
        for variant in (*VARIANTS, "harness alone", "openvino-int8", "has collapsed"):
            assert variant in page
        for text in (
            "McNemar",
            "300.8 M MACs",
            "Confusion of onnx-int8",
            "Recall per class",
            "INT8 ladder",
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
    for page, verdict in zip(report_of(case), ("Fast enough?", '<section id="trust"'), strict=True):
        warned = page.index("the network does not fit what is assumed of it: BGR is right 40 points more often")
        assert "WARNING" in page[:warned]
        assert warned < page.index(verdict)


def test_without_doubts_nothing_is_warned_of(case: Path) -> None:
    for page in report_of(case):
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
    markdown, html = report_of(case, budget=Budget(milliseconds=2.0, percentile=99.0))
    assert "FAIL" in markdown.splitlines()[0] and "misses 2ms@p99" in html  # noqa: PT018
    assert '<li class="FAIL"><a href="#speed">Fast enough?</a>' in html


@pytest.mark.parametrize("classes", [(HOSTILE, "<img src=x onerror=y>", "a|b\n# c"), ("$x$", "日本", "_*_")])
def test_hostile_names_are_text(tmp_path: Path, make_run: Callable[..., Run], classes: Sequence[str]) -> None:
    case = write_case(tmp_path, make_run, classes, name=HOSTILE)
    markdown, html = report_of(case)
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
    _, html = report_of(case, data=None)
    assert _flips(html).count("<img ") == len(golden)
    assert "Without a picture" in html
    assert all(f"<code>{name}</code>" in _flips(html) for name in lost)


def test_an_image_that_was_replaced_is_not_shown_for_the_one_that_was_judged(case: Path) -> None:
    check = gather(case / "bundle", case / "bench.jsonl", None).bundle.artifact("onnx-int8").check
    name = next(flip.image for flip in check.flips if not flip.image.endswith("/000.jpg"))
    (case / "data" / name).write_bytes(b"another")
    _, html = report_of(case)
    assert f"<code>{name}</code>" in html
    assert _flips(html).count("<img ") == len(check.flips) - 1


def test_pictures_are_found_through_links_and_by_content(case: Path) -> None:
    check = gather(case / "bundle", case / "bench.jsonl", None).bundle.artifact("onnx-int8").check
    (case / "data").rename(case / "kept")
    (case / "data").mkdir()
    for folder in (case / "kept").iterdir():
        (case / "data" / folder.name).symlink_to(folder)
    name = next(flip.image for flip in check.flips if not flip.image.endswith("/000.jpg"))
    (case / "kept" / name).rename(case / "kept" / Path(name).parent / "renamed.jpg")
    _, html = report_of(case)
    assert _flips(html).count("<img ") == len(check.flips)


def test_missing_data_folder(case: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        report_of(case, data=case / "nowhere")


def test_report_inside_the_bundle_is_refused(case: Path) -> None:
    with pytest.raises(UserError, match="inside the bundle"):
        write_report(case / "bundle", case / "bench.jsonl", case / "bundle" / "report")


@pytest.mark.parametrize("library", ["jinja2", "matplotlib"])
def test_missing_library_names_the_extra(case: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == library else find(name))
    with pytest.raises(MissingExtra, match=rf"{library} is not installed: .*pip install .*\[report\]"):
        report_of(case)


def test_images_that_may_have_been_trained_on_are_warned_of(case: Path) -> None:
    material = gather(case / "bundle", [case / "bench.jsonl"], None)
    seen = replace(material, bundle=material.bundle.model_copy(update={"test_seen": "may be"}))
    assert warnings(seen)[0].startswith("accuracy may be too good: these weights may have been trained on the test")
    assert warnings(seen)[1:] == warnings(material)


def test_runs_of_other_files_do_not_count(case: Path, make_run: Callable[..., Run]) -> None:
    other = case / "other.jsonl"
    write_run(other, make_run())
    with pytest.raises(UserError, match="none of the 1 runs is of these files"):
        report_of(case, runs=other)
    material = gather(case / "bundle", [case / "bench.jsonl", other], None)
    assert material.ignored == 1


def test_runs_of_two_hosts_are_refused(case: Path, make_run: Callable[..., Run]) -> None:
    bundle = gather(case / "bundle", case / "bench.jsonl", None).bundle
    host = make_run().host.model_copy(update={"board": "Raspberry Pi 4 Model B"})
    write_run(case / "other.jsonl", run_of(make_run, bundle, "onnx-fp32", host=host))
    with pytest.raises(UserError, match="runs of 2 hosts"):
        report_of(case, runs=[case / "bench.jsonl", case / "other.jsonl"])


def test_the_latest_run_counts(case: Path, make_run: Callable[..., Run]) -> None:
    bundle = gather(case / "bundle", case / "bench.jsonl", None).bundle
    later = run_of(make_run, bundle, "onnx-int8", scale=20.0, started="2026-11-03T10:00:00+00:00")
    (case / "more").mkdir()
    write_run(case / "more" / "a.jsonl", later)
    material = gather(case / "bundle", [case / "more", case / "bench.jsonl"], None)
    assert next(variant for variant in material.variants if variant.chosen).run == later
    assert material.overall.outcome == "FAIL"


def test_an_unmeasured_chosen_variant_is_inconclusive(case: Path, make_run: Callable[..., Run]) -> None:
    bundle = gather(case / "bundle", case / "bench.jsonl", None).bundle
    write_run(case / "one.jsonl", run_of(make_run, bundle, "onnx-fp32"))
    markdown, html = report_of(case, runs=case / "one.jsonl")
    assert "INCONCLUSIVE" in markdown.splitlines()[0]
    assert "In the bundle, not measured" in html


def test_another_architecture_is_said(tmp_path: Path, make_run: Callable[..., Run]) -> None:
    case = write_case(tmp_path, make_run, machine="x86_64")
    _, html = report_of(case)
    assert "measured on aarch64, not on x86_64" in html


def test_many_classes_are_listed_instead_of_a_matrix(tmp_path: Path, make_run: Callable[..., Run]) -> None:
    case = write_case(tmp_path, make_run, tuple(f"c{number:02d}" for number in range(24)), frames=None, choice=None)
    markdown, html = report_of(case)
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
    markdown, html = report_of(case, run=_write_run(tmp_path / "trained"))
    assert "Training and validation loss" in html
    for text in (markdown, html):
        assert "50.0, 75.0" in text
        assert "head (chosen)" in text
        assert "plateau: head" in text
    assert "Recipes that were compared" not in report_of(case)[1]


def test_a_folder_without_a_run_is_refused(case: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no training run"):
        report_of(case, run=tmp_path)
    run = _write_run(tmp_path / "trained")
    (run / "metrics.jsonl").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        report_of(case, run=run)
