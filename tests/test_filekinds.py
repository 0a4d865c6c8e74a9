"""What a file is by its first bytes: of files that end among them, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.filekinds import _MARKS, kind_of

LONG = [mark for mark, _ in _MARKS]
LONG += [
    b"\x08\x0a\x12\x07pytorch",
    b"\x80\x02}q\x00.",
    b"PK\x03\x04\x14\0",
    b"\x20\0\0\0TFL3",
    b"\x40" + bytes(7) + b'{"a"',
]


@given(
    content=st.one_of(
        st.binary(max_size=16),
        st.sampled_from(LONG).flatmap(lambda one: st.sampled_from([one[:n] for n in range(len(one) + 1)])),
    )
)
def test_no_file_is_too_short_to_be_looked_at(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("kinds") / "file"
    path.write_bytes(content)
    kind = kind_of(path)
    assert (kind is not None and kind.name == "empty") == (content == b"")


@pytest.mark.parametrize("first", range(256))
def test_every_file_of_one_byte(first: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes([first]))
    assert kind_of(tmp_path / "file") is None


def test_onnx_is_known_by_its_version_and_the_next_field(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content, name in (
        (b"\x08\x0a\x12\x07", "onnx"),
        (b"\x08\x21\x12", None),
        (b"\x08\0\x12", None),
        (b"\x08\x0a", None),
    ):
        path.write_bytes(content)
        kind = kind_of(path)
        assert (kind and kind.name) == name
