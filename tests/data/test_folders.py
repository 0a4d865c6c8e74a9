"""Folders of images to datasets: nothing leaks, nothing is left out silently."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from zipfile import ZipFile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn.data import SPLITS, Dataset, calibration_items, find_images, load_folder, load_split, save_split
from edgecnn.errors import UserError
from edgecnn.imaging import MAX_BYTES
from tests.conftest import encode, picture


def write_images(folder: Path, count: int, first: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        (folder / f"{seed:03d}.png").write_bytes(encode(picture(seed, 12, 16)))


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    write_images(tmp_path / "parts" / "crack", 20)
    write_images(tmp_path / "parts" / "good", 30, first=100)
    return tmp_path / "parts"


def names(data: Dataset, split: str) -> set[str]:
    return {item.name for item in data.split(split)}


def test_a_plain_folder_is_split_by_class(parts: Path) -> None:
    data = load_folder(parts)
    assert data.classes == ("crack", "good")
    assert data.good_class == "good"
    assert [len(data.split(name)) for name in SPLITS] == [33, 7, 10]
    assert Counter(item.label for item in data.test) == {0: 4, 1: 6}


def test_the_split_is_seeded_and_does_not_depend_on_names(parts: Path, tmp_path: Path) -> None:
    first, again, other = load_folder(parts), load_folder(parts), load_folder(parts, seed=1)
    assert names(first, "test") == names(again, "test") != names(other, "test")
    renamed = tmp_path / "renamed"
    for path in parts.rglob("*.png"):
        target = renamed / path.parent.name / f"x{path.stem[::-1]}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    assert {item.sha256 for item in load_folder(renamed).test} == {item.sha256 for item in first.test}


@given(copies=st.lists(st.integers(0, 19), min_size=1, max_size=12), seed=st.integers(0, 5))
@settings(deadline=None, max_examples=15)
def test_duplicates_never_straddle(tmp_path_factory: pytest.TempPathFactory, copies: list[int], seed: int) -> None:
    root = tmp_path_factory.mktemp("parts")
    write_images(root / "crack", 20)
    write_images(root / "good", 20, first=100)
    for number, source in enumerate(copies):
        (root / "crack" / f"copy{number}.png").write_bytes((root / "crack" / f"{source:03d}.png").read_bytes())
    data = load_folder(root, seed=seed)
    hashes = [{item.sha256 for item in data.split(name)} for name in SPLITS]
    assert not hashes[0] & hashes[1]
    assert not hashes[0] & hashes[2]
    assert not hashes[1] & hashes[2]
    assert sum(len(data.split(name)) for name in SPLITS) == 40 + len(copies)


def test_given_splits_are_kept_and_leaks_are_listed(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("val", 50), ("test", 100)):
        write_images(tmp_path / split / "crack", 6, first)
        write_images(tmp_path / split / "good", 6, first + 200)
    leaked = tmp_path / "train" / "crack" / "leak.png"
    leaked.write_bytes((tmp_path / "test" / "crack" / "100.png").read_bytes())
    data = load_folder(tmp_path)
    assert [len(data.split(name)) for name in SPLITS] == [12, 12, 12]
    assert [(problem.name, "same image" in problem.reason) for problem in data.problems] == [
        ("train/crack/leak.png", True)
    ]


def test_validation_is_carved_from_train_where_it_is_missing(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("test", 100)):
        write_images(tmp_path / split / "a", 10, first)
        write_images(tmp_path / split / "b", 10, first + 200)
    data = load_folder(tmp_path)
    assert [len(data.split(name)) for name in SPLITS] == [16, 4, 20]
    assert data.good_class is None


def test_one_image_under_two_classes_is_left_out_with_the_reason(parts: Path) -> None:
    (parts / "crack" / "same.png").write_bytes((parts / "good" / "100.png").read_bytes())
    data = load_folder(parts)
    assert {problem.name for problem in data.problems} == {"crack/same.png", "good/100.png"}
    assert all("crack/ and good/" in problem.reason for problem in data.problems)


def test_unreadable_images_stop_the_run_and_are_named(parts: Path) -> None:
    (parts / "crack" / "notes.jpg").write_text("a text file")
    (parts / "crack" / "empty.png").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"2 unusable images .*crack/empty.png: empty file.*crack/notes.jpg: not an image"
    ):
        load_folder(parts)
    data = load_folder(parts, skip_unreadable=True)
    assert {problem.name for problem in data.problems} == {"crack/notes.jpg", "crack/empty.png"}
    assert sum(len(data.split(name)) for name in SPLITS) == 50


def test_other_files_are_no_images(parts: Path) -> None:
    (parts / "crack" / "readme.txt").write_text("not an image, and does not claim to be one")
    (parts / "crack" / ".hidden.png").write_bytes(b"")
    for name in ("a", "b"):
        (parts / "good" / f"{name}.XML").write_text("<a/>")
    data = load_folder(parts)
    assert data.problems == ()
    told = "passed over in the class folders, no images by their endings: 2 .xml, 1 .txt (such as crack/readme.txt)"
    assert told in data.remarks


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_small_class_is_named(parts: Path, kept: int) -> None:
    """And no part is blamed, where there are too few images whatever is one."""
    for path in sorted((parts / "crack").iterdir())[kept:]:
        path.unlink()
    with pytest.raises(UserError, match=rf"crack/ has {kept} usable images? .*at least 5 [^;]*$"):
        load_folder(parts)


def test_where_all_images_are_left_out_the_reason_is_told(parts: Path) -> None:
    same = encode(picture(1))
    for path in parts.glob("*/*"):
        path.write_bytes(same)
    with pytest.raises(UserError, match=r"0 train and 0 test .*left out: .*the same image is in crack/ and "):
        load_folder(parts)


def test_a_sparse_file_is_never_read_into_memory(parts: Path) -> None:
    with (parts / "crack" / "hole.jpg").open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(UserError, match=r"crack/hole.jpg: a file of more than 800 MB, which no image"):
        load_folder(parts)


def test_a_missing_class_folder_is_named(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_images(tmp_path / split / "a", 5)
        write_images(tmp_path / split / "b", 5, 50)
    for path in (tmp_path / "test" / "b").iterdir():
        path.unlink()
    (tmp_path / "test" / "b").rmdir()
    with pytest.raises(UserError, match=r"test: class folder b/ is missing"):
        load_folder(tmp_path)


def test_what_is_no_data_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no class folder"):
        load_folder(tmp_path)
    with ZipFile(tmp_path / "parts.zip", "w") as archive:
        archive.writestr("good/1.jpg", b"")
    with pytest.raises(
        UserError, match=r"parts\.zip: is a file, a packed archive: unpack it \(expected a folder: <class>"
    ):
        load_folder(tmp_path / "parts.zip")
    write_images(tmp_path / "only", 5)
    with pytest.raises(UserError, match="only only/"):
        load_folder(tmp_path)
    write_images(tmp_path / "more" / "train" / "a", 5)
    with pytest.raises(UserError, match="no test/"):
        load_folder(tmp_path / "more")


def test_the_good_class_can_be_named(parts: Path) -> None:
    assert load_folder(parts, good="crack").good_class == "crack"
    assert load_folder(parts, good="none").good_class is None
    with pytest.raises(UserError, match="'bad' is not one of crack, good, none"):
        load_folder(parts, good="bad")


def test_calibration_takes_train_images_only_and_the_rare_classes_too(parts: Path) -> None:
    data = load_folder(parts)
    chosen = calibration_items(data, 16)
    assert set(chosen) <= set(data.train)
    assert Counter(item.label for item in chosen) == {0: 8, 1: 8}
    assert len(calibration_items(data, 1000)) == len(data.train)


def test_a_split_file_proves_the_images(parts: Path, tmp_path: Path) -> None:
    data = load_folder(parts)
    save_split(data, tmp_path / "split.json")
    assert load_split(None, tmp_path / "split.json").root == parts.resolve()
    again = load_split(parts, tmp_path / "split.json")
    assert again == data
    data.test[0].path.write_bytes(encode(picture(999)))
    with pytest.raises(UserError, match="bytes changed"):
        load_split(parts, tmp_path / "split.json")
    data.test[0].path.unlink()
    with pytest.raises(UserError, match="no such file"):
        load_split(parts, tmp_path / "split.json")


def test_a_damaged_split_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text('{"version": 1}')
    with pytest.raises(UserError, match="classes: is missing") as error:
        load_split(None, tmp_path / "split.json")
    assert "\n" not in str(error.value)


def test_images_are_found_by_content(parts: Path, tmp_path: Path) -> None:
    data = load_folder(parts)
    data.test[0].path.rename(parts / "good" / "renamed.png")
    found = find_images(parts, [item.sha256 for item in data.test])
    assert found[data.test[0].sha256].name == "renamed.png"
    assert len(found) == len(data.test)


def test_split_folders_never_become_classes(tmp_path: Path) -> None:
    for split, first in (("Train", 0), ("Test", 100)):
        write_images(tmp_path / split / "a", 10, first)
        write_images(tmp_path / split / "b", 10, first + 200)
    (tmp_path / ".ipynb_checkpoints").mkdir()
    assert load_folder(tmp_path).classes == ("a", "b")
    (tmp_path / "annotations").mkdir()
    with pytest.raises(UserError, match=r"annotations/ stands beside Train/ and Test/"):
        load_folder(tmp_path)


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    for name in ("train", "val", "validation", "test"):
        write_images(tmp_path / name / "a", 2)
    with pytest.raises(UserError, match="val(idation)?/ stands beside"):
        load_folder(tmp_path)


def test_an_empty_split_is_refused_whatever_the_least(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 2)
    write_images(tmp_path / "b", 2, 50)
    with pytest.raises(UserError, match="0 test images"):
        load_folder(tmp_path, min_per_class=0)


def test_images_in_a_format_that_is_not_read_are_listed(parts: Path) -> None:
    (parts / "crack" / "phone.heic").write_bytes(b"ftypheic")
    with pytest.raises(UserError, match=r"phone\.heic: \.heic is not a format that is read here"):
        load_folder(parts)
