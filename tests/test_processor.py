"""Instruction sets: of processors as /proc/cpuinfo shows them, held back by variables, within an emulator."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecnn import processor, runtimes
from edgecnn.processor import INSTRUCTION_SETS, cap_to, capped, instruction_set_here, instruction_set_of
from edgecnn.rehearse.levels import LEVELS, native_way

NEHALEM = "fpu sse sse2 ssse3 sse4_1 sse4_2 popcnt"
HASWELL = f"{NEHALEM} avx fma avx2 bmi2"
SKYLAKE_SERVER = f"{HASWELL} avx512f avx512bw avx512vl"
CASCADE_LAKE = f"{SKYLAKE_SERVER} avx512_vnni"
ALDER_LAKE = f"{HASWELL} avx_vnni"
PI_4 = "fp asimd evtstrm crc32 cpuid"
PI_5 = f"{PI_4} asimdhp asimddp"


@pytest.mark.parametrize(
    ("architecture", "words", "name"),
    [
        ("x86_64", "fpu sse2", "x86-64"),
        ("x86_64", NEHALEM, "x86-64-v2"),
        ("x86_64", f"{NEHALEM} avx2", "x86-64-v2"),
        ("x86_64", HASWELL, "x86-64-v3"),
        ("x86_64", SKYLAKE_SERVER, "x86-64-avx512"),
        ("x86_64", CASCADE_LAKE, "x86-64-vnni"),
        ("x86_64", ALDER_LAKE, "x86-64-vnni"),
        ("aarch64", PI_4, "aarch64"),
        ("aarch64", PI_5, "aarch64-dotprod"),
        ("aarch64", f"{PI_5} i8mm", "aarch64-i8mm"),
        ("riscv64", "imafdc", None),
    ],
)
def test_a_processors_features_tell_its_instruction_set(architecture: str, words: str, name: str | None) -> None:
    assert instruction_set_of(architecture, words.split()) == name


OBEYS = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, "x86-64-vnni"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, "x86-64-v3"),
        ({"ONEDNN_MAX_CPU_ISA": "avx512_core"}, "x86-64-avx512"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}, "x86-64-vnni"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "default"}, "x86-64-v2"),
        ({"ATEN_CPU_CAPABILITY": "avx512"}, "x86-64-vnni"),
        ({"SOMETHING_ELSE": "AVX2"}, "x86-64-vnni"),
    ],
)
def test_a_variable_holds_an_engine_back(environment: dict[str, str], name: str) -> None:
    assert capped("x86-64-vnni", OBEYS, environment) == name


def test_a_cap_never_adds_what_a_processor_lacks() -> None:
    assert capped("x86-64-v2", OBEYS, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}) == "x86-64-v2"
    assert capped("aarch64", OBEYS, {"ONEDNN_MAX_CPU_ISA": "SSE41"}) == "aarch64"


@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3", "x86-64-avx512"])
def test_the_environment_that_caps_is_the_one_that_is_read(name: str) -> None:
    environment = cap_to(name, OBEYS)
    assert environment is not None
    assert capped("x86-64-vnni", OBEYS, environment) == name


def test_an_engine_that_obeys_nothing_cannot_be_capped() -> None:
    assert cap_to("x86-64-v3", ()) is None
    assert cap_to("x86-64-vnni", OBEYS) is None


def told(root: Path, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "machine", lambda: "x86_64")
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {words}\n")


def test_within_an_emulator_the_processor_has_the_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told(tmp_path, CASCADE_LAKE, monkeypatch)
    lacks = {"avx2", "fma", "avx512f", "avx512bw", "avx512_vnni"}

    def confirmed(word: str) -> bool | None:
        return None if word == "fpu" else word not in lacks

    assert instruction_set_here((), {}, tmp_path, confirmed) == "x86-64-v2"
    assert instruction_set_here((), {}, tmp_path, lambda word: None) == "x86-64-vnni"


def test_what_holds_only_the_rest_of_an_engine_says_nothing_of_its_int8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(tmp_path, CASCADE_LAKE, monkeypatch)
    torchscript = runtimes.get("pytorch").obeys
    for variable, name in (("ATEN_CPU_CAPABILITY", "x86-64-vnni"), ("ONEDNN_MAX_CPU_ISA", "x86-64-v3")):
        assert instruction_set_here(torchscript, {variable: "avx2"}, tmp_path, lambda word: None) == name
    held, _ = native_way(LEVELS[1], "pytorch", "x86-64-vnni") or ({}, "")
    assert held == {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    assert instruction_set_here((), {}, tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("nothing known\n")
    assert instruction_set_here((), {}, tmp_path) is None


def test_this_machine_has_one_of_the_known_sets() -> None:
    if not Path("/proc/cpuinfo").exists() or processor.machine() not in INSTRUCTION_SETS:
        pytest.skip("no /proc/cpuinfo here, or another architecture")
    assert instruction_set_here((), {}) in INSTRUCTION_SETS[processor.machine()]


def test_glibc_and_proc_cpuinfo_agree_on_a_machine_that_is_not_emulated() -> None:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    words = processor.cpuinfo_words(text) or ()
    asked = {word: processor.confirmed_by_processor(word) for word in ("ssse3", "sse4_1", "fma", "avx2", "avx512f")}
    for word, confirmed in asked.items():
        assert confirmed in (None, word in words), word
