"""Terminals, locales, pipes: in whatever state stdout is, the verdict, the names and the exit code come through."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from edgecnn.cli import show, terminal
from edgecnn.cli.terminal import _ascii_json

POSIX = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LOCALES = [
    {"PYTHONIOENCODING": "iso-8859-1"},
    {"PYTHONIOENCODING": "cp1252:strict"},
    {"PYTHONIOENCODING": "ascii"},
    POSIX,
]
MARKUP = ["[litert]", "[/x]", "[bold]", ":smile:", "[link=http://x]", "\\[a]", "[/]", "a[1,2]"]


def edgecnn(
    *words: str, environment: Mapping[str, str] | None = None, **more: object
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "edgecnn", *words]
    piped = {} if {"stdout", "preexec_fn"} & more.keys() else {"stdout": subprocess.PIPE}
    return subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        stderr=subprocess.PIPE,
        check=False,
        **{**piped, **more},  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("locale", LOCALES, ids=str)
@pytest.mark.parametrize("words", [("models", "--family", "mobilenet_v2"), ("explain", "block"), ("--help",)], ids=str)
def test_no_locale_costs_an_answer(locale: Mapping[str, str], words: tuple[str, ...]) -> None:
    done = edgecnn(*words, environment=locale)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"?" not in done.stdout


@pytest.mark.parametrize("locale", LOCALES, ids=str)
def test_json_is_the_same_document_in_any_locale(locale: Mapping[str, str]) -> None:
    there = {"PYTHONIOENCODING": "utf-8"}
    words = ("explain", "block", "--json")
    assert json.loads(edgecnn(*words, environment=locale).stdout) == json.loads(
        edgecnn(*words, environment=there).stdout
    )


@given(st.dictionaries(st.text(), st.text(st.characters(codec="utf-8"))))
def test_json_in_ascii_says_the_same(document: dict[str, str]) -> None:
    written = _ascii_json(json.dumps(document, ensure_ascii=False))
    assert written.isascii()
    assert json.loads(written) == document


def test_two_names_never_look_alike() -> None:
    raw = io.BytesIO()
    terminal.make_ready()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors="edgecnn-spelled")
    print("ü", "ö", "≤ 30 ms", "\udce4", file=stream, flush=True)
    assert raw.getvalue().split(b" ", 2)[:2] == [b"\\xfc", b"\\xf6"]
    assert b"<= 30 ms" in raw.getvalue()
    assert b"\\udce4" in raw.getvalue()


@pytest.mark.parametrize("name", MARKUP)
def test_markup_in_a_name_is_printed_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In a cell, a header, a title, a line, a finding, a doubt."""
    table = Table(name, title=name)
    table.add_row(name)
    show.show_table(table)
    show.show_table(show.findings([(name, name, name)]))
    show.show_table(name)
    show.console().print(f"{name}: {name}")
    assert capsys.readouterr().out.count(name) == 9


def at_terminal(*words: str, **environment: str) -> tuple[int, str]:
    """Exit code and what is seen of a Python command whose three streams are a terminal."""
    main, other = pty.openpty()
    command = [sys.executable, *words]
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdin=other, stdout=other, stderr=other)
    os.close(other)
    seen = b""
    try:
        while part := os.read(main, 65536):
            seen += part
    except OSError:  # the other end is closed
        pass
    os.close(main)
    return process.wait(), seen.decode()


def test_a_progress_bar_takes_a_name_as_it_is() -> None:
    """Which is drawn only where stderr is a terminal."""
    code = """
from edgecnn.cli.live import progress_bar
with progress_bar() as bar:
    bar.start(1, "[/x] [bold]")
    bar.text("[/y] :smile:")
"""
    left, shown = at_terminal("-c", code, COLUMNS="100")
    assert left == 0, shown
    assert "[/y] :smile:" in shown
    assert "[/x] [bold]" in shown


@pytest.mark.parametrize("columns", ["1", "7", "20"])
@pytest.mark.parametrize("more", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_a_terminal_that_is_very_narrow_or_dumb(columns: str, more: Mapping[str, str]) -> None:
    left, shown = at_terminal("-m", "edgecnn", "explain", "block", COLUMNS=columns, **more)
    assert left == 0, shown
    assert "Traceback" not in shown


def test_a_reader_that_leaves_costs_neither_the_exit_code_nor_a_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = edgecnn("models", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)], ids=str)
def test_a_closed_stream(closed: tuple[int, ...], tmp_path: Path) -> None:
    def close() -> None:
        for number in closed:
            os.close(number)

    assert edgecnn("models", preexec_fn=close, cwd=tmp_path).returncode == 0
    assert edgecnn("bench", "nowhere", preexec_fn=close, cwd=tmp_path).returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", [("models",), ("--version",)], ids=str)
def test_an_answer_that_the_disk_does_not_take_is_one_line(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = edgecnn(*words, stdout=full)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert b"No space left" in done.stderr


def test_an_interruption_is_one_line(tmp_path: Path) -> None:
    # What is started in the background, as tests may be, ignores it.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    start = f"{heard}; from edgecnn.cli import main; main()"
    words = ["demo-data", str(tmp_path / "surfaces"), "--images", "100000"]
    process = subprocess.Popen([sys.executable, "-c", start, *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stderr is not None
        process.stderr.readline()  # drawing
        process.send_signal(signal.SIGINT)
        lines = process.communicate(timeout=60)[1].splitlines()
    finally:
        process.kill()
    assert (process.returncode, lines[-1]) == (130, b"edgecnn: interrupted")
    assert not any(b"Traceback" in line for line in lines)


def test_no_name_of_a_file_breaks_the_line(tmp_path: Path) -> None:
    done = edgecnn("bench", "a\nb\x1b[31m")
    assert done.returncode == 2
    assert done.stderr.startswith(b"edgecnn: a\\nb\\x1b[31m: no bundle.json there")


def test_a_library_that_does_not_load_is_one_line(tmp_path: Path) -> None:
    """As simplejpeg built for another processor, or torch without its CUDA."""
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libthing.so.1: cannot open shared object file')")
    (tmp_path / "pydantic.py").write_text("raise ImportError('libthing.so.1: cannot open shared object file')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = edgecnn("models", environment={"PYTHONPATH": path})
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert b"libthing.so.1: cannot open shared object file: `edgecnn doctor` tells what to do" in done.stderr
