"""The built-in surface-defect generator: the same bytes each time, a balanced set, and refusals that leave no trace."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecnn.data import surfaces
from edgecnn.data.surfaces import CLASSES, PRETRAIN_CLASSES, draw, shares, write_demo_data
from edgecnn.errors import UserError
from edgecnn.imaging import Pixels

SMALL = (64, 80)
"""(height, width): not square, so that a swap shows."""


def written(folder: Path) -> dict[str, str]:
    """Hash of each file by its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def drawn(name: str, seed: int) -> Pixels:
    return draw(name, np.random.default_rng(seed), SMALL)


def test_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    write_demo_data(tmp_path / "a", images=25, seed=3, size=SMALL)
    write_demo_data(tmp_path / "b", images=25, seed=3, size=SMALL)
    assert written(tmp_path / "a") == written(tmp_path / "b")


def test_another_seed_gives_other_images_throughout(tmp_path: Path) -> None:
    write_demo_data(tmp_path / "a", images=25, seed=0, size=SMALL)
    write_demo_data(tmp_path / "b", images=25, seed=1, size=SMALL)
    first, second = written(tmp_path / "a"), written(tmp_path / "b")
    assert first.keys() == second.keys()
    assert not set(first.values()) & set(second.values())


def test_no_image_appears_twice_and_a_larger_set_contains_the_smaller(tmp_path: Path) -> None:
    write_demo_data(tmp_path / "small", images=25, size=SMALL)
    write_demo_data(tmp_path / "large", images=40, size=SMALL)
    small, large = written(tmp_path / "small"), written(tmp_path / "large")
    assert len(set(large.values())) == 40
    assert small.items() <= large.items()


def test_folders_names_and_counts(tmp_path: Path) -> None:
    counts = write_demo_data(tmp_path / "demo", images=31, size=SMALL)
    folders = sorted((tmp_path / "demo").iterdir())
    assert [folder.name for folder in folders] == list(CLASSES) == sorted(CLASSES)
    assert {folder.name: len(list(folder.iterdir())) for folder in folders} == counts
    assert (tmp_path / "demo/crack/crack_0001.jpg").is_file()


def test_files_are_jpegs_of_the_size_asked_for(tmp_path: Path) -> None:
    write_demo_data(tmp_path / "demo", images=25, size=SMALL)
    for path in (tmp_path / "demo").rglob("*.jpg"):
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (80, 64))


@pytest.mark.parametrize("images", [25, 26, 27, 28, 29, 100, 1200])
def test_defects_are_balanced_and_good_is_most_frequent(images: int) -> None:
    counts = shares(images)
    defects = [count for name, count in counts.items() if name != "good"]
    assert sum(counts.values()) == images
    assert max(defects) - min(defects) <= 1
    assert max(defects) < counts["good"] < 2 * max(defects)


def test_progress_counts_every_image(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_demo_data(tmp_path / "demo", images=25, size=SMALL, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 25) for done in range(1, 26)]


@pytest.mark.parametrize("name", [*CLASSES, *PRETRAIN_CLASSES])
def test_every_class_draws_a_varied_image_that_depends_on_the_seed_alone(name: str) -> None:
    image = drawn(name, 5)
    assert image.shape == (*SMALL, 3)
    assert image.dtype == np.dtype(np.uint8)
    assert image.std() > 2
    assert 20 < image.mean() < 235
    assert np.array_equal(image, drawn(name, 5))
    assert not np.array_equal(image, drawn(name, 6))


@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"good"}))
def test_a_defect_changes_part_of_the_good_surface(name: str) -> None:
    canvas = surfaces.ground(np.random.default_rng(0), (176, 176))
    changed = np.abs(surfaces._DEFECTS[name](canvas, np.random.default_rng(1)) - canvas).max(axis=2) > 0.02
    assert 0.001 < changed.mean() < 0.5


def test_good_is_left_as_it_is() -> None:
    canvas = surfaces.ground(np.random.default_rng(0), SMALL)
    assert np.array_equal(surfaces._DEFECTS["good"](canvas, np.random.default_rng(1)), canvas)


def test_no_pretraining_class_is_in_the_demo_set() -> None:
    assert not set(CLASSES) & set(PRETRAIN_CLASSES)
    assert list(PRETRAIN_CLASSES) == sorted(set(PRETRAIN_CLASSES))


def test_an_unknown_surface_is_refused() -> None:
    with pytest.raises(UserError, match=r"'bump' is not one of crack, dent, .*wrinkles"):
        draw("bump", np.random.default_rng(0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": 24}, r"images: 24 is too few: ask for at least 25"),
        ({"seed": -1}, r"seed: -1 is negative"),
        ({"size": (16, 176)}, r"size: 16×176 pixels: each side must be 64 to 1024"),
        ({"size": (176, 5000)}, r"size: 176×5000 pixels"),
    ],
)
def test_arguments_out_of_range_are_refused_before_anything_is_written(
    tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        write_demo_data(tmp_path / "demo", **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_refused_and_left_untouched(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep me")
    with pytest.raises(UserError, match="the folder is not empty: name a new or an empty one"):
        write_demo_data(tmp_path, images=25, size=SMALL)
    assert (tmp_path / "mine").read_text() == "keep me"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("keep me")
    with pytest.raises(UserError, match="a file is there"):
        write_demo_data(tmp_path / "demo", images=25, size=SMALL)
    assert (tmp_path / "demo").read_text() == "keep me"


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep me")
    with pytest.raises(UserError, match=r"demo: cannot be written \(.+\): name a folder"):
        write_demo_data(tmp_path / "file" / "demo", images=25, size=SMALL)


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    write_demo_data(tmp_path / "demo", images=25, size=SMALL)
    assert len(written(tmp_path / "demo")) == 25


def test_the_current_folder_can_be_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path / "demo")
    write_demo_data(Path(), images=25, size=SMALL)
    assert len(written(tmp_path / "demo")) == 25


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_demo_data(tmp_path / "demo", images=25, size=SMALL, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
