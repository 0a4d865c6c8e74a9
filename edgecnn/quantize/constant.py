"""Channels that are the same whatever the image: weights that training made zero, with a bias that is left."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgecnn.imaging import Images
from edgecnn.quantize.flat import (
    WEIGHTED,
    bias_of,
    clone,
    parameter,
    set_parameter,
    shares_channels,
    weight_of,
    weighted_nodes,
)
from edgecnn.quantize.simulate import ACTIVATIONS, Stepper, run_simulated

_NOTHING = 1e-9
"""Of the layer's largest weight."""


def lift_constants(graph: GraphModule, images: Images) -> GraphModule:
    """The same network with every constant channel at half its tensor's largest value, and less weight on it.

    MobileNetV3 has channels that are −0.03 everywhere and are multiplied by 256 in the next layer. In int8 steps of the
    whole tensor such a value is lost, and with it some of the logits. Only where one other layer reads the channel,
    through nothing but an activation.
    """
    constant = {
        node.name: channels
        for node in weighted_nodes(graph)
        if _reader(graph, node) is not None and (channels := _constant_channels(weight_of(graph, node))).any()
    }
    if not constant:
        return graph
    graph = clone(graph)
    largest: dict[str, float] = {}

    def keep(node: Node, output: Tensor) -> Tensor:
        if node.name in constant:
            largest[node.name] = max(largest.get(node.name, 0.0), float(output.max()))
        return output

    run_simulated(Stepper(graph, keep), images)
    nodes = {node.name: node for node in graph.graph.nodes}
    for name, channels in constant.items():
        if largest[name] > 0:
            _lift(graph, nodes[name], channels, largest[name] / 2)
    return graph


def _lift(graph: GraphModule, layer: Node, channels: Tensor, height: float) -> None:
    reader = _reader(graph, layer)
    assert reader is not None
    bias = parameter(graph, bias_of(graph, layer)).detach()
    lifted = torch.full_like(bias, height)
    before, after = (_through(layer, reader, values) for values in (bias, lifted))
    channels = channels & (before != 0) & (after.abs() > before.abs())
    share = torch.where(channels, before / after, 1.0)
    weight = weight_of(graph, reader)
    depthwise = weight.shape[1] == 1 and weight.shape[0] == len(share)
    set_parameter(graph, bias_of(graph, layer), torch.where(channels, lifted, bias))
    set_parameter(graph, reader.args[1], weight * share.reshape((-1, 1, 1, 1) if depthwise else (1, -1, 1, 1)))


def _constant_channels(weight: Tensor) -> Tensor:
    largest = weight.flatten(1).abs().amax(1)
    return largest <= _NOTHING * largest.max()


def _reader(graph: GraphModule, layer: Node) -> Node | None:
    """The one layer that reads what this one gives, if nothing but an activation is between them."""
    after = layer
    while len(after.users) == 1:
        user = next(iter(after.users))
        if str(user.target) in WEIGHTED:
            return user if user.args[0] is after and shares_channels(graph, layer, user) else None
        if not any(word in str(user.target) for word in ACTIVATIONS) or len(user.all_input_nodes) != 1:
            return None
        after = user
    return None


def _through(layer: Node, reader: Node, values: Tensor) -> Tensor:
    """`values` (channels,) after the activation between the two layers."""
    after = next(iter(layer.users))
    while after is not reader:
        values = after.target(values, *after.args[1:], **after.kwargs)  # type: ignore[operator]
        after = next(iter(after.users))
    return values
