"""LiteRT (TFLite): converted by litert-torch, channels last from the pixels to the logits."""

from __future__ import annotations

import contextlib
import io
import logging
import operator
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.artifact import Precision
from edgecnn.errors import UserError, first_line
from edgecnn.formats import Converted, Format, Source
from edgecnn.modelfiles.tflite import describe, hushed

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node
    from torch.fx.node import Argument
    from torch.nn import Module

MAIN = "model.tflite"
NOTES = {"exporter": "litert-torch"}
_AFFINE = {f"aten.{name}.Tensor" for name in ("add", "sub", "mul", "div")}
_MOVING = {"aten.permute.default", "aten.to.dtype", "aten._to_copy.default"}
_ASSERTION = "aten._assert_tensor_metadata.default"
_OPERATION = re.compile(r"(?:aten|torchvision|quantized|prims|higher_order)(?:::|\.)\w+(?:\.\w+)?")


def fp32_file(source: Source) -> Path:
    """The fp32 file, converted once per export: uint8 (1, height, width, 3) to float32 (1, classes)."""
    import torch

    path = source.work / "fp32.tflite"
    if not path.exists():
        example = torch.zeros((1, source.height, source.width, 3), dtype=torch.uint8)
        write(channels_last(captured(source.module, example)), example, path)
    return path


def captured(module: Module, example: Tensor) -> GraphModule:
    """A copy of the module as a torch.fx graph of ATen operations, for inputs like `example`."""
    import torch

    with _quiet():
        try:
            graph = torch.export.export(module, (example,), strict=False).module(check_guards=False)
        except Exception as error:  # whatever the capture of somebody's network raises
            raise UserError(f"LiteRT: torch.export cannot capture this network: {first_line(error)}") from None
    for node in list(graph.graph.nodes):
        if str(node.target) == _ASSERTION:
            graph.graph.erase_node(node)
    return graph


def channels_last(graph: GraphModule) -> GraphModule:
    """Rewrite, in place, what litert-torch would put transposes around; give the graph back."""
    return keep_pooled_dimensions(merge_normalisation(graph))


def keep_pooled_dimensions(graph: GraphModule) -> GraphModule:
    """Make means over height and width that drop both, means that keep them and a flattening, in place."""
    import torch

    aten = torch.ops.aten
    for node in list(graph.graph.nodes):
        if str(node.target) != "aten.mean.dim" or (len(node.args) > 2 and node.args[2]) or node.kwargs:
            continue
        pooled, dimensions = node.args[:2]
        if "val" not in pooled.meta or pooled.meta["val"].dim() != 4 or {one % 4 for one in dimensions} != {2, 3}:
            continue
        with graph.graph.inserting_before(node):
            kept = graph.graph.call_function(aten.mean.dim, (pooled, dimensions, True))
            flat = graph.graph.call_function(aten.flatten.using_ints, (kept, 1))
        kept.meta, flat.meta = dict(node.meta), dict(node.meta)
        node.replace_all_uses_with(flat)
        graph.graph.erase_node(node)
    graph.recompile()
    return graph


def merge_normalisation(graph: GraphModule) -> GraphModule:
    """Make the arithmetic between the pixels and the first layer one depthwise convolution, in place; give it back.

    It is a scale and a shift for each channel, which as separate operations would be rounded three times in int8. And
    a convolution is what litert-torch needs there to keep channels last: it wraps a network that begins with padding,
    as TensorFlow's do, in two transposes.
    """
    import torch

    pixels = next(node for node in graph.graph.nodes if node.op == "placeholder")
    chain = _arithmetic_after(pixels)
    if not any(str(node.target) in _AFFINE for node in chain):
        return graph
    shift, middle, top = (_at(graph, pixels, chain, value) for value in (0, 128, 255))
    scale = (top - shift) / 255
    if shift.shape != (1, 3, 1, 1) or not torch.allclose(shift + 128 * scale, middle, rtol=1e-4, atol=1e-4):
        return graph
    graph.register_buffer("normalisation_scale", scale.reshape(3, 1, 1, 1).float())
    graph.register_buffer("normalisation_shift", shift.reshape(3).float())
    aten, last = torch.ops.aten, chain[-1]
    with graph.graph.inserting_after(last):
        first = graph.graph.call_function(aten.permute.default, (pixels, [0, 3, 1, 2]))
    with graph.graph.inserting_after(first):
        floating = graph.graph.call_function(aten.to.dtype, (first, torch.float32))
    with graph.graph.inserting_after(floating):
        weights = [graph.graph.get_attr(f"normalisation_{name}") for name in ("scale", "shift")]
    with graph.graph.inserting_after(weights[0]):
        merged = graph.graph.call_function(aten.conv2d.default, (floating, *weights, [1, 1], [0, 0], [1, 1], 3))
    # What tensors are named after.
    merged.meta["nn_module_stack"] = {"normalisation": ("normalisation", "edgecnn.Convolution")}
    last.replace_all_uses_with(merged)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def write(module: Module, example: Tensor, path: Path) -> None:
    """Convert a torch module that takes one tensor like `example`. UserError names the operation that LiteRT lacks."""
    with _quiet():
        import litert_torch
        from litert_torch import progress

        progress.config.show_progress = False
        try:
            converted = litert_torch.convert(module, (example,))
        except Exception as error:  # whatever lowering somebody's network raises
            raise UserError(f"LiteRT: {_what_is_missing(error)}") from None
        # Under another name until it is whole: an interrupted export must not be taken for a finished one.
        unfinished = path.with_suffix(".part")
        converted.export(str(unfinished))
        unfinished.rename(path)
    # jax, now loaded, warns at every fork that its threads may be missed in the child; ours start a program there.
    warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)


def _arithmetic_after(pixels: Node) -> list[Node]:
    """Nodes from the pixels on that only move, cast, scale and shift them, and whose results nobody else uses."""
    chain: list[Node] = []
    node = pixels
    while len(node.users) == 1:
        node = next(iter(node.users))
        constant = all(other.op == "get_attr" for other in node.all_input_nodes[1:])
        if str(node.target) not in _AFFINE | _MOVING or not constant or node.all_input_nodes[0] not in (pixels, *chain):
            break
        chain.append(node)
    return chain


def _at(graph: GraphModule, pixels: Node, chain: Sequence[Node], value: int) -> Tensor:
    """What the chain makes of one pixel of that value: (1, 3, 1, 1)."""
    import torch

    values = {pixels: torch.full((1, 1, 1, 3), value, dtype=torch.uint8)}

    def known(argument: Argument) -> Argument:
        if not isinstance(argument, torch.fx.Node):
            return argument
        return values[argument] if argument in values else operator.attrgetter(str(argument.target))(graph)

    with torch.no_grad():
        for node in chain:
            assert callable(node.target)
            values[node] = node.target(*map(known, node.args), **node.kwargs)
    result = values[chain[-1]]
    return result.double()


def _convert(source: Source, precision: Precision, out: Path) -> Converted:
    shutil.copyfile(fp32_file(source), out / MAIN)
    describe(out / MAIN, source.described)
    return Converted(files=(MAIN,), notes=NOTES)


def _what_is_missing(error: Exception) -> str:
    named = _OPERATION.search(str(error))
    if named:
        return f"litert-torch cannot convert {named[0]}: choose another network or leave litert out of the variants"
    return f"litert-torch cannot convert this network: {first_line(error)}"


@contextmanager
def _quiet() -> Iterator[None]:
    """The converter reports its progress on both streams, in Python and in C++."""
    logging_was = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), hushed():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging_was)


FORMAT = Format(precisions=("fp32",), libraries=("torch", "litert-torch"), extra="export-litert", convert=_convert)
