"""The ladder and what it starts from: flat networks, repairs, sensitivities, which rung is taken."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgecnn.artifact import Preprocess
from edgecnn.errors import UserError
from edgecnn.formats import Source
from edgecnn.judge import Yardstick
from edgecnn.models import Deployed
from edgecnn.profiles import load_target
from edgecnn.quantize import ladder
from edgecnn.quantize.candidates import Networks
from edgecnn.quantize.flat import find_weights, flatten, keys_of, layers_of, new_weights, replacements
from edgecnn.quantize.ladder import Rung, TuningSet, climb
from edgecnn.quantize.observe import OBSERVERS, Histogram, exception_for
from edgecnn.quantize.repair import equalise, train_with_rounding
from edgecnn.quantize.rounding import correct_bias
from edgecnn.quantize.simulate import (
    Resumed,
    better_observers,
    histograms_of,
    logits_of,
    round_weight,
    run_simulated,
    simulated,
    sqnr,
)
from edgecnn.runtimes import Session
from tests.conftest import pictures

SIDE = 24
images = partial(pictures, side=SIDE)


def block(uneven: bool) -> nn.Module:
    """Inverted residual without its residual, with channels of very different size where `uneven`."""
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
        nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
        nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    with torch.no_grad():
        for _ in range(4):
            net(torch.from_numpy(images(8)).permute(0, 3, 1, 2) / 128.0 - 1)
        if uneven:
            net[1].weight *= torch.logspace(-2, 0, 16)
            net[1].bias *= torch.logspace(-2, 0, 16)
    return Deployed(net.eval(), Preprocess(height=SIDE, width=SIDE)).eval()


def flat(uneven: bool = False) -> Any:
    return flatten(block(uneven), SIDE, SIDE)


def tuning(module: nn.Module, **changes: Any) -> TuningSet:
    validation = images(20, 100)
    logits = logits_of(module, validation).numpy()
    known = {
        "calibration": images(24), "validation": validation, "validation_labels": logits.argmax(1),
        "validation_logits": logits, "yardstick": Yardstick(1.0), "threads": 1,
    }  # fmt: skip
    return TuningSet(**{**known, **changes})


def test_a_flat_network_answers_the_same_without_batchnorm() -> None:
    module = block(False)
    graph = flatten(module, SIDE, SIDE)
    batch = images(3)
    assert np.allclose(logits_of(graph, batch), logits_of(module, batch), atol=1e-5)
    assert not any("batch_norm" in str(node.target) for node in graph.graph.nodes)
    assert [layer.weight.shape for layer in layers_of(graph)] == [(16, 3, 3, 3), (16, 1, 3, 3), (8, 16, 1, 1), (4, 8)]
    assert len({layer.name for layer in layers_of(graph)}) == 4


def test_layers_are_found_by_value_whatever_the_layout() -> None:
    layers = layers_of(flat())
    theirs = {f"tensor {9 - layer.index}": np.moveaxis(layer.weight, 0, -1).astype(np.float16) for layer in layers}
    assert find_weights(layers, theirs) == {layer.name: f"tensor {9 - layer.index}" for layer in layers}
    assert find_weights(layers, {"other": np.ones(layers[0].weight.shape)}) == {}
    assert keys_of(layers[1:2], theirs, "onnx") == ["tensor 8"]
    del theirs["tensor 8"]
    with pytest.raises(UserError, match="onnx int8: the converted network has no layer with the weights of 3$"):
        keys_of(layers[:2], theirs, "onnx")


def test_what_takes_the_place_of_a_twins_weights_is_whole_or_nothing() -> None:
    graph = flat(uneven=True)
    corrected = correct_bias(graph, images(8))
    theirs = {f"tensor {layer.index}": np.moveaxis(layer.weight, 0, -1) for layer in layers_of(graph)}
    found = replacements(graph, corrected, theirs)
    assert found is not None
    assert {key: one.layer.index for key, one in found.items()} == {f"tensor {n}": n for n in range(4)}
    assert all(np.array_equal(one.new[0], layers_of(corrected)[one.layer.index].weight) for one in found.values())
    del theirs["tensor 2"]
    assert replacements(graph, corrected, theirs) is None


def test_weights_are_rounded_for_each_channel() -> None:
    weight = torch.tensor([[1.0, 0.5], [0.001, -0.0005]])
    rounded = round_weight(weight, "full")
    assert torch.allclose(rounded, weight, rtol=0.01)


def test_equalising_keeps_the_float_answers_and_evens_the_channels() -> None:
    graph = flat(uneven=True)
    made = equalise(graph, images(24))
    assert made is not None
    batch = images(8)
    before, after = logits_of(graph, batch), logits_of(made, batch)
    assert (after - before).abs().max() < 1e-3 * before.std()

    def spread(module: Any) -> float:
        first = layers_of(module)[0].weight
        largest = np.abs(first).max(axis=(1, 2, 3))
        return float(largest.max() / largest.min())

    assert spread(made) < spread(graph) / 1.5


def test_a_network_without_pairs_is_not_equalised() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardswish(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    graph = flatten(Deployed(net.eval(), Preprocess(height=SIDE, width=SIDE)), SIDE, SIDE)
    assert equalise(graph, images(4)) is None


def test_a_corrected_bias_brings_the_mean_of_the_rounded_network_back() -> None:
    graph = flat(uneven=True)
    batch = images(16)

    def offset(module: Any) -> float:
        rounded = run_simulated(simulated(module, {}), batch)
        return float((rounded - logits_of(graph, batch)).mean(0).abs().max())

    assert offset(correct_bias(graph, batch)) < offset(graph) / 10


def test_training_with_rounding_lowers_its_loss_and_leaves_the_start_alone() -> None:
    graph = flat(uneven=True)
    before = logits_of(graph, images(2)).clone()
    ranges = {
        name: (0.0 if one.low >= 0 else one.low, one.high / 3) for name, one in histograms_of(graph, images(8)).items()
    }
    made, record = train_with_rounding(graph, graph, ranges, images(24))
    assert record["last_loss"] < record["first_loss"]
    assert torch.equal(logits_of(graph, images(2)), before)
    assert not any(tensor.requires_grad for tensor in made.parameters())


def test_networks_choose_the_observer_with_the_least_simulated_noise(tmp_path: Path) -> None:
    module = block(True)
    networks = Networks(Source(module, SIDE, SIDE, tmp_path), tuning(module))
    values = list(networks.observers.values())
    assert values == sorted(values, reverse=True)
    assert networks.observer == next(iter(networks.observers))
    ranked = networks.sensitive(networks.corrected(networks.plain, "full"), networks.plain, "full")
    assert [value for _, value in ranked] == sorted(value for _, value in ranked)


def test_sqnr_of_known_noise() -> None:
    signal = np.ones(1000)
    assert abs(sqnr(signal, signal * 1.1) - 20) < 1e-6


class _Fake(Session):
    """An engine whose answers are what the file says: the share of images on which it errs."""

    def __init__(self, path: Path, reference: np.ndarray) -> None:
        self.wrong, self.reference, self.seen = float(path.read_text()), reference, 0

    def run(self, batch: np.ndarray) -> np.ndarray:
        logits = self.reference[self.seen][None].copy()
        if self.seen < self.wrong * len(self.reference):
            logits = -logits
        self.seen += 1
        return logits

    def close(self) -> None:
        pass


def rungs(*shares: float | None) -> Iterator[Rung]:
    for share in shares:

        def make(folder: Path, share: float | None = share) -> tuple[str, ...]:
            if share is None:
                raise UserError("slower than fp32 here")
            (folder / "model").write_text(str(share))
            return ("model",)

        yield Rung(f"rung {share}", make)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> TuningSet:
    found = tuning(block(False))
    logits = np.eye(4, dtype=np.float32)[np.arange(20) % 4]
    found = TuningSet(images(2), found.validation, logits.argmax(1), logits, Yardstick(1.0), 1)
    monkeypatch.setattr(ladder, "open_file", lambda path, *rest: _Fake(path, logits))
    return found


def test_the_first_good_rung_ends_the_climb(engine: TuningSet, tmp_path: Path) -> None:
    said: list[str] = []
    folder, files, notes = climb(rungs(0.5, None, 0.0, 0.25), "fake", engine, tmp_path, said.append)
    assert notes["rung"] == "rung 0.0"
    assert [row["rung"] for row in notes["rungs_tried"]] == ["rung 0.5", "rung 0.0"]
    assert notes["rungs_refused"] == ["rung None: slower than fp32 here"]
    assert (folder / files[0]).read_text() == "0.0"
    assert "agreement 50.0%" in said[0]
    assert [row["criterion"].partition(":")[0] for row in notes["rungs_tried"]] == ["not met", "met"]
    assert notes["unfinished"] == []


def test_without_a_good_rung_the_best_is_taken(engine: TuningSet, tmp_path: Path) -> None:
    notes = climb(rungs(0.5, 0.25, 0.75), "fake", engine, tmp_path, lambda text: None)[2]
    assert notes["rung"] == "rung 0.25"
    assert notes["unfinished"] == ["the aim of the ladder is not met: the best of 3 rungs is taken"]


def test_the_time_box_ends_the_climb(engine: TuningSet, tmp_path: Path) -> None:
    boxed = TuningSet(**{**engine.__dict__, "minutes": 0.0})
    notes = climb(rungs(0.5, 0.0), "fake", boxed, tmp_path, lambda text: None)[2]
    assert notes["rung"] == "rung 0.5"
    assert "not tried after 0 minutes" in notes["rungs_refused"][0]
    alone, why = notes["unfinished"]
    assert alone == "the aim of the ladder is not met: its only rung is taken"
    assert why == notes["rungs_refused"][0]


def test_a_rung_that_fails_leaves_those_made_before(engine: TuningSet, tmp_path: Path) -> None:
    """Whether it is its file or the network that it starts from which cannot be made."""

    def broken(folder: Path) -> tuple[str, ...]:
        raise RuntimeError("the engine gave up")

    def failing() -> Iterator[Rung]:
        yield from rungs(0.5)
        yield Rung("broken", broken)
        yield from rungs(0.25)
        raise MemoryError("no room to train")

    notes = climb(failing(), "fake", engine, tmp_path, lambda text: None)[2]
    assert notes["rung"] == "rung 0.25"
    assert notes["rungs_refused"] == ["broken: the engine gave up", "further rungs: no room to train"]
    with pytest.raises(RuntimeError, match="gave up"):
        climb(iter([Rung("broken", broken)]), "fake", engine, tmp_path, lambda text: None)


def test_no_rung_at_all_is_one_line(engine: TuningSet, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no rung could be written: rung None: slower than fp32 here"):
        climb(rungs(None), "fake", engine, tmp_path, lambda text: None)


def test_dynamic_quantisation_is_refused_with_the_reason(tmp_path: Path) -> None:
    target = tmp_path / "mine.toml"
    target.write_text(
        'name = "mine"\ndescription = ""\nmachine = "x86_64"\nthreads = 1\nbudget = "9ms@p99"\n'
        "accuracy_loss_limit = 1.0\n"
        '[[variants]]\nformat = "onnx"\nprecision = "int8-dynamic"\nruntime = "onnxruntime"\n'
    )
    with pytest.raises(UserError, match=r"mine\.toml.*'int8-dynamic' is refused"):
        load_target(str(target))


def test_tensors_are_known_by_their_values() -> None:
    networks_seen = histograms_of(flat(uneven=True), images(12))
    known = tuple((histogram, name) for name, histogram in networks_seen.items())
    for name, histogram in networks_seen.items():
        assert exception_for(histogram, known) == name
    other = Histogram(next(iter(networks_seen.values())).counts, -1e3, 1e3)
    assert exception_for(other, known) is None


def test_a_better_observer_lessens_the_noise_of_its_tensor() -> None:
    graph = flat(uneven=True)
    seen = histograms_of(graph, images(16))
    chosen = better_observers(graph, seen, "percentile 99.5", images(16))
    assert chosen.keys() <= seen.keys()
    before = {name: OBSERVERS["percentile 99.5"](one) for name, one in seen.items()}
    after = {name: OBSERVERS[chosen.get(name, "percentile 99.5")](one) for name, one in seen.items()}
    reference = logits_of(graph, images(16)).numpy()
    noise = [sqnr(reference, run_simulated(simulated(graph, ranges), images(16)).numpy()) for ranges in (before, after)]
    assert noise[1] > noise[0] + 0.5


def test_a_network_goes_on_from_any_of_its_tensors() -> None:
    graph = flat(uneven=True)
    names = set(histograms_of(graph, images(2)))
    resumed = Resumed(graph, names, images(4))
    assert torch.equal(resumed.logits, logits_of(graph, images(4)))
    for name in names:
        assert torch.equal(resumed.run(name, resumed.value(name)), resumed.logits)
        assert not torch.equal(resumed.run(name, torch.zeros_like(resumed.value(name))), resumed.logits)


def test_what_stays_in_float_is_not_corrected() -> None:
    graph = flat(uneven=True)
    nodes = {layer.node for layer in layers_of(graph)}
    untouched = correct_bias(graph, images(8), nodes)
    assert torch.allclose(logits_of(untouched, images(4)), logits_of(graph, images(4)), atol=1e-4)


def test_the_weights_of_a_twin_are_those_of_its_graph() -> None:
    graph = flat(uneven=True)
    pairs = new_weights(graph, correct_bias(graph, images(8)))
    assert pairs is not None
    assert [one.layer.name for one in pairs] == [layer.name for layer in layers_of(graph)]
    assert all(np.array_equal(one.old[0], one.new[0]) for one in pairs)
    assert any(not np.array_equal(one.old[1], one.new[1]) for one in pairs)
