"""The variant to deploy: by its tail's bound, then by size and by what validation images say; never by test images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgecnn.artifact import Bundle, Choice, Interval, Judged, Selection, load_bundle
from edgecnn.bench.records import Run
from edgecnn.bench.summary import Summary, summarize
from edgecnn.choice import chosen
from edgecnn.profiles import Budget
from tests.bench.conftest import make_run as make_run
from tests.bench.conftest import write_tiny_bundle

BUDGET = Budget(milliseconds=30.0, percentile=99.0)


@pytest.fixture
def choice(tmp_path: Path, make_run: Callable[..., Run]) -> Callable[..., Choice | None]:
    """choice(name=(bytes, points lost on validation images or None, latencies), …)."""
    bundle = load_bundle(write_tiny_bundle(tmp_path / "bundle"))
    (tiny,) = bundle.artifacts

    def of(**variants: tuple[int, float | None, list[float]]) -> Choice | None:
        artifacts, rows = [], []
        for name, (size, lost, latencies) in variants.items():
            selection = None
            if lost is not None:
                judged = Judged(loss_bounds=Interval(low=-1.0, high=1.0))
                words = {"images": 100, "loss_points": lost, "agreement": 1.0, "judged": judged}
                selection = Selection(on="validation images", **words)  # type: ignore[arg-type]
            artifacts.append(tiny.model_copy(update={"variant": name, "bytes": size, "selection": selection}))
            rows.append(_row(make_run(latencies), name))
        return chosen(Bundle.model_copy(bundle, update={"artifacts": tuple(artifacts)}), rows)

    return of


def _row(run: Run, name: str) -> Summary:
    subject = run.subject.model_copy(update={"variant": name})
    return summarize(run.model_copy(update={"subject": subject}), BUDGET)


def _tail(body: float, tail: float) -> list[float]:
    """A thousand latencies of which every fiftieth is slow."""
    return [tail if index % 50 == 25 else body + index % 7 / 1000 for index in range(1000)]


def test_the_tail_decides_not_the_median(choice: Callable[..., Choice | None]) -> None:
    found = choice(quick_mostly=(100, 0.0, _tail(1.0, 20.0)), steady=(9000, 0.0, _tail(5.0, 6.0)))
    assert found is not None
    assert found.variant == "steady"
    assert "p99 bound (6 ms)" in found.reason


def test_of_those_that_are_as_fast_the_smaller(choice: Callable[..., Choice | None]) -> None:
    found = choice(large=(9000, 0.0, _tail(1.0, 2.0)), small=(1000, 2.0, _tail(1.1, 2.0)))
    assert found is not None
    assert found.variant == "small"
    assert "large may be as fast" in found.reason
    assert "the smallest" in found.reason


def test_of_equally_small_ones_the_one_that_validation_prefers(choice: Callable[..., Choice | None]) -> None:
    found = choice(one=(1000, 1.5, _tail(1.0, 2.0)), other=(1080, 0.5, _tail(1.0, 2.0)))
    assert found is not None
    assert found.variant == "other"


def test_what_meets_the_budget_is_preferred_whatever_its_size(choice: Callable[..., Choice | None]) -> None:
    found = choice(small=(10, 0.0, _tail(29.0, 31.0)), large=(9000, 0.0, _tail(9.0, 11.0)))
    assert found is not None
    assert found.variant == "large"
    assert "the only one that meets 30ms@p99" in found.reason


def test_where_none_meets_it_the_reason_says_so(choice: Callable[..., Choice | None]) -> None:
    found = choice(one=(10, 0.0, _tail(40.0, 50.0)), other=(10, 0.0, _tail(60.0, 70.0)))
    assert found is not None
    assert found.variant == "one"
    assert "none of which is shown to meet 30ms@p99" in found.reason


def test_nothing_measured_is_no_choice(choice: Callable[..., Choice | None]) -> None:
    assert choice() is None
