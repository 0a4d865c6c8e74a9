"""ONNX static QDQ: per-channel int8 weights, uint8 activations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from edgecnn.formats import Source
from edgecnn.formats.onnx import NOTES, fp32_file
from edgecnn.imaging import Pixels
from edgecnn.quantize.ladder import Attempt, Quantizer, TuningSet
from edgecnn.quantize.network import WeightedLayer, find_weights, new_weights
from edgecnn.quantize.observe import Tensors, observed_once

MAIN = "model.onnx"
_FLOAT_OUTPUT = ("Gemm", "MatMul")
"""Classifiers whose int8 kernels give float: 8 bits would coarsen the logits."""


def write_qdq(attempt: Attempt, tuning: TuningSet, path: Path) -> None:
    """Write an attempt as a QDQ model, which every engine that reads QDQ can run."""
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        TensorData,
        TensorsData,
        quantize_static,
        save_tensors_data,
    )

    fp32 = float_file(attempt.source)
    observed = attempt.observed_in
    histograms = observed_once(
        observed.work / "onnx-histograms.npz",
        lambda: _all_tensors(float_file(observed), tuning.threads),
        tuning.calibration,
    )
    ranges = {
        name: TensorData(**dict(zip(("lowest", "highest"), map(np.float32, attempt.observed(histogram)), strict=True)))
        for name, histogram in histograms.items()
    }
    last, logits = _last_operation(fp32)
    # Logits that an observer clips are the highest, which decide.
    low, high = histograms[logits].low, histograms[logits].high
    ranges[logits] = TensorData(lowest=np.float32(low), highest=np.float32(high))
    cache = path.with_suffix(".ranges.json")
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, ranges), cache)
    logging.disable(logging.WARNING)  # it advises a pre-processing that the exporter has done
    try:
        quantize_static(
            fp32,
            path,
            None,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=nodes_of(fp32, attempt.in_float),
            calibrate_method=CalibrationMethod.MinMax,
            calibration_cache_path=cache,
            extra_options={"OpTypesToExcludeOutputQuantization": [last] if last in _FLOAT_OUTPUT else []},
        )
    finally:
        logging.disable(logging.NOTSET)
        cache.unlink(missing_ok=True)
    _describe(path, attempt.source.described)


def _last_operation(fp32: Path) -> tuple[str, str]:
    """The type of the operation that gives the logits, and their name."""
    import onnx

    graph = onnx.load(fp32).graph
    logits = graph.output[0].name
    return next(node.op_type for node in graph.node if logits in node.output), logits


def float_file(source: Source) -> Path:
    """The float file that int8 is made from, converted once per network; from its twin's where that is enough."""
    path = source.work / "reweighted.onnx"
    return path if path.exists() or _reweighted(source, path) else fp32_file(source)


def _reweighted(source: Source, path: Path) -> bool:
    import onnx

    weights = source.twin and new_weights(source.twin.module, source.module)
    if source.twin is None or not weights:
        return False
    model = onnx.load(fp32_file(source.twin))
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    users = {node.input[1]: node for node in model.graph.node if len(node.input) > 2 and node.input[1] in stored}
    found = find_weights([one.layer for one in weights], {key: stored[key] for key in users})
    for one in weights:
        key = found.get(one.layer.name)
        if key is None or users[key].input[2] not in stored or not np.array_equal(stored[key], one.old[0]):
            return False
        if not np.array_equal(stored[users[key].input[2]], one.old[1]):
            return False
        # New constants: equal ones of several layers may be one.
        for position, value in enumerate(one.new, start=1):
            name = f"{users[key].name}_{position}"
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
            users[key].input[position] = name
    read = {name for node in model.graph.node for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in read]:
        model.graph.initializer.remove(tensor)
    unfinished = path.with_suffix(".part")
    onnx.save(model, unfinished)
    unfinished.rename(path)
    return True


def nodes_of(fp32: Path, layers: tuple[WeightedLayer, ...]) -> list[str]:
    """Names of the ONNX nodes that are these layers."""
    import onnx

    graph = onnx.load(fp32).graph
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    users = {name: node.name for node in graph.node for name in node.input if name in weights}
    return [users[key] for key in find_weights(layers, {key: weights[key] for key in users}).values()]


def _write(attempt: Attempt, tuning: TuningSet, out: Path) -> tuple[str, ...]:
    write_qdq(attempt, tuning, out / MAIN)
    return (MAIN,)


def _describe(path: Path, described: Mapping[str, str]) -> None:
    """Metadata as in our other ONNX files; the quantiser leaves notes of its own."""
    import onnx

    model = onnx.load(path)
    model.producer_name = "edgecnn"
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(described))
    onnx.save(model, path)


def _all_tensors(fp32: Path, threads: int) -> Callable[[Pixels], Tensors]:
    """A session that gives every float tensor of the graph."""
    import onnx
    import onnxruntime

    model = onnx.shape_inference.infer_shapes(onnx.load(fp32))
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
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda image: dict(zip(names, session.run(names, {"images": image[None]}), strict=True))


QUANTIZER = Quantizer(
    runtime="onnxruntime", write=_write, needs=("torch", "onnx", "onnxruntime"), extra="train", notes=NOTES
)
