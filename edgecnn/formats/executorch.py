"""ExecuTorch: exported for one image, lowered to XNNPACK where XNNPACK can."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.artifact import Precision
from edgecnn.errors import UserError, first_line
from edgecnn.formats import Converted, Format, Source
from edgecnn.modelfiles.executorch import Account, CompiledLayer

if TYPE_CHECKING:
    from torch.fx import Graph, GraphModule, Node

FILES = ("model.pte", "model.json")
"""The program, and the compiler's account of it, which the engine cannot give: names and sizes of the layers."""
NOTES = {"exporter": "torch.export, executorch to_edge_transform_and_lower, XNNPACK", "batch": 1}
LIBRARIES = ("torch", "executorch", "torchao")
_WEIGHTED = ("conv1d", "conv2d", "convolution", "linear", "addmm")


def write_program(graph: GraphModule, source: Source, out: Path) -> None:
    """Write a torch.fx GraphModule of ATen operations, uint8 (1, h, w, 3) to logits, as a program of ExecuTorch."""
    import torch

    example = (torch.zeros((1, source.height, source.width, 3), dtype=torch.uint8),)
    names = [_module_name(node) for node in graph.graph.nodes if _is_layer(node)]
    try:
        with _quiet(), torch.no_grad():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            exported = torch.export.export(_suited(graph), example, strict=False)
            layers = _layers(exported.graph, names)
            edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
            nodes = [node for node in edge.exported_program().graph.nodes if node.op == "call_function"]
            program = edge.to_executorch().buffer
    except Exception as error:  # whatever the compiler raises at somebody's network
        raise UserError(f"executorch: it cannot compile this network: {first_line(error)}") from None
    (out / FILES[0]).write_bytes(program)
    (out / FILES[1]).write_text(json.dumps(_account(nodes, layers, source), indent=1) + "\n", encoding="utf-8")


def _convert(source: Source, precision: Precision, out: Path) -> Converted:
    import torch

    example = (torch.zeros((1, source.height, source.width, 3), dtype=torch.uint8),)
    try:
        with _quiet(), torch.no_grad():
            graph = torch.export.export(source.module, example, strict=False).module(check_guards=False)
    except Exception as error:  # whatever the capture of somebody's network raises
        raise UserError(f"executorch: torch.export cannot capture this network: {first_line(error)}") from None
    write_program(graph, source, out)
    return Converted(FILES, NOTES)


def _suited(graph: GraphModule) -> GraphModule:
    """The same arithmetic in the operations that XNNPACK takes, so that the network is not cut into parts.

    Pixels are cast before their axes are exchanged, an average over the whole image is a mean, and numbers beside float
    tensors are floats (a hard sigmoid's, taken apart by torch, would be integers, cast for every image).
    """
    import torch

    aten = torch.ops.aten
    for node in list(graph.graph.nodes):
        name = str(node.target)
        with graph.graph.inserting_before(node):
            if name == "aten.to.dtype" and str(node.args[0].target) == "aten.permute.default":
                images, axes = node.args[0].args
                cast = graph.graph.call_function(aten.to.dtype, (images, *node.args[1:]), dict(node.kwargs))
                node.replace_all_uses_with(graph.graph.call_function(aten.permute.default, (cast, axes)))
            elif name == "aten.adaptive_avg_pool2d.default" and set(node.args[1]) == {1}:
                node.replace_all_uses_with(graph.graph.call_function(aten.mean.dim, (node.args[0], [2, 3], True)))
            elif name in ("aten.hardsigmoid.default", "aten.hardsigmoid_.default"):
                shifted = graph.graph.call_function(aten.add.Tensor, (node.args[0], 3.0))
                clipped = graph.graph.call_function(aten.clamp.default, (shifted, 0.0, 6.0))
                node.replace_all_uses_with(graph.graph.call_function(aten.div.Tensor, (clipped, 6.0)))
        if name.startswith(("aten.add.", "aten.sub.", "aten.mul.", "aten.div.")):
            node.args = tuple(float(arg) if type(arg) is int else arg for arg in node.args)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _layers(graph: Graph, names: Sequence[str]) -> list[CompiledLayer]:
    """Name, multiply-accumulates and intended precision of every convolution and linear layer, in order."""
    found: list[CompiledLayer] = []
    for node, name in zip((node for node in graph.nodes if _is_layer(node)), names, strict=True):
        per_output = math.prod(node.args[1].meta["val"].shape[1:])
        precision = "int8" if "dequantize" in str(node.args[1].target) else "fp32"
        macs = node.meta["val"].numel() * per_output
        found.append({"name": name or node.name, "macs": macs, "precision": precision})
    return found


def _account(nodes: Sequence[Node], layers: Sequence[CompiledLayer], source: Source) -> Account:
    operations = Counter(str(node.target.__name__) for node in nodes if callable(node.target))
    partitions = operations.pop("executorch_call_delegate", 0)
    operations.pop("getitem", None)
    return {
        "height": source.height,
        "width": source.width,
        "partitions": partitions,
        "portable_operations": dict(sorted(operations.items())),
        "layers": list(layers),
    }


def _is_layer(node: Node) -> bool:
    return node.op == "call_function" and str(node.target).removeprefix("aten.").startswith(_WEIGHTED)


def _module_name(node: Node) -> str:
    """Path of the module that the operation came from."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]).removeprefix("module.") if stack else ""


@contextmanager
def _quiet() -> Iterator[None]:
    """The compiler reports its own deprecations and progress."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


FORMAT = Format(precisions=("fp32",), libraries=LIBRARIES, extra="export-executorch", convert=_convert)
