"""Names that are spelled in two ways, sorted in two ways, or that no line can hold."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.data import load_folder, load_split, save_split
from edgecnn.data.names import natural, printable, same, sorts_two_ways, twins, unfit_name
from edgecnn.errors import UserError
from tests.data.drawn import draw, total, two_classes

NFC, NFD = "spät", unicodedata.normalize("NFD", "spät")

names = st.binary(min_size=1, max_size=12).map(lambda raw: os.fsdecode(raw.replace(b"/", b"_").replace(b"\0", b"_")))


@given(names)
def test_whatever_a_name_is_it_prints_in_one_line(name: str) -> None:
    text = printable(name)
    text.encode()
    assert len(text.splitlines()) == 1
    assert unfit_name(text) is None
    if unfit_name(name) is None:
        assert text == name


@given(st.text(max_size=12))
def test_both_spellings_are_the_same(text: str) -> None:
    text = text.encode(errors="ignore").decode()
    assert same(unicodedata.normalize("NFD", text)) == same(unicodedata.normalize("NFC", text))


def test_escapes_are_readable() -> None:
    assert printable(os.fsdecode(b"Pr\xfcf 1.jpg")) == r"Pr\xfcf 1.jpg"
    assert printable("a\nb\x1b[31m\u202egpj.exe") == r"a\nb\x1b[31m\u202egpj.exe"
    assert printable("Prüfung 1 [x].jpg") == "Prüfung 1 [x].jpg"


def test_names_that_hardly_differ() -> None:
    assert twins(["Good", "good", "bad", "bad\u200b", "spot"]) == [("Good", "good"), ("bad", "bad\u200b")]
    assert twins(["1", "10", "2"]) == []


def test_numbers_sort_two_ways() -> None:
    assert sorted(["10", "9", "1"], key=natural) == ["1", "9", "10"]
    assert sorts_two_ways(["1", "10", "2"])


def test_one_class_spelled_two_ways_over_the_splits(tmp_path: Path) -> None:
    for split, name, first in (("train", NFC, 0), ("val", NFD, 20), ("test", NFD, 40)):
        draw(tmp_path / split / name, 6, first)
        draw(tmp_path / split / "good", 6, first + 200)
    data = load_folder(tmp_path, good=NFD)
    assert (data.classes, data.good_class, total(data)) == (("good", NFC), NFC, 36)


def test_one_class_spelled_two_ways_in_one_folder_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / NFC, 6)
    draw(tmp_path / NFD, 6, 100)
    with pytest.raises(UserError, match=rf"two folders are called {NFC}/, spelled with other characters \(NFC and NFD"):
        load_folder(tmp_path)


def test_classes_that_hardly_differ_are_remarked_on(tmp_path: Path) -> None:
    two_classes(tmp_path)
    draw(tmp_path / "Good", 6, 300)
    assert any(
        "classes 'Good' and 'good' differ by case" in line for line in load_folder(tmp_path, good="good").remarks
    )


def test_the_order_of_numbered_classes_is_shown(tmp_path: Path) -> None:
    for number in range(1, 12):
        draw(tmp_path / str(number), 5, 20 * number)
    (remark,) = [line for line in load_folder(tmp_path, looks=False).remarks if "order" in line]
    assert remark == (
        "classes, in the order of the network's outputs: 1, 10, 11, 2, … (sorted as text; by number: 1, 2, 3, 4, …)"
    )


def test_a_table_of_parts_may_spell_them_otherwise(tmp_path: Path) -> None:
    root = tmp_path / "data"
    draw(root / NFD, 8)
    draw(root / "good", 8, 100)
    rows = [f"{NFC}/{number:03d}.png,part{number // 2}" for number in range(8)]
    rows += [f"good/{number:03d}.png,part{number}" for number in range(100, 108)]
    (tmp_path / "parts.csv").write_text("file,group\n" + "\n".join(rows))
    data = load_folder(root, group=str(tmp_path / "parts.csv"))
    assert data.grouping is not None
    assert data.grouping.parts == 12
    by_name = load_folder(root, group=f"({NFC}/.*|good/.*)")
    assert by_name.grouping is not None


def test_a_split_is_found_where_another_system_spells_it_otherwise(tmp_path: Path) -> None:
    draw(tmp_path / "a" / NFC, 8)
    draw(tmp_path / "a" / "good", 8, 100)
    save_split(load_folder(tmp_path / "a"), tmp_path / "split.json")
    (tmp_path / "a" / NFC).rename(tmp_path / "a" / NFD)
    told: list[str] = []
    data = load_split(tmp_path / "a", tmp_path / "split.json", told.append)
    assert total(data) == 16
    assert all(item.path.is_file() for item in data.train)
    assert told == []
