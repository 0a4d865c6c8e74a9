"""Messages of mistakes: one line, whatever the file that they are about holds and whatever a library says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.artifact import load_bundle
from edgecnn.errors import BadImage, UserError, first_line, last_line, one_line
from edgecnn.profiles import load_target
from tests.bench.conftest import write_tiny_bundle


@given(st.text())
def test_an_error_is_one_line_that_no_name_can_break(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert "\x1b" not in line
    assert text.isprintable() == (line == text)


@pytest.mark.parametrize("kind", [UserError, BadImage])
def test_the_message_itself_is_one_line(kind: type[UserError]) -> None:
    assert str(kind("a\nb\x1b[31m\u2028c\u202ed: mend it")) == "a\\nb\\x1b[31m\\u2028c\\u202ed: mend it"


@given(st.text())
def test_what_a_library_says_is_shown_by_a_line_of_it(text: str) -> None:
    for line in (first_line(ValueError(text)), last_line(ValueError(text))):
        assert len(line.splitlines()) == 1
    assert first_line(ValueError(" \n ")) == last_line(ValueError("\n")) == "ValueError"


@pytest.mark.parametrize("value", ["a\nb", "\x1b[2J", ["a\r"], {"a\n": 1}])
def test_a_bundle_of_a_strange_version_is_told_in_one_line(value: object, tmp_path: Path) -> None:
    made = write_tiny_bundle(tmp_path / "bundle")
    document = json.loads((made / "bundle.json").read_bytes())
    (made / "bundle.json").write_text(json.dumps({**document, "version": value}), "utf-8")
    with pytest.raises(UserError, match="this edgecnn reads version") as caught:
        load_bundle(made)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("line", ['"a\\nb" = 1', 'machine = "a\\u001b[2Jb"', 'budget = "30ms\\n@p99"'])
def test_keys_and_values_of_a_target_are_told_in_one_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "target.toml"
    path.write_text(line + "\n", "utf-8")
    with pytest.raises(UserError) as caught:
        load_target(str(path))
    assert str(caught.value).isprintable()
