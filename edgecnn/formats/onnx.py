"""ONNX: exported by torch.export, slimmed, in one file."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgecnn.artifact import Precision
from edgecnn.errors import UserError
from edgecnn.formats import Converted, Format, Source

OPSET = 20
NOTES = {"exporter": "torch.onnx (dynamo), onnxslim", "opset": OPSET}


def fp32_file(source: Source) -> Path:
    """The fp32 ONNX file, exported once per export and shared by the formats that start from it."""
    path = source.work / "fp32.onnx"
    if not path.exists():
        _export(source, path)
    return path


def _convert(source: Source, precision: Precision, out: Path) -> Converted:
    shutil.copyfile(fp32_file(source), out / "model.onnx")
    return Converted(files=("model.onnx",), notes=NOTES)


def _export(source: Source, path: Path) -> None:
    import onnx
    import onnxslim
    import torch

    example = torch.zeros((2, source.height, source.width, 3), dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            source.module,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
        if program is None:
            raise UserError("ONNX: torch.onnx.export returned nothing for this network")
        model = onnxslim.slim(program.model_proto)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset != OPSET:
        raise UserError(
            f"ONNX: opset {opset} was written where {OPSET} was asked for: this exporter cannot be relied on"
        )
    onnx.checker.check_model(model)
    onnx.save(model, path)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its progress and its own deprecations on both streams."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


FORMAT = Format(
    precisions=("fp32",), needs=("torch", "onnx", "onnxscript", "onnxslim"), extra="train", convert=_convert
)
