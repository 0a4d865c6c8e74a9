"""The bundle on disk: whole or refused, with one line that says why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn.artifact import (
    Artifact,
    Bundle,
    Check,
    Cost,
    Golden,
    Interval,
    Preprocess,
    inventory,
    load_bundle,
    write_bundle,
)
from edgecnn.documents import folder_written_whole, write_atomically
from edgecnn.errors import UserError
from tests.conftest import provenance

CHECK = Check(
    images=10,
    max_logit_error=1e-6,
    mean_logit_error=1e-7,
    agreement=1.0,
    top1=0.9,
    top1_interval=Interval(low=0.55, high=0.99),
    reference_top1=0.9,
    loss_points=0.0,
    loss_interval=Interval(low=-30.0, high=30.0),
    mcnemar_p=1.0,
    recall={"crack": 1.0, "good": None},
    confusion=((5, 0), (1, 4)),
    largest_decision_share=0.6,
    largest_label_share=0.5,
    missed_defects=0,
    false_alarms=1,
    reference_missed_defects=0,
    reference_false_alarms=1,
    flips=(),
)


def small_bundle(folder: Path) -> Bundle:
    (folder / "onnx-fp32").mkdir(parents=True)
    (folder / "onnx-fp32" / "model.onnx").write_bytes(b"weights" * 100)
    (folder / "golden").mkdir()
    (folder / "golden" / "000.png").write_bytes(b"pixels")
    bundle = Bundle(
        name="net-desktop-cpu",
        target="desktop-cpu",
        budget="30ms@p99",
        threads=1,
        machine="x86_64",
        accuracy_loss_limit=1.0,
        fp32_tolerance=1e-4,
        classes=("crack", "good"),
        good_class="good",
        preprocess=Preprocess(height=32, width=32),
        cost=Cost(params=10, macs=20),
        artifacts=(
            Artifact(
                variant="onnx-fp32",
                format="onnx",
                precision="fp32",
                runtime="onnxruntime",
                files=("onnx-fp32/model.onnx",),
                bytes=700,
                check=CHECK,
            ),
        ),
        golden=(Golden(file="golden/000.png", label="good", logits=(0.1, 0.9), pixels_sha256="0" * 64),),
        provenance=provenance("2026-11-20T00:00:00+00:00", "net", recipe="all"),
        files=inventory(folder),
    )
    write_bundle(folder, bundle)
    return bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_bundle_survives_the_disk(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert bundle.artifact("onnx-fp32").check == CHECK
    assert bundle.cost.flops == 40
    assert json.loads((folder / "bundle.json").read_text())["files"].keys() == {
        "onnx-fp32/model.onnx",
        "golden/000.png",
    }


@given(
    position=st.floats(0, 0.999), bit=st.integers(0, 7), name=st.sampled_from(["onnx-fp32/model.onnx", "bundle.json"])
)
@settings(deadline=None, max_examples=60)
def test_any_flipped_bit_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, position: float, bit: int, name: str
) -> None:
    folder = tmp_path_factory.mktemp("flip") / "bundle"
    small_bundle(folder)
    data = bytearray((folder / name).read_bytes())
    before = load_bundle(folder)
    data[int(position * len(data))] ^= 1 << bit
    (folder / name).write_bytes(data)
    try:
        after = load_bundle(folder)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        # White space and the like: another text with the very same content.
        assert name == "bundle.json"
        assert after == before


@pytest.mark.parametrize("size", [0, 1, 300])
@pytest.mark.parametrize("name", ["onnx-fp32/model.onnx", "bundle.json"])
def test_a_truncated_file_is_noticed(folder: Path, name: str, size: int) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match="damaged|copy or export"):
        load_bundle(folder)


def test_a_missing_an_added_and_a_linked_file_are_noticed(folder: Path, tmp_path: Path) -> None:
    extra = folder / "extra.py"
    extra.write_text("print()")
    with pytest.raises(UserError, match=r"extra\.py does not belong"):
        load_bundle(folder)
    extra.unlink()
    golden = folder / "golden" / "000.png"
    shutil.copy(golden, tmp_path / "elsewhere.png")
    golden.unlink()
    with pytest.raises(UserError, match=r"golden/000\.png is missing"):
        load_bundle(folder)
    golden.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(UserError, match=r"golden/000\.png: is a link"):
        load_bundle(folder)


def test_a_newer_bundle_and_no_bundle_say_what_to_do(folder: Path, tmp_path: Path) -> None:
    document = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**document, "version": 99}))
    with pytest.raises(UserError, match="version 99.*install a matching edgecnn"):
        load_bundle(folder)
    with pytest.raises(UserError, match="no bundle.json there"):
        load_bundle(tmp_path)


def test_a_file_name_cannot_leave_the_bundle(folder: Path) -> None:
    bundle = load_bundle(folder)
    files = {**bundle.files, "../secret": next(iter(bundle.files.values()))}
    write_bundle(folder, bundle.model_copy(update={"files": files}))
    with pytest.raises(UserError, match="leaves the bundle"):
        load_bundle(folder)


def test_an_unknown_variant_names_the_known_ones(folder: Path) -> None:
    with pytest.raises(UserError, match="'onnx-int8' is not in the bundle: it has onnx-fp32"):
        load_bundle(folder).artifact("onnx-int8")


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with folder_written_whole(out) as folder:
        (folder / "first").write_text("1")
    with pytest.raises(RuntimeError), folder_written_whole(out) as folder:  # noqa: PT012
        (folder / "second").write_text("2")
        raise RuntimeError
    assert [path.name for path in out.iterdir()] == ["first"]
    with folder_written_whole(out) as folder:
        (folder / "third").write_text("3")
    assert [path.name for path in out.iterdir()] == ["third"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_current_folder_can_be_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    with folder_written_whole(Path()) as folder:
        (folder / "first").write_text("1")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["out", "out/first"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b.json", "1")
    write_atomically(tmp_path / "a" / "b.json", b"2")
    assert [(path.name, path.read_text()) for path in (tmp_path / "a").iterdir()] == [("b.json", "2")]


def test_pixels_of_an_older_version_are_refused_with_the_cure() -> None:
    with pytest.raises(ValueError, match="bilinear-antialias/1 gave other pixels .*: train or adopt again"):
        Preprocess(height=8, width=8, resize="bilinear-antialias/1")  # type: ignore[arg-type]
