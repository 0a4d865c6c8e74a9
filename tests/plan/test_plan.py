"""The plan: counts that agree with the network, a domain that is measured, test images left alone, valid JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

from edgecnn.advice import Facts, advise
from edgecnn.artifact import Preprocess
from edgecnn.cli.verbs import get, register
from edgecnn.data import Dataset, load_folder
from edgecnn.errors import UserError
from edgecnn.models import build, head_of, stages
from edgecnn.plan import COMPARED, Plan, plan
from edgecnn.plan.domain import _alive, features, judge_domain, probe_accuracy
from edgecnn.plan.freeze_map import freeze_map
from edgecnn.plan.sample import take_sample
from edgecnn.profiles import load_target
from edgecnn.recipes import StartingPoint
from tests.conftest import encode, picture
from tests.training import write_images

DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    write_images(root, (24, 24, 12))
    return root


@pytest.fixture(scope="module")
def random_plan(parts: Path) -> Plan:
    data = load_folder(parts)
    for item in data.test:
        item.path.rename(item.path.with_suffix(".hidden"))
    try:
        return plan(data, "timm:mobilenetv2_035", load_target("desktop-cpu"), weights="none", size=32, device=DEVICE)
    finally:
        for item in data.test:
            item.path.with_suffix(".hidden").rename(item.path)


@pytest.fixture
def data(parts: Path) -> Dataset:
    return load_folder(parts)


def test_the_test_split_is_counted_but_never_read(random_plan: Plan, data: Dataset) -> None:
    assert random_plan.data.test == len(data.test) > 0


def test_classes_are_counted_in_every_split(random_plan: Plan, data: Dataset) -> None:
    described = random_plan.data
    assert [row.name for row in described.classes] == list(data.classes)
    assert sum(row.train for row in described.classes) == described.train == len(data.train)
    assert sum(row.share for row in described.classes) == pytest.approx(1)
    assert described.smallest == "striped"
    assert described.imbalance == pytest.approx(16 / 8)


def test_files_are_described(random_plan: Plan) -> None:
    assert random_plan.data.median_side == 40
    assert random_plan.data.least_side == 40
    assert random_plan.data.colour == "colour"


@pytest.mark.parametrize("name", ["timm:mobilenetv2_035", "torchvision:squeezenet1_1", "timm:convnext_atto"])
def test_the_freeze_map_adds_up_to_the_network(name: str) -> None:
    module = build(name, 3, "none").module
    total = sum(parameter.numel() for parameter in module.parameters())
    mapped = freeze_map(module, StartingPoint())
    assert [row.name for row in mapped.stages] == [stage.name for stage in stages(module)]
    assert sum(row.parameters for row in mapped.stages) == total
    for row in mapped.recipes:
        assert row.trainable + row.frozen == total
        # No stage is trained in part.
        trained = [stage for stage in mapped.stages if stage.lr[row.recipe] is not None]
        assert sum(stage.parameters for stage in trained) == row.trainable
        assert len(trained) == row.stages
    head, last, every = mapped.recipes
    assert head.trainable == sum(parameter.numel() for parameter in head_of(module)[1].parameters())
    assert head.trainable < last.trainable < every.trainable == total


def test_a_new_head_for_four_classes_of_mobilenet_v2_has_5124_parameters() -> None:
    mapped = freeze_map(build("torchvision:mobilenet_v2", 4, "none").module, StartingPoint(random=True))
    assert mapped.recipes[0].trainable == 5_124


def test_random_weights_train_the_stem_at_the_heads_rate() -> None:
    module = build("timm:mobilenetv2_035", 3, "none").module
    assert len({row.lr["all"] for row in freeze_map(module, StartingPoint(random=True)).stages}) == 1
    assert len({row.lr["all"] for row in freeze_map(module, StartingPoint()).stages}) > 1


def test_random_weights_have_no_domain_and_nothing_to_freeze(random_plan: Plan) -> None:
    assert random_plan.domain.verdict == "unknown"
    assert random_plan.domain.pretrained is None
    assert random_plan.advice.recipe == "scratch"


def test_every_recipe_has_a_cost_with_its_assumptions(random_plan: Plan) -> None:
    cost = random_plan.cost
    assert tuple(row.recipe for row in cost.recipes) == COMPARED
    assert [row.computed_once for row in cost.recipes] == [True, True, False]
    assert any("early stopping" in line for line in cost.assumptions)
    assert cost.spread >= 1
    assert {row.flag for row in cost.speedups} <= {None, "--precision bf16"}


def test_the_plan_survives_json(random_plan: Plan) -> None:
    assert Plan.model_validate_json(random_plan.model_dump_json()) == random_plan


def test_the_embedded_backbone(data: Dataset) -> None:
    found = plan(data, "edgecnn_mobilenetv2_035", load_target("raspberry-pi-4"), size=32, device=DEVICE)
    assert found.weights.startswith("embedded:")
    assert found.domain.pretrained is not None
    assert found.domain.random is not None
    assert found.advice.backbones == advise(_pi(found)).backbones


def _pi(found: Plan) -> Facts:
    return Facts(
        train_images=found.data.train,
        classes=3,
        smallest_class=1,
        largest_class=1,
        input_size=32,
        machine="aarch64",
        target="raspberry-pi-4",
    )


def test_the_network_keeps_its_numbers(data: Dataset) -> None:
    built = build("edgecnn_mobilenetv2_035", 3)
    before = {key: value.clone() for key, value in built.module.state_dict().items()}
    sample = take_sample(data, Preprocess(height=32, width=32), 24)
    judge_domain(built, 3, sample, DEVICE)
    assert all(torch.equal(before[key], value) for key, value in built.module.state_dict().items())


def test_what_random_features_already_tell_apart_has_no_domain(data: Dataset) -> None:
    sample = take_sample(data, Preprocess(height=32, width=32), 60)
    found = judge_domain(build("edgecnn_mobilenetv2_035", 3), 3, sample, DEVICE)
    assert found.images == len(data.train)
    assert found.random is not None
    if found.random >= 0.95:
        assert found.verdict == "unknown"


def test_too_few_images_say_nothing_of_the_domain(data: Dataset) -> None:
    sample = take_sample(data, Preprocess(height=32, width=32), 9)
    found = judge_domain(build("edgecnn_mobilenetv2_035", 3), 3, sample, DEVICE)
    assert found.verdict == "unknown"
    assert "9 images" in found.reason


@pytest.mark.parametrize(
    ("pretrained", "random", "verdict"),
    [(0.75, 0.5, "near"), (0.74, 0.5, "far"), (1.0, 0.95, "unknown"), (1.0, 0.94, "near"), (0.3, 0.5, "far")],
)
def test_near_means_half_the_error(
    pretrained: float, random: float, verdict: str, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: Iterator[float] = iter([pretrained, random])
    monkeypatch.setattr("edgecnn.plan.domain.probe_accuracy", lambda *_: next(answers))
    monkeypatch.setattr("edgecnn.plan.domain.features", lambda *_: np.zeros((60, 2)))
    sample = take_sample(data, Preprocess(height=32, width=32), 60)
    assert judge_domain(build("edgecnn_mobilenetv2_035", 3), 3, sample, DEVICE).verdict == verdict


def test_the_probe_tells_apart_what_can_be_and_guesses_at_noise() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 4
    noise = rng.normal(size=(120, 50))
    assert probe_accuracy(noise + 9 * np.eye(50)[labels], labels) > 0.95
    assert probe_accuracy(noise, labels) < 0.45
    assert probe_accuracy(np.full((120, 50), np.nan), labels) == 0.0
    assert probe_accuracy(np.ones((120, 50)), labels) <= 0.5


def test_a_random_network_in_which_the_signal_dies_is_mended(data: Dataset) -> None:
    module = build("timm:mobilenetv2_035", 3, "none").module
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight *= 0.03
    sample = take_sample(data, Preprocess(height=32, width=32), 12)
    assert features(module, sample, DEVICE).std(0).max() < 1e-30
    assert _alive(module, sample, DEVICE).std(0).max() > 1e-6


@pytest.mark.parametrize("name", ["timm:mobilenetv2_035", "torchvision:squeezenet1_1"])
def test_features_are_what_the_head_gets(name: str, data: Dataset) -> None:
    module = build(name, 3, "none").module
    values = features(module, take_sample(data, Preprocess(height=64, width=64), 4), DEVICE)
    head = head_of(module)[1]
    assert values.shape == (4, head.weight.shape[1])


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, (12, 12, 12))
    data = load_folder(tmp_path)
    data.train[0].path.unlink()
    with pytest.raises(UserError, match=r"cannot be read .* give the same data folder"):
        plan(data, "timm:mobilenetv2_035", load_target("desktop-cpu"), weights="none", size=32, device=DEVICE)


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.callback()(lambda: None)
    register(app, get("plan"))
    monkeypatch.setattr(sys, "argv", ["edgecnn", "plan", *map(str, words)])
    app(standalone_mode=False)


@pytest.fixture
def in_colour(tmp_path: Path) -> Path:
    for name, first in (("crack", 0), ("good", 50)):
        (tmp_path / "in colour" / name).mkdir(parents=True)
        for seed in range(first, first + 6):
            (tmp_path / "in colour" / name / f"{seed}.jpg").write_bytes(encode(picture(seed), "JPEG"))
    return tmp_path / "in colour"


def test_the_verb_prints_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], in_colour: Path
) -> None:
    before = sorted(in_colour.rglob("*"))
    call(monkeypatch, in_colour, "--model", "timm:mobilenetv2_035", "--weights", "none", "--size", 32)
    out, err = capsys.readouterr()
    for word in ("crack", "good", "freeze map", "conv_stem", "frozen", "head (A)", "minutes in all", "rules of thumb"):
        assert word in out
    assert f"edgecnn finetune '{in_colour}' --model timm:mobilenetv2_035 --weights none --size 32" in out
    assert "timing recipe last" in err
    assert sorted(in_colour.rglob("*")) == before


def test_the_verb_prints_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], in_colour: Path
) -> None:
    words = (in_colour, "--model", "timm:mobilenetv2_035", "--weights", "none", "--size", 32, "--budget", "200ms@p99")
    call(monkeypatch, *words, "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["advice"]["backbones"][0] == "resnet50"
    assert {row["recipe"] for row in found["freeze_map"]["recipes"]} == {"head", "last", "all"}


@pytest.mark.parametrize(("words", "named"), [(("--size", 7), "size"), (("--fit", "tile"), "fit")])
def test_an_unusable_option_names_itself(
    words: tuple[object, ...], named: str, monkeypatch: pytest.MonkeyPatch, in_colour: Path
) -> None:
    with pytest.raises(UserError, match=named):
        call(monkeypatch, in_colour, *words)
