"""OpenVINO IR: converted from the fp32 ONNX; fp16 is compressed weights."""

from __future__ import annotations

from pathlib import Path

from edgecnn.artifact import Precision
from edgecnn.formats import Converted, Format, Source
from edgecnn.formats.onnx import fp32_file

FILES = ("model.xml", "model.bin")
NOTES = {"exporter": "openvino.convert_model from ONNX"}


def _convert(source: Source, precision: Precision, out: Path) -> Converted:
    import openvino

    model = openvino.convert_model(fp32_file(source))
    openvino.save_model(model, out / FILES[0], compress_to_fp16=precision == "fp16")
    return Converted(FILES, NOTES)


FORMAT = Format(precisions=("fp32", "fp16"), libraries=("torch", "onnx", "openvino"), extra="train", convert=_convert)
