"""Targets: every one that ships loads, and a mistake in one's own is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn import formats, quantize, runtimes
from edgecnn.errors import UserError
from edgecnn.profiles import Budget, load_target, parse_budget, target_names

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize("name", target_names())
def test_every_target_asks_for_what_there_is(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    for spec in target.variants:
        assert spec.format in runtimes.get(spec.runtime).runs
        assert spec.format in (quantize.names() if spec.precision == "int8" else formats.names())
        if spec.precision != "int8":
            assert spec.precision in formats.get(spec.format).precisions


def test_every_target_is_in_the_wheel_and_opens_with_its_command() -> None:
    wheel = (REPOSITORY / "pyproject.toml").read_text()
    for path in (REPOSITORY / "export").glob("*.toml"):
        assert f'"export/{path.name}" = "edgecnn/_profiles/export/{path.name}"' in wheel
        assert path.read_text().startswith(f"# edgecnn export runs/x --target {path.stem} ")


def test_an_unknown_target_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="target: 'toaster' is not one of desktop-cpu, "):
        load_target("toaster")


def test_every_mistake_in_a_target_is_named_at_once(tmp_path: Path) -> None:
    text = (REPOSITORY / "export" / "desktop-cpu.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("threads = 1", 'threads = "one"\ncolour = "red"'))
    with pytest.raises(UserError, match=r"mine\.toml: threads: .*; colour: extra inputs") as error:
        load_target(str(path))
    assert "\n" not in str(error.value)
    path.write_text(text.replace('budget = "30ms@p99"', 'budget = "fast"'))
    with pytest.raises(UserError, match="'fast' is not a latency at a percentile, such as 30ms@p99"):
        load_target(str(path))
    path.write_text("name = ")
    with pytest.raises(UserError, match="not valid TOML"):
        load_target(str(path))
    with pytest.raises(UserError, match="no such file"):
        load_target(str(tmp_path / "nowhere.toml"))


def test_two_equal_variants_are_refused(tmp_path: Path) -> None:
    text = (REPOSITORY / "export" / "desktop-cpu.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text + text[text.index("[[variants]]") :])
    with pytest.raises(UserError, match="two variants have the same format and precision"):
        load_target(str(path))


@given(st.floats(0.01, 1e4), st.floats(0.1, 99.99))
def test_a_budget_is_read_as_it_is_printed(milliseconds: float, percentile: float) -> None:
    budget = parse_budget(f"{milliseconds:.3f}ms@p{percentile:.2f}")
    assert parse_budget(str(budget)).milliseconds == pytest.approx(budget.milliseconds, rel=1e-4)
    assert budget == Budget(milliseconds=float(f"{milliseconds:.3f}"), percentile=float(f"{percentile:.2f}"))


@pytest.mark.parametrize("text", ["", "30", "30ms", "ms@p99", "-1ms@p99", "0ms@p99", "30ms@p100", "30ms@p0", "30s@p99"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="such as 30ms@p99"):
        parse_budget(text)
