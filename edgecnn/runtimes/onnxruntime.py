"""ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgecnn.artifact import Precision
from edgecnn.errors import UserError, first_line
from edgecnn.executed import Executed, ExecutedLayer
from edgecnn.imaging import Images
from edgecnn.modelfiles.onnx_shapes import Layer, Node, Shape, layer_behind, layers_of, read_nodes
from edgecnn.require import unasked
from edgecnn.runtimes import Logits, Runtime, Session

_PROVIDERS = ["CPUExecutionProvider"]
_RUNS = 5
"""Profiled after one that is not counted."""
_LAYER = re.compile("Conv|Gemm|MatMul")
_UNCOUNTED = re.compile("Attention|Einsum|LSTM|GRU|RNN")
_PRECISIONS = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "int8", "int8": "int8"}
_QUANTIZES_ITSELF = {"DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}
_NAMED_BY_ENGINE = re.compile(r"^fused |_nchwc$|_token_\d+$|/MatMulScaleFusion/$|/\w+Fusion/$")


@dataclass(frozen=True)
class _Kernel:
    """One kernel of one run, from the engine's profile."""

    name: str
    op: str
    provider: str
    node: int
    """Its index in the graph: in an unoptimised one, that of the file."""
    inputs: tuple[tuple[str, Shape], ...]
    """(type, shape)."""
    outputs: tuple[tuple[str, Shape], ...]
    time_us: float


class _Session(Session):
    def __init__(self, path: Path, precision: Precision, threads: int) -> None:
        self._path, self._precision, self._threads = path, precision, threads
        try:
            self._session = _open(path, _options(threads))
        except Exception as error:  # the engine's own exception types are not public
            raise UserError(f"{path}: ONNX Runtime cannot open it: {first_line(error)}") from None
        self._input = self._session.get_inputs()[0].name

    def run(self, images: Images) -> Logits:
        logits: Logits = self._session.run(None, {self._input: images})[0]
        return logits

    def executed(self) -> Executed:
        """Kernels that really ran, from ONNX Runtime's own profile of a black image.

        The file is run twice more: as deployed, and unoptimised. Optimised kernels have neither the file's names nor
        its shapes (channels are padded to the vector width), so that the MACs are the unoptimised ones.
        """
        nodes = read_nodes(self._path)
        plain = _profile(self._path, self._threads, runs=1, optimised=False)[0]
        runs = _profile(self._path, self._threads, runs=1 + _RUNS)[1:]
        declared = layers_of(nodes, _shapes(plain, nodes))
        kernels = [kernel for kernel in runs[0] if _LAYER.search(kernel.op)]
        found = _match(kernels, declared, nodes)
        layers = [
            ExecutedLayer(
                name=layer.name if layer else kernel.name,
                kind=kernel.op,
                precision=_precision(kernel),
                macs=layer.macs if layer else 0,
            )
            for kernel, layer in zip(kernels, found, strict=True)
        ]
        int8 = {layer.name for layer in declared if layer.int8}
        ran = Counter(kernel.op for kernel in runs[0])
        return Executed(
            layers=tuple(layers),
            providers=tuple(kernel.provider for kernel in runs[0]),
            remarks=(
                *_fallbacks(runs[0]),
                *unasked(self._precision, layers, int8),
                *_untold(kernels, found, declared, runs[0]),
            ),
            quantize_ops=ran["QuantizeLinear"] + ran["DequantizeLinear"],
            quantize_time_share=round(median(map(_quantize_share, runs)), 4),
            fell_back=tuple(one.name for one in layers if one.name in int8 and one.precision != "int8"),
            kernels=dict(sorted(ran.items())),
        )

    def close(self) -> None:
        del self._session


def _options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads steal the core from decoding the next image.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _open(path: Path, options: Any) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(
        str(path),
        options,
        providers=_PROVIDERS,
        # Since 1.21 it quantises, with one scale for all channels, the weights of layers that a file keeps in float
        # between int8 ones. Whoever keeps a layer in float means it.
        disabled_optimizers=["WeightBiasQuantization"],
    )


def _profile(path: Path, threads: int, runs: int, optimised: bool = True) -> list[list[_Kernel]]:
    """The kernels of each run of a black image, in the order of execution."""
    import onnxruntime

    options = _options(threads)
    options.enable_profiling = True
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")  # packed weights have no shape
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = _open(path, options)
        images = session.get_inputs()[0]
        for _ in range(runs):
            session.run(None, {images.name: np.zeros((1, *images.shape[1:]), np.uint8)})
        events = json.loads(Path(session.end_profiling()).read_bytes())
    starts = sorted(event["ts"] for event in events if event.get("name") == "model_run")
    found: list[list[_Kernel]] = [[] for _ in starts]
    for event in sorted(events, key=lambda event: event.get("ts", 0)):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            found[sum(start <= event["ts"] for start in starts) - 1].append(_kernel(event))
    return found


def _kernel(event: Mapping[str, Any]) -> _Kernel:
    about = event["args"]

    def tensors(key: str) -> tuple[tuple[str, Shape], ...]:
        return tuple((kind, tuple(shape)) for tensor in about[key] for kind, shape in tensor.items())

    return _Kernel(
        name=event["name"].removesuffix("_kernel_time"),
        op=about["op_name"],
        provider=about["provider"],
        node=int(about["node_index"]),
        inputs=tensors("input_type_shape"),
        outputs=tensors("output_type_shape"),
        time_us=event["dur"],
    )


def _shapes(kernels: Sequence[_Kernel], nodes: Sequence[Node]) -> dict[int, tuple[list[Shape], list[Shape]]]:
    """Shapes of what the file's nodes took and gave, by their index."""
    return {
        kernel.node: ([shape for _, shape in kernel.inputs], [shape for _, shape in kernel.outputs])
        for kernel in kernels
        # Nodes that the engine adds (conversions of types) come after the file's own.
        if kernel.node < len(nodes) and nodes[kernel.node].op == kernel.op
    }


def _match(kernels: Sequence[_Kernel], layers: Sequence[Layer], nodes: Sequence[Node]) -> list[Layer | None]:
    """The layer of the file that each kernel computes: by name, else the first of that output in the file's order."""
    left = {layer.name: layer for layer in layers}
    found: list[Layer | None] = []
    for kernel in kernels:
        name = _NAMED_BY_ENGINE.sub("", kernel.name)
        found.append(left.pop(name, None) or left.pop(layer_behind(name, nodes) or "", None))
    for place, kernel in enumerate(kernels):
        if found[place] is None:
            same = (name for name, layer in left.items() if _same_output(layer.output, kernel.outputs[0][1]))
            found[place] = left.pop(next(same, ""), None)
    return found


def _same_output(file: Shape, engine: Shape) -> bool:
    """Whether a kernel's output may be a layer's, transposed or with channels padded to the vector width."""
    if len(file) < 2:
        return file == engine
    padded = [(*file[:1], -(-file[1] // block) * block, *file[2:]) for block in (1, 8, 16)]
    return sorted(engine) in map(sorted, padded)


def _precision(kernel: _Kernel) -> str:
    if kernel.op in _QUANTIZES_ITSELF:
        return "int8"
    return _PRECISIONS.get(kernel.inputs[0][0], kernel.inputs[0][0])


def _quantize_share(kernels: Sequence[_Kernel]) -> float:
    """Of the time of all kernels, that of the conversions between int8 and float."""
    spent = sum(kernel.time_us for kernel in kernels if kernel.op in ("QuantizeLinear", "DequantizeLinear"))
    return spent / max(1.0, sum(kernel.time_us for kernel in kernels))


def _fallbacks(kernels: Sequence[_Kernel]) -> list[str]:
    others = Counter(kernel.provider for kernel in kernels if kernel.provider != _PROVIDERS[0])
    return [f"{count} kernels ran on {provider}, not on {_PROVIDERS[0]}" for provider, count in others.items()]


def _untold(
    kernels: Sequence[_Kernel], found: Sequence[Layer | None], declared: Sequence[Layer], ran: Sequence[_Kernel]
) -> list[str]:
    """What the MACs leave out."""
    strange = [kernel.name for kernel, layer in zip(kernels, found, strict=True) if layer is None]
    gone = {layer.name for layer in declared} - {layer.name for layer in found if layer}
    uncounted = {kernel.op for kernel in ran if _UNCOUNTED.search(kernel.op)}
    remarks = []
    if strange:
        remarks.append(f"left out of the MACs, since no layer of the file could be told for them: {', '.join(strange)}")
    if gone:
        remarks.append(f"left out of the MACs, since no kernel could be told for them: {', '.join(sorted(gone))}")
    if uncounted:
        remarks.append(f"MACs of {', '.join(sorted(uncounted))} are not counted")
    return remarks


RUNTIME = Runtime(runs=("onnx",), libraries=("onnxruntime",), extra=None, open=_Session)
