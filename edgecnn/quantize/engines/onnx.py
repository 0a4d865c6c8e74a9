"""ONNX static QDQ: per-channel int8 weights, uint8 activations."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.formats import Source
from edgecnn.formats.onnx import NOTES, fp32_file
from edgecnn.imaging import Pixels
from edgecnn.quantize.flat import WeightedLayer, find_weights, new_weights
from edgecnn.quantize.ladder import Attempt, Quantizer, TuningSet
from edgecnn.quantize.observe import Tensors, observed_once

MAIN = "model.onnx"
_FLOAT_OUTPUT = ("Gemm", "MatMul")
"""Classifiers whose int8 kernels give float: 8 bits would coarsen the logits."""

_BIAS_STEPS = 2**20
"""Of a bias that stands alone: any number that 32 bits hold would do."""
_NO_BIAS = 1e-12


def write_qdq(attempt: Attempt, tuning: TuningSet, path: Path, fused: Collection[str] = ()) -> None:
    """Write an attempt as a QDQ model, which every engine that reads QDQ can run.

    `fused` are operations that the engine computes within the convolution before them: what they read is not rounded.
    """
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
    _finish(path, fp32, attempt.source.described, fused)


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


def _finish(path: Path, fp32: Path, described: Mapping[str, str], fused: Collection[str]) -> None:
    """What the quantiser does not do, and metadata as in our other ONNX files; it leaves notes of its own."""
    import onnx

    model = onnx.load(path)
    _keep_biases(model, onnx.load(fp32))
    _fuse(model, fused)
    model.producer_name = "edgecnn"
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(described))
    onnx.save(model, path)


def _keep_biases(model: Any, floating: Any) -> None:
    """Finer steps for the bias of channels whose weights are all zero, in place.

    The quantiser gives such weights a scale of 1, so that the bias has steps as coarse as the activations'. One channel
    of MobileNetV3 that lost its −0.06 so left the logits with 10 dB, where rounded weights alone left them with 19.
    """
    from onnx.numpy_helper import from_array, to_array

    constants = {one.name: one for one in model.graph.initializer}
    biases = {one.name: to_array(one) for one in floating.graph.initializer}
    inputs = {node.name: node.input for node in floating.graph.node}
    whole = {node.output[0]: node.input for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        if node.op_type != "Conv" or len(node.input) < 3 or any(name not in whole for name in node.input):
            continue
        values, weight, bias = (whole[name] for name in node.input)
        wanted = biases[inputs[node.name][2]]
        whole_weight = to_array(constants[weight[0]])
        zero = ~whole_weight.reshape(len(whole_weight), -1).any(axis=1) & (np.abs(wanted) > _NO_BIAS)
        if not zero.any():
            continue
        step = float(to_array(constants[values[1]]))
        scales, whole_bias = to_array(constants[weight[1]]).copy(), to_array(constants[bias[0]]).copy()
        scales[zero] = np.abs(wanted[zero]) / (step * _BIAS_STEPS)
        bias_scales = np.where(zero, scales * step, to_array(constants[bias[1]])).astype(np.float32)
        whole_bias[zero] = np.round(wanted[zero] / bias_scales[zero])
        for name, array in ((weight[1], scales), (bias[1], bias_scales), (bias[0], whole_bias)):
            constants[name].CopyFrom(from_array(array, name))


def _fuse(model: Any, fused: Collection[str]) -> None:
    """Take out the rounding between a convolution and an operation of these types that alone reads it, in place."""
    makers = {name: node for node in model.graph.node for name in node.output}
    readers = Counter(name for node in model.graph.node for name in node.input)
    for node in [node for node in model.graph.node if node.op_type in fused]:
        line = [node]
        while len(line) < 4 and line[-1].input[0] in makers and readers[line[-1].input[0]] == 1:
            line.append(makers[line[-1].input[0]])
        if [one.op_type for one in line[1:]] == ["DequantizeLinear", "QuantizeLinear", "Conv"]:
            node.input[0] = line[-1].output[0]
            model.graph.node.remove(line[1])
            model.graph.node.remove(line[2])


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
    runtime="onnxruntime", write=_write, libraries=("torch", "onnx", "onnxruntime"), extra="train", notes=NOTES
)
