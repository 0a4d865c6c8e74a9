"""Observers: from the values that a float network's tensors take to the ranges that int8 shall cover."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.imaging import Images

BINS = 2048
_SAMPLES = 50_000
"""Values of one tensor and image that enter the histogram, evenly strided."""


@dataclass(frozen=True)
class Histogram:
    """Values of one tensor over all calibration images."""

    counts: NDArray[np.float64]
    """(BINS,), evenly spaced between low and high."""
    low: float
    high: float


Range = tuple[float, float]
Observer = Callable[[Histogram], Range]


def observe(model: Path, images: Images, threads: int) -> dict[str, Histogram]:
    """Histograms of every float tensor of an ONNX model. Two passes: the extremes, then the counts. Memory does not
    grow with the number of images.
    """
    session, names = _session_with_all_tensors(model, threads)
    low = dict.fromkeys(names, np.inf)
    high = dict.fromkeys(names, -np.inf)
    for image in images:
        for name, values in zip(names, session.run(names, {"images": image[None]}), strict=True):
            low[name], high[name] = min(low[name], float(values.min())), max(high[name], float(values.max()))
    counts = {name: np.zeros(BINS) for name in names}
    for image in images:
        for name, values in zip(names, session.run(names, {"images": image[None]}), strict=True):
            flat = values.ravel()
            flat = flat[:: max(1, flat.size // _SAMPLES)]
            width = max(high[name] - low[name], 1e-12)
            bins = np.minimum(((flat - low[name]) * (BINS / width)).astype(np.int64), BINS - 1)
            counts[name] += np.bincount(bins, minlength=BINS)
    return {name: Histogram(counts[name], low[name], high[name]) for name in names}


def save_histograms(histograms: dict[str, Histogram], path: Path) -> None:
    """Write an .npz (arrays only)."""
    np.savez(
        path,
        names=np.array(list(histograms)),
        counts=np.stack([histogram.counts for histogram in histograms.values()]),
        extremes=np.array([(histogram.low, histogram.high) for histogram in histograms.values()]),
    )


def load_histograms(path: Path) -> dict[str, Histogram]:
    """Read what `save_histograms` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        rows = zip(arrays["names"], arrays["counts"], arrays["extremes"], strict=True)
        return {str(name): Histogram(counts, float(low), float(high)) for name, counts, (low, high) in rows}


def percentile(share: float) -> Observer:
    """Leave out (100 − share) % of the values at each end."""

    def ranged(histogram: Histogram) -> Range:
        edges = np.linspace(histogram.low, histogram.high, BINS + 1)
        cumulative = np.cumsum(histogram.counts) / histogram.counts.sum()
        first = int(np.searchsorted(cumulative, 1 - share / 100))
        last = int(np.searchsorted(cumulative, share / 100))
        return float(edges[first]), float(edges[min(last + 1, BINS)])

    return ranged


def least_error(levels: int = 256) -> Observer:
    """The range with the smallest expected squared error of rounding inside and clipping outside.

    After Banner et al., Post training 4-bit quantization of convolutional networks, NeurIPS 2019, from the measured
    histogram instead of an assumed distribution.
    """

    def ranged(histogram: Histogram) -> Range:
        centres = np.linspace(histogram.low, histogram.high, BINS, endpoint=False)
        centres += (histogram.high - histogram.low) / BINS / 2
        low, high = histogram.low, histogram.high
        shares = np.linspace(0.2, 1.0, 81)
        for _ in range(2):
            high = min(
                (share * histogram.high for share in shares), key=lambda h: _error(histogram, centres, low, h, levels)
            )
            if histogram.low < 0:
                low = min(
                    (share * histogram.low for share in shares),
                    key=lambda b: _error(histogram, centres, b, high, levels),
                )
        return float(low), float(high)

    return ranged


def _error(histogram: Histogram, centres: NDArray[np.float64], low: float, high: float, levels: int) -> float:
    low, high = min(low, 0.0), max(high, 0.0)
    if high <= low:
        return np.inf
    step = (high - low) / (levels - 1)
    clipped = np.clip(centres, low, high) - centres
    inside = clipped == 0
    return float((histogram.counts * np.where(inside, step**2 / 12, clipped**2)).sum())


def _session_with_all_tensors(model_path: Path, threads: int):  # type: ignore[no-untyped-def]
    import onnx
    import onnxruntime

    model = onnx.shape_inference.infer_shapes(onnx.load(model_path))
    floats = {
        value.name
        for value in model.graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and value.type.tensor_type.shape.dim
    }
    constants = {initializer.name for initializer in model.graph.initializer}
    outputs = {output.name for output in model.graph.output}
    names = [
        name for node in model.graph.node for name in node.output if name in floats | outputs and name not in constants
    ]
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names if name not in outputs
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]), names
