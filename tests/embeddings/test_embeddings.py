"""Features are what the head receives; suspects that were planted are found; only what changed is computed again."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from edgecnn.cli.verbs import get, register
from edgecnn.data import Item, load_folder
from edgecnn.data.surfaces import write_demo_data
from edgecnn.embeddings import Embedded, Findings, Shown, embed, images_of_run, load_features, read_images
from edgecnn.embeddings.features import Source, features_of, from_checkpoint, from_model
from edgecnn.embeddings.suspects import duplicates
from edgecnn.errors import UserError
from edgecnn.models import head_of
from edgecnn.train import fine_tune
from edgecnn.train.progress import Silent
from tests.conftest import encode, picture
from tests.training import options, write_images

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
    register(app, get("embed"))
    words = [str(surfaces), "--model", EMBEDDED, "--out", str(tmp_path / "f.npz")]
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["images"] == 150
    assert "linear probe" in CliRunner().invoke(app, words, catch_exceptions=False).stdout


def test_features_that_contradict_most_labels_are_doubted_themselves(tmp_path: Path) -> None:
    for number in range(60):  # labels that have nothing to do with the pictures
        folder = tmp_path / "images" / "abc"[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(encode(picture(number)))
    app = typer.Typer()
    register(app, get("embed"))
    words = [str(tmp_path / "images"), "--model", EMBEDDED, "--size", "32", "--out", str(tmp_path / "f.npz")]
    printed = CliRunner().invoke(app, words, catch_exceptions=False).stdout
    assert re.search(r"labels that the features contradict: \d+ of 60 images", printed)
    assert "rather errors of these features than of the labels" in printed
    assert "the first 12, all with --json" in printed


@pytest.mark.parametrize(("model", "weights"), [(EMBEDDED, None), ("torchvision:mobilenet_v2", "none")])
def test_another_process_finds_the_cache(model: str, weights: str | None, tmp_path: Path) -> None:
    """A network that is built anew has a new head; its features are the same."""
    write_images(tmp_path / "images", (4, 4, 4))
    for name, computed in (("a", 12), ("b", 0)):
        source = from_model(model, weights, 32, "stretch")
        assert (
            find(tmp_path / "images", source, tmp_path / f"{name}.npz", cache=tmp_path / "cache").computed == computed
        )
    fresh = find(tmp_path / "images", from_model(model, weights, 32, "stretch"), tmp_path / "c.npz")
    assert fresh.computed == 12
    kept, anew = (load_features(tmp_path / f"{name}.npz")[0] for name in ("b", "c"))
    np.testing.assert_allclose(kept, anew, rtol=1e-4, atol=1e-5)


def test_what_a_power_cut_left_in_the_cache_is_computed_anew(source: Source, tmp_path: Path) -> None:
    write_images(tmp_path / "images", (4, 4, 4))
    find(tmp_path / "images", source, tmp_path / "a.npz", cache=tmp_path / "cache")
    stored = sorted((tmp_path / "cache").rglob("*.npz"))
    whole = stored[2].read_bytes()
    for path, damaged in zip(stored, (b"", b"cut off", whole[:200]), strict=False):
        path.write_bytes(damaged)
    assert find(tmp_path / "images", source, tmp_path / "b.npz", cache=tmp_path / "cache").computed == 3


def test_an_image_beside_the_class_folders_does_not_hide_them(tmp_path: Path) -> None:
    write_images(tmp_path, (4, 4, 4))
    (tmp_path / "overview.png").write_bytes(encode(picture(0)))
    assert read_images(tmp_path).classes == ("dark", "light", "striped")


def test_a_folder_without_classes_is_read_by_the_rules_of_all_folders(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(encode(picture(number)))
    (tmp_path / "2.png").symlink_to("1.png")
    (tmp_path / "._0.png").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "@eaDir").mkdir()
    (tmp_path / "@eaDir" / "0.png").write_bytes(encode(picture(0)))
    assert [item.name for item in read_images(tmp_path).items] == ["0.png", "1.png", "2.png"]
    (tmp_path / "3.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"1 unusable image \(3.png: a link to nowhere.png, which is not there\)"):
        read_images(tmp_path)
    assert [problem.name for problem in read_images(tmp_path, skip_unreadable=True).left_out] == ["3.png"]


def test_unusable_images_without_classes_are_refused_or_listed(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(encode(picture(0)))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1 unusable image \(broken.jpg.*--skip-unreadable"):
        read_images(tmp_path)
    images = read_images(tmp_path, skip_unreadable=True)
    assert [item.name for item in images.items] == ["0.png"]
    assert [problem.name for problem in images.left_out] == ["broken.jpg"]


def test_one_image_under_two_labels_is_named(source: Source, tmp_path: Path) -> None:
    write_images(tmp_path / "images", (6, 6, 6))
    shutil.copyfile(tmp_path / "images" / "dark" / "0.png", tmp_path / "images" / "light" / "same.png")
    left_out = find(tmp_path / "images", source, tmp_path / "f.npz").left_out
    assert [line.split(":")[0] for line in left_out] == ["dark/0.png", "light/same.png"]


def test_an_image_that_changes_meanwhile_is_refused(source: Source, tmp_path: Path) -> None:
    write_images(tmp_path / "images", (4, 4, 4))
    images = read_images(tmp_path / "images")
    images.items[0].path.write_bytes(encode(picture(1)))
    with pytest.raises(UserError, match="its bytes changed"):
        embed(images, source, tmp_path / "f.npz", Silent(), cache=tmp_path / "cache")


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_other_files_are_no_features(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"f{ending}"
    with pytest.raises(UserError, match="no such file"):
        load_features(path)
    for content in (b"", b"PK but no more", encode(picture(0))):
        path.write_bytes(content)
        with pytest.raises(UserError, match="holds no features"):
            load_features(path)


def test_the_same_light_does_not_make_the_same_picture() -> None:
    """Three rough surfaces under one lamp; only the last one is the first again, a little noisier."""
    rng = np.random.default_rng(0)
    lamp = np.linspace(-1, 1, 32)[:, None] + np.linspace(-1, 1, 32)
    first, second = rng.normal(0, 0.1, (2, 32, 32))
    grey = np.stack([lamp + first, lamp + second, lamp + first + rng.normal(0, 0.01, (32, 32))]).reshape(3, -1)
    grey -= grey.mean(1, keepdims=True)
    thumbnails = (grey / np.linalg.norm(grey, axis=1, keepdims=True)).astype(np.float32)
    assert thumbnails[0] @ thumbnails[1] > 0.97
    items = tuple(Item(Path(name), name, -1, name) for name in "abc")
    shown = Shown(Path(), items, (), ("",) * 3)
    found = duplicates(Embedded(shown, rng.normal(size=(3, 4)).astype(np.float32), thumbnails, {}), -1.0)
    assert [(pair.first, pair.second) for pair in found] == [("a", "c")]


def test_a_run_is_judged_on_its_own_test_images(tmp_path: Path) -> None:
    write_images(tmp_path / "data")
    data = load_folder(tmp_path / "data", seed=5)
    fine_tune(data, options(recipe="head", epochs=1, seed=5), tmp_path / "run", Silent())
    images = images_of_run(tmp_path / "data", tmp_path / "run")
    tested = {item.name for item, split in zip(images.items, images.splits, strict=True) if split == "test"}
    assert tested == {item.name for item in data.test}
    source = from_checkpoint(tmp_path / "run")
    assert source.preprocess.height == 32
    assert find(tmp_path / "data", source, tmp_path / "f.npz").images == len(images.items)
    app = typer.Typer()
    register(app, get("embed"))
    words = [str(tmp_path / "data"), "--out", str(tmp_path / "g.npz"), "--checkpoint", str(tmp_path / "run")]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    assert (
        set(load_features(tmp_path / "g.npz")[1]["path"][load_features(tmp_path / "g.npz")[1]["split"] == "test"])
        == tested
    )
    with pytest.raises(UserError, match="--checkpoint brings its own"):
        CliRunner().invoke(app, [*words, "--size", "64"], catch_exceptions=False)
