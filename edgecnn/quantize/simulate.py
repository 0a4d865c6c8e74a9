"""INT8 simulated in PyTorch: what rounding does to a flat network, layer by layer, before any engine is asked.

Weights have one symmetric scale an output channel, activations one range a tensor, as every engine here has them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgecnn.imaging import Images, Pixels
from edgecnn.quantize.flat import WEIGHTED, groups_by_weight, groups_of, weighted_nodes
from edgecnn.quantize.grid import Grid, whole_weights
from edgecnn.quantize.observe import ABOVE_MINUS_3, OBSERVERS, Histogram, Range, observe

_SOFT = ("hardswish", "silu", "gelu", "hardsigmoid", "sigmoid")
"""Activations that the saturation of an int8 output cannot do: most engines round what they read too."""
ACTIVATIONS = ("relu", "hardtanh", "clamp", "leaky_relu", *_SOFT)
_BATCH = 16
_NOISIEST = 16
"""Tensors of a network: the others add little."""
_LEAST_GAIN = 0.5
"""dB."""

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
    seen: dict[str, NDArray[np.float32]] = {}

    def keep(node: Node, output: Tensor) -> Tensor:
        if node.name in rounded:
            seen[node.name] = output.numpy()
        return output

    stepper = Stepper(graph, keep)

    def run(image: Pixels) -> Mapping[str, NDArray[np.float32]]:
        with torch.inference_mode():
            stepper.run(torch.from_numpy(image[None]))
        return seen

    return observe(run, images)


def rounded_nodes(graph: GraphModule) -> set[str]:
    """Nodes whose output is rounded: what a convolution, linear layer or sum reads, and a layer's output where what
    follows does not fuse into it as clipping does.
    """
    found = _before(graph, _SOFT)
    for node in graph.graph.nodes:
        if node.op == "call_function" and any(
            str(user.target) in WEIGHTED or ".add" in str(user.target) or ".cat" in str(user.target)
            for user in node.users
        ):
            users = [user for user in node.users if not any(word in str(user.target) for word in ACTIVATIONS)]
            if users and "permute" not in str(node.target) and ".to" not in str(node.target):
                found.add(node.name)
    return found


def before_hard_swish(graph: GraphModule) -> set[str]:
    """Layers whose output only hard-swish reads, which is 0 for all below −3."""
    return _before(graph, ("hardswish",))


def _before(graph: GraphModule, activations: Collection[str]) -> set[str]:
    return {
        node.name
        for node in weighted_nodes(graph)
        if node.users and all(any(f".{word}" in str(user.target) for word in activations) for user in node.users)
    }


def round_weight(weight: Tensor, grid: Grid, groups: int = 1) -> Tensor:
    """To the whole numbers of steps that int8 has for each channel."""
    whole, steps = whole_weights(weight, grid, groups)
    return whole * steps.reshape(-1, *[1] * (weight.dim() - 1))


def round_activation(values: Tensor, limits: Range) -> Tensor:
    """To 256 values of a range, which is widened to hold 0."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    scale = max(high - low, 1e-12) / 255
    zero = round(-low / scale)
    return ((values / scale).round() + zero).clamp(0, 255).sub(zero).mul(scale)


def simulated(graph: GraphModule, ranges: Mapping[str, Range], grid: Grid | None = "full") -> Stepper:
    """A runner of `graph` with rounded activations, and weights rounded to a grid unless that is None."""
    groups = groups_by_weight(graph) if grid else {}

    def change(node: Node, output: Tensor) -> Tensor:
        if grid and node.name in groups:
            return round_weight(output, grid, groups[node.name])
        return round_activation(output, ranges[node.name]) if node.name in ranges else output

    return Stepper(graph, change)


def run_simulated(stepper: Stepper, images: Images) -> Tensor:
    """Logits (n, classes) of a `simulated` network."""
    with torch.inference_mode():
        return torch.cat([stepper.run(torch.from_numpy(images[i : i + _BATCH])) for i in range(0, len(images), _BATCH)])


def sqnr(reference: ArrayLike | Tensor, got: ArrayLike | Tensor) -> float:
    """Signal to quantisation noise in dB."""
    reference, got = np.asarray(reference, np.float64), np.asarray(got, np.float64)
    noise = float(np.square(reference - got).sum())
    return float(10 * np.log10(max(float(np.square(reference).sum()), 1e-30) / max(noise, 1e-30)))


class Resumed:
    """A float network that goes on from one of its tensors: logits when that tensor is another than it was.

    Only what follows the tensor is computed. Keeps the tensors in `names`, and what else is read later, of a batch.
    """

    def __init__(self, graph: GraphModule, names: Collection[str], images: Images) -> None:
        self._graph, self._images = graph, torch.from_numpy(images)
        nodes = list(graph.graph.nodes)
        computed = [node for node in nodes if node.op in ("placeholder", "call_function")]
        ranks = {node: rank for rank, node in enumerate(nodes)}
        last_read = {node: max((ranks[user] for user in node.users), default=-1) for node in computed}
        self._needed = {
            node.name: (
                node,
                {one: None for one in computed if ranks[one] < ranks[node]},
                [one for one in computed if ranks[one] < ranks[node] < last_read[one]],
            )
            for node in computed
            if node.name in names
        }
        kept = {one for node, _, needed in self._needed.values() for one in (node, *needed)}
        self._values: dict[Node, Any] = {}

        class Keeper(Interpreter):
            def run_node(keeper, n: Node) -> Any:  # noqa: N805
                value = super().run_node(n)
                if n in kept:
                    self._values[n] = value
                return value

        with torch.inference_mode():
            self.logits: Tensor = Keeper(graph).run(self._images)
        """(n, classes) of the network as it is."""

    def value(self, name: str) -> Tensor:
        """What that tensor was."""
        found: Tensor = self._values[self._needed[name][0]]
        return found

    def run(self, name: str, value: Tensor, change: Change | None = None) -> Tensor:
        """Logits (n, classes) with `value` in that tensor's place; `change` may replace what comes after."""
        node, before, needed = self._needed[name]
        env = {**before, **{one: self._values[one] for one in needed}, node: value}
        stepper = Interpreter(self._graph) if change is None else Stepper(self._graph, change)
        with torch.inference_mode():
            logits: Tensor = stepper.run(self._images, initial_env=env)
        return logits


def sensitivities(
    graph: GraphModule, ranges: Mapping[str, Range], images: Images, grid: Grid = "full"
) -> dict[str, float]:
    """Each weighted layer's node name to the SQNR (dB) of the logits when that layer alone is rounded, worst first.

    With it what it reads, and what it gives where that is rounded for its sake.
    """
    given = _before(graph, _SOFT) & ranges.keys()
    layers = weighted_nodes(graph)
    resumed = Resumed(graph, {str(node.args[0]) for node in layers}, images)
    found = {}
    for layer in layers:
        name, (source, weight) = layer.name, map(str, layer.args[:2])
        value = resumed.value(source)
        value = round_activation(value, ranges[source]) if source in ranges else value

        def change(
            node: Node, output: Tensor, name: str = name, weight: str = weight, groups: int = groups_of(layer)
        ) -> Tensor:
            if node.name == name and name in given:
                return round_activation(output, ranges[name])
            return round_weight(output, grid, groups) if node.name == weight else output

        logits = resumed.run(source, value, change)
        found[name] = sqnr(resumed.logits, logits)
    return dict(sorted(found.items(), key=lambda item: item[1]))


def usual_observers(graph: GraphModule, names: Collection[str], observer: str) -> dict[str, str]:
    """Each rounded tensor's name to `observer`, or to the one from −3 of it for what only hard-swish reads."""
    cut = before_hard_swish(graph)
    return {name: ABOVE_MINUS_3[observer] if name in cut else observer for name in names}


def better_observers(
    graph: GraphModule, histograms: Mapping[str, Histogram], observer: str, images: Images
) -> dict[str, str]:
    """Node names of the noisiest rounded tensors to the observer that, for that tensor alone, leaves the logits least
    noise; those for which it is `observer`, within half a decibel, are left out. What only hard-swish reads always has
    one that starts at −3.
    """
    resumed = Resumed(graph, histograms.keys(), images)
    usual = usual_observers(graph, histograms.keys(), observer)

    def alone(node: str, name: str) -> float:
        rounded = round_activation(resumed.value(node), OBSERVERS[name](histograms[node]))
        return sqnr(resumed.logits, resumed.run(node, rounded))

    found = {node: name for node, name in usual.items() if name != observer}
    before = {node: alone(node, name) for node, name in usual.items()}
    for node in sorted(before, key=before.__getitem__)[:_NOISIEST]:
        names = ABOVE_MINUS_3.keys() if usual[node] == observer else ABOVE_MINUS_3.values()
        after = {name: alone(node, name) for name in names if name != usual[node]}
        best = max(after, key=after.__getitem__)
        if after[best] > before[node] + _LEAST_GAIN:
            found[node] = best
    return found


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
