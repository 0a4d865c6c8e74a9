"""How many bits count is found over the data set; what does not fit is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecnn.artifact import Preprocess
from edgecnn.data import load_folder, load_split, save_split
from edgecnn.data.depth import find_depth
from edgecnn.errors import UserError
from edgecnn.imaging import prepare_frame
from edgecnn.parity import prepare_files
from edgecnn.train import fine_tune
from tests.conftest import encode, picture
from tests.imaging.files import png16, tiff16
from tests.training import Recorder, options


def test_a_set_without_16_bits_decides_nothing() -> None:
    found = find_depth({})
    assert (found.bits, found.remark, found.unfit) == (None, None, {})


@pytest.mark.parametrize(
    ("peaks", "bits"),
    [
        ([3, 255], 8),
        ([256, 255, 255], 10),
        ([900, 1023], 10),
        ([700, 1024, 3000], 12),
        ([4096, 16383], 14),
        ([16384], 16),
        ([65535, 5000], 16),
    ],
)
def test_the_brightest_image_decides(peaks: list[int], bits: int) -> None:
    found = find_depth({f"{number}.png": peak for number, peak in enumerate(peaks)})
    assert found.bits == bits
    assert found.unfit == {}
    assert found.remark is not None
    assert str(max(peaks)) in found.remark


def test_a_black_image_is_black_at_any_depth() -> None:
    assert find_depth({"a": 0, "b": 65535}).unfit == {}


def test_twelve_bits_among_sixteen_are_refused() -> None:
    found = find_depth({"a": 65535, "b": 60000, "c": 4000, "d": 3999})
    assert set(found.unfit) == {"c", "d"}
    assert "values up to 4000 among others of 16 bits" in found.unfit["c"]


def test_several_clipped_where_fewer_bits_end_are_refused() -> None:
    """Twelve bits among fourteen: a quarter of the range could be a dark image, ending twice at 4095 could not."""
    found = find_depth({"a": 16383, "b": 4095, "c": 4095, "d": 3000})
    assert set(found.unfit) == {"b", "c"}
    assert find_depth({"a": 16383, "b": 4095}).unfit == {}


def write_deep(root: Path, bits: int, per_class: int = 9, first: int = 0) -> None:
    """Two classes of 16-bit colour images that use the lower `bits`."""
    for label, name in enumerate(("crack", "good")):
        (root / name).mkdir(parents=True, exist_ok=True)
        for seed in range(first, first + per_class):
            values = picture(100 * label + seed, 24, 32).astype(np.uint16) << (bits - 8)
            (root / name / f"{bits}-{seed}.png").write_bytes(png16(values))


def test_a_folder_says_and_keeps_its_depth(tmp_path: Path) -> None:
    write_deep(tmp_path / "parts", 12)
    data = load_folder(tmp_path / "parts")
    assert data.bits == 12
    assert any("16 bits a channel, of which the lower 12 count" in remark for remark in data.remarks)
    save_split(data, tmp_path / "split.json")
    assert load_split(None, tmp_path / "split.json").bits == 12


def test_a_mixed_folder_is_refused_or_left_out_by_name(tmp_path: Path) -> None:
    write_deep(tmp_path / "parts", 16)
    write_deep(tmp_path / "parts", 10, per_class=1, first=50)
    with pytest.raises(UserError, match=r"crack/10-50.png: 16-bit image with values up to \d+ among others of 16 bits"):
        load_folder(tmp_path / "parts")
    data = load_folder(tmp_path / "parts", skip_unreadable=True)
    assert data.bits == 16
    assert {problem.name for problem in data.problems} == {"crack/10-50.png", "good/10-50.png"}


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_eight_bits_in_files_of_16_are_the_same_pixels(tmp_path: Path, suffix: str) -> None:
    """As the same values saved with 8 bits, dark ones too; a 16-bit file of fewer bits than others stays refused."""
    write = {"png": png16, "tiff": tiff16}[suffix]
    spec = Preprocess(height=32, width=32)
    pictures = [picture(seed, 24, 32) // (1 + 50 * (seed == 3)) for seed in range(18)]
    for kind, one in (("deep", lambda pixels: write(pixels.astype(np.uint16))), ("plain", encode)):
        for seed, pixels in enumerate(pictures):
            path = tmp_path / kind / ("crack", "good")[seed % 2] / f"{seed}.{suffix if kind == 'deep' else 'png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(one(pixels))
    data, plain = load_folder(tmp_path / "deep"), load_folder(tmp_path / "plain")
    assert (data.bits, plain.bits) == (8, None)
    assert any("16 bits a channel, of which the lower 8 count (values up to 2" in line for line in data.remarks)
    items = [item.path for item in (*data.train, *data.val, *data.test)]
    same = [tmp_path / "plain" / path.parent.name / f"{path.stem}.png" for path in items]
    deep = spec.model_copy(update={"bits": data.bits})
    assert np.array_equal(prepare_files(items, deep), prepare_files(same, spec))
    write_deep(tmp_path / "deep", 16)
    with pytest.raises(UserError, match=r"16-bit image with values up to \d+ among others of 16 bits"):
        load_folder(tmp_path / "deep")


def test_files_of_8_bits_decide_nothing(tmp_path: Path) -> None:
    write_deep(tmp_path / "parts", 12)
    for name in ("crack", "good"):
        (tmp_path / "parts" / name / "plain.png").write_bytes(encode(picture(7)))
    assert load_folder(tmp_path / "parts").bits == 12


def test_training_records_the_depth_and_trains_on_it(tmp_path: Path) -> None:
    """The network sees the very pixels of the same images with 8 bits."""
    write_deep(tmp_path / "deep", 12)
    data = load_folder(tmp_path / "deep")
    checkpoint = fine_tune(data, options(epochs=1, size=32), tmp_path / "run", Recorder())
    assert checkpoint.preprocess.bits == 12
    for item in data.train:
        label, number = item.name.split("/")
        seed = int(number.removesuffix(".png").split("-")[1]) + (100 if label == "good" else 0)
        expected = prepare_frame(picture(seed, 24, 32), checkpoint.preprocess)
        assert np.array_equal(prepare_files([item.path], checkpoint.preprocess)[0], expected)
