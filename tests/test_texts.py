"""What people write, in whatever encoding and with whatever came along when they copied it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgecnn
from edgecnn.errors import UserError
from edgecnn.texts import hidden, read_text, read_toml

WHAT = "class names, one a line"
VISIBLE = st.text(
    st.characters(
        categories=("L", "N", "P", "Sc", "Sm"),
        include_characters=" \t\n",
        exclude_characters="\u115f\u1160\u3164\uffa0",
    )
)


def written(folder: Path, data: bytes) -> Path:
    path = folder / "given.txt"
    path.write_bytes(data)
    return path


@given(text=VISIBLE, mark=st.booleans(), ends=st.sampled_from(("\n", "\r\n", "\r")))
def test_the_same_text_whoever_saved_it(
    text: str, mark: bool, ends: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = "a" + text
    data = (b"\xef\xbb\xbf" if mark else b"") + text.replace("\n", ends).encode()
    assert read_text(written(tmp_path_factory.mktemp("text"), data), WHAT) == text


@given(data=st.binary())
def test_any_bytes_are_text_or_one_line(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = written(tmp_path_factory.mktemp("bytes"), data)
    for read in (read_text, read_toml):
        try:
            read(path, WHAT)
        except UserError as error:
            assert "\n" not in str(error)
            assert str(path) in str(error)


@given(
    before=VISIBLE, behind=VISIBLE, one=st.sampled_from("\u200b\ufeff\xa0\u200f\u202e\xad\u2060\u3000\u3164\x0b\u2028")
)
def test_what_cannot_be_seen_is_found(before: str, behind: str, one: str) -> None:
    assert hidden(before) is None
    found = hidden(f"{before}{one}{behind}")
    assert found is not None
    assert found.startswith(f"U+{ord(one):04X} ")


@pytest.mark.parametrize("word", ["می‌خواهم", "क्‍ष", "👩‍🔧", "Schürfung 2", "ひび割れ"])
def test_scripts_that_need_joiners_are_left_alone(word: str) -> None:
    assert hidden(word) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "good\ncrack".encode("utf-16"),
            "UTF-16, as PowerShell's > and Notepad's “Unicode” write it: save it as UTF-8",
        ),
        ("good\ncrack".encode("utf-16-le"), "UTF-16"),
        ("good\ncrack".encode("utf-16-be"), "UTF-16"),
        ("good".encode("utf-32"), "UTF-32"),
        ("good\nschürf".encode("cp1252"), "line 2 is not UTF-8 text (byte 0xfc): save it as UTF-8"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "a Git LFS pointer, not the file itself: fetch",
        ),
        (b"<!DOCTYPE html>\n<title>404</title>", "a web page (HTML)"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "a spreadsheet: save it as CSV UTF-8"),
        (b"good\0crack\0", "no text file (it holds zero bytes)"),
        (b"\x89PNG\r\n\x1a\n", "is an image"),
    ],
)
def test_what_is_no_utf_8_is_called_what_it_is(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_text(written(tmp_path, data), WHAT)
    assert message in str(caught.value)
    assert str(caught.value).endswith(f"expected {WHAT}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a = 1\nb\xa0= 2\n",
            "at line 2, column 2): line 2 holds U+00A0 NO-BREAK SPACE, which cannot be seen: type it",
        ),
        ('a = 1\nb = "onnx\u200b"\n', r"line 2: 'onnx\u200b' holds U+200B ZERO WIDTH SPACE, which cannot be seen"),
        ('"a\u200f" = 1\n', r"line 1: 'a\u200f' holds U+200F RIGHT-TO-LEFT MARK"),
        ('[[v]]\nf = ["\u2060"]\n', "line 2: "),
    ],
)
def test_what_cannot_be_seen_in_toml_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_toml(written(tmp_path, text.encode()), "a target")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nb = 2\na = [1,\n2]\nc = 3\n", "line 3: the key a is there already, in line 1: keep one of them"),
        ("[[v]]\nf = 1\n[[v]]\nf = 1\nf = 2\n", "line 5: the key f is there already, in line 4"),
        ("a.b = 1\na.b = 2\n", "line 2: the key a.b is there already, in line 1"),
        ("x = {a = 1, a = 2}\n", "key 'a' (at line 1"),
        ("[x]\na = 1\n[x]\n", "Cannot declare ('x',) twice (at line 3"),
    ],
)
def test_a_key_that_is_there_twice_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_toml(written(tmp_path, text.encode()), "a target")
    assert message in str(caught.value)


def test_a_comment_may_hold_anything_and_an_escape_is_meant(tmp_path: Path) -> None:
    path = written(tmp_path, '\ufeffa = 1  # copied\xa0from a page\r\nb = "\\u200b"\r\n'.encode())
    assert read_toml(path, "a target") == {"a": 1, "b": "\u200b"}


def test_folders_and_names_that_no_disk_takes(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing", tmp_path / ("n" * 300)):
        with pytest.raises(UserError):
            read_text(path, WHAT)


def test_no_file_is_read_or_written_in_the_locales_encoding() -> None:
    """Ruff's PLW1514 knows only the paths whose type it can tell."""
    found = []
    for path in sorted(Path(edgecnn.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _in_the_locales_encoding(node):
                found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)[:80]}")
    assert found == []


def _in_the_locales_encoding(call: ast.Call) -> bool:
    keywords = {word.arg for word in call.keywords}
    if "encoding" in keywords:
        return False
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    metadata = ast.unparse(call.func).startswith("importlib.metadata.")  # decodes as UTF-8
    of_path = isinstance(call.func, ast.Attribute) and name in ("read_text", "write_text") and not metadata
    of_process = name in ("run", "Popen", "check_output") and bool({"text", "universal_newlines"} & keywords)
    return of_path or of_process
