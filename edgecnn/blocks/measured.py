"""What a built block really holds and multiplies, against which the formulas of `edgecnn.block_cost` are checked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Measured:
    """Of one block and one image."""

    params: int
    """All that is trained: weights, biases and normalisation."""
    weights: int
    """Of convolutions alone, without biases."""
    macs: int
    """Of convolutions alone, without biases."""


def measure(block: nn.Module, inputs: int, height: int, width: int) -> Measured:
    """Run `block` on zeros (1, inputs, height, width) and count what its convolutions write. It stays in eval mode."""
    convolutions = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]
    images = torch.zeros(1, inputs, height, width, device=next(block.parameters()).device)
    macs = 0

    def count(layer: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal macs
        assert isinstance(layer, nn.Conv2d)
        macs += layer.weight.numel() * out.shape[2] * out.shape[3]

    hooks = [layer.register_forward_hook(count) for layer in convolutions]
    with torch.inference_mode():
        block.eval()(images)
    for hook in hooks:
        hook.remove()
    return Measured(
        params=sum(parameter.numel() for parameter in block.parameters()),
        weights=sum(layer.weight.numel() for layer in convolutions),
        macs=macs,
    )
