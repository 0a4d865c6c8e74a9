"""Test images from a folder of their own: none of them may have been trained on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgecnn.data import gives_test, load_folder, load_split, save_split, with_test
from edgecnn.errors import UserError
from tests.training import write_images


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    write_images(tmp_path / "parts", (5, 5, 5))
    return tmp_path / "parts"


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Other images than those of `parts`: further ones of the same drawing."""
    write_images(tmp_path / "more", (9, 9, 9))
    for folder in sorted((tmp_path / "more").iterdir()):
        for path in sorted(folder.iterdir())[:5]:
            path.unlink()
    return tmp_path / "more"


def test_its_images_are_the_test_split(parts: Path, clean: Path, tmp_path: Path) -> None:
    data = load_folder(parts)
    found = with_test(data, clean)
    assert len(found.test) == 12
    assert {item.path.parent.parent for item in found.test} == {clean}
    assert (found.train, set(found.val)) == (data.train, {*data.val, *data.test})
    assert "test images: the 12 of" in found.remarks[-1]
    assert found.grouping is not None
    assert found.grouping.images == 27
    save_split(found, tmp_path / "split.json")
    again = load_split(None, tmp_path / "split.json")
    assert (again.test, again.train, again.test_root) == (found.test, found.train, clean)
    shutil.move(parts, tmp_path / "moved")
    assert load_split(tmp_path / "moved", tmp_path / "split.json").test == found.test


def test_an_image_of_the_training_data_is_refused(parts: Path, clean: Path) -> None:
    folder = sorted(clean.iterdir())[0]
    shutil.copy(next((parts / folder.name).iterdir()), folder / "again.png")
    with pytest.raises(UserError, match=r"1 of its 13 images are in .*parts too \(such as .*again.png"):
        with_test(load_folder(parts), clean)


def test_other_classes_are_refused(parts: Path, clean: Path) -> None:
    (clean / "dark").rename(clean / "dusk")
    with pytest.raises(UserError, match="its classes are not those of .*parts: dark/ is in .*parts alone"):
        with_test(load_folder(parts), clean)


def test_a_folder_of_splits_is_refused(parts: Path, clean: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    both.mkdir()
    shutil.copytree(parts, both / "train")
    shutil.copytree(clean, both / "test")
    with pytest.raises(UserError, match="holds splits"):
        with_test(load_folder(parts), both)
    assert gives_test(both)
    assert not gives_test(parts)
    (both / "test").rename(both / "val")
    assert not gives_test(both)
