"""From the flat float graph to one with int8 tensors in it, for the engines whose files torch itself writes.

The walk is the same for all of them: it keeps which tensors exist in float, in int8 or in both, and converts where an
operation needs the other. An engine says how a conversion, a layer with weights and its other int8 operations look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Graph, GraphModule, Interpreter, Node

from edgecnn.imaging import Pixels
from edgecnn.quantize.flat import clone, groups_of, parameter, weighted_nodes
from edgecnn.quantize.grid import Grid, whole_weights
from edgecnn.quantize.ladder import Attempt, TuningSet
from edgecnn.quantize.observe import Range, Tensors, observed_once

_STEPS = 255
"""Of an activation's range."""


@dataclass(frozen=True)
class Scale:
    """real = scale × (integer − zero)."""

    scale: float
    zero: int


@dataclass(frozen=True)
class Dialect:
    """How an engine writes int8."""

    lowest: int
    """Of the integers: 0 (uint8) or −128 (int8)."""
    quantize: Callable[[Rewriting, Node, Node, Scale], Node]
    """(work, old node for its name, float tensor, scale) to an int8 tensor."""
    dequantize: Callable[[Rewriting, Node, Node, Scale], Node]
    layer: Callable[[Rewriting, Node], bool]
    """Write a convolution or linear layer with constant weights; False where it must be float."""
    operations: Mapping[str, Callable[[Rewriting, Node], bool]]
    """The other operations that have int8 kernels, by `operation`: called where all their tensors exist in int8."""


@dataclass
class Rewriting:
    """A float graph being copied."""

    old: GraphModule
    new: Graph
    dialect: Dialect
    ranges: Mapping[str, Range]
    in_float: frozenset[str]
    """Names of nodes that stay float."""
    grid: Grid
    """Of the weights."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """What the new graph reads that the old one has not, such as packed weights."""
    floats: dict[Node, Node] = field(default_factory=dict)
    int8s: dict[Node, tuple[Node, Scale]] = field(default_factory=dict)
    done: set[Node] = field(default_factory=set)
    """Activations that an operation before them has taken in."""

    def call(self, node: Node, target: Any, *args: Any) -> Node:
        """Add an operation to the new graph that stands for `node` of the old."""
        added = self.new.create_node("call_function", target, args, name=node.name)
        added.meta = dict(node.meta)
        return added

    def read(self, name: str, value: Any) -> Node:
        """Add a constant to the new graph."""
        self.attributes[name] = value
        return self.new.get_attr(name)

    def float_of(self, node: Node) -> Node:
        """An old node's tensor in float."""
        if node not in self.floats:
            self.floats[node] = self.dialect.dequantize(self, node, *self.int8s[node])
        return self.floats[node]

    def int8_of(self, node: Node) -> tuple[Node, Scale]:
        """An old node's tensor in int8."""
        if node not in self.int8s:
            scale = self.scale_of(node)
            self.int8s[node] = self.dialect.quantize(self, node, self.floats[node], scale), scale
        return self.int8s[node]

    def scale_of(self, node: Node) -> Scale:
        """What an old node's tensor has in int8, or would have."""
        if node in self.int8s:
            return self.int8s[node][1]
        low, high = self.ranges[node.name]
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / _STEPS, 1e-8)
        return Scale(scale, min(max(round(-low / scale), 0), _STEPS) + self.dialect.lowest)


def rewrite(
    graph: GraphModule,
    dialect: Dialect,
    ranges: Mapping[str, Range],
    in_float: frozenset[str] = frozenset(),
    grid: Grid = "full",
) -> GraphModule:
    """The flat float graph with int8 wherever the dialect has it. `in_float` are names of nodes that stay float.

    Averages over the image are float in every dialect: 8 bits would coarsen them.
    """
    work = Rewriting(without_batch_size(clone(graph)), Graph(), dialect, ranges, in_float, grid)
    weighted = {node.name for node in weighted_nodes(work.old)}
    for node in work.old.graph.nodes:
        if node in work.done:
            continue
        if node.op == "output":
            (logits,) = node.all_input_nodes
            work.new.output(work.float_of(logits))
        elif not _in_int8(work, node, weighted):
            work.floats[node] = work.new.node_copy(node, work.float_of)
    work.new.eliminate_dead_code()
    old = {str(node.target) for node in work.new.nodes if node.op == "get_attr"} - set(work.attributes)
    return GraphModule({**{name: attrgetter(name)(work.old) for name in old}, **work.attributes}, work.new)


def ranges_of(attempt: Attempt, tuning: TuningSet) -> dict[str, Range]:
    """Name of each node of the flat graph to the range that int8 shall cover, as the attempt's observer sees it."""
    histograms = observed_once(
        attempt.observed_in.work / "torch-histograms.npz",
        lambda: _all_tensors(attempt.observed_in.module, tuning.threads),
        tuning.calibration,
    )
    return {name: attempt.observed(histogram) for name, histogram in histograms.items()}


def quantized_weight(work: Rewriting, node: Node) -> tuple[Tensor, Tensor, Tensor | None]:
    """A layer's weights in −127..127 (still float), the scale of each output channel, and the bias if it has one."""
    weight = parameter(work.old, node.args[1]).detach()
    whole, scales = whole_weights(weight, work.grid, groups_of(node))
    bias = node.args[2] if len(node.args) > 2 else None
    return whole, scales, parameter(work.old, bias).detach() if isinstance(bias, Node) else None


def clipped_after(node: Node) -> Node | None:
    """The activation that the saturation of an int8 output does as well, if one follows alone.

    A range that was observed after the clipping ends within it, so that the upper bound needs nothing.
    """
    users = list(node.users)
    if len(users) != 1:
        return None
    bounds = users[0].args[1:]
    clips = operation(users[0]) in ("aten.relu", "aten.relu6") or (
        operation(users[0]) in ("aten.hardtanh", "aten.clamp") and bounds[:1] == (0.0,) and not users[0].kwargs
    )
    return users[0] if clips else None


def operation(node: Node) -> str:
    """An ATen operation's name without `.default`; any other's as Python prints it."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return str(node.target)
    name, _, overload = str(node.target).rpartition(".")
    return name if overload == "default" else f"{name}.{overload}"


def without_batch_size(graph: GraphModule) -> GraphModule:
    """A batch size that a view's shape reads from a tensor's would be kept as a number: it becomes −1, in place."""
    for node in graph.graph.nodes:
        if operation(node) in ("aten.view", "aten.reshape"):
            shape = [-1 if isinstance(size, Node) else size for size in node.args[1]]
            node.args = (node.args[0], shape) if shape.count(-1) == 1 else node.args
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def reads_batch_size(graph: GraphModule) -> bool:
    """Whether it still computes with the number of images."""
    return any("sym_size" in str(node.target) for node in graph.graph.nodes)


def _in_int8(work: Rewriting, node: Node, weighted: set[str]) -> bool:
    """Write `node` in int8 if that is possible."""
    if node.op != "call_function" or node.name in work.in_float:
        return False
    if node.name in weighted:
        dims = parameter(work.old, node.args[1]).dim()
        return (operation(node), dims) in (("aten.conv2d", 4), ("aten.linear", 2)) and work.dialect.layer(work, node)
    write = work.dialect.operations.get(operation(node))
    tensors = [arg for arg in node.all_input_nodes if "sym_size" not in str(arg.target)]
    if write is None or node.kwargs or not tensors or any(arg not in work.int8s for arg in tensors):
        return False
    return write(work, node)


def _all_tensors(graph: GraphModule, threads: int) -> Callable[[Pixels], Tensors]:
    """The function that runs one image and gives every float tensor that is computed on the way."""
    seen: dict[str, NDArray[np.float32]] = {}

    class Recorder(Interpreter):
        def run_node(self, n: Node) -> Any:
            value = super().run_node(n)
            if n.op == "call_function" and isinstance(value, Tensor) and value.dtype == torch.float32:
                seen[n.name] = value.numpy()
            return value

    torch.set_num_threads(threads)
    recorder = Recorder(graph)

    def run(image: Pixels) -> Tensors:
        seen.clear()
        with torch.inference_mode():
            recorder.run(torch.from_numpy(np.require(image[None], requirements=("C", "W"))))
        return dict(seen)

    return run
