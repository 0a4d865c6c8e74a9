"""TensorRT on an NVIDIA GPU.

Untried: written to the documented Python API of TensorRT 10 and 11 and cuda.bindings 12 and 13 on a machine without
a GPU.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgecnn.artifact import Precision
from edgecnn.errors import MissingExtra, UserError, first_line
from edgecnn.executed import Executed, ExecutedLayer
from edgecnn.imaging import Images
from edgecnn.require import unasked
from edgecnn.runtimes import Logits, Runtime, Session

_ABOUT = "engine.json"
_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_TYPES = {
    "int8": "int8", "bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "half": "fp16", "fp32": "fp32", "float": "fp32",
}  # fmt: skip
_TYPE = re.compile(rf"\b({'|'.join(_TYPES)})\b", re.IGNORECASE)


class _Session(Session):
    def __init__(self, path: Path, precision: Precision, threads: int) -> None:
        del threads  # of the host, which has nothing to compute
        self._precision = precision
        about = _about(path)
        self._layers = [(str(name), int(macs)) for name, macs in about.get("layers", [])]
        self._cuda = _cuda(path, about.get("gpu", {}))
        import tensorrt as trt

        self._log = trt.Logger(trt.Logger.ERROR)  # must outlive the engine
        self._engine = trt.Runtime(self._log).deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise UserError(
                f"{path}: TensorRT {trt.__version__} cannot open it: not an engine, or built by TensorRT"
                f" {about.get('tensorrt', 'of another version')}: export it on this machine"
            )
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        # One image at a time, through the same memory: allocating at every call would cost more than copying.
        self._input = np.zeros(tuple(self._engine.get_tensor_shape(inputs[0])), np.uint8)
        self._output = np.zeros(tuple(self._engine.get_tensor_shape(outputs[0])), np.float32)
        self._stream = _done(self._cuda.cudaStreamCreate())
        self._on_gpu = [_done(self._cuda.cudaMalloc(array.nbytes)) for array in (self._input, self._output)]
        for name, memory in zip((inputs[0], outputs[0]), self._on_gpu, strict=True):
            self._context.set_tensor_address(name, int(memory))

    def run(self, images: Images) -> Logits:
        cuda, stream = self._cuda, self._stream
        pixels, answer = self._on_gpu
        to, back = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        logits = np.empty((len(images), self._output.shape[1]), np.float32)
        for image, row in zip(images, logits, strict=True):
            np.copyto(self._input[0], image)
            _done(cuda.cudaMemcpyAsync(pixels, self._input.ctypes.data, self._input.nbytes, to, stream))
            if not self._context.execute_async_v3(int(stream)):
                raise UserError("TensorRT: the engine failed to run")
            _done(cuda.cudaMemcpyAsync(self._output.ctypes.data, answer, self._output.nbytes, back, stream))
            _done(cuda.cudaStreamSynchronize(stream))
            row[:] = self._output[0]
        return logits

    def executed(self) -> Executed:
        """Precision of each layer from TensorRT's engine inspector; MACs as counted when the engine was built."""
        import tensorrt as trt

        inspector = self._engine.create_engine_inspector()
        told = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
        kernels = [kernel for kernel in told.get("Layers", []) if isinstance(kernel, dict)]
        layers, untold = layers_ran(kernels, self._layers)
        remarks = unasked(self._precision, layers, set())
        if untold:
            remarks.append(f"left out of the MACs, since no kernel could be told for them: {', '.join(untold)}")
        return Executed(
            layers=tuple(layers),
            providers=("TensorRT",),
            remarks=tuple(remarks),
            kernels=dict(sorted(Counter(str(kernel.get("LayerType", "")) for kernel in kernels).items())),
        )

    def close(self) -> None:
        for memory in self._on_gpu:
            self._cuda.cudaFree(memory)
        self._cuda.cudaStreamDestroy(self._stream)
        del self._context, self._engine


def layers_ran(
    kernels: Sequence[Mapping[str, Any]], declared: Sequence[tuple[str, int]]
) -> tuple[list[ExecutedLayer], list[str]]:
    """The file's layers, (name, MACs), as the inspector's kernels ran them, and the names of those it does not tell.

    A kernel names the ONNX nodes that were fused into it in its metadata, or joined by + in its own name.
    """
    left = dict(declared)
    layers = []
    for kernel in kernels:
        origins = _ORIGIN.findall(kernel.get("Metadata", "")) or str(kernel.get("Name", "")).split(" + ")
        precision = _precision(kernel)
        for name in dict.fromkeys(origins):
            if name in left and precision:
                kind = str(kernel.get("TacticName") or kernel.get("LayerType", ""))
                layers.append(ExecutedLayer(name=name, kind=kind, precision=precision, macs=left.pop(name)))
    return layers, list(left)


def _precision(kernel: Mapping[str, Any]) -> str | None:
    """Of what a kernel multiplies: its first input's; None where it is not said or not a number's."""
    inputs = kernel.get("Inputs") or [{}]
    found = _TYPE.search(str(inputs[0].get("Format/Datatype", "")))
    return _TYPES[found[1].lower()] if found else None


def _about(path: Path) -> dict[str, Any]:
    """What was written beside the engine when it was built; empty where nothing was."""
    try:
        about: dict[str, Any] = json.loads(path.with_name(_ABOUT).read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path.with_name(_ABOUT)}: TensorRT cannot open it: {first_line(error)}") from None
    return about


def _cuda(path: Path, built_on: Mapping[str, str]) -> ModuleType:
    """cuda.bindings' runtime, where there is a GPU and it is of the kind that the engine was built on."""
    try:
        from cuda.bindings import runtime as cuda
    except ImportError:
        raise MissingExtra("cuda-bindings", "tensorrt") from None
    status, count = cuda.cudaGetDeviceCount()
    if int(status) != 0 or not count:
        why = cuda.cudaGetErrorString(status)[1].decode()
        raise UserError(f"{path}: TensorRT cannot open it: no NVIDIA GPU here ({why})")
    properties = _done(cuda.cudaGetDeviceProperties(0))
    name, capability = properties.name.decode().rstrip("\0"), f"{properties.major}.{properties.minor}"
    if built_on and (name, capability) != (built_on["name"], built_on["capability"]):
        raise UserError(
            f"{path}: TensorRT cannot open it: built on {built_on['name']} ({built_on['capability']}), and this is"
            f" {name} ({capability}): export it on this machine"
        )
    module: ModuleType = cuda
    return module


def _done(answer: Sequence[Any]) -> Any:
    """What a CUDA call gives beside its status. UserError where it failed."""
    status, *results = answer
    if int(status) != 0:
        raise UserError(f"TensorRT: CUDA failed: {status.name}")
    return results[0] if results else None


RUNTIME = Runtime(runs=("tensorrt",), libraries=("tensorrt", "cuda-bindings"), extra="tensorrt", open=_Session)
