"""OpenVINO int8 by NNCF: its default first, then accurate bias correction, then the classifier in float."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

from edgecnn import telemetry
from edgecnn.formats import Converted, Source
from edgecnn.formats.onnx import fp32_file
from edgecnn.formats.openvino import FILES, NOTES
from edgecnn.quantize.ladder import Rung, TuningSet, climb


def _quantize(source: Source, tuning: TuningSet, out: Path) -> Converted:
    telemetry.forbid()
    import openvino

    make = partial(_quantize_once, openvino.convert_model(fp32_file(source)), tuning)
    rungs = [
        Rung("NNCF fast bias correction", partial(make, fast=True, float_classifier=False)),
        Rung("NNCF accurate bias correction", partial(make, fast=False, float_classifier=False)),
        Rung("NNCF accurate bias correction, float classifier", partial(make, fast=False, float_classifier=True)),
    ]
    taken, notes = climb(rungs, "openvino", tuning, source.work / "openvino-int8", FILES[0])
    for file in FILES:
        shutil.copyfile(taken.with_name(file), out / file)
    return Converted(FILES, {**NOTES, **notes})


def _quantize_once(model: Any, tuning: TuningSet, path: Path, *, fast: bool, float_classifier: bool) -> None:
    telemetry.forbid()
    # torch, which nncf imports, remarks that there is no CUDA.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    ignored = nncf.IgnoredScope(names=[_classifier(model)]) if float_classifier else None
    # Its progress bars go to stdout, which belongs to our results.
    with contextlib.redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):
        quantized = nncf.quantize(
            model.clone(),
            nncf.Dataset([image[None] for image in tuning.calibration]),
            subset_size=len(tuning.calibration),
            fast_bias_correction=fast,
            ignored_scope=ignored,
        )
    openvino.save_model(quantized, path, compress_to_fp16=False)


def _classifier(model: Any) -> str:
    """Name of the last layer with weights."""
    layers = [
        op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() in ("MatMul", "Convolution")
    ]
    return str(layers[-1])


QUANTIZE = _quantize
