"""Tests of rows as plain data and of the verdict of a whole bench."""

from __future__ import annotations

import json

import pytest

from edgecnn.bench.records import NULL_VARIANT
from edgecnn.bench.rows import COLUMNS, Skipped, as_json, overall, table
from edgecnn.bench.summary import summarize
from edgecnn.profiles import Budget

BUDGET = Budget(milliseconds=30.0, percentile=99.0)
LATENCIES = {"PASS": [10.0] * 1000, "FAIL": [50.0] * 1000, "INCONCLUSIVE": [10.0] * 100}


@pytest.fixture
def make_row(make_run):
    """make_row(outcome) to a row with that verdict; SKIPPED and NULL as well."""

    def make(outcome: str, chosen: bool = False, unusable: str | None = None):
        if unusable:
            return make(outcome, chosen).model_copy(update={"unusable": unusable})
        if outcome == "SKIPPED":
            return Skipped(variant="ncnn-fp32", chosen=chosen, reason="ncnn is not installed")
        run = make_run(LATENCIES.get(outcome, [1.0] * 1000))
        if outcome == "NULL":
            subject = run.subject.model_copy(update={"variant": NULL_VARIANT, "params": None})
            return summarize(run.model_copy(update={"subject": subject}), BUDGET)
        return summarize(run, BUDGET, chosen)

    return make


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (["PASS"], "PASS"),
        (["FAIL", "PASS", "INCONCLUSIVE"], "PASS"),
        (["FAIL", "INCONCLUSIVE"], "INCONCLUSIVE"),
        (["FAIL", "SKIPPED"], "INCONCLUSIVE"),
        (["FAIL", "FAIL"], "FAIL"),
        (["SKIPPED"], "INCONCLUSIVE"),
        (["NULL", "FAIL"], "FAIL"),
        (["NULL"], "INCONCLUSIVE"),
        ([], "INCONCLUSIVE"),
        (["PASS", "FAIL*"], "FAIL"),
        (["FAIL", "PASS*"], "PASS"),
        (["PASS", "INCONCLUSIVE*"], "INCONCLUSIVE"),
        (["PASS", "SKIPPED*"], "INCONCLUSIVE"),
        (["FAIL", "PASS!"], "FAIL"),
        (["PASS", "FAIL!"], "PASS"),
        (["PASS!", "SKIPPED"], "INCONCLUSIVE"),
        (["NULL", "PASS!"], "FAIL"),
        (["INCONCLUSIVE!", "SKIPPED!"], "FAIL"),
        (["PASS", "PASS*!"], "FAIL"),
    ],
)
def test_truth_table_of_a_whole_bench(make_row, outcomes: list[str], expected: str) -> None:
    """A star marks the bundle's choice, an exclamation mark what must not be deployed."""
    verdict = overall(
        [make_row(outcome.rstrip("*!"), "*" in outcome, "vetoed" if "!" in outcome else None) for outcome in outcomes]
    )
    assert verdict.outcome == expected
    assert verdict.exit_code == {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}[expected]
    assert verdict.reason


def test_the_best_of_those_that_pass_has_the_lowest_bound(make_row, make_run) -> None:
    """Whatever its place: the report names the same."""
    run = make_run([5.0] * 1000)
    quick = summarize(run.model_copy(update={"subject": run.subject.model_copy(update={"variant": "quick"})}), BUDGET)
    for rows in ([make_row("PASS"), quick], [quick, make_row("PASS")]):
        assert overall(rows).reason.startswith("quick (the best of 2): ")


def test_what_was_not_measured_is_not_counted_among_the_best(make_row, make_run) -> None:
    run = make_run([5.0] * 1000)
    quick = summarize(run.model_copy(update={"subject": run.subject.model_copy(update={"variant": "quick"})}), BUDGET)
    assert overall([make_row("SKIPPED"), quick]).reason.startswith("quick: ")
    assert overall([make_row("SKIPPED"), quick, make_row("PASS")]).reason.startswith("quick (the best of 2): ")


def test_where_the_choice_could_not_be_measured_the_best_that_was_is_named(make_row, make_run) -> None:
    run = make_run([5.0] * 1000)
    quick = summarize(run.model_copy(update={"subject": run.subject.model_copy(update={"variant": "quick"})}), BUDGET)
    rows = [make_row("NULL"), make_row("SKIPPED", chosen=True), make_row("PASS"), quick]
    told = "ncnn-fp32 (the bundle's choice): not measured: ncnn is not installed; of those that run here the best is "
    found = overall(rows)
    assert found.reason.startswith(f"{told}quick: PASS, ")
    assert (found.variant, found.exit_code) == ("quick", 3)
    assert overall([rows[1], make_row("PASS", unusable="vetoed")]).reason == told.partition(";")[0]
    refused = rows[1].model_copy(update={"refused": True})
    assert (overall([refused, quick]).variant, overall([refused, quick]).exit_code) == ("ncnn-fp32", 1)


def test_all_rows_have_the_same_columns(make_row) -> None:
    cells = table([make_row(outcome) for outcome in ("NULL", "PASS", "SKIPPED")])
    assert [tuple(row) for row in cells] == [COLUMNS] * 3
    null, passed, skipped = cells
    assert (passed["macs_m"], passed["flops_m"], passed["file_mib"], passed["peak_rss_mib"]) == (300, 600, 3, 100)
    assert (passed["p99_ms"], passed["bound_ms"], passed["bound_percentile"]) == (10.0, 10.0, 99.0)
    assert (null["verdict"], null["params_m"]) == (None, None)
    assert (skipped["verdict"], skipped["reason"], skipped["p99_ms"]) == ("SKIPPED", "ncnn is not installed", None)


def test_everything_goes_to_json(make_row) -> None:
    document = json.loads(json.dumps(as_json([make_row("PASS"), make_row("SKIPPED")]), allow_nan=False))
    assert document["overall"]["exit_code"] == 0
    assert document["rows"][0]["verdict"]["outcome"] == "PASS"
    assert document["skipped"][0]["variant"] == "ncnn-fp32"


def test_what_must_not_be_deployed_says_so(make_row) -> None:
    rows = [make_row("NULL"), make_row("PASS", unusable="loses 9 points")]
    assert overall(rows).reason == "onnx-int8 must not be deployed: loses 9 points"
    assert "must not be deployed: loses 9 points" in table(rows)[1]["notes"]
