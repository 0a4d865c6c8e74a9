"""Folds: every image is tested once, by part; the pooled figures are those of the bundles; done work is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgecnn.artifact import Flip, Judged, load_bundle, write_bundle
from edgecnn.bench import rows
from edgecnn.data import Dataset, Item, load_folder, part_of
from edgecnn.errors import UserError
from edgecnn.folds import datasets, pool
from edgecnn.intervals import clopper_pearson, difference_by_part, paired_difference, share_by_part
from edgecnn.parity import REFERENCE_FILE, load_reference
from edgecnn.pooled import POOLED, Pooled
from tests.conftest import call
from tests.data.test_parts import write_parts

FOLDS = 2
WORDS = ("--model", "edgecnn:resnet_small_32", "--weights", "none", "--size", "32", "--epochs", "1", "--samples", "30")
TARGET = """name = "desktop-cpu"
description = "One variant."
machine = "x86_64"
budget = "30ms@p99"
threads = 1
accuracy_loss_limit = 100.0
[[variants]]
format = "onnx"
precision = "fp32"
runtime = "onnxruntime"
"""


def run(*words: object) -> int:
    return call("run", *words)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    write_parts(root, "crack", range(12), 2)
    write_parts(root, "good", range(100, 112), 2)
    return root


@pytest.fixture(scope="module")
def words(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    work = tmp_path_factory.mktemp("work")
    (work / "target.toml").write_text(TARGET)
    given = (parts, "--target", work / "target.toml", "--out", work / "out", *WORDS)
    return (*given, "--folds", FOLDS, "--group", r"p\d+")


@pytest.fixture(scope="module")
def out(words: tuple[object, ...]) -> Path:
    assert run(*words) in (0, 1, 3)
    return Path(str(words[4]))


def test_every_image_is_tested_once_and_no_part_twice(parts: Path, out: Path) -> None:
    pooled = Pooled.model_validate_json((out / POOLED).read_bytes())
    assert (pooled.folds, pooled.images, pooled.parts) == (FOLDS, 48, 24)
    assert pooled.grouping is not None
    assert pooled.grouping.by == "names"
    bundles = [out / "bundle", out / "fold-2" / "bundle"]
    tested = [name for folder in bundles for name in load_reference(folder / REFERENCE_FILE).names]
    assert sorted(tested) == sorted(path.relative_to(parts).as_posix() for path in parts.rglob("*.png"))
    assert len({name.split("_")[0] for name in tested}) == 24


def test_the_pooled_figures_are_those_of_the_bundles(out: Path) -> None:
    (row,) = Pooled.model_validate_json((out / POOLED).read_bytes()).variants
    checks = [load_bundle(folder).artifact("onnx-fp32").check for folder in (out / "bundle", out / "fold-2" / "bundle")]
    assert row.kept == row.folds == FOLDS
    assert row.top1 == pytest.approx(np.average([check.top1 for check in checks], weights=[c.images for c in checks]))
    assert row.missed_defects == sum(check.missed_defects or 0 for check in checks)
    assert row.false_alarms == sum(check.false_alarms or 0 for check in checks)
    assert row.loss_interval.low <= row.loss_points <= row.loss_interval.high
    assert (row.judged.shown, row.judged.independent) == ("shown within", 24)


def test_a_person_finds_them_in_the_report(out: Path) -> None:
    for name in ("report.html", "report.md"):
        page = (out / name).read_text()
        assert "All folds together" in page
        assert "each of 48 images of 24 parts tested once" in page
        assert f"{FOLDS} of {FOLDS} folds" in page


@pytest.mark.parametrize(
    ("limit", "wrong", "shown"),
    [(50.0, 0, "shown within"), (1.0, 0, "not shown"), (1.0, 6, "shown beyond")],
)
def test_all_folds_together_are_judged_by_part(
    parts: Path, out: Path, tmp_path: Path, limit: float, wrong: int, shown: str
) -> None:
    """An int8 variant that decides `wrong` images of each fold, which fp32 gets right, otherwise."""
    data, done = load_folder(parts, group=r"p\d+"), []
    for number, (fold, folder) in enumerate(
        zip(datasets(data, FOLDS, 0), (out / "bundle", out / "fold-2" / "bundle"), strict=True)
    ):
        place = shutil.copytree(folder, tmp_path / str(number))
        bundle, reference = load_bundle(place), load_reference(place / REFERENCE_FILE)
        right = np.flatnonzero(reference.logits.argmax(1) == reference.labels)[:wrong]
        assert len(right) == wrong
        said = [(reference.names[i], bundle.classes[reference.labels[i]]) for i in right]
        other = dict(zip(bundle.classes, reversed(bundle.classes), strict=True))
        flips = tuple(Flip(image=name, label=one, reference=one, variant=other[one]) for name, one in said)
        (artifact,) = bundle.artifacts
        check = artifact.check.model_copy(update={"flips": flips})
        int8 = artifact.model_copy(update={"variant": "onnx-int8", "precision": "int8", "check": check})
        write_bundle(place, bundle.model_copy(update={"artifacts": (int8,), "accuracy_loss_limit": limit}))
        done.append((fold, place))
    pooled = pool(done)
    (row,) = pooled.variants
    assert (row.judged.shown, row.judged.independent, pooled.loss_limit) == (shown, 24, limit)
    assert row.judged.acceptable == (shown != "shown beyond")
    assert row.loss_points == pytest.approx(100 * FOLDS * wrong / 48)


def test_given_splits_are_said_not_to_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, split in enumerate(("train", "test")):
        write_parts(tmp_path / "parts" / split, "crack", range(10 * number, 10 * number + 10), 1)
        write_parts(tmp_path / "parts" / split, "good", range(100 + 10 * number, 110 + 10 * number), 1)
    assert run(tmp_path / "parts", *WORDS, "--out", tmp_path / "out", "--folds", 40) == 2
    said = capsys.readouterr().err
    assert "the splits that the folders give (train/, test/) are not used" in said
    assert "crack/ has 20 parts" in said


def test_folds_that_are_done_are_not_done_again(
    words: tuple[object, ...], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("weights.safetensors")}
    assert run(*words, "--json") in (0, 1, 3)
    output = capsys.readouterr()
    assert output.err.count("export: already done") >= FOLDS
    assert json.loads(output.out)["pooled"]["images"] == 48
    assert {path: path.stat().st_mtime_ns for path in out.rglob("weights.safetensors")} == before
    assert len(before) == FOLDS


def test_a_fold_that_test_images_veto_fails_the_run(
    words: tuple[object, ...], out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever it is; and it is not among those that passed."""
    first, place = out / "bundle", out / "fold-2" / "bundle"
    before = {path: path.read_bytes() for path in (first / "bundle.json", place / "bundle.json", out / POOLED)}
    for folder in (first, place):  # a network of one epoch is in doubt, which is not the matter here
        write_bundle(folder, load_bundle(folder).model_copy(update={"doubts": ()}))
    whole = load_bundle(place)
    (artifact,) = whole.artifacts
    judged = Judged(refused=("loses 9 points",), acceptable=False)
    vetoed = artifact.model_copy(update={"check": artifact.check.model_copy(update={"judged": judged})})
    monkeypatch.setattr(rows, "EXIT_CODES", {"PASS": 0, "FAIL": 0, "INCONCLUSIVE": 0})
    try:
        assert run(*words) == 0
        write_bundle(place, whole.model_copy(update={"artifacts": (vetoed,)}))
        assert run(*words) == 1
        reason = "exit code 1: fold 2: onnx-fp32 is not within the target on test images"
        assert capsys.readouterr().err.splitlines()[-1] == reason
        (row,) = Pooled.model_validate_json((out / POOLED).read_bytes()).variants
        assert (row.kept, row.folds) == (FOLDS - 1, FOLDS)
    finally:
        for path, content in before.items():
            path.write_bytes(content)


def test_what_all_folds_refuse_fails_the_run(
    words: tuple[object, ...], out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said in the table's lines, in JSON and above the report's verdict, though every bundle passes by itself."""
    first, place = out / "bundle", out / "fold-2" / "bundle"
    pages = (out / "report.html", out / "report.md")
    kept = {path: path.read_bytes() for path in (first / "bundle.json", place / "bundle.json", out / POOLED, *pages)}
    for folder in (first, place):
        write_bundle(folder, load_bundle(folder).model_copy(update={"doubts": ()}))
    whole = load_bundle(place)
    (artifact,) = whole.artifacts
    check = artifact.check.model_copy(update={"max_logit_error": 0.5})
    monkeypatch.setattr(rows, "EXIT_CODES", {"PASS": 0, "FAIL": 0, "INCONCLUSIVE": 0})
    try:
        write_bundle(place, whole.model_copy(update={"artifacts": (artifact.model_copy(update={"check": check}),)}))
        capsys.readouterr()
        assert run(*words) == 1
        line = "onnx-fp32: NOT WITHIN THE TARGET OVER ALL FOLDS: logits differ from the trained network's by 5.0e-01"
        assert line in capsys.readouterr().out
        for page in pages:
            assert "NOT WITHIN THE TARGET OVER ALL FOLDS" in page.read_text()
        assert run(*words, "--json") == 1
        told = json.loads(capsys.readouterr().out)["pooled"]
        assert list(told["refused"]) == ["onnx-fp32"]
        assert told["variants"][0]["judged"]["shown"] == "shown beyond"
    finally:
        for path, content in kept.items():
            path.write_bytes(content)


def test_the_record_names_the_grouping(out: Path) -> None:
    grouping = load_bundle(out / "bundle").provenance.grouping
    assert grouping is not None
    assert (grouping.by, grouping.rule, grouping.parts) == ("names", r"p\d+", 24)


def test_too_many_folds_for_a_class_are_refused(parts: Path) -> None:
    with pytest.raises(UserError, match=r"crack/ has 2 parts: fold \d of 5 has none of them in \w+: add images"):
        datasets(load_folder(parts, group="p[01]0|p[01]1", min_per_class=0), 5, 0)
    with pytest.raises(UserError, match=r"12 parts: fold \d+ of 20 has none of them in \w+: try --folds 3, or add"):
        datasets(load_folder(parts, group=r"p\d+"), 20, 0)


def test_parts_of_one_image_change_nothing() -> None:
    parts = [str(number) for number in range(50)]
    hits = [number % 7 > 0 for number in range(50)]
    assert share_by_part(hits, parts) == clopper_pearson(sum(hits), 50)
    other = [number % 5 > 0 for number in range(50)]
    lost = sum(a and not b for a, b in zip(hits, other, strict=True))
    gained = sum(b and not a for a, b in zip(hits, other, strict=True))
    assert difference_by_part(hits, other, parts) == pytest.approx(paired_difference(lost, gained, 50))


def test_where_all_are_right_a_part_counts_once() -> None:
    parts = [str(number // 6) for number in range(120)]
    assert share_by_part([True] * 120, parts) == clopper_pearson(20, 20)
    assert difference_by_part([True] * 120, [True] * 120, parts) == pytest.approx(paired_difference(0, 0, 20))


@pytest.mark.parametrize(("clusters", "share"), [(40, 0.9), (25, 0.85)])
def test_intervals_cover_where_images_of_a_part_are_alike(clusters: int, share: float) -> None:
    """Four images of a part that are mostly right or wrong together: 95 % must hold; the plain interval does not."""
    rng = np.random.default_rng(0)
    covered = plain = differs = 0
    tries = 200
    for _ in range(tries):
        of_part = rng.beta(share * 0.6, (1 - share) * 0.6, clusters)
        of_loss = rng.beta(0.05 * 0.6, 0.95 * 0.6, clusters)
        parts = [str(part) for part in range(clusters) for _ in range(4)]
        hits = rng.random(4 * clusters) < np.repeat(of_part, 4)
        after = hits & (rng.random(4 * clusters) >= np.repeat(of_loss, 4))
        low, high = share_by_part(hits.tolist(), parts)
        covered += low <= share <= high
        low, high = clopper_pearson(int(hits.sum()), 4 * clusters)
        plain += low <= share <= high
        low, high = difference_by_part(hits.tolist(), after.tolist(), parts)
        differs += low <= 0.05 * share <= high
    assert covered / tries >= 0.93
    assert differs / tries >= 0.93
    assert plain / tries < 0.9


def test_the_folds_of_a_data_set_cover_it() -> None:
    items = tuple(
        Item(Path("x"), f"{part}-{shot}", part % 2, f"{part:032d}{shot:032d}", str(part))
        for part in range(30)
        for shot in range(3)
    )
    found = datasets(Dataset(Path("x"), ("a", "b"), None, items, (), ()), 5, 0)
    tested = [item for fold in found for item in fold.test]
    assert sorted(item.name for item in tested) == sorted(item.name for item in items)
    for fold in found:
        assert not {part_of(item) for item in fold.test} & {part_of(item) for item in (*fold.train, *fold.val)}
