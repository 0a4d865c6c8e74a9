"""What is asked for: variants by name, what is missing for them, and that it is told before any work."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.errors import UserError
from edgecnn.export import target_hash
from edgecnn.origin import install_command
from edgecnn.profiles import load_target, target_names
from edgecnn.wanted import Missing, asked_for, foretold, missing_for, narrowed, refuse_missing, unfit

DESKTOP = load_target("desktop-cpu")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """without(modules): as if they were not installed."""
    find = importlib.util.find_spec

    def hide(*hidden: str) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in hidden else find(name))

    return hide


def variants(only: str) -> list[str]:
    return [spec.variant for spec in narrowed(DESKTOP, only).variants]


def test_formats_and_variants_by_name() -> None:
    assert variants("onnx,litert-int8") == ["onnx-fp32", "onnx-int8", "litert-int8"]
    assert variants(" LiteRT-INT8 , ONNX") == ["onnx-fp32", "onnx-int8", "litert-int8"]
    assert variants("onnx,onnx-fp32,onnx") == ["onnx-fp32", "onnx-int8"]
    assert narrowed(DESKTOP, None) == DESKTOP


@given(st.sets(st.sampled_from([spec.variant for spec in DESKTOP.variants]), min_size=1), st.randoms())
def test_any_choice_keeps_the_targets_own_order(chosen: set[str], random: object) -> None:
    words = sorted(chosen)
    random.shuffle(words)  # type: ignore[attr-defined]
    assert variants(",".join(words)) == [spec.variant for spec in DESKTOP.variants if spec.variant in chosen]


def test_what_the_target_has_not_is_made_where_it_is_named_in_full() -> None:
    added = narrowed(DESKTOP, "onnx-fp16,onnx-fp32").variants
    assert [(spec.variant, spec.runtime) for spec in added] == [
        ("onnx-fp32", "onnxruntime"),
        ("onnx-fp16", "onnxruntime"),
    ]
    assert not any(why for spec in added for why in unfit(spec))


@pytest.mark.parametrize("only", ["onyx", "onnx,onyx", "ncnn", "", "onnx,", "onnx-int4", "litert-fp16", "onnx int8"])
def test_an_unknown_one_is_a_line_of_what_there_is(only: str) -> None:
    with pytest.raises(
        UserError, match=r"--only: '.*' not in desktop-cpu: torchscript-fp32, .* also .*ncnn-fp32"
    ) as error:
        narrowed(DESKTOP, only)
    assert "\n" not in str(error.value)


def test_what_is_asked_for_is_another_target() -> None:
    same = asked_for("desktop-cpu")
    assert same == DESKTOP
    asked = [asked_for("desktop-cpu", only="onnx"), asked_for("desktop-cpu", quick=True), same]
    assert len({target_hash(target) for target in asked}) == 3
    assert asked_for("desktop-cpu", budget="20ms@p95").budget == "20ms@p95"
    assert asked_for("desktop-cpu", require="int8>=90%").require == "int8>=90%"


@pytest.mark.parametrize("name", target_names())
def test_nothing_is_missing_for_what_is_installed(name: str) -> None:
    refuse_missing(load_target(name))


def test_all_that_is_missing_is_told_at_once_with_one_command(without: Callable[..., None]) -> None:
    without("litert_torch", "ai_edge_litert", "ai_edge_quantizer", "openvino")
    with pytest.raises(UserError) as error:
        refuse_missing(DESKTOP, [Missing("jinja2", "report", "the report")])
    told = str(error.value)
    for library in ("litert-torch", "ai-edge-litert", "ai-edge-quantizer", "openvino", "jinja2"):
        assert f"{library} (for " in told or f"{library}, " in told
    assert install_command("export-litert", "report") in told
    assert told.endswith("--only torchscript,onnx")


def test_one_of_a_format_that_cannot_be_made(without: Callable[..., None]) -> None:
    without("ai_edge_quantizer")
    missing = missing_for(DESKTOP)
    assert missing == [Missing("ai-edge-quantizer", "export-litert", "litert-int8")]
    with pytest.raises(UserError, match="--only torchscript,onnx,openvino,litert-fp32$"):
        refuse_missing(DESKTOP)
    refuse_missing(narrowed(DESKTOP, "litert-fp32,onnx"))


def test_without_what_trains_nothing_is_left_to_make(without: Callable[..., None]) -> None:
    without("torch", "litert_torch")
    with pytest.raises(UserError, match="torch \\(for training\\)") as error:
        refuse_missing(DESKTOP)
    assert str(error.value).endswith(install_command("export-litert"))


def test_what_will_be_done_is_foretold() -> None:
    made, takes = foretold(asked_for("desktop-cpu", "onnx,litert-int8"), minutes=5.0, samples=2300)
    assert made == "to make for desktop-cpu: onnx fp32, int8 · litert int8"
    assert takes == (
        "takes about: training 5 min at most to compare recipes, then the epochs of one; seconds a float variant; "
        "at most 6 minutes and a last rung for 2 in int8 (--quick: first rung only); "
        "bench 3.5 minutes where each image takes the whole budget"
    )
    assert "quick: first rung only" in foretold(asked_for("desktop-cpu", "onnx", quick=True))[1]
    report = [Missing("jinja2", "report", "the report")]
    assert foretold(DESKTOP, report)[1] == (
        f"not installed: jinja2, so the report is not written: {install_command('report')}"
    )
