"""Tests of which images a bench takes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgecnn.artifact import load_bundle
from edgecnn.bench.images import MOST_IMAGES, find_images
from edgecnn.errors import UserError


def test_golden_images_are_the_default(bundle_folder: Path) -> None:
    paths, found = find_images(bundle_folder, load_bundle(bundle_folder), None)
    assert found == len(paths) == 3
    assert all(path.is_file() for path in paths)


def test_a_folder_is_searched_below_and_by_extension(bundle_folder: Path, tmp_path: Path) -> None:
    for name in ("a/1.JPG", "b/2.png", "b/notes.txt", "3.jpeg"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).touch()
    paths, found = find_images(bundle_folder, load_bundle(bundle_folder), tmp_path / "images")
    assert [path.name for path in paths] == ["3.jpeg", "1.JPG", "2.png"]
    assert found == 3


def test_links_are_followed_and_what_programs_leave_is_passed_over(bundle_folder: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    for name in (
        "kept/1.jpg",
        "images/2.jpg",
        "images/._2.jpg",
        "images/.ipynb_checkpoints/2.jpg",
        "images/@eaDir/2.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (images / "link").symlink_to(tmp_path / "kept")
    (images / "back").symlink_to(images)
    paths, _ = find_images(bundle_folder, load_bundle(bundle_folder), images)
    assert [path.name for path in paths] == ["2.jpg", "1.jpg"]


@pytest.mark.parametrize("raw", [b"Pr\xfcf 1.jpg", b"gone.jpg"])
def test_images_that_cannot_be_taken_are_refused(bundle_folder: Path, tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "1.jpg").touch()
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + raw))
    if raw == b"gone.jpg":
        path.symlink_to("nowhere.jpg")
    else:
        path.touch()
    with pytest.raises(
        UserError, match=r"1 unusable image \((gone.jpg: a link to nowhere.jpg|Pr\\xfcf 1.jpg: its name)"
    ):
        find_images(bundle_folder, load_bundle(bundle_folder), tmp_path)


def test_a_large_folder_is_thinned_evenly(bundle_folder: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3 * MOST_IMAGES):
        (images / f"{number:05}.png").touch()
    paths, found = find_images(bundle_folder, load_bundle(bundle_folder), images)
    assert found == 3 * MOST_IMAGES
    assert [int(path.stem) for path in paths] == list(range(0, 3 * MOST_IMAGES, 3))


def test_folders_without_images_are_refused(bundle_folder: Path, tmp_path: Path) -> None:
    bundle = load_bundle(bundle_folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no images there \(accepted: \.bmp"):
        find_images(bundle_folder, bundle, tmp_path / "empty")
    with pytest.raises(UserError, match="absent: no such folder"):
        find_images(bundle_folder, bundle, tmp_path / "absent")
    with pytest.raises(UserError, match="no golden images: give a folder"):
        find_images(bundle_folder, bundle.model_copy(update={"golden": ()}), None)
