"""TorchScript int8: the flat network with torch's own quantized operations in it, traced and frozen.

torch.ao's quantisation is deprecated and torchao's pt2e leaves a graph that TorchScript would run in float. The
quantized:: operations under the former (oneDNN on x86-64) are part of torch, so that they are put into the
graph here: weights int8 per output channel, symmetric; activations uint8 per tensor.
"""

from __future__ import annotations

import json
import platform
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from edgecnn.errors import UserError, first_line
from edgecnn.formats.torchscript import save
from edgecnn.quantize.flat import layers_of
from edgecnn.quantize.grid import StoredWeight
from edgecnn.quantize.ladder import Attempt, Quantizer, TuningSet
from edgecnn.quantize.lowering import (
    Dialect,
    Rewriting,
    Scale,
    clipped_after,
    operation,
    quantized_weight,
    ranges_of,
    reads_batch_size,
    rewrite,
)
from edgecnn.runtimes.pytorch import FACTS, exact_int8, quiet

MAIN = "model.pt"
NOTES = {"exporter": "torch quantized:: operations, torch.jit.trace, freeze", "weights": "int8 per channel, symmetric"}


def _write(attempt: Attempt, tuning: TuningSet, out: Path) -> tuple[str, ...]:
    source = attempt.source
    example = torch.zeros((2, source.height, source.width, 3), dtype=torch.uint8)
    facts = {
        "height": source.height,
        "width": source.width,
        "layers": [layer.name for layer in layers_of(source.module)],
        "machine": platform.machine(),
        "grid": attempt.grid,
    }
    ranges = ranges_of(attempt, tuning)
    with warnings.catch_warnings(), quiet(), exact_int8(), torch.inference_mode():
        # torch.jit and quantized tensors are deprecated as a whole; they stay a format that people deploy.
        warnings.simplefilter("ignore")
        try:
            in_float = frozenset(layer.node for layer in attempt.in_float)
            graph = rewrite(source.module, DIALECT, ranges, in_float, attempt.grid)
            if reads_batch_size(graph):
                raise UserError("torchscript int8: the network computes with its batch size: it cannot be traced")
            traced = torch.jit.trace(graph.eval(), example, check_trace=False)  # type: ignore[no-untyped-call]
            frozen = torch.jit.freeze(traced)
            save(frozen, out / MAIN, {FACTS: json.dumps(facts)})
        except RuntimeError as error:
            raise UserError(f"torchscript int8: torch cannot write this network: {first_line(error)}") from None
    return (MAIN,)


def _stored(path: Path) -> Iterator[StoredWeight]:
    """The packed weights of a frozen file."""
    with warnings.catch_warnings(), quiet(), exact_int8():
        warnings.simplefilter("ignore")
        module: Any = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    for node in module.inlined_graph.nodes():
        if node.kind().startswith(("quantized::conv", "quantized::linear")):
            packed = next(one for one in map(_constant, node.inputs()) if hasattr(one, "unpack"))
            weight = packed.unpack()[0].int_repr().numpy()
            groups = packed.groups() if hasattr(packed, "groups") else 1
            yield StoredWeight(node.output().debugName(), weight, groups)


def _constant(value: Any) -> Any:
    return value.toIValue() if value.node().kind() == "prim::Constant" else None


def _quantize(work: Rewriting, node: Node, tensor: Node, scale: Scale) -> Node:
    return work.call(node, torch.ops.aten.quantize_per_tensor.default, tensor, scale.scale, scale.zero, torch.quint8)


def _dequantize(work: Rewriting, node: Node, tensor: Node, scale: Scale) -> Node:
    return work.call(node, torch.ops.aten.dequantize.self, tensor)


def _layer(work: Rewriting, node: Node) -> bool:
    """A convolution or linear layer, and the activation after it where clipping to the output's range is that."""
    linear = operation(node) == "aten.linear"
    source = node.args[0]
    assert isinstance(source, Node)
    packets = torch.ops.quantized
    if linear and all(user.op == "output" for user in node.users):
        return False  # its output would be in 8 bits, in which logits tie
    packed = work.read(f"{node.name}_packed", _packed(work, node))
    clipped = clipped_after(node)
    if linear:
        call = (packets.linear_relu if clipped else packets.linear).default
    else:
        call = (packets.conv2d_relu if clipped else packets.conv2d).new
    last = clipped or node
    scale = work.scale_of(last)
    work.int8s[last] = work.call(node, call, work.int8_of(source)[0], packed, scale.scale, scale.zero), scale
    work.done.add(last)
    return True


def _packed(work: Rewriting, node: Node) -> Any:
    """A layer's weights with its bias and geometry, as torch keeps them."""
    whole, scales, bias = quantized_weight(work, node)
    zeros = torch.zeros(len(scales), dtype=torch.long)
    weight = torch._make_per_channel_quantized_tensor(whole.to(torch.int8).contiguous(), scales.double(), zeros, 0)
    if weight.dim() == 2:
        return torch.ops.quantized.linear_prepack(weight, bias)
    given: list[Any] = [*node.args[3:], *([1], [0], [1], 1)[max(len(node.args) - 3, 0) :]]
    stride, padding, dilation = (_pair(value) for value in given[:3])
    return torch.ops.quantized.conv2d_prepack(weight, bias, stride, padding, dilation, given[3])


def _pair(value: Any) -> list[int]:
    return [*value, *value] if len(value) == 1 else list(value)


def _moved(work: Rewriting, node: Node) -> bool:
    """Operations that only move, drop or clip values: torch's own, which keep the scale."""
    if operation(node) == "aten.pad" and tuple(node.args[2:]) not in ((), ("constant",), ("constant", 0.0)):
        return False
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverload):
        target = getattr(getattr(torch.ops.aten, operation(node).split(".")[1]), target._overloadname)
    args = map_arg(node.args, lambda arg: work.int8s[arg][0] if arg in work.int8s else work.floats[arg])
    source = node.args[0]
    assert isinstance(source, Node)
    work.int8s[node] = work.call(node, target, *args), work.int8s[source][1]
    return True


def _arithmetic(name: str) -> Callable[[Rewriting, Node], bool]:
    """A sum or product of two tensors, and the activation after it."""

    def write(work: Rewriting, node: Node) -> bool:
        if len(node.all_input_nodes) != 2 or len(node.args) != 2:
            return False
        clipped = clipped_after(node)
        last = clipped or node
        scale = work.scale_of(last)
        call = getattr(torch.ops.quantized, f"{name}_relu" if clipped else name).default
        first, second = (work.int8s[arg][0] for arg in node.all_input_nodes)
        work.int8s[last] = work.call(node, call, first, second, scale.scale, scale.zero), scale
        work.done.add(last)
        return True

    return write


def _concatenated(work: Rewriting, node: Node) -> bool:
    scale = work.scale_of(node)
    parts = [work.int8s[part][0] for part in node.args[0]]  # type: ignore[union-attr,index]
    dim = node.args[1] if len(node.args) > 1 else 0
    work.int8s[node] = work.call(node, torch.ops.quantized.cat.default, parts, dim, scale.scale, scale.zero), scale
    return True


def _hardswish(work: Rewriting, node: Node) -> bool:
    scale = work.scale_of(node)
    (source,) = node.all_input_nodes
    call = torch.ops.quantized.hardswish.default
    work.int8s[node] = work.call(node, call, work.int8s[source][0], scale.scale, scale.zero), scale
    return True


def _gate(work: Rewriting, node: Node) -> bool:
    """(hard) sigmoid, for which torch gives the output the scale 1/256."""
    (source,) = node.all_input_nodes
    call = getattr(torch.ops.aten, operation(node).split(".")[1]).default
    work.int8s[node] = work.call(node, call, work.int8s[source][0]), Scale(1 / 256, 0)
    return True


_KEEP_THE_SCALE = (
    "aten.relu",
    "aten.hardtanh",
    "aten.max_pool2d",
    "aten.pad",
    "aten.flatten.using_ints",
    "aten.reshape",
    "aten.view",
    "aten.permute",
    "aten.transpose.int",
    "aten.slice.Tensor",
    "aten.contiguous",
    "aten.chunk",
    "aten.split.Tensor",
    "aten.split_with_sizes",
    "<built-in function getitem>",
)

DIALECT = Dialect(
    lowest=0,
    quantize=_quantize,
    dequantize=_dequantize,
    layer=_layer,
    operations={
        "aten.add.Tensor": _arithmetic("add"),
        "aten.mul.Tensor": _arithmetic("mul"),
        "aten.cat": _concatenated,
        "aten.hardswish": _hardswish,
        "aten.hardsigmoid": _gate,
        "aten.sigmoid": _gate,
        **dict.fromkeys(_KEEP_THE_SCALE, _moved),
    },
)
QUANTIZER = Quantizer(
    runtime="pytorch", write=_write, libraries=("torch",), extra="train", notes=NOTES, in_pairs=_stored
)
