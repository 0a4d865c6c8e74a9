"""The network that INT8 starts from: one flat graph of ATen operations with BatchNorm folded into the convolutions."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgecnn.errors import UserError, first_line

if TYPE_CHECKING:
    from torch.fx.node import Argument

CONVOLUTIONS = {"aten.conv2d.default", "aten.conv1d.default", "aten.convolution.default", "aten.conv2d.padding"}
WEIGHTED = CONVOLUTIONS | {"aten.linear.default"}
_NORM = "aten.batch_norm.default"
_DEAD = {"aten._assert_tensor_metadata.default", "aten.dropout.default", "aten.dropout_.default"}


@dataclass(frozen=True)
class WeightedLayer:
    """A convolution or linear layer of the flat graph."""

    name: str
    """Of the module that it was, such as features.0.0; unique."""
    node: str
    """Of the graph's node."""
    weight: NDArray[np.float32]
    """(out, in / groups, kernel height, kernel width), BatchNorm folded in; (out, in) of a linear layer."""
    index: int
    """In the order of execution, from 0."""


def flatten(module: nn.Module, height: int, width: int) -> GraphModule:
    """`module`, uint8 (n, height, width, 3) to logits, as one flat graph in eval mode with BatchNorm folded.

    It answers as `module` does but for rounding. Raises UserError where the network cannot be captured.
    """
    example = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    try:
        program = torch.export.export(
            module.eval(), (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
        )
        graph = program.module(check_guards=False)
    except Exception as error:  # whatever the capture of somebody's network raises
        raise UserError(f"int8: torch.export cannot capture this network: {first_line(error)}") from None
    for node in list(graph.graph.nodes):
        if str(node.target) in _DEAD:
            if node.users:
                node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    for node in list(graph.graph.nodes):
        if str(node.target) == _NORM:
            _fold(graph, node)
    _out_of_place(graph)
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def clone(graph: GraphModule) -> GraphModule:
    """A copy whose weights may be changed."""
    return copy.deepcopy(graph)


def layers_of(graph: GraphModule) -> list[WeightedLayer]:
    """Convolutions and linear layers in the order of execution."""
    found: list[WeightedLayer] = []
    taken: set[str] = set()
    for node in weighted_nodes(graph):
        name = _module_name(node)
        name = node.name if name in taken or not name else name
        taken.add(name)
        weight = parameter(graph, node.args[1]).detach().numpy().astype(np.float32)
        found.append(WeightedLayer(name, node.name, weight, len(found)))
    return found


@dataclass(frozen=True)
class NewWeights:
    """What a layer has in a network and in its twin, (weight, bias) as torch lays them out."""

    layer: WeightedLayer
    """Of the twin."""
    old: tuple[NDArray[np.float32], NDArray[np.float32]]
    new: tuple[NDArray[np.float32], NDArray[np.float32]]


def new_weights(twin: GraphModule, graph: GraphModule) -> list[NewWeights] | None:
    """Every layer of `graph`, with what it has in `twin`; None where one of them has no bias."""
    pairs = [[_weight_and_bias(one, node) for node in weighted_nodes(one)] for one in (twin, graph)]
    found = []
    for layer, old, new in zip(layers_of(twin), *pairs, strict=True):
        if old is None or new is None:
            return None
        found.append(NewWeights(layer, old, new))
    return found


def _weight_and_bias(graph: GraphModule, node: Node) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    bias = node.args[2] if len(node.args) > 2 else None
    if not isinstance(bias, Node):
        return None
    weight, shift = (parameter(graph, one).detach().numpy().astype(np.float32) for one in (node.args[1], bias))
    return weight, shift


def weighted_nodes(graph: GraphModule) -> list[Node]:
    """Nodes of convolutions and linear layers with constant weights, in the order of execution."""
    return [
        node
        for node in graph.graph.nodes
        if str(node.target) in WEIGHTED and isinstance(node.args[1], Node) and node.args[1].op == "get_attr"
    ]


def parameter(graph: GraphModule, node: Argument) -> Tensor:
    """The tensor that a get_attr node reads."""
    assert isinstance(node, Node)
    tensor: Tensor = operator.attrgetter(str(node.target))(graph)
    return tensor


def set_parameter(graph: GraphModule, node: Argument, value: Tensor) -> None:
    """Replace the tensor that a get_attr node reads."""
    assert isinstance(node, Node)
    owner_name, _, name = str(node.target).rpartition(".")
    owner = operator.attrgetter(owner_name)(graph) if owner_name else graph
    if name in owner._parameters:
        owner._parameters[name] = nn.Parameter(value, requires_grad=False)
    else:
        owner._buffers[name] = value


def weight_of(graph: GraphModule, node: Node) -> Tensor:
    """A weighted node's weight."""
    return parameter(graph, node.args[1]).detach()


def groups_of(node: Node) -> int:
    """Of a weighted node: 1 but for grouped and depthwise convolutions."""
    # (input, weight, bias, stride, padding, dilation, groups); aten.convolution has two more before the last.
    place = 8 if str(node.target) == "aten.convolution.default" else 6
    groups = node.args[place] if len(node.args) > place else 1
    assert isinstance(groups, int)
    return groups


def groups_by_weight(graph: GraphModule) -> dict[str, int]:
    """The name of each weighted layer's weight node to the layer's groups."""
    return {str(node.args[1]): groups_of(node) for node in weighted_nodes(graph)}


def shares_channels(graph: GraphModule, first: Node, second: Node) -> bool:
    """Whether the second layer reads the first's channels one by one (depthwise) or all of them (groups of 1)."""
    out, weight = weight_of(graph, first).shape[0], weight_of(graph, second)
    return weight.dim() == 4 and (weight.shape[1] == out or (weight.shape[1] == 1 and weight.shape[0] == out))


def bias_of(graph: GraphModule, node: Node) -> Node:
    """The get_attr node of a weighted node's bias; zeros are added where it had none."""
    bias = node.args[2] if len(node.args) > 2 else None
    if isinstance(bias, Node):
        return bias
    weight = parameter(graph, node.args[1])
    name = f"{node.name}_bias"
    graph.register_buffer(name, torch.zeros(weight.shape[0]))
    with graph.graph.inserting_before(node):
        bias = graph.graph.get_attr(name)
    node.args = (*node.args[:2], bias, *node.args[3:])
    graph.recompile()
    return bias


def find_weights(layers: Sequence[WeightedLayer], weights: Mapping[str, NDArray[np.generic]]) -> dict[str, str]:
    """Which of an engine's weights are which layer's: layer name to key of `weights`, by value.

    Layouts differ between engines and values do not, so that sorted values are compared (to 1 % of their size, for
    those kept in fp16). Layers whose weights the engine changed are missing from the result.
    """
    sizes: dict[int, list[str]] = {}
    for key, array in weights.items():
        sizes.setdefault(array.size, []).append(key)
    found: dict[str, str] = {}
    taken: set[str] = set()
    for layer in layers:
        wanted = np.sort(layer.weight.ravel())
        scale = float(np.abs(wanted).mean()) or 1.0
        for key in sizes.get(layer.weight.size, []):
            if key not in taken:
                got = np.sort(np.asarray(weights[key], np.float32).ravel())
                if float(np.abs(got - wanted).mean()) <= 0.01 * scale:
                    found[layer.name] = key
                    taken.add(key)
                    break
    return found


def keys_of(layers: Sequence[WeightedLayer], weights: Mapping[str, NDArray[np.generic]], engine: str) -> list[str]:
    """The key of each layer's weights among an engine's. UserError where one is not among them."""
    found = find_weights(layers, weights)
    missing = [layer.name for layer in layers if layer.name not in found]
    if missing:
        raise UserError(f"{engine} int8: the converted network has no layer with the weights of {', '.join(missing)}")
    return list(found.values())


def replacements(
    twin: GraphModule, graph: GraphModule, weights: Mapping[str, NDArray[np.generic]]
) -> dict[str, NewWeights] | None:
    """The key of an engine's weights, which are `twin`'s, to what `graph` has in their place; None unless all are
    found."""
    new = new_weights(twin, graph) or []
    found = find_weights([one.layer for one in new], weights)
    return {found[one.layer.name]: one for one in new} if new and len(found) == len(new) else None


def _out_of_place(graph: GraphModule) -> None:
    """Operations that change their argument give a new tensor instead, which those after them read."""
    passed: set[Node] = set()
    for node in graph.graph.nodes:
        passed.add(node)
        name, _, overload = str(node.target).rpartition(".")
        if node.op == "call_function" and name.startswith("aten.") and name.endswith("_"):
            node.args[0].replace_all_uses_with(node, delete_user_cb=lambda user: user not in passed)
            node.target = getattr(getattr(torch.ops.aten, name.removeprefix("aten.").removesuffix("_")), overload)


def _fold(graph: GraphModule, norm: Node) -> None:
    """BatchNorm after a convolution becomes part of its weight and bias; any other stays, as a scale and a shift."""
    source, gamma, beta, mean, variance = norm.args[:5]
    eps = norm.args[7]
    assert isinstance(eps, float)
    spread = parameter(graph, variance).detach()
    scale = (spread + eps).rsqrt()
    if isinstance(gamma, Node):
        scale = scale * parameter(graph, gamma).detach()
    shift = -parameter(graph, mean).detach() * scale
    if isinstance(beta, Node):
        shift = shift + parameter(graph, beta).detach()
    assert isinstance(source, Node)
    if str(source.target) in CONVOLUTIONS and len(source.users) == 1 and _own(source.args[1]):
        weight_node = source.args[1]
        weight = parameter(graph, weight_node).detach()
        bias_node = bias_of(graph, source)
        bias = parameter(graph, bias_node).detach()
        set_parameter(graph, weight_node, weight * scale.reshape(-1, *[1] * (weight.dim() - 1)))
        set_parameter(graph, bias_node, bias * scale + shift)
        norm.replace_all_uses_with(source)
    else:
        graph.register_buffer(f"{norm.name}_scale", scale.reshape(-1, 1, 1))
        graph.register_buffer(f"{norm.name}_shift", shift.reshape(-1, 1, 1))
        with graph.graph.inserting_before(norm):
            scaled = graph.graph.call_function(
                torch.ops.aten.mul.Tensor, (source, graph.graph.get_attr(f"{norm.name}_scale"))
            )
            shifted = graph.graph.call_function(
                torch.ops.aten.add.Tensor, (scaled, graph.graph.get_attr(f"{norm.name}_shift"))
            )
        norm.replace_all_uses_with(shifted)
    graph.graph.erase_node(norm)


def _own(node: Argument) -> bool:
    """Whether weights are read by one layer alone."""
    return isinstance(node, Node) and len(node.users) == 1


def _module_name(node: Node) -> str:
    """Path of the module that the operation came from."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]).removeprefix("module.") if stack else ""
