"""LiteRT with XNNPACK on the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Precision
from edgecnn.errors import UserError, first_line
from edgecnn.executed import Executed, ExecutedLayer
from edgecnn.imaging import Images
from edgecnn.modelfiles.interpreter import Interpreter, OperationDetail, TensorDetail
from edgecnn.modelfiles.tflite import hushed
from edgecnn.runtimes import Logits, Runtime, Session

_DELEGATE = "DELEGATE"
_PRECISIONS = {"float32": "fp32", "float16": "fp16", "int8": "int8", "uint8": "int8"}
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
_Sizes: TypeAlias = NDArray[np.int32]


class InterpreterSession(Session):
    """A TFLite interpreter of either package, one image at a time."""

    def __init__(self, engine: str, make: Callable[[Path, int], Interpreter], path: Path, threads: int) -> None:
        try:
            with hushed():
                interpreter = make(path, threads)
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError, OSError) as error:
            raise UserError(f"{path}: {engine} cannot open it: {first_line(error)}") from None
        self._engine, self._interpreter = engine, interpreter
        self._input, self._output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        if self._input["dtype"] not in (np.uint8, np.int8):
            raise UserError(
                f"{path}: {engine} cannot open it as ours: it takes {np.dtype(self._input['dtype'])} instead of pixels"
            )

    def run(self, images: Images) -> Logits:
        interpreter, source, target = self._interpreter, self._input["index"], self._output["index"]
        logits = np.empty((len(images), int(self._output["shape"][-1])), np.float32)
        # int8 is the pixel minus 128: the same bits but the highest.
        pixels = images if self._input["dtype"] == np.uint8 else (images ^ np.uint8(128)).view(np.int8)
        for index, row in enumerate(logits):
            interpreter.set_tensor(source, pixels[index : index + 1])
            interpreter.invoke()
            row[:] = self._in_float(interpreter.get_tensor(target)[0])
        return logits

    def executed(self) -> Executed:
        """From the interpreter's own list of operations after delegation, with the types and shapes of its tensors."""
        nodes = self._interpreter._get_ops_details()
        tensors = {one["index"]: one for one in self._interpreter.get_tensor_details()}
        operations = [node for node in nodes if node["op_name"] != _DELEGATE]
        parts = [node for node in nodes if node["op_name"] == _DELEGATE]
        inside = _delegated(operations, parts)
        layers, float_with_int8 = _layers(operations, tensors, inside)
        outside = Counter(node["op_name"] for node in operations if node["index"] not in inside)
        kinds = Counter(node["op_name"] for node in operations)
        providers = ["XNNPACK"] * bool(parts) + [f"{self._engine} kernels"] * bool(outside)
        remarks = _remarks(self._engine, len(parts), outside, layers)
        if float_with_int8:
            remarks.append(
                f"{len(float_with_int8)} layers have int8 weights but take and give float32, so that they are counted "
                f"as fp32: {', '.join(float_with_int8[:3])}{', …' if len(float_with_int8) > 3 else ''}"
            )
        return Executed(
            layers=tuple(layers),
            providers=tuple(providers),
            remarks=tuple(remarks),
            quantize_ops=sum(kinds[kind] for kind in _CONVERSIONS),
            partitions=len(parts),
            outside_delegate=dict(sorted(outside.items())),
            kernels=dict(sorted(kinds.items())),
        )

    def close(self) -> None:
        del self._interpreter

    def _in_float(self, values: NDArray[np.number]) -> NDArray[np.float32]:
        if values.dtype == np.float32:
            return values.astype(np.float32, copy=False)
        scale, zero_point = self._output["quantization"]
        dequantized: NDArray[np.float32] = (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
        return dequantized


def _delegated(operations: Sequence[OperationDetail], parts: Sequence[OperationDetail]) -> set[int]:
    """Indices of the operations that run inside a delegate: all between a part's inputs and its outputs."""
    producer = {int(tensor): node for node in operations for tensor in node["outputs"]}
    inside: set[int] = set()
    for part in parts:
        given = {int(tensor) for tensor in part["inputs"]}
        open_ends = [int(tensor) for tensor in part["outputs"]]
        while open_ends:
            node = producer.get(open_ends.pop())
            if node is not None and node["index"] not in inside:
                inside.add(node["index"])
                open_ends.extend(int(tensor) for tensor in node["inputs"] if int(tensor) not in given)
    return inside


def _layers(
    operations: Sequence[OperationDetail], tensors: Mapping[int, TensorDetail], inside: Iterable[int]
) -> tuple[list[ExecutedLayer], list[str]]:
    """Layers with their precision, and names of those whose int8 weights meet float activations."""
    dequantized = {
        int(node["outputs"][0])
        for node in operations
        if node["op_name"] == "DEQUANTIZE" and np.dtype(tensors[int(node["inputs"][0])]["dtype"]) == np.int8
    }
    layers: list[ExecutedLayer] = []
    mixed: list[str] = []
    for node in operations:
        kind = node["op_name"]
        counted = _MACS.get(kind)
        if counted is None:
            continue
        ends = [tensors.get(int(index)) for index in node["inputs"]]
        left, weight = (ends[2], ends[1]) if kind == "TRANSPOSE_CONV" else (ends[0], ends[1])
        output = tensors[int(node["outputs"][0])]
        if left is None or weight is None:
            continue
        types = [np.dtype(one["dtype"]).name for one in (left, weight, output)]
        name = _short(output["name"])
        if types[0].startswith("float") and (types[1] == "int8" or int(node["inputs"][1]) in dequantized):
            mixed.append(name)
        where = f"XNNPACK {kind}" if node["index"] in inside else kind
        macs = counted(left["shape"], weight["shape"], output["shape"])
        precision = _PRECISIONS.get(types[0], types[0])
        layers.append(ExecutedLayer(name=name, kind=where, precision=precision, macs=int(macs)))
    return layers, mixed


def _remarks(engine: str, parts: int, outside: Counter[str], layers: Sequence[ExecutedLayer]) -> list[str]:
    between = ", ".join(f"{kind} ×{count}" for kind, count in sorted(outside.items()))
    if not parts:
        return [f"XNNPACK did not take the graph: {engine}'s own kernels run all of it ({between})"]
    remarks = []
    if parts > 1:
        remarks.append(f"XNNPACK took the graph in {parts} parts; outside of them run {between}")
    left_out = sum(not layer.kind.startswith("XNNPACK") for layer in layers)
    if left_out:
        remarks.append(f"{left_out} of {len(layers)} layers run outside XNNPACK")
    return remarks


def _short(name: str) -> str:
    """litert-torch names a tensor package.Class_attribute/package.Class_attribute;: every module around it."""
    modules = [one.rpartition(".")[2] for one in name.split(";")[0].split("/")]
    return ".".join(attribute for _, _, attribute in (one.partition("_") for one in modules) if attribute) or name


def _size(shape: _Sizes) -> int:
    return int(np.prod(shape, dtype=np.int64))


_MACS: Mapping[str, Callable[[_Sizes, _Sizes, _Sizes], int]] = {
    # Weights are (out, height, width, in / groups), (1, height, width, out), (out, in), (out, height, width, in).
    "CONV_2D": lambda left, weight, output: _size(output) * _size(weight[1:]),
    "DEPTHWISE_CONV_2D": lambda left, weight, output: _size(output) * _size(weight[1:3]),
    "FULLY_CONNECTED": lambda left, weight, output: _size(output) * int(weight[-1]),
    "TRANSPOSE_CONV": lambda left, weight, output: _size(left) * _size(weight[:3]),
    "BATCH_MATMUL": lambda left, weight, output: _size(output) * int(left[-1]),
}


def _interpreter(path: Path, threads: int) -> Interpreter:
    from ai_edge_litert import interpreter

    opened: Interpreter = interpreter.Interpreter(model_path=str(path), num_threads=threads)
    return opened


def _open(path: Path, precision: Precision, threads: int) -> InterpreterSession:
    return InterpreterSession("LiteRT", _interpreter, path, threads)


RUNTIME = Runtime(runs=("litert",), libraries=("ai-edge-litert",), extra="litert", open=_open)
