"""OpenVINO on the CPU."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from edgecnn.artifact import Precision
from edgecnn.errors import UserError, last_line
from edgecnn.executed import Executed, ExecutedLayer
from edgecnn.imaging import Images
from edgecnn.modelfiles.openvino import Compiled, ElementType, Model, Operation, Port
from edgecnn.require import unasked
from edgecnn.runtimes import Logits, Runtime, Session

_RUNS = 5
"""Profiled after one that is not counted."""
_FILE_LAYERS = {
    "Convolution",
    "GroupConvolution",
    "ConvolutionBackpropData",
    "GroupConvolutionBackpropData",
    "MatMul",
    "ScaledDotProductAttention",
}
_PRECISIONS = {"u8": "int8", "i8": "int8", "f16": "fp16", "bf16": "bf16", "f32": "fp32"}
_LAYERS = {"Convolution", "GroupConvolution", "Deconvolution", "FullyConnected", "MatMul", "Gemm"}
"""Kernels that are layers whatever they are called."""
_CONVERSIONS = {"FakeQuantize", "Reorder", "Convert"}
_PASSIVE = _CONVERSIONS | {"Const", "Input", "Output", "Reshape", "Transpose"}
"""Kernels without arithmetic."""


@dataclass(frozen=True)
class _Kernel:
    """An operation of the compiled graph."""

    name: str
    kind: str
    implementation: str
    """Such as brgconv_avx512_1x1_I8."""
    precision: str
    """Of the arithmetic, in OpenVINO's words."""
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    """(type, shape)."""
    output: tuple[str, tuple[int, ...]]
    origins: tuple[str, ...]
    """Names of the file's operations that were fused into it."""


@dataclass(frozen=True)
class _Layer:
    """A convolution, linear layer or matrix product of the file."""

    name: str
    macs: int
    int8: bool
    """Whether the file asks for int8: the weights are quantised, and so is what they multiply."""
    output: tuple[int, ...]


class _Session(Session):
    def __init__(self, path: Path, precision: Precision, threads: int) -> None:
        self._path, self._precision, self._threads = path, precision, threads
        import openvino

        try:
            compiled = openvino.Core().compile_model(_read(path), "CPU", _settings(threads))
        except RuntimeError as error:
            raise UserError(f"{path}: OpenVINO cannot open it: {last_line(error)}") from None
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        # One input for all calls: binding a new array costs more than copying the pixels.
        self._input = np.zeros(tuple(compiled.input(0).shape), np.uint8)
        self._request.set_input_tensor(openvino.Tensor(self._input, shared_memory=True))

    def run(self, images: Images) -> Logits:
        logits = np.empty((len(images), self._compiled.output(0).shape[1]), np.float32)
        for image, row in zip(images, logits, strict=True):
            np.copyto(self._input[0], image)
            self._request.infer()
            row[:] = self._request.get_output_tensor(0).data[0]
        return logits

    def executed(self) -> Executed:
        """Precision and MACs of each layer in the compiled graph, from OpenVINO's runtime model.

        What the conversions between int8 and float cost is measured on a copy that times each kernel.
        """
        kernels = [_kernel(operation) for operation in self._compiled.get_runtime_model().get_ordered_ops()]
        model = _read(self._path)
        declared = _declared(model)
        layers, untold = _executed(kernels, declared)
        int8 = {layer.name for layer in declared.values() if layer.int8}
        remarks = unasked(self._precision, layers, int8)
        if untold:
            remarks.append(f"left out of the MACs, since no kernel could be told for them: {', '.join(untold)}")
        quantizers = {one.get_friendly_name() for one in model.get_ops() if one.get_type_name() == "FakeQuantize"}
        conversions = [kernel.name for kernel in kernels if _converts(kernel, quantizers)]
        return Executed(
            layers=tuple(layers),
            providers=("CPU",),
            remarks=tuple(remarks),
            quantize_ops=len(conversions),
            quantize_time_share=_time_share(self._compiled, self._threads, conversions),
            fell_back=tuple(one.name for one in layers if one.name in int8 and one.precision != "int8"),
            kernels=dict(sorted(Counter(kernel.kind for kernel in kernels if kernel.kind != "Const").items())),
            precision_hint=_name(self._compiled.get_property("INFERENCE_PRECISION_HINT")),
        )

    def close(self) -> None:
        del self._request, self._compiled


def _settings(threads: int) -> dict[str, str | int]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # The plugin's own default is bf16 or fp16 arithmetic where the processor has it, which nobody
        # asked for. An fp16 file has fp16 weights.
        "INFERENCE_PRECISION_HINT": "f32",
    }


def _kernel(operation: Operation) -> _Kernel:
    about = {key: str(getattr(value, "value", value)) for key, value in operation.get_rt_info().items()}

    def tensor(port: Port) -> tuple[str, tuple[int, ...]]:
        return _name(port.get_element_type()), tuple(port.get_shape())

    return _Kernel(
        name=operation.get_friendly_name(),
        kind=about["layerType"],
        implementation=about["primitiveType"],
        precision=about["runtimePrecision"],
        inputs=tuple(tensor(port) for port in operation.inputs()),
        output=(about["outputPrecisions"].split(",")[0], tuple(operation.output(0).get_shape())),
        origins=tuple(about["originalLayersNames"].split(",")),
    )


def _read(path: Path) -> Model:
    """The file as a model of one image at a time: a dynamic batch would cost shape inference at every call."""
    import openvino

    model: Model = openvino.Core().read_model(path)
    model.reshape([1, *(dimension.get_length() for dimension in model.input(0).partial_shape[1:])])
    return model


def _declared(model: Model) -> dict[str, _Layer]:
    """The layers of the file by the names that a kernel may tell them by."""
    found: dict[str, _Layer] = {}
    for operation in model.get_ordered_ops():
        if operation.get_type_name() in _FILE_LAYERS:
            # A layer with a bias is two operations. The sum has the layer's name, or the output's.
            name = str(operation.get_friendly_name())
            layer = _Layer(
                name.removesuffix("/WithoutBiases"),
                _macs(operation),
                all(map(_is_quantised, operation.inputs()[:2])),
                tuple(operation.output(0).get_shape()),
            )
            users = [user.get_node() for user in operation.output(0).get_target_inputs()]
            sums = [user.get_friendly_name() for user in users if user.get_type_name() == "Add" and len(users) == 1]
            found |= dict.fromkeys([name, *sums], layer)
    return found


def _executed(kernels: Sequence[_Kernel], declared: Mapping[str, _Layer]) -> tuple[list[ExecutedLayer], list[str]]:
    """The layers as they ran, and the names of those for which no kernel could be told.

    A kernel may compute several: attention is one. One whose names are all the engine's own is told by its output.
    """
    left = {id(layer): layer for layer in declared.values()}
    found: list[list[_Layer]] = []
    for kernel in kernels:
        names = [name.removesuffix("/DequantizationMultiply") for name in kernel.origins]
        wanted = [id(declared[name]) for name in names if name in declared and kernel.kind not in _PASSIVE]
        found.append([left.pop(one) for one in dict.fromkeys(wanted) if one in left])
    for kernel, layers in zip(kernels, found, strict=True):
        if not layers and kernel.kind in _LAYERS:
            same = [one for one, layer in left.items() if layer.output == kernel.output[1]]
            layers.extend(left.pop(one) for one in same[:1])
    ran = [
        ExecutedLayer(
            name=layer.name,
            kind=kernel.implementation,
            precision=_PRECISIONS.get(kernel.precision, kernel.precision),
            macs=layer.macs,
        )
        for kernel, layers in zip(kernels, found, strict=True)
        for layer in layers
    ]
    return ran, [layer.name for layer in left.values()]


def _is_quantised(port: Port) -> bool:
    """Whether what comes in was int8 before: behind a FakeQuantize, or an int8 constant or conversion."""
    made = port.get_source_output()
    for _ in range(8):  # Reshape, Transpose, Multiply by the scale, Subtract the zero point, Convert
        node = made.get_node()
        if node.get_type_name() == "FakeQuantize" or _name(made.get_element_type()) in ("i8", "u8"):
            return str(node.get_type_name()) != "Parameter"
        if node.get_type_name() not in ("Reshape", "Transpose", "Multiply", "Subtract", "Convert", "MaxPool"):
            return False
        made = node.input(0).get_source_output()
    return False


def _macs(layer: Operation) -> int:
    """Of an operation of the file. Grouped weights are (groups, out / groups, in / groups, …)."""
    kind = layer.get_type_name()
    shapes = [tuple(map(int, port.get_shape())) for port in layer.inputs()]
    output = tuple(map(int, layer.output(0).get_shape()))
    if kind == "ScaledDotProductAttention":
        return (math.prod(shapes[0]) + math.prod(output)) * shapes[1][-2]
    if kind == "MatMul":
        return math.prod(output) * shapes[0][-2 if layer.get_attributes()["transpose_a"] else -1]
    if "BackpropData" in kind:
        return math.prod(shapes[0]) * math.prod(shapes[1]) // shapes[0][1]
    return math.prod(output) * math.prod(shapes[1]) // output[1]


def _converts(kernel: _Kernel, quantizers: Set[str]) -> bool:
    """Whether a kernel does nothing but bring float values to int8 or back."""
    sides = {_PRECISIONS.get(kind) == "int8" for kind in (kernel.output[0], *(kind for kind, _ in kernel.inputs[:1]))}
    return len(sides) == 2 and (kernel.kind in _CONVERSIONS or set(kernel.origins) <= quantizers)


def _time_share(compiled: Compiled, threads: int, names: Sequence[str]) -> float:
    """Of the time of all kernels, that of the named ones: the median over runs of a black image."""
    if not names:
        return 0.0
    import openvino

    # What was compiled is imported again with timing of kernels, which costs a tenth of compiling it again.
    settings = {**_settings(threads), "PERF_COUNT": True}
    timed = openvino.Core().import_model(compiled.export_model().getvalue(), "CPU", settings)
    request = timed.create_infer_request()
    shares: list[float] = []
    for _ in range(1 + _RUNS):
        request.infer({0: np.zeros(tuple(timed.input(0).shape), np.uint8)})
        times = {one.node_name: one.real_time.total_seconds() for one in request.profiling_info}
        shares.append(sum(times.get(name, 0.0) for name in names) / max(sum(times.values()), 1e-9))
    return round(median(shares[1:]), 4)


def _name(element_type: ElementType) -> str:
    """OpenVINO's type as its runtime model writes it: f32, u8, …"""
    return str(element_type.to_string() if hasattr(element_type, "to_string") else element_type)


RUNTIME = Runtime(
    runs=("openvino",),
    libraries=("openvino",),
    extra="openvino",
    open=_Session,
    obeys=("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
)
