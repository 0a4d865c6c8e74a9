"""Which of the two nearest int8 values each weight becomes, and what the biases make up for.

Rounding every weight to its nearest value errs most where errors of one channel do not cancel: on what all patches of
an image share, as in a network's first convolution. Rounded by the data, the next weights of the channel make up for
the error of the last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgecnn.imaging import Images
from edgecnn.quantize.flat import bias_of, clone, groups_by_weight, groups_of, parameter, set_parameter, weighted_nodes
from edgecnn.quantize.grid import LARGEST, PAIR, Grid, partners, whole_weights
from edgecnn.quantize.simulate import Stepper, channel_means, float_means, round_weight

_IMAGES = 32
_PATCHES = (1024, 8192)
"""At least and at most so many of a layer's input, at random places of all images: 8 times a channel's weights."""
_DAMPING = 0.01
"""Of the mean variance: what keeps the inverse of a nearly singular matrix small."""
_BLOCK = 64
"""Columns that are rounded before their errors reach the others."""


def round_by_data(graph: GraphModule, images: Images, grid: Grid = "full") -> dict[str, Tensor]:
    """Each weighted node's name to its weight in int8 steps of each channel (still float), rounded by the data.

    After Frantar et al., GPTQ, ICLR 2023: column by column, the error of each goes to the columns that are left as the
    layer's inputs correlate. The largest weight of a channel keeps its value, so that every engine finds the same steps
    again (`whole_weights`); of a pair that must not saturate, the weight that comes second takes what the first left.
    Each layer sees what the rounded ones before it give, with their biases corrected. Layers that are neither linear
    nor convolutions of images are rounded to the nearest.
    """
    graph = clone(graph)
    images = images[:_IMAGES]
    means = float_means(graph, images)
    layers = {node.name for node in weighted_nodes(graph)}
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Tensor] = {}

    class Rounder(Interpreter):
        def run_node(self, n: Node) -> Any:
            if n.name not in layers:
                return super().run_node(n)
            source, constant = n.all_input_nodes[:2]
            values, weight = self.env[source], self.env[constant]
            patches = _patches(n, values, weight, generator)
            if patches is None:
                found[n.name] = round_weight(weight, grid, groups_of(n))
            else:
                found[n.name] = _rounded(weight, patches, grid)
            self.env[constant] = found[n.name]
            output = super().run_node(n)
            return output + _spread(means[n.name] - channel_means(output), output)

    with torch.no_grad():
        Rounder(graph).run(torch.from_numpy(images))
    return found


def correct_bias(
    graph: GraphModule,
    images: Images,
    in_float: Collection[str] = (),
    rounded: Mapping[str, Tensor] | None = None,
    grid: Grid = "full",
) -> GraphModule:
    """Shift each layer's bias by the mean error that rounded weights leave in its channels, layer after layer.

    Weights of the nodes in `in_float` are not rounded: what is kept in float must not be corrected for rounding. The
    others become those in `rounded`, or are corrected for rounding to the nearest where there are none.

    After Nagel et al. 2019 (empirical bias correction). Activations are not rounded for it: what a clipped range takes
    away is not a constant, and correcting it by one lost 2 dB of the logits where this gains 2 (MobileNetV2).
    """
    graph = clone(graph)
    images = images[:_IMAGES]
    means = float_means(graph, images)
    biases = {node.name: bias_of(graph, node) for node in weighted_nodes(graph)}
    weights = {str(node.args[1]) for node in weighted_nodes(graph) if node.name not in in_float}
    groups = groups_by_weight(graph)
    for node in weighted_nodes(graph) if rounded else ():
        if node.name not in in_float:
            set_parameter(graph, node.args[1], rounded[node.name])  # type: ignore[index]

    def change(node: Node, output: Tensor) -> Tensor:
        if node.name in weights:
            return round_weight(output, grid, groups[node.name])
        if node.name in biases:
            shift = means[node.name] - channel_means(output)
            bias = biases[node.name]
            set_parameter(graph, bias, parameter(graph, bias).detach() + shift)
            output = output + _spread(shift, output)
        return output

    with torch.no_grad():
        Stepper(graph, change).run(torch.from_numpy(images))
    return graph


def _spread(by_channel: Tensor, output: Tensor) -> Tensor:
    return by_channel.reshape(1, -1, *[1] * (output.dim() - 2))


def _patches(node: Node, values: Tensor, weight: Tensor, generator: torch.Generator) -> Tensor | None:
    """What the layer multiplies its weights with: (groups, patches, weights of a channel); None of other layers."""
    if weight.dim() == 2:
        return values.reshape(1, -1, values.shape[-1])
    if weight.dim() != 4 or not str(node.target).startswith("aten.conv2d."):
        return None
    # (input, weight, bias, stride, padding, dilation, groups), as torch writes them: the last ones may be missing.
    defaults: tuple[Any, ...] = ([1, 1], [0, 0], [1, 1], 1)
    settings: list[Any] = [*node.args[3:], *defaults[len(node.args[3:]) :]]
    stride, padding, dilation, groups = settings
    if isinstance(padding, str):
        whole = [step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True)]
        padding = [size // 2 if padding == "same" else 0 for size in whole]
    high, wide = weight.shape[2:]
    values = torch.nn.functional.pad(values, (padding[1], padding[1], padding[0], padding[0]))
    rows = (values.shape[2] - dilation[0] * (high - 1) - 1) // stride[0] + 1
    columns = (values.shape[3] - dilation[1] * (wide - 1) - 1) // stride[1] + 1
    count = min(max(8 * weight[0].numel(), _PATCHES[0]), _PATCHES[1])
    places = torch.randint(len(values) * rows * columns, (count,), generator=generator)
    image, row = places // (rows * columns), places // columns % rows * stride[0]
    column = places % columns * stride[1]
    taken = [
        values[image, :, row + y * dilation[0], column + x * dilation[1]] for y in range(high) for x in range(wide)
    ]
    patches = torch.stack(taken, 2).reshape(count, groups, -1)
    return patches.transpose(0, 1)


def _rounded(weight: Tensor, patches: Tensor, grid: Grid) -> Tensor:
    """`weight` (out, …) rounded for inputs (groups, patches, weights of a channel)."""
    groups = len(patches)
    rows = weight.double().reshape(groups, len(weight) // groups, -1)
    steps = whole_weights(weight, grid, groups)[1].double().reshape(rows.shape[:2])
    products = (patches.transpose(1, 2) @ patches).double()
    variances = products.diagonal(dim1=1, dim2=2)
    damping = (_DAMPING * variances.mean(1)).clamp_min(1e-9)
    order = variances.argsort(1, descending=True)
    size = rows.shape[2]
    products = products + torch.diag_embed(damping[:, None].expand(-1, size))
    products = products.gather(1, order[:, :, None].expand(-1, -1, size)).gather(
        2, order[:, None, :].expand(-1, size, -1)
    )
    upper = torch.linalg.cholesky(torch.linalg.inv(products), upper=True)
    sorted_rows = rows.gather(2, order[:, None, :].expand_as(rows))
    places = order.argsort(1)
    beside = partners(tuple(weight.shape), groups) if grid == "paired" else torch.zeros((size, 0), dtype=torch.long)
    # Where each group's weights have their partners, once sorted; the last place stands for none.
    moved = torch.cat([places, places.new_full((groups, 1), size)], 1)[:, beside]
    moved = moved.gather(1, order[:, :, None].expand(-1, -1, beside.shape[1]))
    back = places[:, None, :].expand_as(rows)
    largest = rows.abs().argmax(2, keepdim=True)
    found = _column_by_column(sorted_rows, upper, steps, back.gather(2, largest), moved)
    found = (found.gather(2, back) * steps[:, :, None]).scatter(2, largest, rows.gather(2, largest))
    return found.reshape(weight.shape).to(weight.dtype)


def _column_by_column(rows: Tensor, upper: Tensor, steps: Tensor, largest: Tensor, beside: Tensor) -> Tensor:
    """`rows` (groups, channels, weights) as whole numbers of `steps` (groups, channels).

    `largest` (groups, channels, 1): the weight of each channel that keeps its value, there from the start. `beside`
    (groups, weights, 0 to 2): those that each must fit with in 16 bits.
    """
    rows = rows.clone()
    groups, channels, size = rows.shape
    kept = (rows.gather(2, largest) / steps[:, :, None]).round()
    found = torch.zeros((groups, channels, size + 1), dtype=rows.dtype).scatter(2, largest, kept)
    for first in range(0, size, _BLOCK):
        last = min(first + _BLOCK, size)
        errors = torch.zeros_like(rows[:, :, first:last])
        for column in range(first, last):
            value = rows[:, :, column]
            whole = (value / steps).round().clamp(-LARGEST, LARGEST)
            if beside.shape[2]:
                near = found.gather(2, beside[:, None, column].expand(-1, channels, -1))
                whole = whole.clamp(-PAIR - near.clamp_max(0).amin(2), PAIR - near.clamp_min(0).amax(2))
            whole = torch.where(largest[:, :, 0] == column, kept[:, :, 0], whole)
            found[:, :, column] = whole
            error = (value - whole * steps) / upper[:, column, column, None]
            errors[:, :, column - first] = error
            rows[:, :, column + 1 : last] -= error[:, :, None] * upper[:, None, column, column + 1 : last]
        rows[:, :, last:] -= errors @ upper[:, first:last, last:]
    return found[:, :, :size]
