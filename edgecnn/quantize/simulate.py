"""INT8 simulated in PyTorch: what rounding does to a flat network, layer by layer, before any engine is asked.

Weights have one symmetric scale an output channel, activations one range a tensor, as every engine here has them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgecnn.imaging import Images
from edgecnn.quantize.network import WEIGHTED, parameter, weighted_nodes
from edgecnn.quantize.observe import Histogram, Range, observe

_ACTIVATIONS = ("relu", "hardtanh", "hardswish", "silu", "gelu", "sigmoid", "hardsigmoid", "clamp", "leaky_relu")
_BATCH = 16

Change = Callable[[Node, Tensor], Tensor]
"""(node, its output) to the output that the following nodes see."""


class Stepper(Interpreter):
    """Runs a graph; `change` may replace each node's output."""

    def __init__(self, graph: GraphModule, change: Change) -> None:
        super().__init__(graph)
        self._change = change

    def run_node(self, n: Node) -> Any:
        """One node."""
        output = super().run_node(n)
        return self._change(n, output) if isinstance(output, Tensor) and output.is_floating_point() else output


def logits_of(graph: torch.nn.Module, images: Images) -> Tensor:
    """(n, classes)."""
    with torch.inference_mode():
        return torch.cat([graph(torch.from_numpy(images[i : i + _BATCH])) for i in range(0, len(images), _BATCH)])


def histograms_of(graph: GraphModule, images: Images) -> dict[str, Histogram]:
    """Of every tensor that is rounded, by the node's name."""
    rounded = rounded_nodes(graph)
    seen: dict[str, Any] = {}

    def keep(node: Node, output: Tensor) -> Tensor:
        if node.name in rounded:
            seen[node.name] = output.numpy()
        return output

    stepper = Stepper(graph, keep)

    def run(image: Any) -> Mapping[str, Any]:
        with torch.inference_mode():
            stepper.run(torch.from_numpy(image[None]))
        return seen

    return observe(run, images)


def rounded_nodes(graph: GraphModule) -> set[str]:
    """Nodes whose output is rounded: what a convolution, linear layer or sum reads. An activation fuses into its
    convolution, so that what it reads is not rounded.
    """
    found = set()
    for node in graph.graph.nodes:
        if node.op == "call_function" and any(
            str(user.target) in WEIGHTED or ".add" in str(user.target) or ".cat" in str(user.target)
            for user in node.users
        ):
            users = [user for user in node.users if not any(word in str(user.target) for word in _ACTIVATIONS)]
            if users and "permute" not in str(node.target) and ".to" not in str(node.target):
                found.add(node.name)
    return found


def round_weight(weight: Tensor) -> Tensor:
    """To 255 symmetric values a channel."""
    scale = weight.abs().amax(dim=tuple(range(1, weight.dim())), keepdim=True).clamp_min(1e-12) / 127
    return (weight / scale).round().clamp(-127, 127) * scale


def round_activation(values: Tensor, limits: Range) -> Tensor:
    """To 256 values of a range, which is widened to hold 0."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    scale = max(high - low, 1e-12) / 255
    zero = round(-low / scale)
    return ((values / scale).round() + zero).clamp(0, 255).sub(zero).mul(scale)


def simulated(graph: GraphModule, ranges: Mapping[str, Range], only: Collection[str] | None = None) -> Stepper:
    """A runner of `graph` with rounded weights and activations; `only` names the weighted nodes to round for."""
    chosen = {node.name: node for node in weighted_nodes(graph)}
    if only is not None:
        chosen = {name: node for name, node in chosen.items() if name in only}
    inputs = {str(node.args[0]) for node in chosen.values()} if only is not None else set(ranges)
    weights = {node.args[1].name for node in chosen.values()}  # type: ignore[union-attr]

    def change(node: Node, output: Tensor) -> Tensor:
        if node.name in weights:
            return round_weight(output)
        if node.name in inputs and node.name in ranges:
            return round_activation(output, ranges[node.name])
        return output

    return Stepper(graph, change)


def run_simulated(stepper: Stepper, images: Images) -> Tensor:
    """Logits (n, classes) of a `simulated` network."""
    with torch.inference_mode():
        return torch.cat([stepper.run(torch.from_numpy(images[i : i + _BATCH])) for i in range(0, len(images), _BATCH)])


def sqnr(reference: Any, got: Any) -> float:
    """Signal to quantisation noise in dB."""
    reference, got = np.asarray(reference, np.float64), np.asarray(got, np.float64)
    noise = float(np.square(reference - got).sum())
    return float(10 * np.log10(max(float(np.square(reference).sum()), 1e-30) / max(noise, 1e-30)))


def sensitivities(graph: GraphModule, ranges: Mapping[str, Range], images: Images) -> dict[str, float]:
    """Each weighted layer's node name to the SQNR (dB) of the logits when that layer alone is rounded, worst first."""
    reference = logits_of(graph, images).numpy()
    found = {
        node.name: sqnr(reference, run_simulated(simulated(graph, ranges, {node.name}), images).numpy())
        for node in weighted_nodes(graph)
    }
    return dict(sorted(found.items(), key=lambda item: item[1]))


def float_means(graph: GraphModule, images: Images) -> dict[str, Tensor]:
    """Each weighted node's mean output, by channel."""
    sums: dict[str, Tensor] = {}
    names = {node.name for node in weighted_nodes(graph)}

    def keep(node: Node, output: Tensor) -> Tensor:
        if node.name in names:
            sums[node.name] = sums.get(node.name, torch.zeros(())) + channel_means(output) * len(output)
        return output

    run_simulated(Stepper(graph, keep), images)
    return {name: total / len(images) for name, total in sums.items()}


def channel_means(output: Tensor) -> Tensor:
    """(channels,) of (n, channels, …)."""
    return output.mean(dim=(0, *range(2, output.dim())))


def weight_of(graph: GraphModule, node: Node) -> Tensor:
    """A weighted node's weight."""
    return parameter(graph, node.args[1]).detach()
