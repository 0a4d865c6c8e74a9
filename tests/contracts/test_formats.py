"""What every format promises: it converts, reloads in an engine, and answers as the trained network does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn import formats, quantize, runtimes
from edgecnn.errors import MissingExtra, UserError
from edgecnn.executed import Executed
from edgecnn.formats import Source
from edgecnn.quantize.candidates import Networks
from tests.contracts.conftest import CLASSES, LAYERS, format_precisions, images

TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.25}


def engines(name: str) -> list[str]:
    """Runtimes of the format that are installed here."""
    able = [runtime for runtime in runtimes.names() if name in runtimes.get(runtime).runs]
    assert able, f"no runtime runs {name}"
    return [runtime for runtime in able if runtimes.installed(runtime)]


def skip_where_missing(require: Callable[[str], object], name: str) -> None:
    """A format whose libraries are not installed is another environment's to prove."""
    try:
        require(name)
    except MissingExtra as error:
        pytest.skip(str(error))
    if not engines(name):
        pytest.skip(f"no engine of {name} is installed")


def tells_what_it_ran(executed: Executed) -> None:
    """Every layer of the network, in shares that sum to one; nothing of it is lost on the way to a document."""
    assert len(executed.layers) >= LAYERS  # a format may make one of the normalisation
    assert sum(executed.mac_shares.values()) == pytest.approx(1)
    assert executed.providers
    assert Executed.model_validate_json(executed.model_dump_json()) == executed


def error(logits: np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(logits - reference).max() / reference.std())


@pytest.mark.parametrize(("name", "precision"), format_precisions())
def test_a_converted_file_answers_as_the_network(
    name: str, precision: Any, source: Source, eager: Any, tmp_path: Path
) -> None:
    skip_where_missing(formats.require, name)
    converted = formats.convert(name, source, precision, tmp_path / "out")
    assert all((tmp_path / "out" / file).is_file() for file in converted.files)
    batch = images(5, 200)
    for runtime in engines(name):
        with runtimes.open_file(tmp_path / "out" / converted.files[0], runtime, precision, 1) as session:
            together = session.run(batch)
            assert together.shape == (5, CLASSES)
            assert together.dtype == np.float32
            assert error(together, eager(batch)) < TOLERANCE[precision]
            one_by_one = np.concatenate([session.run(image[None]) for image in batch])
            assert np.allclose(one_by_one, together, atol=1e-5 * np.abs(together).max())
            tells_what_it_ran(session.executed())


@pytest.mark.parametrize("name", quantize.names())
def test_an_int8_file_runs_in_int8_and_keeps_the_decisions(
    name: str, networks: Networks, eager: Any, tmp_path: Path
) -> None:
    skip_where_missing(quantize.get, name)
    made = quantize.quantize(name, networks, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(made.files)
    tried = made.notes["rungs_tried"]
    assert made.notes["rung"] in [row["rung"] for row in tried]
    assert all(row["latency_ms"] > 0 for row in tried)
    assert made.notes["calibration_images"] == len(networks.tuning.calibration)
    batch = images(8, 200)
    for runtime in engines(name):
        with runtimes.open_file(tmp_path / "out" / made.files[0], runtime, "int8", 1) as session:
            assert error(session.run(batch), eager(batch)) < TOLERANCE["int8"]
            executed = session.executed()
        tells_what_it_ran(executed)
        assert executed.int8_layers > 0
        assert executed.mac_shares["int8"] > 0


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
    with pytest.raises(UserError, match="int8: format: 'onx' is not one of .*onnx"):
        quantize.quantize("onx", None, Path())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", runtimes.names())
def test_a_runtime_says_what_it_needs_and_refuses_what_is_no_model(name: str, tmp_path: Path) -> None:
    runtime = runtimes.get(name)
    assert runtime.runs
    assert set(runtime.runs) <= set(formats.names())
    if not runtimes.installed(name):
        pytest.skip(f"{name} is not installed")
    broken = tmp_path / "model.bin"
    broken.write_bytes(b"not a model")
    with pytest.raises(UserError, match="cannot open it") as caught:
        runtimes.open_file(broken, name, "fp32", 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", runtimes.names())
def test_a_missing_engine_names_the_command(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(UserError, match=r"is not installed.*pip install ") as caught:
        runtimes.open_file(tmp_path / "model", name, "fp32", 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", formats.names())
def test_a_missing_converter_names_the_command(
    name: str, monkeypatch: pytest.MonkeyPatch, source: Source, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(MissingExtra, match=r"pip install .*\[(train|export-[a-z]+|tensorrt)\]"):
        formats.convert(name, source, "fp32", tmp_path / "out")
