"""The short form of a rehearsal: what it runs, what it refuses, what it says where nothing can be run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn import runtimes
from edgecnn.artifact import Artifact, Golden, load_bundle
from edgecnn.documents import sha256_of
from edgecnn.judge import FEWEST_IMAGES, Yardstick
from edgecnn.rehearse import levels, setups, short
from edgecnn.rehearse.job import Answer, Job
from edgecnn.rehearse.levels import LEVELS, Qemu, native_way
from edgecnn.rehearse.process import Ran
from edgecnn.rehearse.setups import Place
from edgecnn.rehearse.short import levels_below, prove
from tests.rehearse.bundle import CLASSES, SPEC, write_bundle_to_rehearse

YARDSTICK = Yardstick(loss_limit=1.0, classes=CLASSES)
EXPECTED = [number % 3 for number in range(40)]


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = write_bundle_to_rehearse(tmp_path_factory.mktemp("short") / "bundle")
    return load_bundle(folder).artifact("onnx-int8").model_copy(update={"golden_decisions": tuple(EXPECTED)})


@pytest.fixture
def vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with VNNI, and an emulator in the cache."""
    monkeypatch.setattr(runtimes, "instruction_set", lambda name: "x86-64-vnni")
    monkeypatch.setattr(levels, "instruction_set_here", lambda *given: "x86-64-vnni")
    monkeypatch.setattr(short, "find_emulator", lambda cache: Qemu(Path("/qemu"), "7.2", {}))


def golden() -> list[tuple[Path, Golden]]:
    digest = sha256_of(b"")
    made = []
    for number, label in enumerate(EXPECTED):
        logits = tuple(float(label == place) for place in range(3))
        one = Golden(file=f"{number}.png", label=CLASSES[label], logits=logits, pixels_sha256=digest)
        made.append((Path(one.file), one))
    return made


def answering(**by_level: Any) -> tuple[Callable[[Place, Job], Ran], list[tuple[str, Job]]]:
    """A `run_there`: on each level so many images are decided otherwise, or the process dies of the given reason."""
    asked: list[tuple[str, Job]] = []

    def run_there(place: Place, job: Job) -> Ran:
        asked.append((place.instruction_set, job))
        how = by_level[place.instruction_set.replace("-", "_")]
        if isinstance(how, str):
            return Ran(None, "crashed", how, {})
        logits = np.eye(3, dtype="<f4")[EXPECTED[: len(job.images)]]
        logits[:how] = np.roll(logits[:how], 1, axis=1)
        return Ran(answer(logits, place.instruction_set), None, None, {})

    return run_there, asked


def answer(logits: np.ndarray, instruction_set: str) -> Answer:
    return Answer(
        logits=logits.tobytes().hex(),
        pixels=(),
        versions={},
        instruction_set=instruction_set,
        engine_code=(),
        peak_rss_mib=1.0,
    )


def shown(artifact: Artifact, run_there: Callable[[Place, Job], Ran] | None = None) -> short.Shown:
    return prove(
        artifact, Path("m.onnx"), golden(), SPEC, YARDSTICK, Path("/none"), lambda line: None, run_there=run_there
    )


@pytest.mark.usefixtures("vnni")
def test_every_lower_level_is_proven_the_nearest_first(int8: Artifact) -> None:
    run_there, asked = answering(x86_64_v3=0, x86_64_v2=0)
    found = shown(int8, run_there)
    assert found == short.Shown(("x86-64-vnni", "x86-64-v3", "x86-64-v2"), None, ())
    assert [level for level, _ in asked] == ["x86-64-v3", "x86-64-v2"]
    assert {len(job.images) for _, job in asked} == {FEWEST_IMAGES}


@pytest.mark.usefixtures("vnni")
def test_what_decides_otherwise_on_one_level_is_refused(int8: Artifact) -> None:
    run_there, asked = answering(x86_64_v3=3)
    found = shown(int8, run_there)
    assert found.refused is not None
    assert "decides otherwise on x86-64-v3: 3 of 16 golden images" in found.refused
    assert len(asked) == 1


@pytest.mark.usefixtures("vnni")
def test_what_int8_costs_everywhere_is_not_counted_again(int8: Artifact) -> None:
    at_home = [(one + 2) % 3 if place < 3 else one for place, one in enumerate(EXPECTED)]
    run_there, _ = answering(x86_64_v3=0, x86_64_v2=0)
    found = shown(int8.model_copy(update={"golden_decisions": tuple(at_home)}), run_there)
    assert found.refused is None
    assert len(found.proven_on) == 3


@pytest.mark.usefixtures("vnni")
def test_an_engine_that_dies_or_one_flip_is_not_proven_and_not_refused(int8: Artifact) -> None:
    run_there, _ = answering(x86_64_v3="SIGILL: the engine …", x86_64_v2=1)
    found = shown(int8, run_there)
    assert (found.proven_on, found.refused) == (("x86-64-vnni",), None)
    assert "not proven on x86-64-v3: SIGILL" in found.remarks[0]
    assert "not proven on x86-64-v2" in found.remarks[1]


@pytest.mark.usefixtures("vnni")
def test_an_answer_from_another_instruction_set_proves_nothing(int8: Artifact) -> None:
    logits = np.eye(3, dtype="<f4")[EXPECTED[:FEWEST_IMAGES]]
    found = shown(int8, lambda place, job: Ran(answer(logits, "x86-64-vnni"), None, None, {}))
    assert found.proven_on == ("x86-64-vnni",)
    assert "it ran on x86-64-vnni instead" in found.remarks[0]


def test_without_an_emulator_it_says_what_is_not_proven(
    int8: Artifact, vnni: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short, "find_emulator", lambda cache: None)
    found = shown(int8)
    assert (found.proven_on, found.refused) == (("x86-64-vnni",), None)
    assert [remark.partition(":")[0] for remark in found.remarks] == [
        "not proven on x86-64-v3",
        "not proven on x86-64-v2",
    ]
    assert "edgecnn rehearse bundle/ --device x86-64-v2 --record" in found.remarks[1]


@pytest.mark.usefixtures("vnni")
def test_fp32_is_not_looked_at(int8: Artifact) -> None:
    assert shown(int8.model_copy(update={"precision": "fp32"})) == short.Shown(("x86-64-vnni",), None, ())


@pytest.mark.usefixtures("vnni")
def test_a_target_that_is_no_older_is_not_looked_at(int8: Artifact) -> None:
    found = prove(int8, Path("m.onnx"), golden(), SPEC, YARDSTICK, Path("/none"), lambda line: None, older=False)
    assert found == short.Shown(("x86-64-vnni",), None, ())


@pytest.mark.parametrize(("here", "remarks"), [("x86-64-vnni", 0), ("x86-64-v3", 1), (None, 1)])
def test_a_target_with_vnni_is_not_proven_without_it(
    here: str | None, remarks: int, int8: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "instruction_set", lambda name: here)
    for precision, said in (("int8", remarks), ("fp32", 0)):
        artifact = int8.model_copy(update={"precision": precision})
        given = (artifact, Path("m.onnx"), golden(), SPEC, YARDSTICK, Path("/none"), lambda line: None)
        found = prove(*given, older=False, needs="x86-64-vnni")
        assert found.refused is None
        assert len(found.remarks) == said
        assert all("not proven on x86-64-vnni, which the target has" in remark for remark in found.remarks)


def test_there_is_nothing_below_an_arm_or_an_old_processor() -> None:
    assert levels_below("aarch64-dotprod") == levels_below(None) == levels_below("x86-64-v2") == []
    assert [one.name for one in levels_below("x86-64-avx512")] == ["x86-64-v3", "x86-64-v2"]


@pytest.mark.parametrize("here", [None, "aarch64-dotprod"])
def test_a_machine_that_is_no_known_x86_says_what_is_not_proven(
    here: str | None, int8: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "instruction_set", lambda name: here)
    found = shown(int8)
    assert (found.proven_on, found.refused) == ((here,) if here else (), None)
    assert [remark.partition(":")[0] for remark in found.remarks] == [
        "not proven on x86-64-v3",
        "not proven on x86-64-v2",
    ]
    assert "edgecnn rehearse bundle/ --device x86-64-v3 --record" in found.remarks[0]
    assert shown(int8.model_copy(update={"precision": "fp32"})).remarks == ()


def test_an_engine_that_obeys_is_held_back_on_this_machine() -> None:
    old, recent = LEVELS
    environment, how = native_way(recent, "openvino", "x86-64-vnni") or ({}, "")
    assert environment["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert "held to x86-64-v3 by ONEDNN_MAX_CPU_ISA=AVX2" in how
    assert native_way(recent, "onnxruntime", "x86-64-vnni") is None
    assert native_way(recent, "onnxruntime", "x86-64-v3") == ({}, "this machine, which is x86-64-v3")
    assert native_way(recent, "openvino", "x86-64-v2") is None
    assert (native_way(old, "openvino", "x86-64-v3") or ({}, ""))[0]["ONEDNN_MAX_CPU_ISA"] == "SSE41"


def test_held_back_engines_need_no_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "instruction_set_here", lambda *given: "x86-64-v3")
    place = setups.on_level(LEVELS[0], "openvino", None)
    assert place is not None
    assert place.machine.environment["ONEDNN_MAX_CPU_ISA"] == "SSE41"
    assert setups.on_level(LEVELS[0], "onnxruntime", None) is None
