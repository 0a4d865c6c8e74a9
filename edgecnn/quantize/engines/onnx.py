"""ONNX static QDQ: per-channel int8 weights, uint8 activations."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.errors import UserError
from edgecnn.formats import Source
from edgecnn.formats.onnx import NOTES, fp32_file
from edgecnn.imaging import Pixels
from edgecnn.quantize.flat import WeightedLayer, keys_of, replacements
from edgecnn.quantize.grid import Grid, StoredWeight, whole_weights
from edgecnn.quantize.ladder import Attempt, Quantizer, TuningSet
from edgecnn.quantize.observe import Tensors, observed_once

if TYPE_CHECKING:
    from onnx import ModelProto

Number = TypeVar("Number", bound=np.generic)

MAIN = "model.onnx"
_FLOAT_OUTPUT = ("Gemm", "MatMul")
"""Classifiers whose int8 kernels give float: 8 bits would coarsen the logits."""

_KNOWN = ("Conv", "Gemm", "MatMul")
"""Layers of which it is known in which order engines add."""
_ONNX_INT8 = 3
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
    _finish(path, fp32, attempt, fused)


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

    if source.twin is None:
        return False
    model = onnx.load(fp32_file(source.twin))
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    users = {node.input[1]: node for node in model.graph.node if len(node.input) > 2 and node.input[1] in stored}
    new = replacements(source.twin.module, source.module, {key: stored[key] for key in users})
    if new is None:
        return False
    for key, one in new.items():
        bias = stored.get(users[key].input[2])
        if bias is None or not all(map(np.array_equal, (stored[key], bias), one.old)):
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
    """Names of the ONNX nodes that are these layers. UserError where one is not in the file."""
    import onnx

    graph = onnx.load(fp32).graph
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    users = {name: node.name for node in graph.node for name in node.input if name in weights}
    return [users[key] for key in keys_of(layers, {key: weights[key] for key in users}, "ONNX")]


def _write(attempt: Attempt, tuning: TuningSet, out: Path) -> tuple[str, ...]:
    write_qdq(attempt, tuning, out / MAIN)
    return (MAIN,)


def _finish(path: Path, fp32: Path, attempt: Attempt, fused: Collection[str]) -> None:
    """What the quantiser does not do, and metadata as in our other ONNX files; it leaves notes of its own."""
    import onnx

    model = onnx.load(path)
    _set_weights(model, onnx.load(fp32), attempt.grid)
    _fuse(model, fused)
    model.producer_name = "edgecnn"
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(attempt.source.described))
    onnx.save(model, path)


def _set_weights(model: ModelProto, floating: ModelProto, grid: Grid) -> None:
    """Weights rounded as ours are, and biases in steps that fit them, in place.

    The quantiser's own are the largest weight over 127 in every channel. Where all weights are zero it gives them a
    scale of 1, so that the bias has steps as coarse as the activations': one channel of MobileNetV3 that lost its −0.06
    so left the logits with 10 dB, where rounded weights alone left them with 19.
    """
    from onnx.numpy_helper import from_array, to_array

    constants = {one.name: one for one in model.graph.initializer}
    floats = {one.name: to_array(one) for one in floating.graph.initializer}
    inputs = {node.name: node.input for node in floating.graph.node}

    def put(names: Sequence[str], scales: NDArray[np.float32], whole: NDArray[np.generic]) -> None:
        for name, array in zip(names, (whole, scales), strict=False):
            constants[name].CopyFrom(from_array(np.ascontiguousarray(array), name))

    for layer in _int8_layers(model):
        wanted = layer.outputs_first(floats[inputs[layer.name][1]])
        whole, steps = (one.numpy() for one in whole_weights(torch.from_numpy(wanted), grid, layer.groups))
        if layer.bias is not None:
            bias = floats[inputs[layer.name][2]]
            step = float(to_array(constants[layer.values[1]]))
            zero = ~whole.reshape(len(whole), -1).any(axis=1) & (np.abs(bias) > _NO_BIAS)
            steps = np.where(zero, np.abs(bias) / (step * _BIAS_STEPS), steps).astype(np.float32)
            bias_steps = (steps.astype(np.float64) * step).astype(np.float32)
            limits = np.iinfo(np.int32)
            put(layer.bias, bias_steps, np.clip(np.rint(bias / bias_steps), limits.min, limits.max).astype(np.int32))
        put(layer.weight, steps, layer.as_stored(whole.astype(np.int8)))


@dataclass(frozen=True)
class _Int8Layer:
    """A convolution or matrix product whose weights are an int8 constant: names of what it multiplies and adds."""

    name: str
    values: Sequence[str]
    """(tensor, scale, zero point) of what it reads, as of the weights and the bias."""
    weight: Sequence[str]
    bias: Sequence[str] | None
    groups: int
    transposed: bool
    """Whether weights are stored (in, out)."""

    def outputs_first(self, stored: NDArray[Number]) -> NDArray[Number]:
        """(out, in / groups, …), as torch has it."""
        return np.array(stored.T if self.transposed else stored, order="C")

    def as_stored(self, weight: NDArray[Number]) -> NDArray[Number]:
        """The other way."""
        return np.ascontiguousarray(weight.T) if self.transposed else weight


def _int8_layers(model: ModelProto) -> Iterator[_Int8Layer]:
    """UserError for a kind of layer of which it is not known how engines add its products."""
    int8s = {one.name for one in model.graph.initializer if one.data_type == _ONNX_INT8}
    whole = {node.output[0]: node.input for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        constants = [name for name in node.input if name in whole and whole[name][0] in int8s]
        if not constants:
            continue
        settings = {one.name: one.i for one in node.attribute}
        if node.op_type not in _KNOWN or constants != [node.input[1]] or settings.get("transA"):
            raise UserError(f"ONNX int8: {node.name} is a {node.op_type}, whose weights are int8: keep it in float")
        yield _Int8Layer(
            name=node.name,
            values=whole[node.input[0]],
            weight=whole[node.input[1]],
            bias=whole.get(node.input[2]) if len(node.input) > 2 else None,
            groups=settings.get("group", 1),
            transposed=node.op_type == "MatMul" or (node.op_type == "Gemm" and not settings.get("transB")),
        )


def stored_weights(path: Path) -> Iterator[StoredWeight]:
    """The int8 weights of a QDQ file."""
    import onnx

    model = onnx.load(path)
    constants = {one.name: one for one in model.graph.initializer}
    for layer in _int8_layers(model):
        values = layer.outputs_first(onnx.numpy_helper.to_array(constants[layer.weight[0]]))
        yield StoredWeight(layer.name, values, layer.groups)


def _fuse(model: ModelProto, fused: Collection[str]) -> None:
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
    runtime="onnxruntime",
    write=_write,
    libraries=("torch", "onnx", "onnxruntime"),
    extra="train",
    notes=NOTES,
    in_pairs=stored_weights,
)
