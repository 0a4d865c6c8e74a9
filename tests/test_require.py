"""`--require`: what it accepts, and what it says of a run that falls short."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.errors import UserError
from edgecnn.executed import Executed, ExecutedLayer
from edgecnn.require import PRECISIONS, Requirement, parse, unasked, unmet

PERCENTS = st.one_of(st.integers(0, 100), st.decimals(0, 100, places=2))
SPACES = st.sampled_from(["", " ", "  "])
REQUIREMENTS = st.tuples(st.sampled_from(PRECISIONS), st.sampled_from([">=", "<=", "=="]), PERCENTS)


@given(st.lists(st.tuples(REQUIREMENTS, st.lists(SPACES, min_size=5, max_size=5)), min_size=1, max_size=4))
def test_what_is_written_is_read(written: list[tuple[tuple[str, str, object], list[str]]]) -> None:
    parts = [f"{s[0]}{one[0]}{s[1]}{one[1]}{s[2]}{one[2]}{s[3]}%{s[4]}" for one, s in written]
    assert parse(",".join(parts)) == tuple(Requirement(p, c, float(str(v))) for (p, c, v), _ in written)


@given(REQUIREMENTS)
def test_a_requirement_prints_as_it_is_written(one: tuple[str, str, object]) -> None:
    requirement = Requirement(one[0], one[1], float(str(one[2])))  # type: ignore[arg-type]
    assert parse(str(requirement)) == (requirement,)


@given(st.text(max_size=20))
def test_anything_else_is_refused_on_one_line(text: str) -> None:
    try:
        assert parse(text)
    except UserError as error:
        assert "write for example int8>=90%" in str(error)
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "text",
    ["", "int8", "int8>=90", "int8>90%", "int8=90%", "int4>=90%", "int8>=101%", "int8>=-1%", "int8>=90%,", "INT8>=90%",
     "int8>=1e1%", "int8 >= 90 percent", "int8>=90% fp32<=5%", "int8>=nan%", "int8>=٩٠%", "int8>=.5%"],
)  # fmt: skip
def test_near_misses_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--require: "):
        parse(text)


def layer(name: str, precision: str, macs: int, kind: str = "") -> ExecutedLayer:
    return ExecutedLayer(name=name, kind=kind, precision=precision, macs=macs)


REPORT = Executed(
    layers=(
        layer("features.0", "int8", 420, "QLinearConv"),
        layer("features.1.conv", "fp32", 100, "Conv"),
        layer("classifier", "fp32", 480, "Gemm"),
    ),
    providers=("CPU",),
)


def test_the_largest_offenders_are_named_first() -> None:
    assert unmet(REPORT, parse("int8>=90%, fp16<=5%")) == [
        "int8 ran 42 % of the MACs, required >= 90 %: classifier (fp32, 48 %), features.1.conv (fp32, 10 %)"
    ]
    assert unmet(REPORT, parse("int8<=10%")) == ["int8 ran 42 % of the MACs, required <= 10 %: features.0 (int8, 42 %)"]
    assert unmet(REPORT, parse("int8==42%,fp32==58%,fp16==0%")) == []


def test_the_share_is_never_printed_as_the_bound_that_it_misses() -> None:
    layers = (layer("a", "int8", 89_996), layer("b", "fp32", 10_004))
    assert unmet(Executed(layers=layers), parse("int8>=90%")) == [
        "int8 ran 89.996 % of the MACs, required >= 90 %: b (fp32, 10 %)"
    ]


def test_many_offenders_are_counted() -> None:
    layers = tuple(layer(f"layer.{index}", "fp32", 10) for index in range(8))
    (line,) = unmet(Executed(layers=layers), parse("int8==100%"))
    assert line.endswith(", 3 more")


def test_an_engine_that_does_not_tell_meets_nothing() -> None:
    for told in (None, Executed(layers=(), providers=("CPU",))):
        (line,) = unmet(told, parse("int8>=0%"))
        assert "the engine does not tell what it ran in which precision" in line


@given(st.lists(st.tuples(st.sampled_from(PRECISIONS), st.integers(0, 10**9)), max_size=12), REQUIREMENTS)
def test_a_share_meets_exactly_what_it_is(rows: list[tuple[str, int]], one: tuple[str, str, object]) -> None:
    report = Executed(layers=tuple(layer(f"l{i}", precision, macs) for i, (precision, macs) in enumerate(rows)))
    requirement = Requirement(one[0], one[1], float(str(one[2])))  # type: ignore[arg-type]
    total = sum(macs for _, macs in rows)
    if not total:
        assert unmet(report, [requirement])
        return
    percent = 100 * sum(macs for precision, macs in rows if precision == one[0]) / total
    close = abs(percent - requirement.percent) < 1e-6
    met = close or (percent > requirement.percent if one[1] == ">=" else percent < requirement.percent)
    assert (not unmet(report, [requirement])) == (close if one[1] == "==" else met)


def test_a_remark_tells_a_fallback_from_a_layer_kept_in_float() -> None:
    layers = [layer("a", "int8", 50), layer("b", "fp32", 30), layer("c", "fp16", 20)]
    assert unasked("int8", layers, {"a", "b"}) == [
        "asked for int8, but 1 of 3 layers (30 % of the MACs) ran in fp32, although int8 in the file: b (fp32, 30 %)",
        "asked for int8, but 1 of 3 layers (20 % of the MACs) ran in fp16, kept in float by the file: c (fp16, 20 %)",
    ]
    assert unasked("fp16", [layer("a", "fp32", 1)], set()) == [
        "asked for fp16, but 1 of 1 layers (100 % of the MACs) ran in fp32"
    ]
    assert unasked("fp32", [layer("a", "fp32", 1)], set()) == []
