"""pre.toml and labels: read over what is known, every mistake in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecnn.adopt.description import read_labels, read_preprocess
from edgecnn.errors import UserError
from tests.adopt.conftest import GOOD_TOML, toml
from tests.onnx_graph.files import SPEC


def test_a_description_is_read_over_what_is_known(tmp_path: Path) -> None:
    assert read_preprocess(toml(tmp_path / "p.toml", GOOD_TOML), {}, "m") == SPEC
    partly = read_preprocess(toml(tmp_path / "p.toml", 'fit = "center-crop"\ncrop = 0.5'), SPEC.model_dump(), "m")
    assert partly == SPEC.model_copy(update={"fit": "center-crop", "crop": 0.5})


def test_all_that_is_wrong_in_a_description_is_one_line(tmp_path: Path) -> None:
    path = toml(
        tmp_path / "p.toml", 'heigth = 8\ncolour = "bgr"\nscale = 1.0\nwidth = "8"\nmean = [123.0, 117.0, 104.0]'
    )
    with pytest.raises(UserError) as caught:
        read_preprocess(path, {}, "m")
    text = str(caught.value)
    assert "\n" not in text
    for part in (
        "p.toml: ",
        "heigth: there is no such key",
        "colour: images are prepared as RGB",
        "scale: pixels are divided by 255",
    ):
        assert part in text
    for part in ("width: ", "height: is missing", "std: is missing"):
        assert part in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD_TOML.replace("0.5,", "127.5,"), "not of pixels 0..1: divide mean and std by 255"),
        (GOOD_TOML.replace("0.25", "0.0"), "must be positive"),
        ("height = [", "not valid TOML"),
    ],
)
def test_an_unlikely_description_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_preprocess(toml(tmp_path / "p.toml", text), {}, "m")


def test_a_missing_mean_is_never_guessed() -> None:
    with pytest.raises(UserError, match="mean: is missing; std: is missing: give --preprocess FILE.toml"):
        read_preprocess(None, {"height": 8, "width": 8}, "m.onnx: says nothing")


def test_labels(tmp_path: Path) -> None:
    assert read_labels(toml(tmp_path / "l", "a\nb c\n\n")) == ("a", "b c")
    for text, message in (("", "empty"), ("a\n\nb", "line 2 is empty"), ("a\nb\na", "'a' is there twice")):
        with pytest.raises(UserError, match=message):
            read_labels(toml(tmp_path / "l", text))


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    for name, text in (("p.toml", GOOD_TOML), ("l", "a\nb\n")):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_preprocess(tmp_path / "p.toml", {}, "m") == SPEC
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
