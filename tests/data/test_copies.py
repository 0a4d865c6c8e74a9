"""One picture in other bytes is one picture: in one split, under one class."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from edgecnn.artifact import Preprocess
from edgecnn.data import SPLITS, load_folder, part_of
from edgecnn.data.copies import same_pixels
from edgecnn.data.folders import Item
from edgecnn.data.looks import grey_picture
from edgecnn.documents import sha256_of
from edgecnn.imaging import decode_whole, prepare
from tests.conftest import encode, picture
from tests.data.drawn import total


def jpeg(seed: int, quality: int = 92, **options: object) -> bytes:
    return encode(noisy(seed), "JPEG", quality=quality, **options)


def noisy(seed: int, height: int = 150, width: int = 203) -> np.ndarray:
    """No multiple of a JPEG's blocks, and with detail that reduction takes away."""
    noise = np.random.default_rng(seed).normal(0, 25, (height, width, 3))
    return np.clip(picture(seed, height, width) + noise, 0, 255).astype(np.uint8)


def saved_again(encoded: bytes, image_format: str, **options: object) -> bytes:
    """The same pixels in a format that loses none."""
    return encode(decode_whole(encoded), image_format, **options)


def with_comment(encoded: bytes) -> bytes:
    return encoded[:2] + b"\xff\xfe\x00\x07hello" + encoded[2:]


def with_text(encoded: bytes) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("taken", "today")
    stream = io.BytesIO()
    with Image.open(io.BytesIO(encoded)) as image:
        image.save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


COPIES = {
    "jpeg with a comment": ("copy.jpg", with_comment),
    "jpeg as png": ("copy.png", lambda encoded: saved_again(encoded, "PNG")),
    "jpeg as bmp": ("copy.bmp", lambda encoded: saved_again(encoded, "BMP")),
    "jpeg as webp": ("copy.webp", lambda encoded: saved_again(encoded, "WEBP", lossless=True, exact=True)),
    "jpeg as tiff": ("copy.tif", lambda encoded: saved_again(encoded, "TIFF", compression="tiff_lzw")),
}


def data_folder(root: Path) -> Path:
    for label, first in (("crack", 0), ("good", 100)):
        (root / label).mkdir(parents=True)
        for seed in range(first, first + 12):
            (root / label / f"{seed:03d}.jpg").write_bytes(jpeg(seed))
    return root


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("looks", [True, False])
def test_copies_do_not_straddle(tmp_path: Path, kind: str, looks: bool) -> None:
    root = data_folder(tmp_path)
    name, save = COPIES[kind]
    for seed in range(12):
        (root / "crack" / f"{seed:03d}{name}").write_bytes(save((root / "crack" / f"{seed:03d}.jpg").read_bytes()))
    data = load_folder(root, looks=looks)
    assert total(data) == 36
    where: dict[str, set[str]] = {}
    for split in SPLITS:
        for item in data.split(split):
            where.setdefault(item.path.name[:3], set()).add(split)
    assert all(len(splits) == 1 for splits in where.values())
    assert any("24 files are 12 pictures saved in other bytes" in remark for remark in data.remarks)
    assert data.grouping is not None
    assert data.grouping.parts == 24 or looks


def test_a_copy_under_another_class_is_left_out_with_its_original(tmp_path: Path) -> None:
    root = data_folder(tmp_path)
    png = saved_again((root / "good" / "100.jpg").read_bytes(), "PNG")
    (root / "crack" / "x.png").write_bytes(png)
    (root / "crack" / "y.png").write_bytes(with_text(png))
    data = load_folder(root)
    assert {problem.name for problem in data.problems} == {"crack/x.png", "crack/y.png", "good/100.jpg"}
    assert all("the same image is in crack/ and good/" in problem.reason for problem in data.problems)


def test_a_copy_in_a_later_split_is_left_out(tmp_path: Path) -> None:
    data_folder(tmp_path / "train")
    for label, first in (("crack", 50), ("good", 150)):
        (tmp_path / "test" / label).mkdir(parents=True)
        for seed in range(first, first + 6):
            (tmp_path / "test" / label / f"{seed:03d}.jpg").write_bytes(jpeg(seed))
    (tmp_path / "train" / "good" / "leak.png").write_bytes(saved_again(jpeg(150), "PNG"))
    data = load_folder(tmp_path, looks=False)
    assert [(one.name, "in a later split" in one.reason) for one in data.problems] == [("train/good/leak.png", True)]


def test_what_only_looks_the_same_is_not(tmp_path: Path) -> None:
    """Saved with loss, or one pixel apart: the small pictures are equal, the whole ones are not."""
    pixels = noisy(1)
    other = pixels.copy()
    other[70, 70] ^= 1
    files = {"a.png": encode(pixels), "b.png": encode(other), "c.jpg": jpeg(1), "d.jpg": jpeg(1, quality=91)}
    items, pictures = [], {}
    for name, encoded in files.items():
        (tmp_path / name).write_bytes(encoded)
        items.append(Item(tmp_path / name, name, 0, sha256_of(encoded)))
        pictures[sha256_of(encoded)] = grey_picture(prepare(encoded, Preprocess(height=32, width=32)))
    assert same_pixels(items, pictures, None) == {item.sha256: item.sha256 for item in items}


def test_no_picture_is_one_of_another(tmp_path: Path) -> None:
    data = load_folder(data_folder(tmp_path), looks=False)
    assert len({part_of(item) for split in SPLITS for item in data.split(split)}) == 24
    assert not any("saved in other bytes" in remark for remark in data.remarks)
