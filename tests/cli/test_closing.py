"""The last screen: the verdicts, one table, what is open, what comes next, in 25 lines of 100 columns."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from edgecnn.artifact import Artifact, Bundle, Choice, Doubt, LeftOut, load_bundle
from edgecnn.bench.records import Run
from edgecnn.bench.rows import Row, Skipped
from edgecnn.bench.summary import summarize
from edgecnn.cli.closing import Ending, closing, next_commands, show_closing
from edgecnn.profiles import Budget
from tests.bench.conftest import make_run as make_run
from tests.bench.conftest import write_tiny_bundle

BUDGET = Budget(milliseconds=30.0, percentile=99.0)
NAMES = tuple(
    f"{name}-{precision}" for name in ("torchscript", "onnx", "openvino", "litert") for precision in ("fp32", "int8")
)
ENDING = Ending(["edgecnn bench bundle/"], [("report", "r.html"), ("log", "run.log")], 283.4)
Screen = Callable[..., list[str]]


@pytest.fixture
def screen(tmp_path: Path, make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]) -> Screen:
    """screen(rows: bool, **changes of the bundle) to its lines."""
    bundle = load_bundle(write_tiny_bundle(tmp_path / "bundle"))
    (tiny,) = bundle.artifacts
    many = tuple(_named(tiny, name) for name in (*NAMES, "openvino-fp16"))

    def shown(
        rows: bool = True, latency: float = 5.0, skipped: str = "", only: tuple[str, ...] = (), **changes: object
    ) -> list[str]:
        choice = Choice(variant="onnx-int8", reason="lowest p99 bound (5 ms) of the 9 variants that meet 30ms@p99")
        made = Bundle.model_copy(bundle, update={"artifacts": many, "choice": choice, **changes})
        measured: list[Row] = []
        for one in made.artifacts if rows else ():
            chosen = made.choice is not None and one.variant == made.choice.variant
            if only and one.variant not in only:
                continue
            if one.variant == skipped:
                measured.append(Skipped(variant=one.variant, chosen=chosen, reason="LiteRT is not installed"))
            else:
                run = make_run([latency] * 1000)
                subject = run.subject.model_copy(update={"variant": one.variant})
                measured.append(summarize(run.model_copy(update={"subject": subject}), BUDGET, chosen))
        show_closing(made, measured, ENDING)
        return capsys.readouterr().out.splitlines()

    return shown


def _named(artifact: Artifact, name: str) -> Artifact:
    return artifact.model_copy(update={"variant": name})


def test_nine_variants_fit_25_lines_of_100_columns(screen: Screen) -> None:
    lines = screen(skipped="litert-fp32")
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 100
    labels = [line.split()[0] for line in lines if not line.startswith(" ")]
    wanted = ("LATENCY", "PARTS", "WHY", "variant", "OPEN", "NEXT", "FILES")
    assert [label for label in labels if label in wanted] == list(wanted)
    assert "PASS  onnx-int8 (the bundle's choice)" in lines[0]
    assert sum("onnx-int8 ←" in line for line in lines) == 1
    assert any("litert-fp32 was not measured" in line for line in lines)
    assert "4 min 43 s" in lines[-1]


def test_the_tail_and_the_units_over_the_budget_are_told(screen: Screen) -> None:
    text = " ".join(" ".join(screen(latency=40.0)).split())
    assert "FAIL" in text
    assert "1,000 of 1,000 over 30 ms" in text
    assert "max 40 ms" in text


def test_without_rows_there_is_no_verdict_of_latency(screen: Screen) -> None:
    lines = screen(rows=False)
    assert not any(line.startswith("LATENCY") or "PASS" in line for line in lines)
    assert any(line.startswith("PARTS") for line in lines)


def test_test_images_that_may_have_been_trained_on_are_open(screen: Screen) -> None:
    assert any(
        "accuracy may be too good: these weights may have been trained" in line for line in screen(test_seen="may be")
    )
    assert not any("too good" in line for line in screen())


def test_what_was_left_out_and_doubts_come_first_of_what_is_open(screen: Screen) -> None:
    left = LeftOut(variant="ncnn-int8", reason="shown to lose more than 1 point")
    lines = screen(left_out=(left,), doubts=(Doubt(stage="class order", words="the order may be another"),))
    begin = next(index for index, line in enumerate(lines) if line.startswith("OPEN"))
    assert "the order may be another" in lines[begin]
    assert any("ncnn-int8 is left out: shown to lose" in line for line in lines[begin:])
    assert any(line.startswith("ncnn-int8") and line.rstrip().endswith("left out") for line in lines)


def test_more_variants_than_there_is_room_for_are_counted(screen: Screen, tmp_path: Path) -> None:
    (tiny,) = load_bundle(tmp_path / "bundle").artifacts
    lines = screen(artifacts=tuple(_named(tiny, f"onnx-{number}") for number in range(14)), choice=None)
    assert any("4 more" in line for line in lines)


def test_what_comes_next_quotes_paths_and_proves_what_is_not_proven(tmp_path: Path) -> None:
    bundle = load_bundle(write_tiny_bundle(tmp_path / "bundle"))
    (tiny,) = bundle.artifacts
    open_one = tiny.model_copy(update={"notes": {"not_proven": ["not proven on x86-64-v2"]}})
    commands = next_commands(bundle.model_copy(update={"artifacts": (open_one,)}), Path("my bundle"))
    assert commands[0].startswith("edgecnn bench 'my bundle'")
    assert "rehearse 'my bundle'" in commands[1]
    assert len(next_commands(bundle, Path("b"))) == 1


def test_a_bench_of_one_variant_is_about_that_one(screen: Screen) -> None:
    lines = screen(only=("openvino-int8",))
    assert not any(line.startswith("WHY") for line in lines)
    assert any(line.startswith("PARTS    openvino-int8 is right") for line in lines)
    assert [line.split()[0] for line in lines if line.startswith(NAMES)] == ["openvino-int8"]


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_cuts_no_word_off(tmp_path: Path, width: int) -> None:
    bundle = load_bundle(write_tiny_bundle(tmp_path / "bundle"))
    (tiny,) = bundle.artifacts
    many = bundle.model_copy(update={"artifacts": tuple(_named(tiny, name) for name in NAMES)})
    output = Console(width=width, file=io.StringIO(), color_system=None)
    for line in closing(many, (), ENDING, width):
        output.print(line, soft_wrap=True)
    text = output.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert all(name in text for name in NAMES)
    assert max(map(len, text.splitlines())) <= width
