"""OpenVINO IR: converted from the fp32 ONNX; fp16 is compressed weights, int8 is NNCF's."""

from __future__ import annotations

from pathlib import Path

from edgecnn.artifact import Precision
from edgecnn.formats import Converted, Format, Source
from edgecnn.formats.onnx import fp32_file

_FILES = ("model.xml", "model.bin")


def _convert(source: Source, precision: Precision, out: Path) -> Converted:
    import openvino

    model = openvino.convert_model(fp32_file(source))
    notes = {"exporter": "openvino.convert_model from ONNX"}
    if precision == "int8":
        from edgecnn.quantize.nncf_openvino import quantize

        return Converted(_FILES, {**notes, **quantize(model, source.for_int8(), out / "model.xml", source.work)})
    openvino.save_model(model, out / "model.xml", compress_to_fp16=precision == "fp16")
    return Converted(_FILES, notes)


FORMAT = Format(
    precisions=("fp32", "fp16", "int8"), needs=("torch", "onnx", "openvino"), extra="train", convert=_convert
)
