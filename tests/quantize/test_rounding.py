"""Weights rounded by the data, constant channels, and what hard-swish reads."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgecnn.artifact import Preprocess
from edgecnn.formats import Source
from edgecnn.judge import Yardstick
from edgecnn.models import Deployed
from edgecnn.quantize import get
from edgecnn.quantize.candidates import Networks
from edgecnn.quantize.constant import lift_constants
from edgecnn.quantize.flat import flatten, layers_of
from edgecnn.quantize.ladder import TuningSet
from edgecnn.quantize.observe import ABOVE_MINUS_3, OBSERVERS, observe
from edgecnn.quantize.rounding import correct_bias, round_by_data
from edgecnn.quantize.simulate import (
    before_hard_swish,
    better_observers,
    histograms_of,
    logits_of,
    round_weight,
    run_simulated,
    simulated,
    sqnr,
)
from edgecnn.runtimes import open_file
from tests.conftest import pictures

SIDE = 24
images = partial(pictures, side=SIDE)
CONSTANT = 5


def flat(*layers: nn.Module) -> Any:
    net = Deployed(nn.Sequential(*layers).eval(), Preprocess(height=SIDE, width=SIDE)).eval()
    return flatten(net, SIDE, SIDE)


def with_a_constant_channel() -> Any:
    """Hard-swish, as MobileNetV3 has it: one channel is −0.03 everywhere and weighs a hundred times more."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 1, 1, groups=16)
    with torch.no_grad():
        first.weight *= 8
        first.weight[CONSTANT], first.bias[CONSTANT] = 0, -0.06
        second.weight[CONSTANT] = 20.0
    return flat(
        first, nn.Hardswish(), second, nn.Hardswish(), nn.Conv2d(16, 8, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


def with_a_lone_bias() -> Any:
    """A channel with nothing but a bias, in a layer that reads values of which an int8 step is larger."""
    torch.manual_seed(0)
    first, second, last = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 8, 1), nn.Linear(8, 4)
    with torch.no_grad():
        first.weight *= 100
        second.weight *= 0.02
        second.weight[CONSTANT], second.bias[CONSTANT] = 0, 0.15
        last.weight[:, CONSTANT] = torch.tensor([5.0, -5.0, 5.0, -5.0])
    return flat(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)


def noise(graph: Any, reference: Any, observer: str | None = None) -> float:
    """SQNR (dB) of the simulated network; of its weights alone without an observer."""
    seen = histograms_of(graph, images(16)) if observer else {}
    ranges = {name: OBSERVERS[observer](one) for name, one in seen.items()} if observer else {}
    rounded = run_simulated(simulated(graph, ranges), images(16, 50))
    return sqnr(logits_of(reference, images(16, 50)).numpy(), rounded.numpy())


def test_a_constant_channel_is_lifted_and_nothing_else_changes() -> None:
    graph = with_a_constant_channel()
    lifted = lift_constants(graph, images(8))
    batch = images(8, 50)
    assert torch.allclose(logits_of(lifted, batch), logits_of(graph, batch), atol=1e-4)
    assert noise(lifted, graph, "min-max") > noise(graph, graph, "min-max") + 6
    before, after = (layers_of(one)[1].weight for one in (graph, lifted))
    others = np.arange(len(before)) != CONSTANT
    assert np.array_equal(before[others], after[others])
    assert np.abs(after[CONSTANT]).max() < np.abs(before[CONSTANT]).max() / 10


def test_a_network_without_constant_channels_is_left_as_it_is() -> None:
    graph = flat(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert lift_constants(graph, images(4)) is graph


def test_rounded_by_the_data_the_answers_are_nearer_than_rounded_to_the_nearest() -> None:
    torch.manual_seed(1)
    first = nn.Conv2d(3, 16, 3, 2, 1)
    graph = flat(
        first, nn.ReLU(), nn.Conv2d(16, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 1, 1, groups=32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip
    nearest = correct_bias(graph, images(16))
    by_data = correct_bias(graph, images(16), (), round_by_data(graph, images(16)))
    assert noise(by_data, graph) > noise(nearest, graph) + 2


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 2), st.sampled_from([0, 1, "same", "valid"]), st.integers(1, 2),
    st.sampled_from([1, 2, 4]),
)  # fmt: skip
def test_any_convolution_is_rounded_to_steps_that_every_engine_finds_again(
    kernel: int, stride: int, padding: int | str, dilation: int, groups: int
) -> None:
    torch.manual_seed(kernel)
    stride = 1 if padding == "same" else stride
    padding = 1 if padding == "same" and kernel == 2 else padding
    first = nn.Conv2d(3, 8, 3)
    second = nn.Conv2d(8, 12, kernel, stride, padding, dilation, groups)
    graph = flat(first, nn.ReLU(), second, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for layer in layers_of(graph):
        weight = round_by_data(graph, images(4))[layer.node]
        largest = np.abs(layer.weight).max(axis=(1, 2, 3))
        assert np.allclose(weight.abs().amax((1, 2, 3)), largest, rtol=1e-6)
        steps = torch.from_numpy(largest / 127).reshape(-1, 1, 1, 1)
        assert torch.allclose(round_weight(weight, "full"), weight, atol=1e-6)
        assert (weight / steps - (weight / steps).round()).abs().max() < 1e-3


def test_layers_that_are_no_convolutions_of_images_are_rounded_to_the_nearest() -> None:
    torch.manual_seed(0)
    rows = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(2), nn.Conv1d(4, 4, 5), nn.Flatten(), nn.LazyLinear(3))
    rows(torch.zeros(1, 3, SIDE, SIDE))
    graph = flat(*rows)
    made = round_by_data(graph, images(4))
    (row,) = [layer for layer in layers_of(graph) if layer.weight.ndim == 3]
    assert torch.equal(made[row.node], round_weight(torch.from_numpy(row.weight), "full"))
    assert len(made) == 3


def test_what_only_hard_swish_reads_is_covered_from_minus_three() -> None:
    graph = with_a_constant_channel()
    cut = before_hard_swish(graph)
    assert len(cut) == 2
    seen = histograms_of(graph, images(8))
    assert cut <= seen.keys()
    chosen = better_observers(graph, seen, "min-max", images(8))
    assert {chosen[name] for name in cut} <= set(ABOVE_MINUS_3.values())
    assert {name: chosen[name] for name in chosen.keys() - cut}.items() <= {
        (name, observer) for name in chosen for observer in ABOVE_MINUS_3
    }


@given(st.floats(-50, 2), st.floats(0.1, 50))
def test_an_observer_above_minus_three_never_covers_less_than_hard_swish_tells_apart(low: float, width: float) -> None:
    values = np.linspace(low, low + width, 500, dtype=np.float32)
    histogram = observe(lambda image: {"x": values}, images(1))["x"]
    covered = OBSERVERS[ABOVE_MINUS_3["min-max"]](histogram)
    if low >= -3 or low + width <= -3:
        assert covered == OBSERVERS["min-max"](histogram)
    else:
        assert covered == pytest.approx((-3.0, float(values.max())), abs=1e-6)


@pytest.mark.parametrize(("name", "runtime"), [("onnx", "onnxruntime"), ("openvino", "openvino"), ("litert", "litert")])
def test_engines_keep_a_bias_that_stands_alone(name: str, runtime: str, tmp_path: Path) -> None:
    pytest.importorskip({"openvino": "nncf", "litert": "litert_torch"}.get(name, "onnxruntime"))
    graph = with_a_lone_bias()
    batch, none = images(16, 50), np.zeros(2, np.int64)
    module = Deployed(nn.Identity(), Preprocess(height=SIDE, width=SIDE))
    source = Source(module, SIDE, SIDE, tmp_path, {})
    networks = Networks(source, TuningSet(images(16), images(2), none, np.zeros((2, 4), np.float32), Yardstick(1.0), 1))
    networks.__dict__["plain"] = networks._source("flat", graph)
    out = tmp_path / "out"
    out.mkdir()
    files = get(name).write(networks.attempt("as it is", "paired", networks.plain), networks.tuning, out)
    session = open_file(out / files[0], runtime, "int8", 1)
    got = np.concatenate([session.run(image[None]) for image in batch])
    session.close()
    reference = logits_of(graph, batch).numpy()
    assert np.abs((got - reference).mean(0)).max() < 0.1 * np.abs(reference).max()
