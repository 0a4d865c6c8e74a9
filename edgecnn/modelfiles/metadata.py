"""What model files carry besides the model: text by key, whoever wrote it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from pathlib import Path

from edgecnn.errors import MissingExtra, UserError, first_line, must_be_file, one_line_where_damaged


def onnx_metadata(path: Path) -> dict[str, str]:
    """The custom metadata of an .onnx file, read by ONNX Runtime, without the onnx package."""
    import onnxruntime

    must_be_file(path, "an .onnx file")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the engine's own exception types are not public
        raise UserError(f"{path}: ONNX Runtime cannot open it: {first_line(error)}") from None
    return dict(session.get_modelmeta().custom_metadata_map)


def tflite_metadata(path: Path) -> dict[str, str]:
    """Text by name of the metadata buffers of a .tflite file; those that are no text are left out.

    They are read by the schema that comes with ai-edge-litert: no interpreter is made.
    """
    must_be_file(path, "a .tflite file")
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise MissingExtra("ai-edge-litert", "litert")
    schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise UserError(f"{path}: not a .tflite model (no TFL3 mark)")
    held: dict[str, str] = {}
    with one_line_where_damaged(path, ".tflite model"):
        model = schema.Model.GetRootAs(data, 0)
        for number in range(model.MetadataLength()):
            entry = model.Metadata(number)
            buffer = model.Buffers(entry.Buffer())
            if entry.Name() and buffer.DataLength():
                with contextlib.suppress(UnicodeDecodeError):  # other programs' entries may be binary
                    held[entry.Name().decode()] = bytes(buffer.DataAsNumpy()).rstrip(b"\0").decode()
    return held
