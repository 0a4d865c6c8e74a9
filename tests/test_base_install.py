"""The base install: every verb in an environment with only the wheel. Its Python is named by EDGECNN_BASE.

`make test-base` makes that environment; without it, what can be seen without one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgecnn.artifact import inventory, load_bundle, write_bundle
from edgecnn.cli.verbs import get, names
from edgecnn.documents import sha256_of_file
from edgecnn.parity import REFERENCE_FILE, Reference, prepare_files, save_reference
from edgecnn.runtimes import open_session
from tests.conftest import encode, picture
from tests.lower_bounds import PROJECT, lower_bounds
from tests.rehearse.bundle import CLASSES, SPEC, write_bundle_to_rehearse

BASE = os.environ.get("EDGECNN_BASE", "")
needs_base = pytest.mark.skipif(not BASE, reason="EDGECNN_BASE names no Python: run make test-base")
USES = {
    "run": ("run", "parts"),
    "plan": ("plan", "parts"),
    "finetune": ("finetune", "parts", "--out", "trained"),
    "export": ("export", "trained", "--out", "exported"),
    "embed": ("embed", "parts", "--out", "features.npz"),
    "scale": ("scale", "--phi", "1"),
    "report": ("report", "bundle", "--runs", "runs.jsonl", "--out", "report"),
    "demo-data": ("demo-data", "surfaces", "--images", "25"),
    "verify": ("verify", "bundle", "--data", "parts"),
    "rehearse": ("rehearse", "bundle", "--device", "raspberry-pi-4", "--offline", "--cache", "cache"),
    "bench": ("bench", "bundle", "--samples", "50", "--out", "bench.jsonl"),
    "doctor": ("doctor", "bundle", "--json"),
    "models": ("models",),
    "explain": ("explain", "block", "inverted-residual"),
}
"""A use of each verb, for what it needs."""
CODES = {"rehearse": 2, "bench": 3}
"""Where the base install is enough: no board there and none may be fetched; too few samples for a verdict."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle, and with the test images that it was made with."""
    folder = tmp_path_factory.mktemp("base install")
    bundle = write_bundle_to_rehearse(folder / "bundle")
    paths = [folder / "parts" / CLASSES[seed % 3] / f"{seed}.png" for seed in range(18)]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(picture(seed)))
    known = load_bundle(bundle)
    with open_session(bundle, known.artifact("onnx-fp32"), 1) as session:
        logits = np.concatenate([session.run(image[None]) for image in prepare_files(paths, SPEC)])
    hashes, labels = tuple(map(sha256_of_file, paths)), logits.argmax(1).astype(np.int64)
    save_reference(Reference(tuple(path.name for path in paths), hashes, labels, logits), bundle / REFERENCE_FILE)
    write_bundle(bundle, known.model_copy(update={"files": inventory(bundle)}))
    return folder


def edgecnn(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [BASE, "-P", "-m", "edgecnn", *words], cwd=place, env=alone, capture_output=True, encoding="utf-8", check=False
    )


def test_every_verb_is_used() -> None:
    assert set(USES) == set(names())


def test_every_dependency_has_a_lower_bound() -> None:
    for extra in ["", *PROJECT["optional-dependencies"]]:
        assert all("==" in one for one in lower_bounds([extra] if extra else []))


@needs_base
@pytest.mark.parametrize("verb", names())
def test_every_verb_has_its_help(verb: str, place: Path) -> None:
    done = edgecnn(place, verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Example" in done.stdout


@needs_base
@pytest.mark.parametrize("verb", names())
def test_every_verb_works_or_names_the_extra_that_it_needs(verb: str, place: Path) -> None:
    done = edgecnn(place, *USES[verb])
    assert "Traceback" not in done.stderr
    if get(verb).extras:
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.splitlines()) == 1
        extras = {"run": "export-litert,report", "export": "export-litert", "report": "report"}.get(verb, "train")
        assert re.search(rf"pip install \S*edgecnn-\S*whl\[{extras}\]'$", done.stderr), "the wheel that it came from"
    else:
        assert done.returncode == CODES.get(verb, 0), done.stderr


@needs_base
def test_the_doctor_says_what_is_there_and_what_is_not(place: Path) -> None:
    found = json.loads(edgecnn(place, *USES["doctor"]).stdout)
    assert found["problems"] == []
    ready = {one["name"] for one in found["verbs"] if one["ready"]}
    assert ready == {name for name in names() if not get(name).extras}
    engines = {one["runtime"] for one in found["engines"] if one["library"]["problem"] is None}
    assert engines == {"onnxruntime"}


@needs_base
def test_it_is_the_wheel_alone(place: Path) -> None:
    code = "import edgecnn.cli, importlib.util as u; assert not u.find_spec('torch'); print(edgecnn.cli.__file__)"
    done = subprocess.run(
        [BASE, "-P", "-c", code], cwd=place, env={"PATH": ""}, capture_output=True, text=True, check=True
    )
    assert "site-packages" in done.stdout


@needs_base
def test_the_python_interface_works_or_names_the_extra_that_it_needs(place: Path) -> None:
    code = """
import edgecnn
with edgecnn.load("bundle", variant="onnx-fp32") as predictor:
    assert predictor.predict("bundle/golden/000.png").label in predictor.classes
assert [row.passed for row in edgecnn.verify("bundle", "parts", variants=["onnx-fp32"])] == [True]
assert edgecnn.bench("bundle", variants=["onnx-fp32"], samples=20, out="api.jsonl")[0].p50_ms > 0
for call in (edgecnn.fine_tune, edgecnn.export):
    try:
        call("parts", out="out")
    except edgecnn.MissingExtra as error:
        assert ".whl[" in str(error)
    else:
        raise SystemExit("not refused")
"""
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([BASE, "-P", "-c", code], cwd=place, env=alone, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
