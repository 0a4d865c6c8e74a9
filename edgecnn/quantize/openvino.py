"""OpenVINO int8: from our own QDQ, then by NNCF with fast and accurate bias correction, then a float classifier."""

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
from edgecnn.quantize.onnx import qdq_rungs


def _quantize(source: Source, tuning: TuningSet, out: Path) -> Converted:
    telemetry.forbid()
    import openvino

    by_nncf = partial(_nncf, openvino.convert_model(fp32_file(source)), tuning)
    ours = [Rung(rung.name, partial(_from_qdq, rung)) for rung in qdq_rungs(source, tuning)]
    rungs = [
        *ours[:2],
        Rung("NNCF fast bias correction", partial(by_nncf, fast=True, float_classifier=False)),
        Rung("NNCF accurate bias correction", partial(by_nncf, fast=False, float_classifier=False)),
        Rung("NNCF accurate bias correction, float classifier", partial(by_nncf, fast=False, float_classifier=True)),
        *ours[3:],
    ]
    taken, notes = climb(rungs, "openvino", tuning, source.work / "openvino-int8", FILES[0])
    for file in FILES:
        shutil.copyfile(taken.with_name(file), out / file)
    return Converted(FILES, {**NOTES, **notes})


def _from_qdq(rung: Rung, path: Path) -> None:
    """OpenVINO reads QDQ and runs it in int8."""
    import openvino

    qdq = path.with_suffix(".onnx")
    rung.make(qdq)
    openvino.save_model(openvino.convert_model(qdq), path, compress_to_fp16=False)


def _nncf(model: Any, tuning: TuningSet, path: Path, *, fast: bool, float_classifier: bool) -> None:
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
