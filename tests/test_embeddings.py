"""Features are what the head receives; suspects that were planted are found; only what changed is computed again."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from edgecnn.cli import embed as verb
from edgecnn.data.surfaces import write_demo_data
from edgecnn.embeddings import Findings, embed, load_features, read_images
from edgecnn.embeddings.features import Source, features_of, from_model
from edgecnn.errors import UserError
from edgecnn.models import head_of
from edgecnn.train.progress import Silent
from tests.conftest import encode, picture

EMBEDDED = "edgecnn_mobilenetv2_035"


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("surfaces") / "demo"
    write_demo_data(root, 150, 0)
    return root


@pytest.fixture(scope="module")
def source() -> Source:
    torch.set_num_threads(1)
    return from_model(EMBEDDED, None, 96, "stretch")


def find(root: Path, source: Source, out: Path, **options: object) -> Findings:
    return embed(read_images(root), source, out, Silent(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "dimensions"),
    [("torchvision:resnet50", 2048), ("torchvision:mobilenet_v2", 1280), ("torchvision:squeezenet1_1", 512)],
)
def test_as_many_features_as_the_head_takes(model: str, dimensions: int) -> None:
    network = from_model(model, "none", 64, "stretch")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    assert features_of(network, pixels).shape == (2, dimensions)


def test_features_are_what_the_head_receives(source: Source) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), np.uint8)
    rows = torch.from_numpy(features_of(source, pixels))
    spec = source.preprocess
    mean, std = torch.tensor(spec.mean).view(3, 1, 1), torch.tensor(spec.std).view(3, 1, 1)
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        torch.testing.assert_close(head_of(source.module)[1](rows), source.module(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_files_hold_features_with_paths_and_labels(ending: str, surfaces: Path, source: Source, tmp_path: Path) -> None:
    out = tmp_path / f"features{ending}"
    findings = find(surfaces, source, out)
    features, columns, meta = load_features(out)
    assert features.shape == (findings.images, findings.dimensions)
    assert features.dtype == np.float32
    for path, label, split in zip(columns["path"], columns["label"], columns["split"], strict=True):
        assert (surfaces / str(path)).is_file()
        assert str(path).startswith(str(label))
        assert split in ("train", "val", "test")
    assert meta["model"] == EMBEDDED
    assert {path.name for path in tmp_path.iterdir()} == {out.name}


def test_baselines_are_judged_on_the_test_split(surfaces: Path, source: Source, tmp_path: Path) -> None:
    findings = find(surfaces, source, tmp_path / "f.npz")
    tested = read_images(surfaces).splits.count("test")
    assert [row.name for row in findings.baselines] == ["nearest neighbours", "linear probe"]
    for row in findings.baselines:
        assert row.test_images == tested
        assert 0.2 < row.top1 <= 1
        assert row.interval.low <= row.top1 <= row.interval.high


def test_planted_duplicates_are_found_and_nothing_else(surfaces: Path, source: Source, tmp_path: Path) -> None:
    root = tmp_path / "images"
    shutil.copytree(surfaces, root)
    before = {(pair.first, pair.second) for pair in find(root, source, tmp_path / "a.npz").duplicates}
    names = sorted(path for path in (root / "crack").iterdir())
    shutil.copyfile(names[0], root / "crack" / "copy.jpg")
    stream = io.BytesIO()
    Image.open(names[1]).convert("RGB").save(stream, "JPEG", quality=60)
    (root / "dent" / "again.jpg").write_bytes(stream.getvalue())
    found = {
        frozenset((pair.first, pair.second)): pair
        for pair in find(root, source, tmp_path / "b.npz").duplicates
        if (pair.first, pair.second) not in before
    }
    exact = found.pop(frozenset((f"crack/{names[0].name}", "crack/copy.jpg")))
    again = found.pop(frozenset((f"crack/{names[1].name}", "dent/again.jpg")))
    assert not found
    assert exact.exact
    assert not exact.straddles  # equal bytes share a split
    assert again.labels_differ
    assert not again.exact


def test_planted_wrong_labels_are_listed(tmp_path: Path, source: Source) -> None:
    rng = np.random.default_rng(0)
    for label, level in (("dark", 40), ("light", 200)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(20):
            pixels = np.clip(rng.normal(level, 10, (64, 64, 3)), 0, 255).astype(np.uint8)
            (tmp_path / "images" / label / f"{number}.png").write_bytes(encode(pixels))
    (tmp_path / "images" / "dark" / "0.png").rename(tmp_path / "images" / "light" / "wrong.png")
    findings = find(tmp_path / "images", source, tmp_path / "f.npz", page=tmp_path / "page.html")
    first = findings.mislabelled[0]
    assert (first.image, first.label, first.suggested) == ("light/wrong.png", "light", "dark")
    assert first.neighbours_agree > 0.8
    page = (tmp_path / "page.html").read_text()
    assert "light/wrong.png" in page
    assert "http" not in page


def test_only_what_changed_is_computed_again(surfaces: Path, source: Source, tmp_path: Path) -> None:
    root = tmp_path / "images"
    shutil.copytree(surfaces, root)
    cache = tmp_path / "cache"
    assert find(root, source, tmp_path / "a.npz", cache=cache).computed == 150
    assert find(root, source, tmp_path / "b.npz", cache=cache).computed == 0
    changed = next((root / "good").iterdir())
    changed.write_bytes(encode(picture(3), "JPEG"))
    assert find(root, source, tmp_path / "c.npz", cache=cache).computed == 1
    find(root, source, tmp_path / "fresh.npz")
    ours, theirs = (load_features(tmp_path / name)[0] for name in ("c.npz", "fresh.npz"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    other = from_model(EMBEDDED, None, 64, "stretch")
    assert find(root, other, tmp_path / "d.npz", cache=cache).computed == 150


def test_a_folder_without_classes_has_duplicates_alone(source: Source, tmp_path: Path) -> None:
    root = tmp_path / "flat"
    root.mkdir()
    for seed in range(4):
        (root / f"{seed}.png").write_bytes(encode(picture(seed)))
    (root / "twin.png").write_bytes(encode(picture(0)))
    findings = find(root, source, tmp_path / "f.npz")
    assert findings.baselines == ()
    assert findings.mislabelled == ()
    assert [(pair.first, pair.second) for pair in findings.duplicates if pair.exact] == [("0.png", "twin.png")]


def test_what_cannot_be_is_refused(surfaces: Path, source: Source, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'.csv' is not one of .npz, .parquet"):
        find(surfaces, source, tmp_path / "f.csv")
    with pytest.raises(UserError, match="no such folder"):
        read_images(tmp_path / "nowhere")


def test_the_verb_prints_and_speaks_json(surfaces: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    verb.register(app)
    words = [str(surfaces), "--model", EMBEDDED, "--out", str(tmp_path / "f.npz")]
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["images"] == 150
    assert "linear probe" in CliRunner().invoke(app, words, catch_exceptions=False).stdout
