"""TFLite files without an engine: what is stored in them, and the few things that are changed in a finished one."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import one_line_where_damaged

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
"""Operations with constant weights."""
_QUANTIZE = 114
_UINT8, _INT8 = 3, 9
_IDENTIFIER = b"TFL3"
_CHATTER = re.compile(rb"\s*$|INFO: |I\d{4} |W\d{4} .*pytree|WARNING: All log messages before absl::InitializeLog")
_NUMPY = {0: np.float32, 1: np.float16, 2: np.int32, 3: np.uint8, 4: np.int64, 6: np.bool_, 7: np.int16, 9: np.int8}


@dataclass(frozen=True)
class Stored:
    """A tensor as it is stored."""

    name: str
    type: str
    """float32, int8, uint8, int32, …"""
    shape: tuple[int, ...]
    scale: tuple[float, ...]
    """One for each channel, one for all, or none where the tensor is not quantised."""
    zero_point: tuple[int, ...]
    values: NDArray[np.generic] | None
    """Of a constant."""


@dataclass(frozen=True)
class Operation:
    """An operation, in the order of execution."""

    kind: str
    """As the schema names it: CONV_2D, HARD_SWISH, …"""
    inputs: tuple[Stored | None, ...]
    """None where an optional one is left out."""
    outputs: tuple[Stored, ...]

    @property
    def weight(self) -> Stored | None:
        """Of one of WEIGHTED."""
        return self.inputs[1] if self.kind in WEIGHTED else None

    @property
    def activation(self) -> Stored | None:
        """What weights are multiplied with."""
        if self.kind not in WEIGHTED:
            return None
        return self.inputs[2] if self.kind == "TRANSPOSE_CONV" else self.inputs[0]


def operations(path: Path) -> list[Operation]:
    """Of the main graph. UserError where the file is damaged."""
    from ai_edge_litert import schema_py_generated as schema

    kinds = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    types = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
    with one_line_where_damaged(path, ".tflite model"):
        model = _load(path)
        graph = model.subgraphs[0]
        tensors = [_stored(model, tensor, types) for tensor in graph.tensors]
        return [
            Operation(
                kinds[_code(model.operatorCodes[one.opcodeIndex])],
                tuple(tensors[index] if index >= 0 else None for index in one.inputs),
                tuple(tensors[index] for index in one.outputs),
            )
            for one in graph.operators
        ]


def inputs_and_outputs(path: Path) -> tuple[list[Stored], list[Stored]]:
    """Of the main graph. UserError where the file is damaged."""
    from ai_edge_litert import schema_py_generated as schema

    types = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
    with one_line_where_damaged(path, ".tflite model"):
        model = _load(path)
        graph = model.subgraphs[0]
        ends = [[_stored(model, graph.tensors[index], types) for index in end] for end in (graph.inputs, graph.outputs)]
        return ends[0], ends[1]


def describe(path: Path, described: Mapping[str, str]) -> None:
    """Store `described` in the file: an entry of the model's metadata each, and as text in its description.

    Programs read the entries (`edgecnn.modelfiles.metadata`); the description is what Netron shows of a file.
    """
    from ai_edge_litert import schema_py_generated as schema

    if not described:
        return
    model = _load(path)
    entries = {_text(entry.name): entry for entry in model.metadata or []}
    for key, value in described.items():
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(value.encode(), np.uint8)
        entry = schema.MetadataT()
        entry.name, entry.buffer = key, len(model.buffers)
        model.buffers.append(buffer)
        entries[key] = entry
    model.metadata = list(entries.values())
    model.description = "\n".join(f"{key}: {value}" for key, value in described.items())
    _save(model, path)


def replace_constants(path: Path, values: Mapping[str, NDArray[np.generic]], out: Path) -> None:
    """Write the file with other values in these tensors, of the same shape and type."""
    from ai_edge_litert import schema_py_generated as schema

    model = _load(path)
    for tensor in model.subgraphs[0].tensors:
        new = values.get(_text(tensor.name))
        if new is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(new, _NUMPY[tensor.type]).tobytes(), np.uint8)
            tensor.buffer = len(model.buffers)
            model.buffers.append(buffer)
    _drop_unused_buffers(model)
    _save(model, out)


def save(content: bytes, path: Path) -> None:
    """Write a model that ai-edge-quantizer made, with its data inside, as every interpreter reads it."""
    path.write_bytes(content)
    _save(_load(path), path)


def take_uint8(path: Path) -> None:
    """Give a file with an int8 input a uint8 one of the same values, by a first operation that converts.

    int8 and uint8 of one scale differ by 128, so that the conversion is exact.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = _load(path)
    graph = model.subgraphs[0]
    index = int(graph.inputs[0])
    inner = graph.tensors[index]
    if inner.type != _INT8:
        raise ValueError(f"{path}: its input is not int8")
    outer = schema.TensorT()
    outer.name, outer.type, outer.shape = f"{_text(inner.name)}_uint8", _UINT8, inner.shape
    outer.shapeSignature, outer.hasRank = inner.shapeSignature, inner.hasRank
    model.buffers.append(schema.BufferT())
    outer.buffer = len(model.buffers) - 1
    outer.quantization = schema.QuantizationParametersT()
    outer.quantization.scale = list(inner.quantization.scale)
    outer.quantization.zeroPoint = [int(point) + 128 for point in inner.quantization.zeroPoint]
    code = schema.OperatorCodeT()
    # Version 2 is from one integer type to another.
    code.builtinCode, code.deprecatedBuiltinCode, code.version = _QUANTIZE, _QUANTIZE, 2
    model.operatorCodes.append(code)
    convert = schema.OperatorT()
    convert.opcodeIndex = len(model.operatorCodes) - 1
    convert.inputs, convert.outputs = [len(graph.tensors)], [index]
    convert.builtinOptionsType, convert.builtinOptions = (
        schema.BuiltinOptions.QuantizeOptions,
        schema.QuantizeOptionsT(),
    )
    graph.tensors.append(outer)
    graph.operators.insert(0, convert)
    graph.inputs = [len(graph.tensors) - 1]
    for signature in model.signatureDefs or []:
        for named in signature.inputs:
            if named.tensorIndex == index:
                named.tensorIndex = len(graph.tensors) - 1
    _save(model, path)


@contextmanager
def hushed() -> Iterator[None]:
    """What C++ code writes to stderr meanwhile is held back; all but its progress reports is passed on at the end."""
    with contextlib.suppress(ValueError, OSError):
        sys.stderr.flush()
    with _memory_file() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            held.seek(0)
            for line in held:
                if not _CHATTER.match(line):
                    os.write(stderr, line)
            os.close(stderr)


def _memory_file() -> IO[bytes]:
    """A device may have no folder to write to."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return tempfile.TemporaryFile()


@dataclass(frozen=True)
class _Aligned:
    """A buffer as the schema wants it, 16 bytes aligned; its generated Python class does not align."""

    data: bytes

    def Pack(self, builder: Any) -> Any:  # noqa: N802 (the name that ModelT.Pack calls)
        from ai_edge_litert import schema_py_generated as schema

        builder.StartVector(1, len(self.data), 16)
        builder.head -= len(self.data)
        builder.Bytes[builder.head : builder.head + len(self.data)] = self.data
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


def _drop_unused_buffers(model: Any) -> None:
    """Empty what no tensor and no metadata reads; the first one is empty by the format's rule."""
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or []}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None


def _load(path: Path) -> Any:
    """The model with its data inside: ai-edge-quantizer puts them behind it, which older interpreters cannot read."""
    from ai_edge_litert import schema_py_generated as schema

    content = path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content)
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def _save(model: Any, path: Path) -> None:
    import flatbuffers

    plain = model.buffers
    model.buffers = [one if one.data is None else _Aligned(bytes(np.asarray(one.data, np.uint8))) for one in plain]
    builder = flatbuffers.Builder(sum(len(one.data) for one in model.buffers if one.data is not None) + (1 << 20))
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    path.write_bytes(builder.Output())


def _stored(model: Any, tensor: Any, types: Mapping[int, str]) -> Stored:
    data = model.buffers[tensor.buffer].data
    shape = tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()
    values: NDArray[np.generic] | None = None
    if data is not None and len(data) and tensor.type in _NUMPY:
        values = np.frombuffer(bytes(np.asarray(data, np.uint8)), _NUMPY[tensor.type]).reshape(shape)
    known = tensor.quantization
    scale = () if known is None or known.scale is None else tuple(float(one) for one in known.scale)
    points = () if known is None or known.zeroPoint is None else tuple(int(one) for one in known.zeroPoint)
    return Stored(_text(tensor.name), types[tensor.type], shape, scale, points, values)


def _code(operator: Any) -> int:
    """Codes above 127 do not fit the older field."""
    return max(int(operator.builtinCode), int(operator.deprecatedBuiltinCode))


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
