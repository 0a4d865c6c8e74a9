"""Parts are named by a rule, by a table or by looks; what does not fit is said; a part never straddles."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edgecnn.data import SPLITS, Dataset, load_folder, load_split, part_of, save_split
from edgecnn.data.looks import alike
from edgecnn.errors import UserError
from tests.conftest import encode, picture


def surface(part: int, shot: int = 0, side: int = 64) -> np.ndarray:
    """A part's own grain, in another light and with other noise in each shot: uint8 (side, side, 3)."""
    rng = np.random.default_rng(1000 + part)
    grain = np.kron(rng.normal(0, 28, (16, 16)), np.ones((side // 16, side // 16)))
    taken = np.random.default_rng([part, shot])
    light = np.linspace(*taken.uniform(-40, 40, 2), side)[None, :]
    image = 120 + grain * taken.uniform(0.7, 1.2) + light + taken.normal(0, 4, (side, side))
    return np.repeat(np.clip(image, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def write_parts(root: Path, label: str, parts: range, shots: int) -> None:
    (root / label).mkdir(parents=True, exist_ok=True)
    for part in parts:
        for shot in range(shots):
            (root / label / f"p{part:03d}_shot{shot}.png").write_bytes(encode(surface(part, shot)))


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 parts a class, three shots of each."""
    root = tmp_path_factory.mktemp("tiles")
    write_parts(root, "crack", range(20), 3)
    write_parts(root, "good", range(100, 120), 3)
    return root


def parts_in(data: Dataset, split: str) -> set[str]:
    return {item.path.name.split("_")[0] for item in data.split(split)}


def straddling(data: Dataset) -> int:
    counts = Counter(part for name in SPLITS for part in parts_in(data, name))
    return sum(count > 1 for count in counts.values())


def test_one_part_of_several_images_is_one(tmp_path: Path) -> None:
    write_parts(tmp_path, "crack", range(10), 1)
    write_parts(tmp_path, "crack", range(1), 2)
    write_parts(tmp_path, "good", range(100, 110), 1)
    (remark,) = load_folder(tmp_path).remarks
    assert remark.startswith("2 images look like others, 1 part: each kept in one split")


def test_parts_are_told_by_looks_unless_switched_off(tiles: Path) -> None:
    data = load_folder(tiles)
    assert straddling(data) == 0
    assert data.grouping is not None
    assert (data.grouping.by, data.grouping.parts, data.grouping.largest) == ("looks", 40, 3)
    assert data.remarks == (
        "120 images look like others, 40 parts: each kept in one split; --group names the parts, --no-group switches "
        "this off",
    )
    off = load_folder(tiles, looks=False)
    assert straddling(off) > 20
    assert off.grouping is not None
    assert (off.grouping.by, off.grouping.parts) == ("content", 120)
    (remark,) = off.remarks
    assert remark.startswith(f"{off.grouping.alike_apart} sets of images that look alike are in more than one split")
    assert "as --no-group allows" in remark
    assert off.grouping.alike_apart == straddling(off)


def test_a_rule_names_the_parts(tiles: Path) -> None:
    for rule in (r"^(p\d+)_", r"p\d+", r"/(p\d+)_"):
        data = load_folder(tiles, group=rule)
        assert straddling(data) == 0
        assert data.grouping is not None
        assert (data.grouping.by, data.grouping.rule, data.grouping.parts) == ("names", rule, 40)
        assert data.grouping.alike_apart == 0
        assert {part_of(item) for item in data.train} == parts_in(data, "train")
    assert data.remarks == ("120 images of 40 parts (--group): none of them is in two splits",)


@pytest.mark.parametrize(("rule", "each"), [("shot[0-2]$|shot[0-2]", False), (".*", True)])
def test_a_rule_of_the_shot_or_the_whole_name_is_warned_of(rule: str, each: bool, tiles: Path) -> None:
    """No part that it names straddles, and every part does."""
    data = load_folder(tiles, group=rule)
    assert data.grouping is not None
    assert data.grouping.alike_apart == straddling(data) > 20
    first, warning = data.remarks
    assert ("each image one of its own" in first) == each
    assert f"WARNING: {straddling(data)} sets of images that look alike have several parts by --group" in warning
    assert "accuracy is flattered" in warning
    # One image of each split, of one part.
    assert re.search(r"such as (\w+)/(p\d+)_shot\d.png and \1/\2_shot\d.png", warning)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("(p", "not a regular expression"),
        ("zzz", r"finds a part in no file \(searched in file names; not in crack/p000_shot0.png, .*, …\)"),
        (r"p00\d", r"finds a part in 30 of 120 files"),
        ("good/(p)?", r"finds a part in 60 of 120 files \(searched in paths"),
        ("shot()", "finds a part in no file"),
    ],
)
def test_a_rule_that_does_not_fit_is_refused(tiles: Path, rule: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_folder(tiles, group=rule)


def test_one_part_for_everything_leaves_no_split(tiles: Path) -> None:
    with pytest.raises(UserError, match=r"0 test images: .*120 of all 120 images are one part .*a finer --group"):
        load_folder(tiles, group="p")


def test_a_class_in_too_few_parts_is_named(tiles: Path) -> None:
    with pytest.raises(UserError, match=r"crack/ has 60 usable images of 2 parts .*120 images are one part|60 usable"):
        load_folder(tiles, group="p[01][01]")


def table(path: Path, rows: list[str]) -> str:
    path.write_text("\n".join(rows) + "\n", encoding="utf-8-sig")
    return str(path)


def test_a_table_names_the_parts(tiles: Path, tmp_path: Path) -> None:
    files = sorted(tiles.rglob("*.png"))
    by_path = [f"{path.relative_to(tiles).as_posix()},{path.name[:4]}" for path in files]
    by_name = [f"{path.name},{path.name[:4]}" for path in files]
    whole = [f"{path.resolve()},{path.name[:4]}" for path in files]
    for rows in (["file,group", *by_path], by_name, whole, ["Filename, Part", *by_name]):
        data = load_folder(tiles, group=table(tmp_path / "groups.csv", rows))
        assert straddling(data) == 0
        assert data.grouping is not None
        assert data.grouping.by == "table"
        assert data.grouping.rule.startswith("groups.csv sha256:")


def test_a_table_that_does_not_fit_is_refused(tiles: Path, tmp_path: Path) -> None:
    rows = [f"{path.relative_to(tiles).as_posix()},{path.name[:4]}" for path in sorted(tiles.rglob("*.png"))]
    outside = tiles.parent / "outside.png"
    outside.write_bytes(b"")
    cases = {
        r"no group for 2 of 120 images \(crack/p000_shot0.png, crack/p000_shot1.png\)": rows[2:],
        r"1 files are not below .* \(crack/nothing.png\)": [*rows, "crack/nothing.png,x"],
        r"1 files are not below .* \(\.\./outside.png\)": [*rows, "../outside.png,x"],
        r"1 files are not below .* \(/\S*outside.png\)": [*rows, f"{outside},x"],
        r"crack/p000_shot0.png: in two groups": [*rows, "crack/p000_shot0.png,other"],
        r"line 2: 'one': expected two columns": [rows[0], "one"],
        r"line 1: 'a.png,': expected two columns": ["a.png,"],
    }
    for message, lines in cases.items():
        with pytest.raises(UserError, match=message):
            load_folder(tiles, group=table(tmp_path / "groups.csv", lines))
    with pytest.raises(UserError, match=r"nothing.csv: no such file"):
        load_folder(tiles, group=str(tmp_path / "nothing.csv"))


def test_a_file_name_that_several_have_needs_its_path(tmp_path: Path) -> None:
    for label, first in (("a", 0), ("b", 50)):
        write_parts(tmp_path / "data", label, range(first, first + 6), 1)
        (tmp_path / "data" / label / "same.png").write_bytes(encode(surface(first + 20)))
    rows = [f"{path.name},{path.name[:4]}" for path in (tmp_path / "data").rglob("p*.png")]
    with pytest.raises(UserError, match=r"'same.png' is a/same.png, b/same.png: give its path"):
        load_folder(tmp_path / "data", group=table(tmp_path / "groups.csv", [*rows, "same.png,x"]))


def test_images_that_were_left_out_may_stand_in_the_table(tiles: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(tiles, root)
    (root / "crack" / "broken.png").write_bytes(b"no image")
    rows = [f"{path.relative_to(root).as_posix()},{path.name[:4]}" for path in sorted(root.rglob("*.png"))]
    data = load_folder(root, group=table(tmp_path / "groups.csv", rows), skip_unreadable=True)
    assert [problem.name for problem in data.problems] == ["crack/broken.png"]


def test_a_part_may_have_good_and_bad_images(tmp_path: Path) -> None:
    """A tile with a crack at one end: its images stay together whatever their labels."""
    write_parts(tmp_path, "good", range(20), 2)
    write_parts(tmp_path, "crack", range(20, 40), 2)
    for part in range(10):
        (tmp_path / "good" / f"p{part:03d}_shot1.png").rename(tmp_path / "crack" / f"p{part:03d}_shot1.png")
    for data in (load_folder(tmp_path), load_folder(tmp_path, group=r"p\d+")):
        assert straddling(data) == 0
        assert all({item.label for item in data.split(name)} == {0, 1} for name in SPLITS)


def test_equal_bytes_are_one_part_whatever_names_them(tiles: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(tiles, root)
    shutil.copyfile(root / "crack" / "p000_shot0.png", root / "crack" / "p999_shot0.png")
    data = load_folder(root, group=r"p\d+")
    where = {name for name in SPLITS for item in data.split(name) if item.path.name[:4] in ("p000", "p999")}
    assert len(where) == 1


def test_given_splits_are_kept_and_straddling_parts_are_said(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("val", 20), ("test", 40)):
        write_parts(tmp_path / split, "crack", range(first, first + 10), 1)
        write_parts(tmp_path / split, "good", range(first + 100, first + 110), 1)
    assert load_folder(tmp_path).remarks == ()
    for part in (3, 5):
        (tmp_path / "test" / "crack" / f"p{part:03d}_shot1.png").write_bytes(encode(surface(part, 1)))
    for rule in (None, r"p\d+"):
        data = load_folder(tmp_path, group=rule)
        assert [len(data.split(name)) for name in SPLITS] == [20, 20, 22]
        assert data.grouping is not None
        assert data.grouping.straddling == 2
        assert "WARNING: 2 parts" in data.remarks[-1]
        assert "train/crack/p003_shot0.png and test/crack/p003_shot1.png" in data.remarks[-1]
        anew = load_folder(tmp_path, group=rule, given_splits=False)
        assert anew.grouping is not None
        assert (straddling(anew), anew.grouping.straddling) == (0, 0)
        assert sum(len(anew.split(name)) for name in SPLITS) == 62
        assert "the splits that the folders give (train/, val/, test/) are not used" in anew.remarks[0]
        assert not any("WARNING" in remark for remark in anew.remarks)


def test_validation_is_carved_from_train_by_part(tmp_path: Path) -> None:
    for label, first in (("crack", 0), ("good", 100)):
        write_parts(tmp_path / "train", label, range(first, first + 15), 3)
        write_parts(tmp_path / "test", label, range(first + 50, first + 55), 3)
    data = load_folder(tmp_path)
    assert straddling(data) == 0
    assert len(data.val) == 18


def test_one_kind_of_part_under_a_fixed_camera_is_not_one_part() -> None:
    """All pictures correlate by 0.9 and more: by what they share, which is no evidence."""
    product = picture(7, 32, 32).mean(2)
    rng = np.random.default_rng(0)
    own = rng.normal(0, 5, (150, 32, 32))
    shots = [product + own[number % 150] + rng.normal(0, 2, (32, 32)) for number in range(300)]
    pictures = np.clip(np.stack(shots), 0, 255).astype(np.uint8)
    flat = pictures.reshape(300, -1).astype(float)
    assert np.corrcoef(flat).min() > 0.9
    parts = alike(pictures)
    sizes = np.bincount(parts)
    assert sizes.max() <= 15
    together = np.mean([parts[number] == parts[number + 150] for number in range(150)])
    assert together > 0.9


def test_blank_pictures_are_not_alike() -> None:
    blank = np.stack([np.full((32, 32), level, np.uint8) for level in range(30)])
    assert len(set(alike(blank).tolist())) == 30


def test_the_record_of_parts_travels_with_the_split(tiles: Path, tmp_path: Path) -> None:
    data = load_folder(tiles, group=r"p\d+")
    save_split(data, tmp_path / "split.json")
    assert load_split(tiles, tmp_path / "split.json") == data
    text = (tmp_path / "split.json").read_text()
    (tmp_path / "split.json").write_text(text.replace('"part": "p003"', '"part": "p004"', 1))
    with pytest.raises(UserError, match="not grouped as it says"):
        load_split(tiles, tmp_path / "split.json")


def test_hidden_folders_are_passed_over(tiles: Path, tmp_path: Path) -> None:
    """What a notebook's editor keeps of images that were changed since."""
    root = tmp_path / "data"
    shutil.copytree(tiles, root)
    for label in ("crack", "good"):
        hidden = root / label / ".ipynb_checkpoints"
        hidden.mkdir()
        for path in sorted((root / label).glob("*.png"))[:5]:
            (hidden / path.name).write_bytes(path.read_bytes() + b"\0")
    assert sum(len(load_folder(root).split(name)) for name in SPLITS) == 120
