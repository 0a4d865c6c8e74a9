"""Images that are known by content are found wherever they lie now, and what changed about them is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecnn.data import Dataset, Sought, load_folder, load_split, locate, save_split
from edgecnn.errors import UserError
from tests.data.drawn import draw, two_classes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return two_classes(tmp_path / "parts", 10)


def sought_in(data: Dataset) -> list[Sought]:
    return [Sought(item.name, item.sha256, data.classes[item.label]) for item in data.test]


def test_nothing_is_said_where_nothing_changed(root: Path) -> None:
    data = load_folder(root)
    located = locate(root, sought_in(data), data.classes)
    assert located.places == tuple(item.path for item in data.test)
    assert (located.words("test images"), located.missing) == ((), ())


def test_moved_and_renamed_images_are_found_and_told(root: Path) -> None:
    data = load_folder(root)
    first, *_ = data.test
    (first.path.parent / "more").mkdir()
    now = first.path.rename(first.path.parent / "more" / "renamed.png")
    located = locate(root, sought_in(data), data.classes)
    assert located.places[0] == now
    (line,) = located.words("test images")
    assert line.startswith(f"1 of the {len(data.test)} test images lies under another name than before (such as ")
    assert f"(such as {first.name}, now {now.relative_to(root).as_posix()}): found by content" in line


def test_a_folder_above_or_below_is_as_good(root: Path) -> None:
    data = load_folder(root)
    located = locate(root.parent, sought_in(data), data.classes)
    assert (located.missing, located.relabelled) == ((), frozenset())
    crack = [image for image in sought_in(data) if image.label == "crack"]
    assert locate(root / "crack", crack, data.classes).missing == ()


def test_relabelled_images_are_a_warning(root: Path) -> None:
    data = load_folder(root)
    changed = [item for item in data.test if data.classes[item.label] == "crack"]
    for item in changed:
        item.path.rename(root / "good" / f"was_{item.path.name}")
    located = locate(root, sought_in(data), data.classes)
    (line,) = located.words("test images")
    assert line.startswith(f"WARNING: {len(changed)} of the {len(data.test)} test images lie")
    assert f"(such as {changed[0].name}, of crack/, now good/was_{changed[0].path.name}): judged by the class" in line


def test_a_copy_under_the_old_class_is_preferred(root: Path) -> None:
    data = load_folder(root)
    item = next(item for item in data.test if data.classes[item.label] == "good")
    (root / "crack" / "also.png").write_bytes(item.path.read_bytes())
    item.path.rename(root / "good" / "zzz.png")
    located = locate(root, sought_in(data), data.classes)
    assert located.relabelled == frozenset()
    assert root / "good" / "zzz.png" in located.places


def test_missing_images_are_counted_with_what_could_not_be_looked_into(root: Path) -> None:
    data = load_folder(root)
    data.test[0].path.unlink()
    (root / "good" / "gone").symlink_to("nowhere")
    located = locate(root, sought_in(data), data.classes)
    with pytest.raises(UserError, match=r"1 of the 4 test images are not there .*1 thing \(good/gone: a link"):
        located.refuse_missing("test images")


def test_a_run_goes_on_with_images_that_were_moved(root: Path, tmp_path: Path) -> None:
    data = load_folder(root)
    save_split(data, tmp_path / "split.json")
    draw(tmp_path / "elsewhere" / "new", 1, first=999)
    root.rename(tmp_path / "elsewhere" / "parts")
    item = data.train[0]
    (tmp_path / "elsewhere" / "parts" / item.name).rename(tmp_path / "elsewhere" / "x.png")
    told: list[str] = []
    again = load_split(tmp_path / "elsewhere", tmp_path / "split.json", told.append)
    assert [one.sha256 for one in again.train] == [one.sha256 for one in data.train]
    assert all(one.path.is_file() for one in (*again.train, *again.val, *again.test))
    assert len(told) == 1
    assert "20 of the 20 images lie under another name" in told[0]
