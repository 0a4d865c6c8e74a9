"""ONNX static QDQ: per-channel int8 weights, uint8 activations, clipping observers."""

from __future__ import annotations

import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.formats import TuningSet
from edgecnn.quantize import Rung, climb
from edgecnn.quantize.observe import Histogram, Observer, least_error, observe, percentile


def quantize(fp32: Path, tuning: TuningSet, out: Path, work: Path) -> dict[str, Any]:
    """Write the int8 model to `out`; returns the notes for the record."""
    histograms = observe(fp32, tuning.calibration, tuning.threads)
    make = partial(_quantize_once, fp32, histograms)
    rungs = [
        Rung("per channel, percentile 99.99", partial(make, percentile(99.99), ())),
        Rung("per channel, least squared error", partial(make, least_error(), ())),
        Rung("per channel, percentile 99.999", partial(make, percentile(99.999), ())),
        Rung("per channel, percentile 99.99, float classifier", partial(make, percentile(99.99), _classifier(fp32))),
        Rung("per channel, least squared error, float classifier", partial(make, least_error(), _classifier(fp32))),
    ]
    taken, notes = climb(rungs, "onnxruntime", tuning, work / "onnx-int8", "model.onnx")
    shutil.copyfile(taken, out)
    return notes


def _quantize_once(
    fp32: Path, histograms: dict[str, Histogram], observer: Observer, in_float: tuple[str, ...], out: Path
) -> None:
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        TensorData,
        TensorsData,
        quantize_static,
        save_tensors_data,
    )

    ranges = {
        name: TensorData(**dict(zip(("lowest", "highest"), map(np.float32, observer(histogram)), strict=True)))
        for name, histogram in histograms.items()
    }
    cache = out.with_suffix(".ranges.json")
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, ranges), cache)
    logging.disable(logging.WARNING)  # it advises a pre-processing that the exporter has done
    try:
        quantize_static(
            fp32,
            out,
            None,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(in_float),
            calibrate_method=CalibrationMethod.MinMax,
            calibration_cache_path=cache,
        )
    finally:
        logging.disable(logging.NOTSET)


def _classifier(fp32: Path) -> tuple[str, ...]:
    """Name of the last layer with weights."""
    import onnx

    layers = [node.name for node in onnx.load(fp32).graph.node if node.op_type in ("Gemm", "MatMul", "Conv")]
    return tuple(layers[-1:])
