"""ExecuTorch int8: quantize and dequantize operations around what XNNPACK runs in int8, then the same lowering as fp32.

This is the graph that torchao's pt2e with ExecuTorch's XNNPACKQuantizer makes, with our ranges: weights int8 per output
channel, symmetric; activations int8 per tensor. The last linear layer scales its input anew for each image, for then
XNNPACK gives its result in float.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgecnn.formats.executorch import FILES, LIBRARIES, NOTES, write_program
from edgecnn.quantize.ladder import Attempt, Quantizer, TuningSet
from edgecnn.quantize.lowering import (
    Dialect,
    Rewriting,
    Scale,
    clipped_after,
    operation,
    quantized_weight,
    ranges_of,
    rewrite,
)
from edgecnn.quantize.observe import Range

_INT8 = (-128, 127, torch.int8)


def _write(attempt: Attempt, tuning: TuningSet, out: Path) -> tuple[str, ...]:
    import torch.ao.quantization.fx._decomposed  # noqa: F401  registers quantized_decomposed::

    source = attempt.source
    ranges = _shared_by_concatenations(source.module, ranges_of(attempt, tuning))
    graph = rewrite(source.module, DIALECT, ranges, frozenset(layer.node for layer in attempt.in_float))
    write_program(graph, source, out)
    return FILES


def _shared_by_concatenations(graph: GraphModule, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """XNNPACK joins only tensors of one scale: what is joined gets the range of the whole."""
    shared = dict(ranges)
    for node in reversed(graph.graph.nodes):
        if operation(node) == "aten.cat":
            for part in node.all_input_nodes:
                shared[part.name] = shared[node.name]
    return shared


def _ops() -> Any:
    return torch.ops.quantized_decomposed


def _quantize(work: Rewriting, node: Node, tensor: Node, scale: Scale) -> Node:
    return work.call(node, _ops().quantize_per_tensor.default, tensor, scale.scale, scale.zero, *_INT8)


def _dequantize(work: Rewriting, node: Node, tensor: Node, scale: Scale) -> Node:
    return work.call(node, _ops().dequantize_per_tensor.default, tensor, scale.scale, scale.zero, *_INT8)


def _given(work: Rewriting, node: Node) -> Node:
    """An int8 tensor as an operation of int8 takes it: dequantized for it alone."""
    return _dequantize(work, node, *work.int8_of(node))


def _layer(work: Rewriting, node: Node) -> bool:
    source = node.args[0]
    assert isinstance(source, Node)
    whole, scales, bias = quantized_weight(work, node)
    stored = work.read(f"{node.name}_weight", whole.to(torch.int8))
    scales_node = work.read(f"{node.name}_scales", scales)
    zeros = work.read(f"{node.name}_zeros", torch.zeros(len(scales), dtype=torch.long))
    per_channel = _ops().dequantize_per_channel.default
    weight = work.call(node, per_channel, stored, scales_node, zeros, 0, -127, 127, torch.int8)
    rest = (
        () if len(node.args) < 3 else (bias if bias is None else work.read(f"{node.name}_bias", bias), *node.args[3:])
    )
    if operation(node) == "aten.linear" and all(user.op == "output" for user in node.users):
        given = _scaled_for_each_image(work, source)
        work.floats[node] = work.call(node, node.target, given, weight, *rest)
        return True
    _stored(work, node, work.call(node, node.target, _given(work, source), weight, *rest))
    return True


def _scaled_for_each_image(work: Rewriting, source: Node) -> Node:
    tensor = work.float_of(source)
    chosen = work.call(source, _ops().choose_qparams.tensor, tensor, -128, 127, 2**-12, torch.int8)
    scale, zero = (work.call(source, operator.getitem, chosen, index) for index in (0, 1))
    quantized = work.call(source, _ops().quantize_per_tensor.tensor, tensor, scale, zero, *_INT8)
    return work.call(source, _ops().dequantize_per_tensor.tensor, quantized, scale, zero, *_INT8)


def _stored(work: Rewriting, node: Node, result: Node) -> None:
    """An operation's result in int8, after the activation that follows it."""
    clipped = clipped_after(node)
    last = clipped or node
    if clipped:
        result = work.new.node_copy(clipped, lambda arg: result)
    scale = work.scale_of(last)
    work.int8s[last] = _quantize(work, last, result, scale), scale
    work.done.add(last)


def _arithmetic(work: Rewriting, node: Node) -> bool:
    if len(node.args) != 2 or not all(isinstance(arg, Node) for arg in node.args):
        return False
    first, second = node.args
    assert isinstance(first, Node)
    assert isinstance(second, Node)
    _stored(work, node, work.call(node, node.target, _given(work, first), _given(work, second)))
    return True


def _concatenated(work: Rewriting, node: Node) -> bool:
    parts = node.all_input_nodes
    scale = work.scale_of(node)
    if any(work.int8s[part][1] != scale for part in parts):
        return False
    result = work.call(node, node.target, [_given(work, part) for part in parts], *node.args[1:])
    work.int8s[node] = _quantize(work, node, result, scale), scale
    return True


def _kept_scale(work: Rewriting, node: Node) -> bool:
    source = node.args[0]
    assert isinstance(source, Node)
    scale = work.int8s[source][1]
    result = work.call(node, node.target, _given(work, source), *node.args[1:])
    work.int8s[node] = _quantize(work, node, result, scale), scale
    return True


_OPERATIONS: dict[str, Callable[[Rewriting, Node], bool]] = {
    "aten.add.Tensor": _arithmetic,
    "aten.mul.Tensor": _arithmetic,
    "aten.cat": _concatenated,
    "aten.max_pool2d": _kept_scale,
}
DIALECT = Dialect(lowest=-128, quantize=_quantize, dequantize=_dequantize, layer=_layer, operations=_OPERATIONS)
QUANTIZER = Quantizer(
    runtime="executorch",
    write=_write,
    libraries=LIBRARIES,
    extra="export-executorch",
    notes={**NOTES, "weights": "int8 per channel, symmetric", "classifier_input": "scaled for each image"},
)
