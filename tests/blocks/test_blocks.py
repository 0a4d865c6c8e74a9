"""Building blocks have the shapes and the costs that lectures and papers work out, train, and export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgecnn import block_cost, blocks, explain, formats
from edgecnn.artifact import Preprocess
from edgecnn.block_cost import At, InceptionWidths, macs, path, plain, weights
from edgecnn.blocks.measured import measure
from edgecnn.cost import measure_cost
from edgecnn.models import Deployed, build
from edgecnn.models.parts import head_dropouts, head_of, stages
from edgecnn.runtimes import open_file
from edgecnn.transfer import RECIPES, param_groups
from tests.conftest import picture

ONE = At(1, 1)
CHANNELS = st.integers(1, 40)
STRIDES = st.integers(1, 3)
SIZES = st.tuples(st.integers(4, 17), st.integers(4, 17)).map(lambda size: At(*size))


# Worked numbers


def test_a_bottleneck_of_64_in_256_channels() -> None:
    wide, narrow = weights(plain(256, 256, ONE)), weights(block_cost.bottleneck(256, 256, ONE, mid=64))
    assert (wide, narrow) == (589_824, 69_632)
    assert wide / narrow == pytest.approx(8.47, abs=0.005)


def test_from_16_to_32_channels() -> None:
    wide = weights(plain(16, 32, ONE))
    narrow = weights(path(block_cost.bottleneck(16, 32, ONE, mid=4)))
    separable = weights(block_cost.depthwise_separable(16, 32, ONE))
    assert (wide, narrow, separable) == (4_608, 336, 656)
    assert wide / narrow == pytest.approx(13.7, abs=0.05)
    assert weights(block_cost.bottleneck(16, 32, ONE, mid=4)) == 336 + 16 * 32


def test_depthwise_separable_in_128_channels() -> None:
    wide, separable = weights(plain(128, 128, ONE)), weights(block_cost.depthwise_separable(128, 128, ONE))
    assert (wide, separable) == (147_456, 17_536)
    assert wide / separable == pytest.approx(8.4, abs=0.05)


def test_depthwise_separable_from_64_to_128_channels_at_56_by_56() -> None:
    at = At(56, 56)
    wide, separable = plain(64, 128, at), block_cost.depthwise_separable(64, 128, at)
    assert (weights(wide), weights(separable)) == (73_728, 8_768)
    assert weights(wide) / weights(separable) == pytest.approx(8.41, abs=0.005)
    assert (macs(wide), macs(separable)) == (231_211_008, 27_496_448)


@given(CHANNELS, CHANNELS, SIZES, STRIDES)
def test_a_depthwise_separable_block_is_one_nth_and_a_ninth(inputs: int, outputs: int, at: At, stride: int) -> None:
    wide, separable = plain(inputs, outputs, at, stride), block_cost.depthwise_separable(inputs, outputs, at, stride)
    assert macs(separable) / macs(wide) == pytest.approx(1 / outputs + 1 / 9)


def test_mobilenet_blocks_of_32_channels() -> None:
    assert weights(block_cost.depthwise_separable(32, 32, ONE)) == 1_312
    assert weights(block_cost.inverted_residual(32, 32, ONE, expand=6)) == 14_016


def test_googlenets_module_3a() -> None:
    widths = InceptionWidths(64, 96, 128, 16, 32, 32)
    assert block_cost.inception_widths(256) == widths
    assert weights(block_cost.inception(192, widths, ONE)) == 163_328


def test_a_gradient_through_ten_layers_of_slope_a_hundredth() -> None:
    assert _gradient(residual=False) == pytest.approx(5e-21)
    assert _gradient(residual=True) == pytest.approx(0.5 * 1.01**10)
    assert _gradient(residual=True) == pytest.approx(0.55, abs=0.005)


def _gradient(residual: bool) -> float:
    """Of half the output with respect to the input."""
    layers = [nn.Linear(1, 1, bias=False, dtype=torch.float64) for _ in range(10)]
    start = torch.ones(1, dtype=torch.float64, requires_grad=True)
    value = start
    for layer in layers:
        nn.init.constant_(layer.weight, 0.01)
        value = value + layer(value) if residual else layer(value)
    (0.5 * value).backward()
    assert start.grad is not None
    return float(start.grad)


def test_the_frozen_mobilenetv2_with_a_head_for_four_classes() -> None:
    module = build("torchvision:mobilenet_v2", 4, "none").module
    param_groups(module, RECIPES["head"])
    assert (
        sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad) == 1280 * 4 + 4 == 5124
    )


# Formulas against what is built


@settings(max_examples=30, deadline=None)
@given(CHANNELS, CHANNELS, SIZES, STRIDES)
def test_plain_and_separable_blocks_cost_what_their_formulas_say(
    inputs: int, outputs: int, at: At, stride: int
) -> None:
    for name in ("plain", "basic", "depthwise-separable"):
        _agrees(name, inputs, at, outputs=outputs, stride=stride)


@settings(max_examples=30, deadline=None)
@given(CHANNELS, CHANNELS, SIZES, STRIDES, st.integers(1, 20))
def test_bottlenecks_cost_what_their_formulas_say(inputs: int, outputs: int, at: At, stride: int, mid: int) -> None:
    _agrees("bottleneck", inputs, at, outputs=outputs, stride=stride, mid=mid)
    _agrees("bottleneck", inputs, at, outputs=outputs)


@settings(max_examples=30, deadline=None)
@given(CHANNELS, CHANNELS, SIZES, STRIDES, st.integers(1, 6))
def test_inverted_residuals_cost_what_their_formulas_say(
    inputs: int, outputs: int, at: At, stride: int, expand: int
) -> None:
    _agrees("inverted-residual", inputs, at, outputs=outputs, stride=stride, expand=expand)


@settings(max_examples=20, deadline=None)
@given(CHANNELS, st.tuples(*[st.integers(1, 12)] * 6), SIZES, st.integers(1, 20))
def test_inception_and_squeeze_cost_what_their_formulas_say(
    inputs: int, widths: tuple[int, int, int, int, int, int], at: At, reduction: int
) -> None:
    branches = InceptionWidths(*widths)
    measured = measure(blocks.Inception(inputs, branches), inputs, *at)
    layers = block_cost.inception(inputs, branches, at)
    assert (measured.weights, measured.macs) == (weights(layers), macs(layers))
    _agrees("squeeze-excite", inputs, at, reduction=reduction)


def _agrees(name: str, inputs: int, at: At, **options: int) -> None:
    measured = measure(blocks.BLOCKS[name](inputs=inputs, **options), inputs, *at)
    layers = explain.BLOCKS[name].layers(inputs=inputs, at=at, **options)
    assert (measured.weights, measured.macs) == (weights(layers), macs(layers))


# Blocks


def test_every_block_that_is_explained_can_be_built() -> None:
    assert blocks.BLOCKS.keys() == explain.BLOCKS.keys()


@pytest.mark.parametrize("name", explain.BLOCKS)
def test_every_block_passes_gradients_to_its_input_and_weights(name: str) -> None:
    options = {"outputs": 32} if "outputs" in explain.BLOCKS[name].options else {}
    block = blocks.BLOCKS[name](inputs=16, **options)
    maps = torch.randn(2, 16, 9, 7, requires_grad=True)
    out = block(maps)
    assert out.shape == (2, options.get("outputs", 16), 9, 7)
    out.square().mean().backward()
    assert maps.grad is not None
    assert maps.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in block.parameters())


@pytest.mark.parametrize("name", [name for name, block in explain.BLOCKS.items() if "stride" in block.options])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_strides_round_up(name: str, stride: int) -> None:
    out = blocks.BLOCKS[name](inputs=4, outputs=8, stride=stride)(torch.zeros(2, 4, 9, 7))
    assert out.shape == (2, 8, *At(9, 7).after(stride))


@pytest.mark.parametrize(("outputs", "stride", "projected"), [(16, 1, False), (16, 2, True), (32, 1, True)])
def test_shortcuts_are_projections_only_where_width_or_stride_changes(
    outputs: int, stride: int, projected: bool
) -> None:
    for block in (blocks.basic(16, outputs, stride), blocks.bottleneck(16, outputs, stride)):
        assert isinstance(block.shortcut, nn.Identity) is not projected
    assert blocks.InvertedResidual(16, outputs, stride).added is not projected


def test_an_identity_shortcut_passes_the_input_on() -> None:
    block = blocks.basic(4, 4).eval()
    for parameter in block.path.parameters():
        nn.init.zeros_(parameter)
    maps = torch.rand(1, 4, 5, 5)
    assert torch.equal(block(maps), maps)


def test_an_inverted_residual_ends_without_an_activation() -> None:
    last = list(blocks.InvertedResidual(4, 4).path.modules())[-1]
    assert isinstance(last, nn.BatchNorm2d)


def test_squeeze_and_excite_weighs_whole_channels_by_less_than_one() -> None:
    maps = torch.rand(2, 8, 5, 4) + 0.1
    share = blocks.SqueezeExcite(8, 2)(maps) / maps
    assert torch.all((share > 0) & (share < 1))
    assert torch.allclose(share, share[:, :, :1, :1].expand_as(share), atol=1e-6)


def test_measuring_holds_on_the_meta_device() -> None:
    with torch.device("meta"):
        assert measure(blocks.basic(64, 128, 2), 64, 4096, 4096).macs == macs(
            block_cost.basic(64, 128, At(4096, 4096), 2)
        )


# Nets


@pytest.mark.parametrize("blocks_per_stage", [1, 3])
def test_the_small_resnet_ends_in_64_maps_of_8_by_8(blocks_per_stage: int) -> None:
    net = blocks.small_resnet(10, blocks_per_stage)
    images = torch.zeros(8, 3, 32, 32)
    assert net.features(images).shape == (8, 64, 8, 8)
    assert net(images).shape == (8, 10)
    shortcuts = [layer.shortcut for layer in net.modules() if isinstance(layer, blocks.Residual)]
    projected = [position for position, layer in enumerate(shortcuts) if not isinstance(layer, nn.Identity)]
    assert projected == [blocks_per_stage, 2 * blocks_per_stage]


PUBLISHED = {
    "arXiv:1512.03385, table 6: ResNet-20, 0.27 M": (blocks.small_resnet(10, 3), 32, 0.27e6, None),
    "arXiv:1704.04861, table 6: 1.0, 4.2 M and 569 M": (blocks.depthwise_net(1000, 1.0), 224, 4.2e6, 569e6),
    "arXiv:1704.04861, table 6: 0.5, 1.3 M and 149 M": (blocks.depthwise_net(1000, 0.5), 224, 1.3e6, 149e6),
    "arXiv:1704.04861, table 6: 0.25, 0.5 M and 41 M": (blocks.depthwise_net(1000, 0.25), 224, 0.5e6, 41e6),
}


@pytest.mark.parametrize("source", PUBLISHED)
def test_nets_cost_what_their_papers_say(source: str) -> None:
    net, size, params, multiply_accumulates = PUBLISHED[source]
    cost = measure_cost(net, size, size)
    assert cost.params == pytest.approx(params, rel=0.07)
    assert multiply_accumulates is None or cost.macs == pytest.approx(multiply_accumulates, rel=0.005)
    assert cost.uncounted == ()


@pytest.mark.parametrize("width", [0.05, 0.25, 0.3, 1.0])
def test_scaled_widths_are_multiples_of_eight(width: float) -> None:
    assert all(blocks.nets.scaled(channels, width) % 8 == 0 for channels in (32, 64, 1024))
    assert blocks.nets.scaled(32, 0.05) == 8


def test_every_net_has_a_size() -> None:
    assert blocks.NETS.keys() == blocks.NET_SIZES.keys()


@pytest.mark.parametrize("name", blocks.NETS)
def test_nets_have_stages_a_head_and_a_dropout(name: str) -> None:
    net = blocks.NETS[name](5)
    assert head_of(net)[1].weight.shape[0] == 5
    assert len(head_dropouts(net)) == 1
    found = stages(net)
    assert len(found) > 4
    assert found[0].name == "stem"
    counted = sum(parameter.numel() for stage in found for parameter in stage.parameters)
    assert counted == sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("name", blocks.NETS)
def test_nets_learn_twenty_images(name: str) -> None:
    torch.manual_seed(0)
    net, size = blocks.NETS[name](4), blocks.NET_SIZES[name]
    pictures = np.stack([picture(seed, size, size) for seed in range(20)])
    images, labels = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 128 - 1, torch.arange(20) % 4
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(10):
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", blocks.NETS)
def test_nets_export_to_onnx_and_decide_alike(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    size = blocks.NET_SIZES[name]
    preprocess = Preprocess(height=size, width=size, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    deployed = Deployed(blocks.NETS[name](4), preprocess)
    converted = formats.convert("onnx", formats.Source(deployed, size, size, tmp_path), "fp32", tmp_path / "out")
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    session = open_file(tmp_path / "out" / converted.files[0], "onnxruntime", "fp32", 1)
    logits = session.run(images)
    session.close()
    with torch.inference_mode():
        expected = deployed(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max(), rtol=1e-4)
