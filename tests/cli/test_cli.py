"""The command line: light, helpful, and one clear line with exit code 2 for every mistake."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from edgecnn import __version__
from edgecnn.cli import app, main
from edgecnn.cli.verbs import get, in_order, names
from edgecnn.profiles import target_names
from edgecnn.rehearse.boards import BOARDS
from edgecnn.rehearse.levels import LEVELS
from tests.conftest import encode, picture

REPOSITORY = Path(__file__).parents[2]
COMMAND = typer.main.get_command(app)
VERBS = names()


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Exit code of `edgecnn …` in this process."""
    monkeypatch.setattr(sys, "argv", ["edgecnn", *map(str, words)])
    try:
        main()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object, code: int = 2) -> str:
    """The one line on stderr that a mistake ends in."""
    assert call(monkeypatch, *words) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("edgecnn: ")]
    assert len(lines) == 1
    return lines[0]


DEVICE_SIDE = [
    *(f"edgecnn.{name}" for name in ("artifact", "bench", "blame", "cli", "data", "doctor", "evaluate", "imaging")),
    *(f"edgecnn.{name}" for name in ("metadata", "parity", "profiles", "rehearse", "require", "runtimes")),
]
HEAVY = {
    *("torch", "torchvision", "timm", "nncf", "onnx", "fvcore"),
    *("onnxruntime", "openvino", "ai_edge_litert", "ncnn", "executorch", "tensorrt", "cv2"),
}


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    for name, first in (("crack", 0), ("good", 50)):
        (tmp_path / "parts" / name).mkdir(parents=True)
        for seed in range(first, first + 12):
            (tmp_path / "parts" / name / f"{seed}.jpg").write_bytes(encode(picture(seed), "JPEG"))
    return tmp_path / "parts"


def test_the_device_side_never_loads_torch() -> None:
    """Neither a package of it, nor a file of it for an engine, before that engine is asked for."""
    code = f"""
import importlib, pkgutil, sys
for name in {DEVICE_SIDE}:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(getattr(package, "__path__", ()), name + "."):
        importlib.import_module(module.name)
found = {HEAVY} & set(sys.modules)
assert not found, found
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_loads_next_to_nothing() -> None:
    heavy = "{'numpy', 'PIL', 'pydantic', 'rich.table'}"
    code = f"import sys, edgecnn.cli; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_verb_is_there_in_the_order_of_the_flow() -> None:
    """Each after the one that it names; none is lost because what it names is not there."""
    order = [verb.name for verb in in_order()]
    assert sorted(order) == VERBS
    assert list(COMMAND.commands) == order  # type: ignore[attr-defined]
    for verb in in_order():
        assert verb.after is None or order.index(verb.after) < order.index(verb.name)
    flow = ["demo-data", "run", "plan", "finetune", "export", "verify", "rehearse", "bench", "report"]
    assert [name for name in order if name in flow] == flow


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_its_files_name(verb: str) -> None:
    assert get(verb).name == verb


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_help_with_an_example(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call(monkeypatch, verb, "--help") == 0
    shown = capsys.readouterr().out
    assert f"edgecnn {verb}" in shown.replace("\n", " ")
    assert [line for line in shown.splitlines() if len(line) > 80] == []
    assert len(shown.splitlines()) <= 60


@pytest.mark.parametrize("verb", ["finetune", "run"])
def test_every_option_of_training_is_in_the_whole_help(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, verb, "--help") == 0
    short = capsys.readouterr().out
    assert "--help-all" in short
    assert call(monkeypatch, verb, "--help-all") == 0
    whole = capsys.readouterr().out
    for parameter in COMMAND.commands[verb].params:  # type: ignore[attr-defined]
        assert parameter.opts[0] in whole or parameter.name == "data"
    assert "--label-smoothing" in whole
    assert "--label-smoothing" not in short


@pytest.mark.parametrize("verb", ["export", "run", "plan"])
def test_every_target_is_named_in_the_help(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, verb, "--help") == 0
    shown = "".join(capsys.readouterr().out.split())
    assert all(name in shown for name in target_names())


def test_every_device_is_named_in_the_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "rehearse", "--help") == 0
    shown = "".join(capsys.readouterr().out.split())
    assert all(name in shown for name in (*(one.name for one in (*BOARDS, *LEVELS)), *target_names()))


def test_the_list_of_verbs_is_cut_off_nowhere_in_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call(monkeypatch, "--help") == 0
    commands = capsys.readouterr().out.partition("Commands:")[2]
    assert commands
    assert "..." not in commands


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def documented_commands() -> list[tuple[str, str]]:
    pages = [
        *REPOSITORY.glob("*.md"),
        *(path for top in ("docs", "export", "benchmarks", "deploy") for path in (REPOSITORY / top).rglob("*.*")),
    ]
    lines = [
        (page.relative_to(REPOSITORY).as_posix(), line.strip().lstrip("# ").split("  #")[0])
        for page in pages
        if page.suffix in (".md", ".toml")
        for line in page.read_text().splitlines()
        if line.strip().lstrip("# ").startswith(("edgecnn ", "bench "))
    ]
    return [(page, line) for page, line in lines if line.split()[1] in VERBS or line.startswith("bench")]


@pytest.mark.parametrize(("page", "line"), documented_commands())
def test_every_documented_command_is_one_that_the_program_takes(page: str, line: str) -> None:
    words = shlex.split(line.replace("…", "x"))
    verb = words[1] if words[0] == "edgecnn" else "bench"
    known = {name for option in COMMAND.commands[verb].params for name in [*option.opts, *option.secondary_opts]}  # type: ignore[attr-defined]
    given = {word.split("=")[0] for word in words if word.startswith("--")} - {"--help"}
    assert given <= known, f"{page}: {line}"


def test_an_unknown_option_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no such option: --fast" in refused(monkeypatch, capsys, "bench", "bundle", "--fast")


def test_no_word_at_all_shows_the_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch) == 2
    assert "Commands:" in capsys.readouterr().err


def test_an_unknown_target(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], parts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    line = refused(monkeypatch, capsys, "run", parts, "--target", "toaster", "--out", out)
    assert "target: 'toaster' is not one of desktop-cpu" in line
    assert not out.exists()


def test_a_text_file_named_jpg(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], parts: Path, tmp_path: Path
) -> None:
    (parts / "crack" / "notes.jpg").write_text("not a picture")
    line = refused(monkeypatch, capsys, "finetune", parts, "--out", tmp_path / "out", "--weights", "none")
    assert "crack/notes.jpg: not an image" in line
    assert "--skip-unreadable" in line
    assert not (tmp_path / "out").exists()


def test_a_missing_class_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], parts: Path, tmp_path: Path
) -> None:
    (tmp_path / "split").mkdir()
    parts.rename(tmp_path / "split" / "train")
    (tmp_path / "split" / "test" / "good").mkdir(parents=True)
    line = refused(monkeypatch, capsys, "run", tmp_path / "split", "--out", tmp_path / "out")
    assert "class folder crack/ is missing" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"not safetensors at all", b""])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_wrong_weights_file(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    parts: Path,
    tmp_path: Path,
    content: bytes,
    suffix: str,
) -> None:
    weights = tmp_path / f"wrong{suffix}"
    weights.write_bytes(content)
    words = ("finetune", parts, "--model", "mobilenetv2_035", "--weights", weights, "--out", tmp_path / "out")
    line = refused(monkeypatch, capsys, *words, "--size", 32)
    assert str(weights) in line
    assert not (tmp_path / "out" / "checkpoint.json").exists()


@pytest.mark.parametrize("verb", ["finetune", "plan", "run"])
@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (None, (), "wrong.pth: no such file (expected weights: a file"),
        (b"<!doctype html>", (), "wrong.pth: is a web page (HTML), not the file itself: download"),
        (b"\x80\2", ("--model", "no_such_net"), "no_such_net"),
    ],
)
def test_a_network_and_its_file_are_looked_for_before_images_are_read(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    verb: str,
    content: bytes | None,
    words: tuple[str, ...],
    message: str,
) -> None:
    if content is not None:
        (tmp_path / "wrong.pth").write_bytes(content)
    out = () if verb == "plan" else ("--out", tmp_path / "out")
    given = (verb, tmp_path / "no images", "--weights", tmp_path / "wrong.pth", *words, *out)
    assert message in refused(monkeypatch, capsys, *given)


@pytest.mark.parametrize("verb", ["export", "plan", "run"])
def test_what_a_target_cannot_make_is_told_with_its_other_mistakes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str
) -> None:
    text = (REPOSITORY / "export" / "desktop-cpu.toml").read_text().replace('budget = "30ms@p99"', 'budget = "fast"')
    mine = 'require = "int8"\n' + text.replace('format = "openvino"', 'format = "onnxx"', 1)
    (tmp_path / "mine.toml").write_text(mine)
    out = () if verb == "plan" else ("--out", tmp_path / "out")
    line = refused(monkeypatch, capsys, verb, tmp_path / "nothing", "--target", tmp_path / "mine.toml", *out)
    for mistake in ("'onnxx' is not one of executorch", "'fast' is not a latency", "'int8' is not a precision"):
        assert mistake in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("bench", "nowhere"), "no bundle.json there"),
        (("verify", "nowhere", "--data", "."), "no bundle.json there"),
        (("export", "nowhere", "--out", "bundle"), "nowhere: no such file or folder (expected a run folder"),
        (("export", ".", "--out", "bundle"), "no checkpoint.json there"),
        (("finetune", "", "--out", "x"), "an empty word was given (after 'finetune')"),
        (("export", "", "--out", "bundle"), "an empty word was given"),
        (("finetune", "x", "--out="), "an empty word was given (in '--out=')"),
        (("finetune",), "finetune: missing argument 'data' (Folder: <class>"),
        (("finetune", "x"), "finetune: missing option '--out' (Run folder"),
        (("finetune", "x", "--out"), "finetune: option '--out' requires an argument: `edgecnn finetune --help`"),
        (("finetune", "x", "--out", "y", "--epochs", "five"), "(came 'five'): `edgecnn finetune --help`"),
        (("plan", "x", "--batch=1"), "invalid value for '--batch'"),
        (("finetun", "x"), "there are demo-data, run, "),
        (("--nothing",), "no such option: --nothing: `edgecnn --help`"),
        (("bench", "x", "y"), "bench: got unexpected extra argument"),
        (("finetune", "nowhere", "--out", "x"), "no such folder"),
        (("report", "nowhere", "--runs", "x.jsonl", "--out", "y"), "nowhere"),
        (("bench", "nowhere", "--budget", "quick"), "such as 30ms@p99"),
        (("demo-data", "surfaces", "--images", "3"), "3"),
    ],
)
def test_what_is_not_there_or_makes_no_sense(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(monkeypatch, capsys, *words)
    assert list(tmp_path.iterdir()) == []


def test_an_unusable_option_names_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], parts: Path, tmp_path: Path
) -> None:
    words = ("finetune", parts, "--out", tmp_path / "out", "--recipe", "magic")
    assert "recipe" in refused(monkeypatch, capsys, *words)
    assert not (tmp_path / "out").exists()


def test_bench_is_a_command_of_its_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from edgecnn.cli import bench_main

    monkeypatch.setattr(sys, "argv", ["bench", "--help"])
    with pytest.raises(SystemExit) as left:
        bench_main()
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert "--budget" in shown
    assert "Usage: edgecnn bench [OPTIONS]" in shown


@pytest.mark.skipif(sys.platform == "win32", reason="a folder that is in use stays there")
def test_a_working_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    program = (
        f"import os; os.chdir({str(tmp_path)!r}); os.rmdir({str(tmp_path)!r}); from edgecnn.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program, "scale", "--phi", "0"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "edgecnn: the folder that this was started in is gone: cd to one that is there\n"


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")]
)
def test_too_little_memory_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fail(**options: object) -> None:
        raise error

    monkeypatch.setattr("edgecnn.cli.app", fail)
    assert "out of memory" in refused(monkeypatch, capsys)


def test_a_terminal_without_our_signs_still_gets_its_answer() -> None:
    """As under LC_ALL=en_US.ISO-8859-1, which has no φ, no ≤ and no frames of tables."""
    environment = {**os.environ, "PYTHONIOENCODING": "iso-8859-1"}
    done = subprocess.run(
        [sys.executable, "-m", "edgecnn", "scale", "--phi", "0"], env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert b"2^phi = 1.00" in done.stdout
