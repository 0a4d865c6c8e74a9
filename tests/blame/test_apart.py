"""Somebody's model file in a process of its own: the same answers, and one line where the file is the process's end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from edgecnn.blame import apart as module
from edgecnn.blame import engines
from edgecnn.blame.apart import LARGEST_INPUT, Apart, OpenedApart
from edgecnn.blame.engines import Refused
from edgecnn.errors import UserError
from tests.onnx_graph.files import SIDE, classifier, save

PIXELS = SIDE * SIDE
IMAGE = np.linspace(-1, 1, 3 * PIXELS, dtype=np.float32).reshape(1, 3, SIDE, SIDE)


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    with Apart(1) as one:
        yield one


@pytest.fixture
def opened(apart: Apart, tmp_path: Path) -> OpenedApart:
    return apart.open("onnxruntime", classifier(tmp_path / "net.onnx", described={"names": "a,b,c"}), PIXELS)


def test_it_answers_as_the_engine_in_this_process_does(opened: OpenedApart) -> None:
    engine = engines.get("onnxruntime")
    assert engine is not None
    here = engine.open(opened.path, 1)
    assert opened.shape == here.shape == (None, 3, SIDE, SIDE)
    np.testing.assert_array_equal(opened.run(IMAGE), here.run(IMAGE))
    assert opened.precision() is here.precision() is None
    assert opened.metadata() == {"names": "a,b,c"}


def test_without_optimisations(apart: Apart, opened: OpenedApart) -> None:
    answers = opened.run(IMAGE)
    plain = apart.open("onnxruntime", opened.path, PIXELS, plain=True)
    np.testing.assert_allclose(plain.run(IMAGE), answers, rtol=1e-4, atol=1e-5)


def test_what_the_engine_refuses_it_refuses(opened: OpenedApart) -> None:
    with pytest.raises(Refused, match="float32"):
        opened.run(np.zeros((1, 3, SIDE, SIDE), np.uint8))
    assert opened.run(IMAGE).shape == (3,)


@pytest.mark.parametrize("content", [b"", b"\x08", b"no model"])
def test_what_is_no_model_is_one_line(content: bytes, apart: Apart, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(UserError, match="net.onnx: ONNX Runtime cannot open it"):
        apart.open("onnxruntime", path, PIXELS)


@pytest.mark.parametrize("shape", [[1, 2**31 - 1, 8, 8], [2**20, 3, 8, 8], ["n", 3, 70_000, 70_000]])
def test_an_input_that_no_image_is_is_refused_before_it_is_made(
    shape: list[object], apart: Apart, tmp_path: Path
) -> None:
    mean = helper.make_node("ReduceMean", ["images"], ["scores"])
    path = save(tmp_path / "net.onnx", [mean], {}, shape=shape)
    with pytest.raises(UserError, match=f"it takes .*at most {LARGEST_INPUT:,} numbers"):
        apart.open("onnxruntime", path, PIXELS)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited by Linux")
def test_a_file_that_needs_all_memory_is_one_line(apart: Apart, tmp_path: Path) -> None:
    """Eight gigabytes, of a file of two hundred bytes: as many as there are pixels, times a number from inside."""
    nodes = [
        helper.make_node("Shape", ["images"], ["shape"]),
        helper.make_node("Mul", ["shape", "times"], ["large"]),
        helper.make_node("ConstantOfShape", ["large"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["scores"]),
    ]
    times = np.array([1, 1, 1 << 12, 1 << 13], np.int64)
    path = save(tmp_path / "net.onnx", nodes, {"times": times})
    with pytest.raises((UserError, Refused)) as caught:
        apart.open("onnxruntime", path, PIXELS).run(IMAGE)
    assert "llocat" in str(caught.value) or "memory" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def _process(apart: Apart) -> int:
    assert apart._process is not None
    return apart._process.pid


def test_a_dead_process_is_one_line_and_the_next_file_gets_another(apart: Apart, opened: OpenedApart) -> None:
    os.kill(_process(apart), signal.SIGSEGV)
    with pytest.raises(UserError, match="net.onnx: the engine's process died by SIGSEGV: the engine crashed"):
        opened.run(IMAGE)
    with pytest.raises(UserError, match=r"net\.onnx"):
        opened.precision()
    assert apart.open("onnxruntime", opened.path, PIXELS).run(IMAGE).shape == (3,)


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be stopped there")
def test_an_engine_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Apart(1) as apart:
        apart.open("onnxruntime", classifier(tmp_path / "net.onnx"), PIXELS)
        monkeypatch.setattr(module, "_ANSWERS_S", 0.2)
        os.kill(_process(apart), signal.SIGSTOP)
        with pytest.raises(UserError, match=r"net\.onnx: its engine gave no answer within 0 s: it was ended"):
            apart.open("onnxruntime", tmp_path / "net.onnx", PIXELS)


def test_nothing_is_left_running(tmp_path: Path) -> None:
    with Apart(1) as apart:
        apart.open("onnxruntime", classifier(tmp_path / "net.onnx"), PIXELS)
        process = apart._process
    assert process is not None
    assert process.poll() is not None
