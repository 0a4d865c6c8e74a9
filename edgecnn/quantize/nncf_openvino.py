"""OpenVINO int8 by NNCF: its defaults first, then its accurate bias correction, then more layers in float."""

from __future__ import annotations

import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from edgecnn.formats import TuningSet
from edgecnn.quantize import Rung, climb


def quantize(model: Any, tuning: TuningSet, out: Path, work: Path) -> dict[str, Any]:
    """Write the int8 IR to `out` (and its .bin beside it); returns the notes for the record."""
    make = partial(_quantize_once, model, tuning)
    rungs = [
        Rung("NNCF accurate bias correction", partial(make, fast=False, float_classifier=False)),
        Rung("NNCF fast bias correction", partial(make, fast=True, float_classifier=False)),
        Rung("NNCF accurate bias correction, float classifier", partial(make, fast=False, float_classifier=True)),
    ]
    taken, notes = climb(rungs, "openvino", tuning, work / "openvino-int8", "model.xml")
    for suffix in (".xml", ".bin"):
        shutil.copyfile(taken.with_suffix(suffix), out.with_suffix(suffix))
    return notes


def _quantize_once(model: Any, tuning: TuningSet, path: Path, *, fast: bool, float_classifier: bool) -> None:
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    ignored = nncf.IgnoredScope(names=[_classifier(model)]) if float_classifier else None
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
