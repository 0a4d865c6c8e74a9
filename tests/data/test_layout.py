"""Layouts of folders: what each is taken for is said, and what is none is one line with the cure."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgecnn.data import SPLITS, load_folder
from edgecnn.errors import UserError
from tests.data.drawn import all_names, draw, total, two_classes


def sizes(root: Path, **options: object) -> list[int]:
    data = load_folder(root, **options)  # type: ignore[arg-type]
    return [len(data.split(name)) for name in SPLITS]


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "validation_set"])
def test_without_a_test_folder_val_is_the_test_split(tmp_path: Path, name: str) -> None:
    for split, first in (("train", 0), (name, 50)):
        draw(tmp_path / split / "crack", 10, first)
        draw(tmp_path / split / "good", 10, first + 200)
    data = load_folder(tmp_path)
    assert [len(data.split(split)) for split in SPLITS] == [16, 4, 20]
    assert all(item.name.startswith(f"{name}/") for item in data.test)
    (remark,) = [line for line in data.remarks if "test split" in line]
    told = f"no test/ beside train/ and {name}/: {name}/ is the test split, validation is taken from train/"
    assert remark == told


def test_validation_from_train_is_said(tmp_path: Path) -> None:
    for split, first in (("training", 0), ("Test_Set", 50)):
        draw(tmp_path / split / "crack", 10, first)
        draw(tmp_path / split / "good", 10, first + 200)
    data = load_folder(tmp_path)
    assert "no val/ beside training/: validation is taken from training/" in data.remarks


def test_train_alone_and_no_train_are_refused_with_the_cure(tmp_path: Path) -> None:
    two_classes(tmp_path / "a" / "train")
    with pytest.raises(UserError, match=r"has no test/ beside train/: add test/.*, or give .*a/train: its images"):
        load_folder(tmp_path / "a")
    for split in ("val", "test"):
        two_classes(tmp_path / "b" / split)
    with pytest.raises(UserError, match=r"has no train/ beside val/: add train/<class>"):
        load_folder(tmp_path / "b")


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "val", "test"), ("train", "val")])
def test_splits_inside_of_classes_are_used(tmp_path: Path, splits: tuple[str, ...]) -> None:
    for number, split in enumerate(splits):
        draw(tmp_path / "crack" / split, 10, 20 * number)
        draw(tmp_path / "good" / split, 10, 20 * number + 200)
    data = load_folder(tmp_path)
    assert data.classes == ("crack", "good")
    held_out = "test" if "test" in splits else "val"
    assert {item.path.parent.name for item in data.test} == {held_out}
    assert len(data.test) == 20
    assert total(data) == 20 * len(splits)
    names = ", ".join(f"{split}/" for split in splits)
    assert f"each class holds its splits ({names}): they are used" in data.remarks
    assert any("are not used" in line for line in load_folder(tmp_path, given_splits=False).remarks)


def test_splits_inside_of_some_classes_are_refused(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("test", 20)):
        draw(tmp_path / "crack" / split, 8, first)
    draw(tmp_path / "good", 8, 200)
    with pytest.raises(UserError, match=r"crack/ holds splits \(train/, test/\), good/ has not the same: give each"):
        load_folder(tmp_path)
    shutil.rmtree(tmp_path / "good")
    for split, first in (("train", 200), ("test", 220)):
        draw(tmp_path / "good" / split, 8, first)
    draw(tmp_path / "good", 1, 300)
    with pytest.raises(UserError, match=r"good/ has 300.png beside them"):
        load_folder(tmp_path)


def mvtec(root: Path) -> None:
    draw(root / "train" / "good", 20)
    for number, name in enumerate(("good", "crack", "hole")):
        draw(root / "test" / name, 8, 100 + 20 * number)
    for name in ("crack", "hole"):
        draw(root / "ground_truth" / name, 8, 500)


def test_a_set_that_trains_on_good_parts_alone_is_split_anew(tmp_path: Path) -> None:
    mvtec(tmp_path)
    data = load_folder(tmp_path)
    assert (data.classes, total(data)) == (("crack", "good", "hole"), 44)
    assert not any("ground_truth" in name for name in all_names(data))
    assert any("holds good/ alone, as MVTec's sets do" in line for line in data.remarks)
    assert any("ground_truth/ holds masks, no class: it is not read" in line for line in data.remarks)
    assert any("(train/, test/) are not used: all their images are split anew" in line for line in data.remarks)
    assert not any("validation is taken" in line for line in data.remarks)


def test_several_products_are_given_one_at_a_time(tmp_path: Path) -> None:
    for product in ("bottle", "cable"):
        mvtec(tmp_path / product)
    with pytest.raises(UserError, match=r"bottle/ has ground_truth beside them.*one product at a time"):
        load_folder(tmp_path)


@pytest.mark.parametrize("pair", [("images", "labels"), ("JPEGImages", "Annotations"), ("imgs", "masks")])
def test_sets_for_detection_are_told_from_classes(tmp_path: Path, pair: tuple[str, str]) -> None:
    for number, name in enumerate(pair):
        draw(tmp_path / "flat" / name, 6, 50 * number)
        for split in ("train", "val"):
            draw(tmp_path / "inside" / name / split, 2)
            draw(tmp_path / "above" / split / name, 2)
    for layout in ("flat", "inside", "above"):
        with pytest.raises(UserError, match=rf"{pair[0]}/ beside {pair[1]}/ is the layout of boxes or masks"):
            load_folder(tmp_path / layout)


def test_a_class_in_one_split_only_is_one_line_with_the_cure(tmp_path: Path) -> None:
    for split in ("train", "test"):
        two_classes(tmp_path / split)
    draw(tmp_path / "train" / "spot", 5, 300)
    draw(tmp_path / "train" / "stain", 5, 400)
    with pytest.raises(
        UserError, match=r"test: class folder spot/ and 1 more is missing \(train/ has it\): add its images there, take"
    ):
        load_folder(tmp_path)


def test_a_class_that_differs_by_case_in_one_split_is_named(tmp_path: Path) -> None:
    two_classes(tmp_path / "train")
    draw(tmp_path / "test" / "Crack", 5)
    draw(tmp_path / "test" / "good", 5, 100)
    with pytest.raises(UserError, match=r"is missing .*(Crack|crack)/ there is the same but for case or spaces"):
        load_folder(tmp_path)


def test_images_beside_the_classes_are_said(tmp_path: Path) -> None:
    two_classes(tmp_path)
    draw(tmp_path, 2, 500)
    data = load_folder(tmp_path)
    assert total(data) == 20
    assert "2 images beside the folders (such as 500.png) belong to no class and are not read" in data.remarks


def test_a_folder_around_the_classes_is_named(tmp_path: Path) -> None:
    two_classes(tmp_path / "unpacked" / "parts")
    with pytest.raises(UserError, match=r"only parts/ there: .*; or give .*unpacked/parts, which holds 2 folders"):
        load_folder(tmp_path / "unpacked")


def test_classes_that_lie_deeper_are_named(tmp_path: Path) -> None:
    two_classes(tmp_path / "set" / "archive" / "parts")
    with pytest.raises(UserError, match=r"only archive/ there: .*; or give .*set/archive/parts, which holds 2 folders"):
        load_folder(tmp_path / "set")


@pytest.mark.parametrize("table", ["labels.csv", "images/_annotations.coco.json", "images/000.XML"])
def test_labels_in_a_table_are_told_from_class_folders(tmp_path: Path, table: str) -> None:
    draw(tmp_path / "images", 6)
    (tmp_path / table).write_text("file,label\n")
    with pytest.raises(UserError, match=rf"only images/ there: .*labels in tables or annotations \({table}\) are not"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    "pair",
    [("train2017", "val2017"), ("train_images", "test_images"), ("seg_train", "seg_test"), ("Train A", "test-a")],
)
def test_folders_that_are_called_like_splits_are_no_classes(tmp_path: Path, pair: tuple[str, str]) -> None:
    for first, name in enumerate((*pair, "annotations")):
        draw(tmp_path / name, 6, 50 * first)
    with pytest.raises(UserError, match=rf"{pair[0]}/ and {pair[1]}/ are called like splits.*call them train/ and "):
        load_folder(tmp_path)


@pytest.mark.parametrize("pair", [("test_a", "test_b"), ("retrain", "bus"), ("train_a", "test_b")])
def test_classes_may_be_called_nearly_like_splits(tmp_path: Path, pair: tuple[str, str]) -> None:
    for first, name in enumerate(pair):
        draw(tmp_path / "set" / name, 6, 50 * first)
    assert load_folder(tmp_path / "set", looks=False).classes == tuple(sorted(pair))


def test_one_folder_under_two_names_is_refused(tmp_path: Path) -> None:
    two_classes(tmp_path)
    (tmp_path / "ok").symlink_to("good")
    with pytest.raises(UserError, match=r"good/ and ok/ are one folder \(a link\): remove one"):
        load_folder(tmp_path)
