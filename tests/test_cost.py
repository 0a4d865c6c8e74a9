"""Multiply-accumulates agree with the literature, and what is not counted is said."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from edgecnn.cost import measure_cost
from edgecnn.models import build

PUBLISHED = {
    "torchvision:mobilenet_v2": (3_504_872, 0.3008e9),
    "torchvision:mobilenet_v3_small": (2_542_856, 0.0565e9),
    "torchvision:resnet50": (25_557_032, 4.089e9),
}
"""Parameters, and multiply-accumulates at 224×224 with 1,000 classes."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_of_known_networks(name: str) -> None:
    cost = measure_cost(build(name, 1000, "none").module, 224, 224)
    params, macs = PUBLISHED[name]
    assert cost.params == params
    assert cost.macs == pytest.approx(macs, rel=0.005)
    assert cost.uncounted == ()
    assert cost.flops == 2 * cost.macs


def test_a_convolution_and_a_linear_layer_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 4, 5)
    )
    assert measure_cost(net, 6, 4).macs == 8 * 3 * 9 * 6 * 4 + 8 * 6 * 4 * 5


def test_normalisation_and_activation_are_no_multiply_accumulates() -> None:
    plain = nn.Conv2d(3, 8, 1)
    dressed = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Hardswish(), nn.MaxPool2d(2))
    assert measure_cost(dressed, 8, 8).macs == measure_cost(plain, 8, 8).macs


def test_fused_attention_is_listed_as_uncounted() -> None:
    module = build("timm:vit_tiny_patch16_224", 2, "none", size=32).module
    assert measure_cost(module, 32, 32).uncounted == ("scaled_dot_product_attention",)


def test_an_unknown_operation_is_listed_as_uncounted() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.fft.fft(self.conv(images)).real

    assert "fft_fft" in measure_cost(Odd(), 8, 8).uncounted


def test_measuring_leaves_the_mode_alone() -> None:
    module = torchvision.models.resnet18(num_classes=2).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    measure_cost(module, 32, 32)
    assert module.training
    assert module.bn1.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
