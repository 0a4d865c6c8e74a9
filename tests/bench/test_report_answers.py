"""The first part of a report answers who decides about a line: what is missed, slow and open, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn.artifact import Flip, load_bundle
from edgecnn.bench import Run, summarize
from edgecnn.bench.records import write_run
from edgecnn.bench.report import wording
from edgecnn.bench.report.answers import answers, next_steps, verdict_words
from edgecnn.bench.report.drawing import Chart
from edgecnn.bench.report.glossary import WORDS
from edgecnn.bench.report.material import Material, Variant, gather
from edgecnn.bench.report.mistaken import class_table, mistakes_by_kind
from edgecnn.bench.report.tail import Tail, tail_of, tail_table
from edgecnn.bench.report.variants import why_not_table
from edgecnn.profiles import Budget
from tests.bench.reported import CLASSES, report_of, run_of, write_case

REPOSITORY = Path(__file__).parents[2]
BUDGET = Budget(milliseconds=30, percentile=99)


@pytest.fixture
def case(tmp_path: Path, make_run: Callable[..., Run]) -> Path:
    return write_case(tmp_path, make_run)


@pytest.fixture(autouse=True)
def no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {
        name: Chart("<svg></svg>", "<svg></svg>") for name in ("spread", "timeline", "histograms", "stages", "accuracy")
    }
    monkeypatch.setattr("edgecnn.bench.report._charts", lambda material: drawn)


def _material(case: Path) -> Material:
    return gather(case / "bundle", case / "bench.jsonl", None)


def _with(material: Material, variant: str, **changes: Any) -> tuple[Material, Variant]:
    """The material with a variant whose check is changed, and this variant."""
    found = next(one for one in material.variants if one.name == variant)
    check = found.artifact.check.model_copy(update=changes)
    changed = replace(found, artifact=found.artifact.model_copy(update={"check": check}))
    return replace(material, variants=tuple(changed if one is found else one for one in material.variants)), changed


def test_mistakes_are_the_variants_own_missed_defects_first_the_surest_first(case: Path) -> None:
    material = _material(case)
    reference = material.reference
    assert reference is not None
    for variant in material.variants:
        groups = mistakes_by_kind(material, variant, None)
        assert groups is not None
        check = variant.artifact.check
        counts = {group.kind: group.count for group in groups}
        assert counts.get("missed", 0) == check.missed_defects
        assert counts.get("alarm", 0) == check.false_alarms
        assert sum(counts.values()) == check.images - round(check.top1 * check.images)
        assert [group.kind for group in groups] == [kind for kind in ("missed", "alarm", "other") if kind in counts]
        for group in groups:
            for mistakes in (group.pictured, group.listed):
                scores = [float(one.score.split("\u00a0")[0]) for one in mistakes]
                assert scores == sorted(scores, reverse=True)


def test_a_mistake_that_conversion_made_says_what_was_decided_as_trained(case: Path) -> None:
    material = _material(case)
    reference = material.reference
    assert reference is not None
    right = int(np.flatnonzero(reference.logits.argmax(1) == reference.labels)[0])
    label = CLASSES[reference.labels[right]]
    other = next(name for name in CLASSES if name != label)
    flip = Flip(image=reference.names[right], label=label, reference=label, variant=other)
    changed, variant = _with(material, "onnx-int8", flips=(flip,))
    found = [
        one for group in mistakes_by_kind(changed, variant, None) or () for one in (*group.pictured, *group.listed)
    ]
    (made,) = [one for one in found if one.image == flip.image]
    assert (made.decision, made.before) == (other, label)
    assert all(one.before is None for one in found if one is not made)


def test_without_a_good_class_all_mistakes_are_one_group(tmp_path: Path, make_run: Callable[..., Run]) -> None:
    material = _material(write_case(tmp_path, make_run, good_class=None))
    assert material.subject is not None
    groups = mistakes_by_kind(material, material.subject, None)
    assert groups is not None
    assert [group.name for group in groups] == ["Wrong decisions"]
    assert any("which class is the good one" in step for step in next_steps(material, groups))


def test_without_stored_answers_the_report_says_so(case: Path) -> None:
    material = replace(_material(case), reference=None)
    assert material.subject is not None
    assert mistakes_by_kind(material, material.subject, None) is None


def test_counts_and_intervals_stand_in_words(case: Path) -> None:
    material = _material(case)
    assert material.subject is not None
    check = material.subject.artifact.check
    found = {answer.question: answer for answer in answers(material)}
    assert list(found) == ["Fast enough?", "Missed defects", "False alarms", "Weakest class"]
    assert found["Missed defects"].large == f"{check.missed_defects} of 40"
    assert check.missed_interval is not None
    high = wording.percent(check.missed_interval.high)
    assert f"Expect up to {high} (95 % sure)" in found["Missed defects"].words
    assert found["Missed defects"].outcome is None  # nobody sets a limit for it
    assert f"Of 40 defects it missed {check.missed_defects}" in verdict_words(material)


@pytest.mark.parametrize(("scale", "word"), [(1.0, "take at most"), (20.0, "Fewer than 99 of 100 parts")])
def test_speed_is_said_in_parts(case: Path, make_run: Callable[..., Run], scale: float, word: str) -> None:
    bundle = load_bundle(case / "bundle")
    write_run(case / "bench.jsonl", run_of(make_run, bundle, "onnx-fp32", scale, started="2026-11-05T10:00:00+00:00"))
    material = _material(case)
    only = tuple(replace(one, chosen=True) for one in material.variants if one.name == "onnx-fp32")
    speed = answers(replace(material, variants=only))[0]
    assert word in speed.words
    assert "30 ms" in speed.words


def test_tail_counts_what_is_over_and_leaves_open_what_too_few_show(make_run: Callable[..., Run]) -> None:
    latencies = [5.0] * 998 + [40.0, 55.0]

    def tail(total_ms: list[float]) -> Tail:
        run = make_run(total_ms)
        return tail_of(run, summarize(run, BUDGET))

    assert tail(latencies).over_words == "2 of 1,000 over 30 ms"
    rows = {row.cells[2].text: row.cells[1].text for row in tail_table(tail(latencies)).rows}
    assert rows["max"] == "55 ms"
    assert rows["over budget"] == "2 of 1,000"
    assert rows["p99"] == "5 ms"
    assert rows["p99.9"] != "too few were measured"
    short = tail_table(tail(latencies[500:]))
    assert {row.cells[2].text: row.cells[1].text for row in short.rows}["p99.9"] == "too few were measured"


def test_text_and_tables_say_the_same_numbers(case: Path) -> None:
    material = _material(case)
    subject = material.subject
    assert subject is not None
    assert subject.summary is not None
    _, html = report_of(case)
    plain = re.sub(r"<[^>]+>", " ", html).replace("\u00a0", " ")
    bound = wording.milliseconds(subject.summary.upper_ms, material.budget)
    rows = re.findall(r"upper bound of p99", plain)
    assert rows
    assert len(re.findall(rf"\s{bound}\s", plain)) >= 3  # the sentence, the tables of the tail and of the variants
    assert f"its p99 is at most {bound} ms" in plain
    check = subject.artifact.check
    assert f"{check.missed_defects} of 40" in plain
    assert f"Missed defects: {check.missed_defects}" in plain


def test_every_link_of_the_contents_leads_somewhere(case: Path) -> None:
    _, html = report_of(case)
    links = set(re.findall(r'href="#([^"]+)"', html))
    assert {"trust", "wrong", "speed", "open", "words", "engineers"} <= links
    assert links <= set(re.findall(r'\bid="([^"]+)"', html))
    order = [html.index(f'id="{name}"') for name in ("trust", "wrong", "speed", "open", "words", "engineers")]
    assert order == sorted(order)
    folded = html[order[-1] :]
    assert "<table" in folded
    assert folded.index("<details") < folded.index("<table")


def test_hashes_of_what_it_is_about_are_told(case: Path) -> None:
    from edgecnn.documents import sha256_of_file

    material = _material(case)
    for page in report_of(case):
        assert sha256_of_file(case / "bundle" / "bundle.json") in page
        assert material.bundle.files["onnx-int8/model"].sha256 in page


def test_every_other_variant_has_a_reason(case: Path) -> None:
    material = _material(case)
    table = why_not_table(material)
    assert table is not None
    names = {row.cells[0].text for row in table.rows}
    others = {variant.name for variant in material.variants if variant is not material.subject}
    assert names == others | {"openvino-int8"}
    assert all(row.cells[1].text for row in table.rows)


def test_classes_are_listed_the_weakest_first(case: Path) -> None:
    material = _material(case)
    assert material.subject is not None
    shares = [float(row.cells[2].text.split("\u00a0")[0]) for row in class_table(material, material.subject).rows]
    assert shares == sorted(shares)


def test_the_plants_page_explains_every_word_of_the_report() -> None:
    page = " ".join((REPOSITORY / "docs" / "for-the-plant.md").read_text().split())
    for word, meaning in WORDS:
        assert f"| {word} | {meaning} |" in page, word
    assert "docs/for-the-plant.md" in (REPOSITORY / "README.md").read_text()


@pytest.mark.parametrize(
    ("percentile", "words"), [(99, "99 of 100 parts"), (99.9, "999 of 1,000 parts"), (50, "50 of 100 parts")]
)
def test_a_percentile_is_a_count_of_parts(percentile: float, words: str) -> None:
    assert wording.of_parts(percentile) == words
