"""Labels: as a line each, or as other programs write them; every mistake in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecnn.adopt.labels import read_labels
from edgecnn.errors import UserError
from tests.adopt.conftest import toml


def test_labels(tmp_path: Path) -> None:
    assert read_labels(toml(tmp_path / "l", "a\nb c\n\n")) == ("a", "b c")
    for text, message in (("", "empty"), ("a\n\nb", "line 2 is empty"), ("a\nb\na", "'a' is there twice")):
        with pytest.raises(UserError, match=message):
            read_labels(toml(tmp_path / "l", text))


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    (tmp_path / "l").write_bytes(b"\xef\xbb\xbfa\nb\n")
    assert read_labels(tmp_path / "l") == ("a", "b")


def test_labels_as_other_programs_write_them(tmp_path: Path) -> None:
    path = tmp_path / "l"
    for text in ("\ufeffa\r\nb c\r\n", '["a", "b c"]', '{"0": "a", "1": "b c"}', '{"b c": 1, "a": 0}'):
        path.write_bytes(text.encode())
        assert read_labels(path) == ("a", "b c")


def test_labels_hold_nothing_unseen_but_what_the_folders_hold(tmp_path: Path) -> None:
    path = tmp_path / "l"
    path.write_bytes("a\nb\u200b\nc\xa0d\n".encode())
    with pytest.raises(UserError, match=r"l: line 2: 'b\\u200b' holds U\+200B ZERO WIDTH SPACE, which cannot be seen"):
        read_labels(path)
    assert read_labels(path, {"b\u200b", "c\xa0d"}) == ("a", "b\u200b", "c\xa0d")
