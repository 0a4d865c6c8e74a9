"""Masks beside images are left out and said; two photographs of one name are both read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecnn.data import load_folder
from tests.conftest import encode, picture
from tests.data.drawn import all_names, total, two_classes


def photographs(folder: Path, count: int, first: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    stems = [f"{number:03d}" for number in range(first, first + count)]
    for number, stem in enumerate(stems, first):
        (folder / f"{stem}.jpg").write_bytes(encode(picture(number, 48, 64), "JPEG"))
    return stems


def mask(number: int, values: tuple[int, ...] = (0, 255)) -> np.ndarray:
    drawn = np.random.default_rng(number).integers(0, len(values), (6, 8))
    return np.kron(np.array(values, np.uint8)[drawn], np.ones((8, 8), np.uint8))


@pytest.mark.parametrize("name", ["{}.png", "{}_mask.png", "{}-GT.png", "masks/{}.png", "ground_truth/{}_mask.png"])
@pytest.mark.parametrize("values", [(0, 255), (0, 1, 2, 3), (0,)])
def test_masks_are_not_read_and_that_is_said(tmp_path: Path, name: str, values: tuple[int, ...]) -> None:
    for label, first in (("crack", 0), ("good", 100)):
        for number, stem in enumerate(photographs(tmp_path / label, 8, first)):
            path = tmp_path / label / name.format(stem)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encode(mask(first + number, values)))
    data = load_folder(tmp_path, looks=False)
    assert (total(data), data.problems) == (16, ())
    assert all(name.endswith(".jpg") for name in all_names(data))
    such = f"crack/{name.format('000')} of crack/000.jpg"
    assert any(f"16 files beside images of the same name, of few colours (such as {such})" in r for r in data.remarks)


def test_masks_saved_as_jpeg(tmp_path: Path) -> None:
    two_classes(tmp_path)
    for stem in photographs(tmp_path / "good", 3, 300):
        (tmp_path / "good" / f"{stem}_mask.jpg").write_bytes(encode(mask(int(stem)), "JPEG", quality=80))
    assert not any("mask" in name for name in all_names(load_folder(tmp_path)))


def test_two_photographs_of_one_name_are_both_read(tmp_path: Path) -> None:
    two_classes(tmp_path)
    for stem in photographs(tmp_path / "good", 3, 300):
        (tmp_path / "good" / f"{stem}.png").write_bytes(encode(picture(int(stem) + 500)))
        (tmp_path / "good" / f"{stem}_mask.png").write_bytes(encode(picture(int(stem) + 600)))
    data = load_folder(tmp_path)
    assert total(data) == 29
    assert not any("masks" in remark for remark in data.remarks)


def test_flat_drawings_are_no_masks_without_an_image(tmp_path: Path) -> None:
    """Of one name in several formats, and in folders of several cameras."""
    two_classes(tmp_path)
    for camera in ("left", "right"):
        (tmp_path / "good" / camera).mkdir()
        for number in range(3):
            drawn = mask(number + 10 * (camera == "left"), (40, 90, 200))
            (tmp_path / "good" / camera / f"{number}.png").write_bytes(encode(drawn))
            (tmp_path / "good" / camera / f"{number}.bmp").write_bytes(encode(255 - drawn, "BMP"))
    data = load_folder(tmp_path, looks=False)
    assert total(data) == 32


def test_a_flat_image_in_another_folder_is_no_mask(tmp_path: Path) -> None:
    two_classes(tmp_path)
    for stem in photographs(tmp_path / "good" / "left", 3, 300):
        (tmp_path / "good" / "right").mkdir(exist_ok=True)
        (tmp_path / "good" / "right" / f"{stem}.png").write_bytes(encode(mask(int(stem))))
    assert total(load_folder(tmp_path)) == 26
