"""PyTorch running TorchScript on the CPU."""

from __future__ import annotations

import json
import os
import platform
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.artifact import Precision
from edgecnn.errors import UserError, first_line
from edgecnn.executed import Executed, ExecutedLayer
from edgecnn.imaging import Images
from edgecnn.require import unasked
from edgecnn.runtimes import Logits, Runtime, Session

FACTS = "edgecnn.json"
"""Inside the file, where it has it: height, width, the layers' names and the machine that int8 was written for."""
_KEEPS_ROWS = {"aten::matmul", "aten::mm", "aten::bmm", "aten::addmm", "aten::linear"}
_CONVOLVES = {"aten::conv1d", "aten::conv2d", "aten::conv3d", "aten::_convolution", "aten::convolution"}


class _Session(Session):
    def __init__(self, path: Path, precision: Precision, threads: int) -> None:
        import torch

        self._precision = precision
        torch.set_num_threads(threads)
        extra = {FACTS: ""}
        try:
            with warnings.catch_warnings(), quiet(), exact_int8():
                warnings.simplefilter("ignore")  # TorchScript is deprecated as a whole and still deployed
                self._module: Any = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise UserError(f"{path}: PyTorch cannot open it: {first_line(error)}") from None
        self._facts: Mapping[str, Any] = json.loads(extra[FACTS] or "{}")
        self._size = self._facts.get("height"), self._facts.get("width")

    def run(self, images: Images) -> Logits:
        import torch

        self._size = images.shape[1:3]
        with torch.inference_mode():
            logits: Logits = self._module(torch.from_numpy(np.require(images, requirements=("C", "W")))).numpy()
        return logits

    def executed(self) -> Executed:
        """Layers of the graph that the interpreter last ran for one image, with the shapes that it met.

        A file without its size inside is asked after its first image, which tells it; before, it has no layers.
        """
        import torch

        height, width = self._size
        if height is None or width is None:
            remark = "the size of the image is not in the file: run one image first"
            return Executed(layers=(), providers=("CPU",), remarks=(remark,))
        image = torch.zeros((1, height, width, 3), dtype=torch.uint8)
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._module(image)
            graph = self._module.graph_for(image)
            layers = _layers(graph, image, self._facts.get("layers", ()))
        kinds = [node.kind() for node in graph.nodes()]
        return Executed(
            layers=tuple(layers),
            providers=("CPU",),
            remarks=(
                *unasked(self._precision, layers, set()),
                *self._remarks(),
            ),
            quantize_ops=sum(kind in ("aten::quantize_per_tensor", "aten::dequantize") for kind in kinds),
        )

    def close(self) -> None:
        del self._module

    def _remarks(self) -> Iterator[str]:
        import torch

        here = platform.machine()
        if self._facts.get("machine", here) != here:
            yield f"int8 was written for {self._facts['machine']} and runs on {here}"
        elif (
            self._facts.get("grid") == "full"
            and here.lower() in ("x86_64", "amd64")
            and not torch.cpu._is_vnni_supported()
        ):
            yield "int8 was written for a processor with VNNI; this one adds products in 16 bits, which may saturate"


@contextmanager
def exact_int8() -> Iterator[None]:
    """Layers that are packed or loaded meanwhile run in oneDNN's int8 where this torch has it.

    The default on x86-64 gives depthwise convolutions to FBGEMM, which adds their products in 16 bits and saturates:
    a MobileNetV2's logits had 12.7 dB that way and 20.4 dB in oneDNN.
    """
    import torch

    engines = torch.backends.quantized
    before = engines.engine
    if before in ("x86", "fbgemm") and "onednn" in engines.supported_engines:
        engines.engine = "onednn"
    try:
        yield
    finally:
        engines.engine = before


def _layers(graph: Any, image: Any, names: Sequence[str]) -> list[ExecutedLayer]:
    """The layers of an executed graph in order: it is run once more with their tensors as outputs."""
    import torch

    graph = graph.copy()
    nodes = [
        node
        for node in graph.nodes()
        if node.kind() in _KEEPS_ROWS | _CONVOLVES or node.kind().startswith(("quantized::conv", "quantized::linear"))
    ]
    first = next(iter(graph.inputs()))
    if not first.uses() and len(list(graph.inputs())) == 2:
        graph.eraseInput(0)  # the module, whose weights are constants of the graph by now
    for node in nodes:
        row = next(value for value in node.inputs() if str(value.type()) == "Tensor")
        graph.registerOutput(row)
        graph.registerOutput(node.output())
    graph.makeMultiOutputIntoTuple()
    values = torch._C._create_function_from_graph("edgecnn_layers", graph)(image)[1:]
    if len(names) != len(nodes):
        names = [node.output().debugName() for node in nodes]
    layers = []
    for index, (node, name) in enumerate(zip(nodes, names, strict=True)):
        per_output = _weights_per_output(node, values[2 * index])
        layers.append(
            ExecutedLayer(
                name=f"layer {index}" if name.isdigit() else name,
                kind=node.kind(),
                precision="int8" if node.kind().startswith("quantized::") else _precision_of(values[2 * index]),
                macs=values[2 * index + 1].numel() * per_output,
            )
        )
    return layers


def _weights_per_output(node: Any, given: Any) -> int:
    """Multiply-accumulates for one value of a layer's output."""
    for value in node.inputs():
        constant: Any = value.toIValue() if value.node().kind() == "prim::Constant" else None
        if hasattr(constant, "unpack"):
            constant = constant.unpack()[0]
        if hasattr(constant, "dim") and constant.dim() > 1:
            if node.kind() in ("aten::matmul", "aten::mm", "aten::bmm", "aten::addmm"):
                return int(constant.shape[-2])
            return int(constant[0].numel())
    return int(given.shape[-1])


def _precision_of(tensor: Any) -> str:
    return {"torch.float32": "fp32", "torch.float16": "fp16", "torch.bfloat16": "bf16"}[str(tensor.dtype)]


@contextmanager
def quiet() -> Iterator[None]:
    """Without what a library's C++ writes to the process's standard error, which Python cannot filter.

    What goes wrong raises an exception all the same.
    """
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


RUNTIME = Runtime(
    runs=("torchscript",),
    libraries=("torch",),
    extra="train",
    open=_Session,
    obeys=("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
    obeys_beside=("ATEN_CPU_CAPABILITY",),
)
