"""A bundle rehearsed as a whole, where a device can be set up; the command line."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from edgecnn import rehearse as rehearsing
from edgecnn.artifact import Flip, load_bundle, write_bundle
from edgecnn.cli.rehearsal import closing
from edgecnn.errors import UserError
from edgecnn.processor import instruction_set_here
from edgecnn.rehearse import levels, userland
from edgecnn.rehearse.boards import BOARDS
from edgecnn.rehearse.cache import cache_folder
from edgecnn.rehearse.compare import EMULATED, HELD_BACK, Difference, Rehearsed
from edgecnn.rehearse.levels import LEVELS, Level, Qemu
from edgecnn.rehearse.process import death, emulated, emulated_here, execute, native
from edgecnn.rehearse.setups import Place, SetUp
from edgecnn.rehearse.userland import Userland, check_host
from edgecnn.rehearse.wheels import NoWheel
from tests.rehearse.bundle import write_bundle_to_rehearse
from tests.rehearse.test_instructions import RET, SDOT

SAME = Difference(images=3, max_error=0.5, mean_error=0.1, bit_equal=False, flips=())


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="session")
def set_up() -> Userland:
    """The emulated board, set up once in the user's own cache; skips where it cannot be."""
    try:
        check_host()
        for tool in ("apt-get", "dpkg-deb"):
            if shutil.which(tool) is None:
                pytest.skip(f"no {tool} here")
        return userland.set_up_userland(cache_folder(None), False, silent)
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_an_instruction_that_the_board_lacks_is_named(set_up: Userland, tmp_path: Path) -> None:
    code = (
        "import ctypes, mmap\n"
        "page = mmap.mmap(-1, 4096, prot=7)\n"
        f"page.write(bytes.fromhex('{SDOT.to_bytes(4, 'little').hex()}{RET.to_bytes(4, 'little').hex()}'))\n"
        "address = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "ctypes.CFUNCTYPE(None)(address)()\n"
        "print('done')\n"
    )
    for one in BOARDS:
        folder = tmp_path / one.name
        (folder / "run").mkdir(parents=True)
        (folder / "board").mkdir()
        machine = emulated(one, set_up, [], tmp_path, folder / "board")
        found = execute(machine, ["-c", code], folder / "run", 300)
        if "asimddp" in one.features.split():
            assert found.code == 0, found.stderr
        else:
            failure, reason = death(found, 300)
            assert failure == "crashed"
            assert "SIGILL" in reason
            assert "sdot 0x4e829420" in reason


@pytest.mark.slow
@pytest.mark.parametrize("name", [one.name for one in BOARDS])
def test_a_bundle_is_rehearsed(name: str, set_up: Userland, tmp_path: Path) -> None:
    folder = write_bundle_to_rehearse(tmp_path / "bundle")
    lines: list[str] = []
    found = rehearsing.rehearse(folder, name, say=lines.append)
    assert found.emulated == EMULATED
    assert [row.outcome for row in found.variants] == ["same", "same"], [row.reason for row in found.variants]
    assert found.exit_code == 0
    floating, int8 = found.variants
    assert floating.instructions["fmla fp32"] > 0
    assert not set(floating.instructions) & {"sdot", "udot", "fmla fp16"}
    dot = {"sdot", "udot"} & set(int8.instructions)
    assert bool(dot) == (name == "raspberry-pi-5")
    assert dot or {"smlal", "umlal", "smull", "umull"} & set(int8.instructions)
    assert floating.versions["machine"] == "aarch64"
    assert floating.against_native is not None
    assert floating.against_native.max_error < 1e-5
    assert floating.pixels_equal
    assert floating.peak_rss_mib is not None
    assert not any(" ms" in line or "latency" in line for line in lines)
    assert "latency" not in found.model_dump_json()


@pytest.mark.slow
def test_one_variant_that_cannot_be_opened_does_not_stop_the_others(set_up: Userland, tmp_path: Path) -> None:
    folder = write_bundle_to_rehearse(tmp_path / "bundle", damage="onnx-fp32.onnx")
    found = rehearsing.rehearse(folder, "raspberry-pi-4", images=1)
    assert [row.outcome for row in found.variants] == ["refused", "same"]
    assert "onnx-fp32.onnx" in (found.variants[0].reason or "")
    assert found.exit_code == 1


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    from edgecnn.cli import main

    monkeypatch.setattr(sys, "argv", ["edgecnn", "rehearse", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_the_command_refuses_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = write_bundle_to_rehearse(tmp_path / "bundle")
    cases = [
        ((folder, "--device", "toaster"), "device: 'toaster' is not one of raspberry-pi-3"),
        ((tmp_path, "--device", "raspberry-pi-4"), "no bundle.json there"),
        ((folder, "--device", "raspberry-pi-4", "--variant", "onnx-fp64"), "'onnx-fp64' is not in the bundle"),
        ((folder, "--device", "raspberry-pi-4", "--images", "0"), "--images 0: at least 1"),
        ((folder, "--device", "raspberry-pi-4", "--offline", "--cache", tmp_path / "c"), "run once without --offline"),
    ]
    for words, message in cases:
        assert command(monkeypatch, *words) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert message in lines[0]


def test_the_commands_default_is_the_functions() -> None:
    import inspect

    from edgecnn.cli.verbs.rehearse import rehearse as verb

    assert inspect.signature(verb).parameters["images"].default == rehearsing.DEFAULT_IMAGES


def test_the_printed_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    flip = Flip(image="b", label="crack", reference="crack", variant="dent")
    flips = SAME.model_copy(update={"flips": (flip,)})
    found = rehearsal(
        Rehearsed(
            variant="onnx-int8",
            outcome="same",
            reason=None,
            new_flips=1,
            flips_allowed=1,
            against_trained=flips,
            against_native=SAME,
            native_against_trained=SAME,
            pixels_equal=True,
            instructions={"sdot": 12, "other": 900},
            peak_rss_mib=190.4,
        ),
        Rehearsed(variant="ncnn-fp32", outcome="crashed", reason="SIGILL: the engine …"),
        Rehearsed(
            variant="openvino-fp32", outcome="same", reason=None, emulated=HELD_BACK, how="this machine, held back"
        ),
    )
    monkeypatch.setattr(rehearsing, "rehearse", lambda *words: found)
    out = tmp_path.with_name(f"{tmp_path.name}-report.json")  # beside the bundle
    assert command(monkeypatch, tmp_path, "--device", "raspberry-pi-5", "--out", out) == 1
    printed = capsys.readouterr().out
    for words in (
        f"parts on Raspberry Pi 5 (qemu 7.2), 16 images: {EMULATED}\n",
        "onnx-int8      same     2 of 3 images decided as trained, logits within 5.0e-01 of those here",
        "ncnn-fp32      crashed  SIGILL: the engine …",
        "2 of 3 variants decide the same on a Cortex-A76 (16 images); ncnn-fp32: crashed\n",
        "a flip is an image that a variant decides otherwise than the trained network did",
        "onnx-int8: 1 flip, 1 new; the rule allows 1 new: b (crack) is dent, was crack\n",
    ):
        assert words in printed
    assert "12 sdot" not in printed
    assert command(monkeypatch, tmp_path, "--device", "raspberry-pi-5", "--verbose") == 1
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("12 sdot", "openvino-fp32: on this machine, held back"):
        assert words in printed
    assert rehearsing.Rehearsal.model_validate_json(out.read_text()) == found
    assert command(monkeypatch, tmp_path, "--device", "raspberry-pi-5", "--json") == 1
    assert rehearsing.Rehearsal.model_validate_json(capsys.readouterr().out) == found


def test_the_sentence_on_all_variants() -> None:
    fp32 = Rehearsed(variant="onnx-fp32", outcome="same", reason=None, against_trained=SAME)
    assert closing(rehearsal(*[fp32] * 7)) == "all 7 variants decide the same on a Cortex-A76 (16 images)"
    assert closing(rehearsal(fp32)) == "onnx-fp32 decides the same on a Cortex-A76 (16 images)"
    flip = Flip(image="b", label="crack", reference="crack", variant="dent")
    flipped = fp32.model_copy(update={"against_trained": SAME.model_copy(update={"flips": (flip,)})})
    told = "both variants decide as the rule allows on a Cortex-A76, with 1 flip (16 images)"
    assert closing(rehearsal(fp32, flipped)) == told
    none = fp32.model_copy(update={"outcome": "not run", "reason": "no wheel"})
    assert closing(rehearsal(none)) == "no variant decides on a Cortex-A76 as it should: onnx-fp32: not run"
    here = rehearsal(fp32).model_copy(update={"device": "x86-64-v3", "cpu": "Haswell-noTSX"})
    assert closing(here) == "onnx-fp32 decides the same on x86-64-v3 (16 images)"


def test_what_is_true_of_several_variants_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    row = Rehearsed(variant="a", outcome="same", reason=None, against_trained=SAME, remarks=("numpy 2.1 there",))
    monkeypatch.setattr(rehearsing, "rehearse", lambda *words: rehearsal(row, row.model_copy(update={"variant": "b"})))
    assert command(monkeypatch, tmp_path, "--device", "raspberry-pi-5") == 0
    assert "a, b: numpy 2.1 there\n" in capsys.readouterr().out


def rehearsal(*rows: Rehearsed) -> rehearsing.Rehearsal:
    return rehearsing.Rehearsal(
        bundle="parts",
        device="raspberry-pi-5",
        description="Raspberry Pi 5",
        cpu="cortex-a76",
        emulator="qemu 7.2",
        system="Debian bookworm, Python 3.11",
        tolerance=1e-4,
        images=tuple(map(str, range(16))),
        variants=rows,
        packages={},
    )


@pytest.mark.parametrize(("too_few", "proven"), [(False, ("onnx-fp32", "onnx-int8")), (True, ("onnx-fp32",))])
def test_a_rehearsal_is_recorded_in_the_bundle(too_few: bool, proven: tuple[str, ...], tmp_path: Path) -> None:
    folder = write_bundle_to_rehearse(tmp_path / "bundle")
    fp32 = Rehearsed(variant="onnx-fp32", outcome="same", reason=None, instruction_set="aarch64-dotprod")
    found = rehearsal(fp32, fp32.model_copy(update={"variant": "onnx-int8", "too_few": too_few}))
    assert rehearsing.record(folder, found) == proven
    assert rehearsing.record(folder, found) == ()
    bundle = load_bundle(folder)
    assert tuple(one.variant for one in bundle.artifacts if "aarch64-dotprod" in one.proven_on) == proven


def test_what_differs_or_died_is_not_recorded(tmp_path: Path) -> None:
    folder = write_bundle_to_rehearse(tmp_path / "bundle")
    differs = Rehearsed(variant="onnx-int8", outcome="differs", reason="x", instruction_set="aarch64")
    assert rehearsing.record(folder, rehearsal(differs)) == ()
    assert all(one.proven_on == () for one in load_bundle(folder).artifacts)


def test_what_decides_otherwise_is_proven_there_no_longer(tmp_path: Path) -> None:
    folder = write_bundle_to_rehearse(tmp_path / "bundle")
    same = Rehearsed(variant="onnx-int8", outcome="same", reason=None, instruction_set="x86-64-v3")
    assert rehearsing.record(folder, rehearsal(same)) == ("onnx-int8",)
    for outcome, left in (("crashed", ("x86-64-v3",)), ("differs", ())):
        row = same.model_copy(update={"outcome": outcome, "reason": "x"})
        assert rehearsing.record(folder, rehearsal(row)) == ()
        assert load_bundle(folder).artifact("onnx-int8").proven_on == left


@pytest.mark.parametrize(("version", "proven"), [("1.20.1", ("onnx-int8",)), ("1.21.0", ())])
def test_another_version_of_the_engine_proves_nothing(version: str, proven: tuple[str, ...], tmp_path: Path) -> None:
    folder = write_bundle_to_rehearse(tmp_path / "bundle")
    bundle = load_bundle(folder)
    tools = bundle.provenance.model_copy(update={"tools": {"onnxruntime": "1.20.1"}})
    write_bundle(folder, bundle.model_copy(update={"provenance": tools}))
    row = Rehearsed(variant="onnx-int8", outcome="same", reason=None, instruction_set="aarch64")
    found = rehearsal(row.model_copy(update={"versions": {"onnxruntime": version}}))
    assert rehearsing.record(folder, found) == proven


def test_this_machine_is_one_of_its_own_kind(tmp_path: Path) -> None:
    """A level that is this machine's own takes no emulator."""
    here = instruction_set_here((), {})
    if here not in {one.name for one in LEVELS}:
        pytest.skip(f"this machine is {here}: it takes an emulator for each level")
    folder = write_bundle_to_rehearse(tmp_path / "bundle")
    found = rehearsing.rehearse(folder, here, cache=tmp_path / "cache", offline=True)
    assert [row.outcome for row in found.variants] == ["same", "same"]
    assert {row.emulated for row in found.variants} == {found.emulated} == {HELD_BACK}
    assert {row.instruction_set for row in found.variants} == {here}
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("error", [NoWheel("no aarch64 wheel of it"), UserError("pip could not fetch it")])
def test_an_engine_that_is_not_to_be_had_costs_its_own_row_alone(
    error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places = iter([Place(native(), "this machine", HELD_BACK, instruction_set_here((), {}))])

    def place(runtime: str, empty: Path) -> Place:
        found = next(places, None)
        if found is None:
            raise error
        return found

    monkeypatch.setattr(rehearsing, "check_host", lambda which: None)
    monkeypatch.setattr(rehearsing, "set_up", lambda *given: SetUp("no emulator", "this machine", {}, place))
    found = rehearsing.rehearse(write_bundle_to_rehearse(tmp_path / "bundle"), "x86-64-v2", cache=tmp_path / "cache")
    assert [row.outcome for row in found.variants] == ["same", "not run"]
    assert found.variants[1].reason == str(error)
    assert found.exit_code == 1


@pytest.fixture(scope="session")
def qemu() -> Qemu:
    """The x86-64 emulator, set up once in the user's own cache; skips where it cannot be."""
    try:
        levels.check_host()
        return levels.set_up_emulator(cache_folder(None), False, silent)
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS, ids=[one.name for one in LEVELS])
def test_an_emulated_processor_is_seen_as_what_it_is(level: Level, qemu: Qemu, tmp_path: Path) -> None:
    code = "from edgecnn.processor import instruction_set_here as here; print(here(), flush=True)"
    found = execute(
        emulated_here(level.cpu, qemu.path), ["-c", f"{code}; assert here() == {level.name!r}"], tmp_path, 300
    )
    assert found.code == 0, found.stderr


@pytest.mark.slow
def test_a_bundle_is_rehearsed_on_an_older_x86(qemu: Qemu, tmp_path: Path) -> None:
    folder = write_bundle_to_rehearse(tmp_path / "bundle")
    found = rehearsing.rehearse(folder, "x86-64-v2")
    assert [row.outcome for row in found.variants] == ["same", "same"], [row.reason for row in found.variants]
    assert {row.instruction_set for row in found.variants} == {"x86-64-v2"}
    assert all(row.pixels_equal for row in found.variants)
