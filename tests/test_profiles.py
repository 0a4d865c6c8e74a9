"""Targets: every one that ships loads, and a mistake in one's own is named."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn import formats, quantize, runtimes
from edgecnn.errors import UserError
from edgecnn.intervals import samples_to_bound
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
    with pytest.raises(UserError, match=r"mine\.toml: threads: .*; colour: there is no such key") as error:
        load_target(str(path))
    assert "\n" not in str(error.value)
    path.write_text(text.replace("[[variants]]", "[[variants]]\ncolour = 3"))
    with pytest.raises(UserError, match=r"variants\.0\.colour: there is no such key") as error:
        load_target(str(path))
    assert "variants: " not in str(error.value), "what only follows from it is not told"
    path.write_text(text.replace('budget = "30ms@p99"', 'budget = "fast"'))
    with pytest.raises(UserError, match="'fast' is not a latency at a percentile, such as 30ms@p99"):
        load_target(str(path))
    path.write_text("name = ")
    with pytest.raises(UserError, match="not valid TOML"):
        load_target(str(path))
    with pytest.raises(UserError, match="no such file"):
        load_target(str(tmp_path / "nowhere.toml"))


def test_a_wrong_budget_is_told_with_the_file_and_its_other_mistakes(tmp_path: Path) -> None:
    text = (REPOSITORY / "export" / "desktop-cpu.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("threads = 1", "threads = 0").replace("30ms@p99", "30"))
    with pytest.raises(UserError, match=r"^mine\.toml: threads: .*; budget: '30' is not a latency at a percentile"):
        load_target(str(path))


def test_one_table_where_a_list_of_tables_belongs_is_told_in_words_of_toml(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = (REPOSITORY / "export" / "desktop-cpu.toml").read_text()
    path.write_text(
        text[: text.index("[[variants]]", text.index("[[variants]]") + 1)].replace("[[variants]]", "[variants]")
    )
    with pytest.raises(UserError, match=r"mine\.toml: variants: is not a list: write .* \[\[name\]\]") as error:
        load_target(str(path))
    assert "tuple" not in str(error.value)


def test_two_equal_variants_are_refused(tmp_path: Path) -> None:
    text = (REPOSITORY / "export" / "desktop-cpu.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text + text[text.index("[[variants]]") :])
    with pytest.raises(UserError, match="two variants have the same format and precision"):
        load_target(str(path))


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False), st.floats(0, 99.9995, exclude_min=True))
def test_a_budget_is_read_as_it_is_printed(milliseconds: float, percentile: float) -> None:
    """Every budget, to the last bit, without an exponent."""
    budget = Budget(milliseconds=milliseconds, percentile=percentile)
    assert parse_budget(str(budget)) == budget
    assert "e" not in str(budget)


@given(st.decimals(min_value="0.001", max_value=10**9, places=3), st.decimals("0.01", "99.99", places=2))
def test_a_budget_is_printed_as_it_was_written(milliseconds: Decimal, percentile: Decimal) -> None:
    text = f"{_shortest(milliseconds)}ms@p{_shortest(percentile)}"
    assert str(parse_budget(text)) == text


def _shortest(number: Decimal) -> str:
    return format(number, "f").rstrip("0").rstrip(".")


@pytest.mark.parametrize("text", ["1000000ms@p99", "30ms@p99.999", "0.00001ms@p50", "30ms@p99.9995"])
def test_budgets_that_used_to_print_as_others(text: str) -> None:
    assert str(parse_budget(text)) == text


@pytest.mark.parametrize("percentile", ["99.9999999999", "99.99999", "99.9999999999999"])
def test_a_budget_that_no_run_can_show_is_refused_with_the_arithmetic(percentile: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_budget(f"30ms@p{percentile}")
    message = str(caught.value)
    assert f"30ms@p{percentile} takes {samples_to_bound(float(percentile), 0.99):,} samples of each variant" in message
    assert f"{percentile} %ⁿ ≤ 1 %" in message
    assert "ask for p99.999 or lower (460,515 samples)" in message


def test_the_arithmetic_of_a_refusal() -> None:
    """ln 0.01 / ln 0.99999999 = 460,517,016.3, at 30 ms each 159.9 days."""
    with pytest.raises(UserError, match="takes 460,517,017 samples .* 160 days at 30 ms each; at most 1,000,000"):
        parse_budget("30ms@p99.999999")


def test_a_target_with_such_a_budget_is_refused_when_it_is_read(tmp_path: Path) -> None:
    text = (REPOSITORY / "export" / "desktop-cpu.toml").read_text()
    (tmp_path / "mine.toml").write_text(text.replace("@p99", "@p99.9999999"))
    with pytest.raises(UserError, match="samples of each variant"):
        load_target(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize(
    "text",
    ["", "30", "30ms", "ms@p99", "-1ms@p99", "0ms@p99", "30ms@p100", "30ms@p0", "30s@p99", "3e1ms@p99", "９ms@p99"],
)
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="such as 30ms@p99"):
        parse_budget(text)


@pytest.mark.parametrize("text", ["9" * 400 + "ms@p99", "30ms@p99." + "9" * 30, "0." + "0" * 400 + "1ms@p99"])
def test_numbers_that_no_float_holds_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="such as 30ms@p99"):
        parse_budget(text)
