"""Weights that cannot saturate where products are added in pairs of 16 bits, proven on the files that are written."""

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

from edgecnn import quantize
from edgecnn.artifact import Preprocess
from edgecnn.errors import UserError
from edgecnn.formats import Source
from edgecnn.judge import Yardstick
from edgecnn.models import Deployed
from edgecnn.profiles import load_target
from edgecnn.quantize.flat import flatten, groups_by_weight, layers_of
from edgecnn.quantize.grid import (
    PAIR,
    Grid,
    StoredWeight,
    grid_for,
    neighbours,
    partners,
    refuse_saturation,
    whole_weights,
    worst_pair,
)
from edgecnn.quantize.ladder import Attempt, Quantizer, TuningSet, climb, rungs
from edgecnn.quantize.rounding import round_by_data
from edgecnn.quantize.simulate import histograms_of, logits_of, run_simulated, simulated
from edgecnn.runtimes import open_file
from tests.conftest import pictures

SIDE = 24
images = partial(pictures, side=SIDE)
SHAPES = [(8, 6, 1, 1), (5, 3, 3, 3), (4, 7, 2, 2), (6, 1, 3, 3), (6, 9), (3, 1), (2, 2, 5, 1)]


def bright(count: int, first: int = 0) -> np.ndarray:
    """Nearly white: what saturates if anything does."""
    return np.maximum(images(count, first), 250)


class Loud(nn.Module):
    """Weights of one sign and size, so that every pair of full-range ones saturates; every kind of layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.grouped = nn.Conv2d(16, 12, 3, 1, 1, groups=4)
        self.point = nn.Conv2d(12, 10, 1)
        self.hidden = nn.Linear(10, 9)
        self.head = nn.Linear(9, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.stem, self.depthwise, self.grouped, self.point):
            x = torch.relu(layer(x))
        logits: torch.Tensor = self.head(torch.relu(self.hidden(x.mean((2, 3)))))
        return logits


@pytest.fixture(scope="module")
def loud() -> Any:
    torch.manual_seed(0)
    net = Loud()
    with torch.no_grad():
        for layer in net.children():
            layer.weight.copy_(0.9 + 0.1 * torch.rand_like(layer.weight)).div_(layer.weight[0].numel())
        net.head.weight *= torch.tensor([1.0, -1.0, 0.5, -0.5])[:, None]
    module = Deployed(net.eval(), Preprocess(height=SIDE, width=SIDE, mean=(0, 0, 0), std=(1, 1, 1)))
    return flatten(module, SIDE, SIDE)


def tuning(graph: Any, **changes: Any) -> TuningSet:
    logits = logits_of(graph, bright(6, 50)).numpy()
    return TuningSet(bright(12), bright(6, 50), logits.argmax(1), logits, Yardstick(1.0), 1, **changes)


def written(name: str, graph: Any, grid: Grid, folder: Path) -> tuple[Quantizer, Path]:
    quantizer = quantize.get(name)
    (folder / "out").mkdir()
    attempt = Attempt("as it is", Source(graph, SIDE, SIDE, folder), "min-max", grid=grid)
    files = quantizer.write(attempt, tuning(graph), folder / "out")
    return quantizer, folder / "out" / files[0]


def installed(name: str) -> str:
    try:
        quantize.get(name)
    except UserError as error:
        pytest.skip(str(error))
    return name


class TestRounding:
    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(SHAPES), st.integers(0, 10**6), st.sampled_from([1.0, 0.05, 3.0]), st.booleans())
    def test_no_pair_is_too_large_and_no_weight_is_far_off(
        self, shape: tuple[int, ...], seed: int, spread: float, one_sign: bool
    ) -> None:
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * spread
        weight = weight.abs() if one_sign else weight
        groups = shape[0] if shape[1] == 1 else 1
        whole, steps = whole_weights(weight, "paired", groups)
        assert refuse_saturation([StoredWeight("one", whole.numpy().astype(np.int8), groups)]) <= PAIR
        flat = weight.flatten(1)
        assert ((whole.flatten(1) * steps[:, None] - flat).abs() <= 0.5001 * steps[:, None]).all()
        finest, coarsest = flat.abs().amax(1) / 127, flat.abs().amax(1) / 64
        assert (steps >= 0.9999 * finest).all()
        assert (steps <= 1.0001 * coarsest).all()

    @settings(max_examples=30, deadline=None)
    @given(st.sampled_from(SHAPES), st.integers(0, 10**6), st.sampled_from(["full", "paired"]))
    def test_rounded_weights_are_found_again(self, shape: tuple[int, ...], seed: int, grid: Grid) -> None:
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        whole, steps = whole_weights(weight, grid)
        again = whole_weights(whole * steps.reshape(-1, *[1] * (weight.dim() - 1)), grid)
        assert torch.allclose(again[0] * again[1].reshape(-1, *[1] * (weight.dim() - 1)), whole * steps.reshape(
            -1, *[1] * (weight.dim() - 1)), rtol=1e-5)  # fmt: skip

    def test_what_is_a_pair(self) -> None:
        assert neighbours((8, 4, 1, 1)).tolist() == [[0, 1], [2, 3]]
        assert neighbours((8, 5)).tolist() == [[0, 1], [2, 3]]
        # Two channels at one of two places each, whichever the order.
        assert neighbours((8, 2, 1, 2)).tolist() == [[0, 2], [1, 3]]
        # Three channels: oneDNN takes the first two of each place; in the order of memory they cross places.
        assert neighbours((8, 3, 1, 2)).tolist() == [[0, 2], [1, 3], [1, 4], [3, 5]]
        assert neighbours((8, 1, 3, 3), 8).shape == (0, 2)
        assert len(neighbours((16, 1, 3, 3), 8)) == 4
        assert partners((8, 3, 1, 2)).tolist() == [[2, 6], [3, 4], [0, 6], [1, 5], [1, 6], [3, 6]]

    def test_depthwise_convolutions_keep_all_steps(self) -> None:
        weight = torch.full((4, 1, 3, 3), 0.5)
        assert whole_weights(weight, "paired", 4)[0].unique().tolist() == [127]
        assert whole_weights(weight, "paired", 1)[0].unique().tolist() == [64]

    def test_opposite_signs_need_nothing(self) -> None:
        weight = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
        assert whole_weights(weight, "paired")[0].tolist() == [[127, -127, 127, -127]]

    def test_rounding_by_data_keeps_pairs_small_and_loses_less(self, loud: Any) -> None:
        made = round_by_data(loud, bright(8), "paired")
        groups = {
            layer.node: count for layer, count in zip(layers_of(loud), groups_by_weight(loud).values(), strict=True)
        }
        for layer in layers_of(loud):
            whole, steps = whole_weights(made[layer.node], "paired", groups[layer.node])
            error = (whole * steps.reshape(-1, *[1] * (whole.dim() - 1)) - made[layer.node]).abs()
            assert (error.flatten(1) < 0.01 * steps[:, None]).all()
            pairs = neighbours(layer.weight.shape, groups[layer.node])
            assert worst_pair(whole.flatten(1), pairs).max() <= PAIR

    def test_the_limit_is_where_sixteen_bits_end(self) -> None:
        assert 255 * PAIR <= 2**15 - 1 < 255 * (PAIR + 1)
        with pytest.raises(UserError, match="conv7 has two weights that add up to 129"):
            refuse_saturation([StoredWeight("conv7", np.array([[[[65]], [[64]]]], np.int8))])
        assert refuse_saturation([StoredWeight("conv7", np.array([[[[-64]], [[-64]]]], np.int8))]) == 128


@pytest.mark.parametrize("name", quantize.names())
class TestEngines:
    def test_answers_on_this_processor_are_those_of_integers(self, name: str, loud: Any, tmp_path: Path) -> None:
        """With the grid that the engine gets: added in pairs or not, no sum is cut off."""
        grid = quantize.get(installed(name)).grid(tuning(loud, machine="x86_64"))
        quantizer, path = written(name, loud, grid, tmp_path)
        session = open_file(path, quantizer.runtime, "int8", 1)
        got = np.concatenate([session.run(image[None]) for image in bright(6, 50)])
        session.close()
        seen = histograms_of(loud, bright(12))
        ranges = {node: (one.low, one.high) for node, one in seen.items()}
        expected = run_simulated(simulated(loud, ranges, grid), bright(6, 50)).numpy()
        # A single saturated layer would take a third or more.
        assert np.abs(got - expected).max() < 0.02 * np.abs(expected).max()

    def test_the_weights_in_the_file_say_whether_they_can_saturate(self, name: str, loud: Any, tmp_path: Path) -> None:
        if quantize.get(installed(name)).in_pairs is None:
            pytest.skip("adds in 32 bits")
        for grid in ("full", "paired"):
            (tmp_path / grid).mkdir()
            quantizer, path = written(name, loud, grid, tmp_path / grid)
            assert quantizer.in_pairs is not None
            stored = {one.values.shape: one for one in quantizer.in_pairs(path)}
            shapes = [layer.weight.shape for layer in layers_of(loud)]
            assert set(stored) <= set(shapes)
            assert len(stored) >= len(shapes) - 1  # TorchScript's classifier is float
            assert {stored[shape].groups for shape in [(16, 1, 3, 3), (12, 4, 3, 3)]} == {16, 4}
            if grid == "full":
                with pytest.raises(UserError, match="two weights that add up to 254"):
                    refuse_saturation(stored.values())
            else:
                assert refuse_saturation(stored.values()) == PAIR
            assert np.abs(stored[16, 1, 3, 3].values).max() == 127


class TestTargets:
    def test_only_the_promise_of_vnni_gives_the_whole_range(self) -> None:
        assert (grid_for("any"), grid_for("vnni")) == ("paired", "full")

    def test_what_is_for_arm_is_judged_on_a_pc_that_saturates(self, loud: Any) -> None:
        grids = {
            name: quantize.get(installed(name)).grid(tuning(loud, machine="aarch64")) for name in ("onnx", "openvino")
        }
        assert set(grids.values()) == {"paired"}

    def test_a_target_says_its_instruction_set(self, tmp_path: Path) -> None:
        assert load_target("desktop-cpu").isa == "any"
        text = Path("export/desktop-cpu.toml").read_text()
        mine = tmp_path / "mine.toml"
        mine.write_text(text.replace('machine = "x86_64"', 'machine = "x86_64"\nisa = "vnni"'))
        assert load_target(str(mine)).isa == "vnni"
        mine.write_text(text.replace('machine = "x86_64"', 'machine = "aarch64"\nisa = "vnni"'))
        with pytest.raises(UserError, match=r"mine\.toml.*isa 'vnni' is of x86_64 machines"):
            load_target(str(mine))

    def test_a_rung_whose_weights_can_saturate_is_passed_over(self, loud: Any, tmp_path: Path) -> None:
        """Whatever wrote it: here one that does not know of pairs, as a tool of somebody else's."""
        onnx = quantize.get("onnx")

        def careless(attempt: Attempt, sets: TuningSet, out: Path) -> tuple[str, ...]:
            return onnx.write(Attempt("full", attempt.source, "min-max", grid="full"), sets, out)

        from edgecnn.quantize.candidates import Networks

        quantizer = Quantizer(onnx.runtime, careless, (), "train", in_pairs=onnx.in_pairs)
        tried = {}
        for isa in ("any", "vnni"):
            (tmp_path / isa).mkdir()
            sets = tuning(loud, machine="x86_64", isa=isa, minutes=0.0)
            networks = Networks(Source(loud, SIDE, SIDE, tmp_path / isa), sets)
            networks.__dict__["plain"] = networks._source("flat", loud)
            first = (rung for rung, _ in zip(rungs(quantizer, networks), range(1), strict=False))
            try:
                tried[isa] = climb(first, "onnxruntime", sets, tmp_path / isa, lambda text: None)[2]["rungs_refused"]
            except UserError as error:
                tried[isa] = str(error)
        assert "two weights that add up to 254" in tried["any"]
        assert "add up" not in str(tried["vnni"])
