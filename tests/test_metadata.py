"""What is described inside model files comes back equal, without torch and without the onnx package."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgecnn.artifact import Preprocess
from edgecnn.errors import UserError
from edgecnn.metadata import SelfDescription, describe, read, read_onnx, read_tflite
from edgecnn.origin import install_command

SPEC = Preprocess(height=64, width=80, fit="center-crop", crop=0.875, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
CLASSES = ("good", "Riß", "a, b")


def onnx_file(path: Path, held: dict[str, str]) -> Path:
    import onnx
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [image], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    helper.set_model_props(model, held)
    onnx.save(model, path)
    return path


def tflite_file(path: Path, held: dict[str, bytes]) -> Path:
    flatbuffers = pytest.importorskip("flatbuffers")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    model = schema.ModelT()
    model.version = 3
    model.operatorCodes, model.subgraphs = [], [schema.SubGraphT()]
    model.buffers, model.metadata = [schema.BufferT()], []
    for key, value in held.items():
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = list(value)
        entry.name, entry.buffer = key, len(model.buffers)
        model.buffers.append(buffer)
        model.metadata.append(entry)
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def test_a_description_comes_back_equal() -> None:
    assert read(describe(CLASSES, SPEC, "timm:x"), "file") == SelfDescription("timm:x", CLASSES, SPEC)


def test_it_says_in_words_what_goes_in_and_comes_out() -> None:
    held = describe(CLASSES, SPEC, "timm:x")
    assert held["edgecnn.input"].startswith(
        "uint8 (n, 64, 80, 3), NHWC, RGB, pixels 0..255, the central square of 0.875"
    )
    assert "(n, 3) logits" in held["edgecnn.output"]
    assert json.loads(held["edgecnn.classes"]) == list(CLASSES)
    assert "minus 128" in describe(CLASSES, SPEC, "timm:x", "int8")["edgecnn.input"]


def test_somebody_elses_file_has_none(tmp_path: Path) -> None:
    assert read({"producer": "x"}, "file") is None
    assert read_onnx(onnx_file(tmp_path / "m.onnx", {})) is None


def test_onnx_carries_it(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "m.onnx", describe(CLASSES, SPEC, "timm:x"))
    assert read_onnx(path) == SelfDescription("timm:x", CLASSES, SPEC)


def test_tflite_carries_it_among_others(tmp_path: Path) -> None:
    held = {name: text.encode() for name, text in describe(CLASSES, SPEC, "timm:x").items()}
    path = tflite_file(tmp_path / "m.tflite", {"BINARY": b"\xff\xfe\x00\x01", **held})
    assert read_tflite(path) == SelfDescription("timm:x", CLASSES, SPEC)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edgecnn.description": "2"}, "description version 2, this edgecnn reads version 1"),
        ({"edgecnn.classes": "["}, "damaged"),
        ({"edgecnn.classes": "[1, 2]"}, "not a list of names"),
        ({"edgecnn.preprocess": '{"height": 0}'}, "edgecnn.preprocess: .*greater than 0.*width: is missing"),
    ],
)
def test_damage_and_newer_versions_are_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=f"^f: {message}" if "greater" in message else message) as caught:
        read({**describe(CLASSES, SPEC, "x"), **change}, "f")
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_damage() -> None:
    held = describe(CLASSES, SPEC, "x")
    del held["edgecnn.preprocess"]
    with pytest.raises(UserError, match="damaged"):
        read(held, "f")


@pytest.mark.parametrize("reader", [read_onnx, read_tflite])
def test_what_is_no_model_is_refused(reader: object, tmp_path: Path) -> None:
    if reader is read_tflite:
        pytest.importorskip("ai_edge_litert")
    for name, content in (("a", b"not a model"), ("b", b"\x1c\0\0\0TFL3\xff\xff\xff\xff")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            reader(path)  # type: ignore[operator]
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        reader(tmp_path / "absent")  # type: ignore[operator]


def test_the_device_side_stays_light() -> None:
    code = (
        "import sys, edgecnn.metadata; sys.exit(any(name in sys.modules for name in ('torch', 'onnx', 'onnxruntime')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_reader_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "m.tflite").write_bytes(b"x")
    with pytest.raises(UserError, match=re.escape(install_command("litert"))):
        read_tflite(tmp_path / "m.tflite")
