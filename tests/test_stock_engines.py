"""docs/stock-engines.md: each example gives the documented answer, in a process that has no edgecnn."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn import api
from edgecnn.artifact import Bundle, Preprocess, load_bundle
from edgecnn.documents import parse
from edgecnn.imaging import prepare
from edgecnn.installed import is_installed
from edgecnn.predictor import load
from tests.conftest import encode, picture
from tests.pages import examples

LIBRARIES = {
    "onnx-fp32": ("onnxruntime", "onnxruntime"),
    "openvino-fp32": ("openvino", "openvino"),
    "litert-int8": ("litert", "ai-edge-litert"),
    "ncnn-fp32": ("ncnn", "ncnn"),
    "torchscript-fp32": ("pytorch", "torch"),
}
"""Variant to its runtime in edgecnn and the library, in the order of the page."""
WRITERS = {"litert-int8": ("litert-torch", "ai-edge-quantizer"), "ncnn-fp32": ("pnnx",)}
PAGE = examples("stock-engines.md")
RESIZE, BEGINNING, END, *ENGINES = PAGE
LEVELS = 2
"""Of 255, that Pillow's pixels may be off."""
AS_LOGITS = "import json, sys\nassert 'edgecnn' not in sys.modules\nprint(json.dumps(np.asarray(logits).tolist()))\n"


def usable(variant: str) -> bool:
    return all(map(is_installed, (LIBRARIES[variant][1], *WRITERS.get(variant, ()))))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle of a small network, a variant for each engine that is here."""
    folder = tmp_path_factory.mktemp("stock")
    for label, name in enumerate(("good", "scratch", "dent")):
        (folder / "parts" / name).mkdir(parents=True)
        for seed in range(12):
            pixels = (picture(100 * label + seed, 150 + seed, 200 + 3 * seed) * (1, 0.55, 0.3)[label]).astype(np.uint8)
            (folder / "parts" / name / f"{seed}.jpg").write_bytes(encode(pixels, "JPEG", quality=90))
    parts = [(*variant.split("-"), runtime) for variant, (runtime, _) in LIBRARIES.items() if usable(variant)]
    (folder / "stock.toml").write_text(
        'name = "stock"\ndescription = "one of each"\nmachine = "x86_64"\nthreads = 1\nbudget = "30ms@p99"\n'
        "accuracy_loss_limit = 90.0\nint8_agreement = 0.01\nint8_minutes = 0.01\ncalibration_images = 12\n"
        + "".join(
            f'[[variants]]\nformat = "{name}"\nprecision = "{precision}"\nruntime = "{runtime}"\n'
            for name, precision, runtime in parts
        )
    )
    few = {"recipe": "head", "minutes": 0, "epochs": 12, "size": 48, "device": "cpu", "looks": False}
    api.fine_tune(folder / "parts", out=folder / "trained", model="edgecnn_mobilenetv2_035", **few)  # type: ignore[arg-type]
    api.export(folder / "trained", out=folder / "bundle", target=folder / "stock.toml")
    return folder


@pytest.fixture(scope="module")
def bundle(place: Path) -> Bundle:
    return load_bundle(place / "bundle")


@pytest.fixture(scope="module")
def by_pillow() -> Callable[[Path, Preprocess], np.ndarray]:
    names: dict[str, Any] = {}
    exec(compile(RESIZE, "stock-engines.md", "exec"), names)
    return lambda path, spec: np.asarray(names["prepare"](path, json.loads(spec.model_dump_json())))


@pytest.mark.parametrize("variant", LIBRARIES)
def test_the_example_of_an_engine_gives_the_documented_answer(variant: str, place: Path, bundle: Bundle) -> None:
    if not usable(variant):
        pytest.skip(f"{LIBRARIES[variant][1]}, or what writes its file, is not installed")
    engine = ENGINES[list(LIBRARIES).index(variant)]
    assert f"bundle/{variant}/" in engine
    code = "\n".join((RESIZE, BEGINNING, engine, END, AS_LOGITS))
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, told = done.stdout.splitlines()
    golden = bundle.golden[0]
    expected = bundle.classes[int(np.argmax(golden.logits))]
    assert said == f"decided: {expected} · expected: {expected}"
    with load(place / "bundle", variant) as predictor:
        ours = predictor.predict(place / "bundle" / golden.file)
    # Pillow's pixels are a level off here and there.
    scale = np.std([one.logits for one in bundle.golden])
    assert ours.label == expected
    assert np.abs(np.array(json.loads(told)) - ours.logits).max() < 0.1 * scale


def test_pillow_comes_near_the_pinned_resize_of_the_golden_images(
    place: Path, bundle: Bundle, by_pillow: Callable[[Path, Preprocess], np.ndarray]
) -> None:
    with load(place / "bundle", "onnx-fp32") as predictor:
        session = predictor._session
        for golden in bundle.golden:
            path = place / "bundle" / golden.file
            theirs = by_pillow(path, bundle.preprocess)
            assert near(theirs, prepare(path.read_bytes(), bundle.preprocess))
            assert session.run(theirs[None])[0].argmax() == np.argmax(golden.logits)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(48, 64), (97, 130), (211, 333), (500, 401)])
@pytest.mark.parametrize("fit", ["stretch", "center-crop"])
@pytest.mark.parametrize("tag", [1, 6])
def test_pillow_comes_near_the_pinned_resize(
    image_format: str,
    size: tuple[int, int],
    fit: str,
    tag: int,
    tmp_path: Path,
    by_pillow: Callable[[Path, Preprocess], np.ndarray],
) -> None:
    spec = parse(Preprocess, json.dumps({"height": 40, "width": 48, "fit": fit, "crop": 0.875}), "here")
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([tag]) + b"\0\0\0\0\0\0"
    path = tmp_path / "part"
    path.write_bytes(encode(picture(5, *size), image_format, exif=exif))
    assert near(by_pillow(path, spec), prepare(path.read_bytes(), spec))


def near(theirs: np.ndarray, ours: np.ndarray) -> bool:
    apart = np.abs(theirs.astype(int) - ours)
    return bool(theirs.shape == ours.shape and (apart <= LEVELS).mean() > 0.99 and apart.mean() < 0.5)
