"""ONNX static QDQ: per-channel int8 weights, uint8 activations, clipping observers."""

from __future__ import annotations

import logging
import shutil
from functools import partial
from pathlib import Path

import numpy as np

from edgecnn.formats import Converted, Source
from edgecnn.formats.onnx import NOTES, fp32_file
from edgecnn.quantize.ladder import Rung, TuningSet, climb
from edgecnn.quantize.observe import (
    Histogram,
    Observer,
    least_error,
    load_histograms,
    observe,
    percentile,
    save_histograms,
)


def qdq_rungs(source: Source, tuning: TuningSet) -> list[Rung]:
    """The ways to write a QDQ model, which every engine that reads QDQ can climb."""
    fp32 = fp32_file(source)
    histograms = _observed(fp32, tuning, source.work / "histograms.npz")
    make = partial(_quantize_once, fp32, histograms)
    classifier = _classifier(fp32)
    return [
        Rung("per channel, percentile 99.99", partial(make, percentile(99.99), ())),
        Rung("per channel, least squared error", partial(make, least_error(), ())),
        Rung("per channel, percentile 99.999", partial(make, percentile(99.999), ())),
        Rung("per channel, percentile 99.99, float classifier", partial(make, percentile(99.99), classifier)),
        Rung("per channel, least squared error, float classifier", partial(make, least_error(), classifier)),
    ]


def _quantize(source: Source, tuning: TuningSet, out: Path) -> Converted:
    rungs = qdq_rungs(source, tuning)
    taken, notes = climb(rungs, "onnxruntime", tuning, source.work / "onnx-int8", "model.onnx")
    shutil.copyfile(taken, out / "model.onnx")
    return Converted(("model.onnx",), {**NOTES, **notes})


def _observed(fp32: Path, tuning: TuningSet, cache: Path) -> dict[str, Histogram]:
    """Observed once per export: several formats start from the same ranges."""
    if not cache.exists():
        save_histograms(observe(fp32, tuning.calibration, tuning.threads), cache)
    return load_histograms(cache)


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


QUANTIZE = _quantize
