"""Tests of what is derived from raw runs."""

from __future__ import annotations

import pytest

from edgecnn.bench.records import NULL_VARIANT
from edgecnn.bench.summary import summarize
from edgecnn.executed import Executed
from edgecnn.profiles import Budget

BUDGET = Budget(milliseconds=30.0, percentile=99.0)


@pytest.fixture
def run_of_many_images(make_run):
    """A hundred images, each slower than the one before it, ten times."""
    images = tuple(make_run().images[0].model_copy(update={"name": f"{i}.jpg", "expected": None}) for i in range(100))
    return make_run([float(1 + number % 100) / 10 for number in range(1000)], images=images, images_found=100)


def test_a_row_is_derived_from_the_raw_latencies(run_of_many_images) -> None:
    row = summarize(run_of_many_images, BUDGET, chosen=True)
    assert (row.p50_ms, row.p90_ms, row.p99_ms) == (5.0, 9.0, 9.9)
    assert row.upper_ms == 10.0
    assert row.stages["infer"].p50_ms == pytest.approx(3.5)
    assert row.stages["decode"].p99_ms == pytest.approx(0.99)
    assert (row.samples, row.warmup, row.threads, row.threads_used, row.os_threads) == (1000, 60, 2, 2.0, 5)
    assert (row.params, row.macs, row.flops) == (2_200_000, 300_000_000, 600_000_000)
    assert (row.int8_layers, row.float_layers, row.open_ms) == (53, 1, 80.0)
    assert row.verdict is not None
    assert (row.verdict.outcome, row.chosen, row.notes) == ("PASS", True, ())


def test_a_budget_at_another_percentile_bounds_that_one(run_of_many_images) -> None:
    row = summarize(run_of_many_images, Budget(milliseconds=9.5, percentile=90.0))
    assert row.upper_ms is not None
    assert 9.0 <= row.upper_ms <= 9.5
    assert row.verdict is not None
    assert row.verdict.outcome == "PASS"


def test_slow_images_that_are_neighbours_are_told_from_slow_moments(run_of_many_images) -> None:
    """The same latencies in the same order: with one image, nothing explains why slow units are neighbours."""
    budget = Budget(milliseconds=10.0, percentile=99.0)
    outcomes = []
    for images in (run_of_many_images.images, run_of_many_images.images[:1]):
        row = summarize(run_of_many_images.model_copy(update={"images": images}), budget)
        assert row.verdict is not None
        outcomes.append(row.verdict.outcome)
    assert outcomes == ["PASS", "INCONCLUSIVE"]


def test_the_null_session_has_no_verdict(make_run) -> None:
    run = make_run()
    subject = run.subject.model_copy(update={"variant": NULL_VARIANT, "macs": None, "params": None})
    row = summarize(run.model_copy(update={"subject": subject, "executed": Executed(layers=())}), BUDGET)
    assert (row.verdict, row.flops, row.int8_layers) == (None, None, None)


def test_a_run_on_another_architecture_is_no_verdict(make_run) -> None:
    run = make_run()
    row = summarize(make_run(host=run.host.model_copy(update={"machine": "x86_64"})), BUDGET)
    assert row.verdict is not None
    assert row.verdict.outcome == "INCONCLUSIVE"
    assert row.verdict.reason.startswith("measured on x86_64, the target is aarch64: run `edgecnn bench` on the target")


def test_a_run_under_emulation_is_no_verdict(make_run) -> None:
    run = make_run()
    row = summarize(make_run(host=run.host.model_copy(update={"kernel_machine": "x86_64"})), BUDGET)
    assert row.verdict is not None
    assert row.verdict.outcome == "INCONCLUSIVE"
    assert "emulation (aarch64 on a x86_64 kernel)" in row.verdict.reason


def test_a_throttled_run_is_no_verdict(make_run) -> None:
    run = make_run()
    row = summarize(make_run(after=run.after.model_copy(update={"pi_throttled": 0x20002})), BUDGET)
    assert row.verdict is not None
    assert row.verdict.outcome == "INCONCLUSIVE"
    assert row.verdict.reason.startswith("throttled (frequency capped)")


@pytest.mark.parametrize(
    ("part", "change", "note"),
    [
        ("samples", {"steady": False}, "not steady after 20 s of warm-up"),
        ("before", {"load_average": (3.0, 1.0, 1.0)}, "load average 3.0 on 4 processors"),
        ("after", {"steal_ticks": 500, "total_ticks": 5000}, "other virtual machines took 50 %"),
        ("after", {"quota_throttles": 7}, "stopped 7 times at its processor quota"),
        ("samples", {"quota_stops": 7}, "stopped 7 times at its processor quota"),
        ("samples", {"ready_ns": 5_000_000_000}, "starved: ready to run and without a processor 25 % of the time"),
        ("after", {"governor": "powersave", "governed_by": "acpi-cpufreq"}, "the frequency governor is powersave"),
        ("after", {"most_mhz": 5000.0}, "the clock was at 2,400 of 5,000 MHz"),
        ("host", {"usable_cpus": 1.5}, "2 threads on 1.5 usable processors"),
        ("samples", {"decisions": ((0, 0.9), (2, 0.8))}, "1 of 2 golden images are decided otherwise"),
    ],
)
def test_notes_say_what_is_odd_and_decide_nothing(make_run, part: str, change: dict, note: str) -> None:
    run = make_run()
    row = summarize(make_run(**{part: getattr(run, part).model_copy(update=change)}), BUDGET)
    assert [note in said for said in row.notes] == [True]
    assert row.verdict is not None
    assert row.verdict.outcome == "PASS"


SLOWED = {
    "starved": ("samples", {"ready_ns": 8_000_000_000}),
    "starved: other virtual machines": ("after", {"steal_ticks": 500, "total_ticks": 5000}),
    "starved: on a processor 11 %": ("samples", {"cpu_ns": 5_000_000_000}),
    "stopped 900 times": ("samples", {"quota_stops": 900}),
    "the frequency governor is powersave": ("after", {"governor": "powersave", "governed_by": "cpufreq-dt"}),
    "the clock was at 600 of 1,800 MHz": ("after", {"mhz": (600.0,), "most_mhz": 1800.0}),
    "1 thread on 0.5 usable processors": ("host", {"usable_cpus": 0.5}),
}
"""What only slows a machine down, by the words it is told with."""


@pytest.mark.parametrize("words", SLOWED)
def test_what_slowed_the_machine_undoes_a_fail_and_no_pass(make_run, words: str) -> None:
    part, change = SLOWED[words]
    run = make_run((45.0,) * 1000, threads=1)
    run = run.model_copy(update={part: getattr(run, part).model_copy(update=change)})
    slow, fast = (summarize(run, Budget(milliseconds=budget, percentile=99.0)) for budget in (30.0, 60.0))
    assert (slow.verdict.outcome, fast.verdict.outcome) == ("INCONCLUSIVE", "PASS")
    assert words in slow.verdict.reason
    assert not [note for note in slow.notes if words in note]
    assert [note for note in fast.notes if words in note]


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("samples", {"ready_ns": 3_000_000_000}),
        ("samples", {"ready_ns": 0, "cpu_ns": 5_000_000_000}),  # an engine that sleeps
        ("samples", {"quota_stops": 3}),  # fewer than units that were slow
        ("after", {"governor": "powersave", "governed_by": "intel_pstate"}),
        ("after", {"mhz": (1500.0, 2600.0), "most_mhz": 5000.0}),
        ("host", {"usable_cpus": 2.0}),
    ],
)
def test_what_did_not_make_it_slow_leaves_a_fail(make_run, part: str, change: dict) -> None:
    run = make_run((45.0,) * 1000, threads=1)
    run = run.model_copy(update={part: getattr(run, part).model_copy(update=change)})
    row = summarize(run, BUDGET)
    assert row.verdict is not None
    assert row.verdict.outcome == "FAIL"


def test_an_engine_on_another_device_may_sleep(make_run) -> None:
    run = make_run((45.0,) * 1000, threads=1)
    asleep = run.samples.model_copy(update={"cpu_ns": 1_000_000})
    run = run.model_copy(update={"samples": asleep, "subject": run.subject.model_copy(update={"runtime": "tensorrt"})})
    assert summarize(run, BUDGET).verdict.outcome == "FAIL"


def test_a_thinned_folder_is_noted(make_run) -> None:
    assert summarize(make_run(images_found=9999), BUDGET).notes == ("2 of 9,999 images, evenly spaced by name",)


def test_engines_that_do_not_tell_their_layers_are_unknown(make_run) -> None:
    row = summarize(make_run(executed=Executed(layers=(), providers=("CPU",))), BUDGET)
    assert (row.int8_layers, row.float_layers) == (None, None)
