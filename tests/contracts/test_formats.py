"""What every format promises: it converts, reloads in an engine, and answers as the trained network does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn import formats, quantize, runtimes
from edgecnn.errors import MissingExtra, UserError
from edgecnn.formats import Source
from edgecnn.quantize.ladder import TuningSet
from tests.contracts.conftest import CLASSES, format_precisions, images

TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.25}


def engines(name: str) -> list[str]:
    return [runtime for runtime in runtimes.names() if name in runtimes.get(runtime).runs]


def error(logits: np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(logits - reference).max() / reference.std())


@pytest.mark.parametrize(("name", "precision"), format_precisions())
def test_a_converted_file_answers_as_the_network(
    name: str, precision: Any, source: Source, eager: Any, tmp_path: Path
) -> None:
    converted = formats.convert(name, source, precision, tmp_path / "out")
    assert all((tmp_path / "out" / file).is_file() for file in converted.files)
    assert engines(name), f"no runtime runs {name}"
    batch = images(5, 200)
    for runtime in engines(name):
        session = runtimes.open_file(tmp_path / "out" / converted.files[0], runtime, precision, 1)
        together = session.run(batch)
        assert together.shape == (5, CLASSES)
        assert together.dtype == np.float32
        assert error(together, eager(batch)) < TOLERANCE[precision]
        one_by_one = np.concatenate([session.run(image[None]) for image in batch])
        assert np.allclose(one_by_one, together, atol=1e-5 * np.abs(together).max())
        session.close()


@pytest.mark.parametrize("name", quantize.names())
def test_an_int8_file_runs_in_int8_and_keeps_the_decisions(
    name: str, source: Source, tuning: TuningSet, eager: Any, tmp_path: Path
) -> None:
    made = quantize.quantize(name, source, tuning, tmp_path / "out")
    assert made.notes["rungs_tried_on_validation"]
    assert made.notes["calibration_images"] == len(tuning.calibration)
    batch = images(8, 200)
    for runtime in engines(name):
        session = runtimes.open_file(tmp_path / "out" / made.files[0], runtime, "int8", 1)
        assert error(session.run(batch), eager(batch)) < TOLERANCE["int8"]
        assert session.executed()["int8_layers"] > 0
        session.close()


@pytest.mark.parametrize("name", formats.names())
def test_a_precision_that_a_format_lacks_is_refused(name: str, source: Source, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{name}: precision: 'int4' is not one of"):
        formats.convert(name, source, "int4", tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UserError, match="'onx' is not one of .*onnx"):
        formats.get("onx")
    with pytest.raises(UserError, match="'onx' is not one of .*onnxruntime"):
        runtimes.get("onx")
    with pytest.raises(UserError, match="int8: format: 'torchscript' is not one of"):
        quantize.quantize("torchscript", None, None, Path())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", runtimes.names())
def test_a_runtime_says_what_it_needs_and_refuses_what_is_no_model(name: str, tmp_path: Path) -> None:
    runtime = runtimes.get(name)
    assert runtime.runs
    assert set(runtime.runs) <= set(formats.names())
    broken = tmp_path / "model.bin"
    broken.write_bytes(b"not a model")
    with pytest.raises(UserError, match="cannot open it") as caught:
        runtimes.open_file(broken, name, "fp32", 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", runtimes.names())
def test_a_missing_engine_names_the_command(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(MissingExtra, match="is not installed: pip install 'edgecnn"):
        runtimes.open_file(tmp_path / "model", name, "fp32", 1)


@pytest.mark.parametrize("name", formats.names())
def test_a_missing_converter_names_the_command(
    name: str, monkeypatch: pytest.MonkeyPatch, source: Source, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(MissingExtra, match=r"pip install 'edgecnn\[train\]'"):
        formats.convert(name, source, "fp32", tmp_path / "out")
