"""What is frozen is computed once: the same result as the plain loop, kept by content, bounded on disk."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgecnn.data import Dataset, load_folder
from edgecnn.errors import UserError
from edgecnn.models import build, load_module
from edgecnn.train import fine_tune
from edgecnn.train.cut import cut
from edgecnn.transfer import RECIPES, param_groups, train_mode
from tests.training import Recorder, options


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


CUTTABLE = [
    "torchvision:mobilenet_v2",
    "timm:mobilenetv2_035",
    "timm:resnet18",
    "torchvision:squeezenet1_1",
    "timm:convnext_atto",
    "torchvision:shufflenet_v2_x0_5",
    "timm:regnety_002",
]


@pytest.mark.parametrize("recipe", ["head", "last"])
@pytest.mark.parametrize("name", CUTTABLE)
def test_the_halves_give_what_the_whole_gives_and_share_its_layers(name: str, recipe: str) -> None:
    module = build(name, 3, "none").module.eval()
    images = torch.randn(2, 3, 64, 64)
    half = cut(module, RECIPES[recipe], images)  # type: ignore[index]
    assert half is not None
    half.tail.eval()
    torch.testing.assert_close(half.tail(half.front(images)), module(images))
    groups = param_groups(module, RECIPES[recipe])  # type: ignore[index]
    trained = {id(parameter) for group in groups for parameter in group.parameters}
    assert trained <= {id(parameter) for parameter in half.tail.parameters()}


def test_a_transformer_is_cut_at_its_head_alone() -> None:
    module = build("timm:vit_tiny_patch16_224", 3, "none", size=32).module.eval()
    images = torch.randn(2, 3, 32, 32)
    assert cut(module, RECIPES["head"], images) is not None
    assert cut(module, RECIPES["last"], images) is None


@pytest.mark.parametrize("recipe", ["all", "progressive", "none"])
def test_nothing_is_cut_where_nothing_stays_frozen(recipe: str) -> None:
    module = build("timm:resnet18", 3, "none").module
    assert cut(module, RECIPES[recipe], torch.randn(2, 3, 32, 32)) is None  # type: ignore[index]


@pytest.mark.parametrize("recipe", ["head", "last"])
def test_as_many_views_as_epochs_train_as_the_plain_loop_does(recipe: str, data: Dataset, tmp_path: Path) -> None:
    wanted = options(recipe=recipe, epochs=3, views=3)
    fine_tune(data, wanted, tmp_path / "once")
    fine_tune(data, wanted.model_copy(update={"views": 0}), tmp_path / "plain")
    once, plain = ((tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("once", "plain"))
    for left, right in zip(once, plain, strict=True):
        assert json.loads(left)["train_loss"] == pytest.approx(json.loads(right)["train_loss"], abs=1e-4)
        assert json.loads(left)["val_loss"] == pytest.approx(json.loads(right)["val_loss"], abs=1e-4)


def test_a_kept_cache_is_used_again_and_not_after_a_change(data: Dataset, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(data.root, images)
    cache = tmp_path / "cache"

    def computed(out: str, **changes: object) -> list[str]:
        progress = Recorder()
        fine_tune(
            load_folder(images), options(recipe="last", views=1, **changes), tmp_path / out, progress, cache=cache
        )
        return [text for _, text in progress.parts if "preparing" in text or "computing" in text]

    everything = ["preparing images"] * 2 + ["computing what is frozen, view 1", "computing what is frozen"]
    assert computed("first") == everything
    assert computed("again") == []
    assert computed("other transform", augment="natural") == everything[2:]
    assert computed("other weights", seed=1)[-2:] == everything[2:]
    changed = load_folder(images).train[0].path
    Image.fromarray(np.full((40, 40, 3), 77, np.uint8)).save(changed)
    after = computed("changed image")
    assert "preparing images" in after
    assert "computing what is frozen, view 1" in after


def test_fewer_views_where_the_disk_is_small(data: Dataset, tmp_path: Path) -> None:
    progress = Recorder()
    wanted = options(recipe="last", views=3)
    fine_tune(data, wanted, tmp_path / "all", progress)
    line = next(line for line in progress.lines if "3 views of" in line)
    size_gib = len(data.train) * 56 * 4 / 2**30  # a view: one 56-channel value an image, at 32 px
    assert line.startswith("computed once")
    fine_tune(data, wanted.model_copy(update={"disk_gib": 2.6 * size_gib}), tmp_path / "fewer", progress)
    assert any(line.startswith("2 of 3 augmented views fit") for line in progress.lines)
    fine_tune(data, wanted.model_copy(update={"disk_gib": 1e-9}), tmp_path / "none", progress)
    assert any("does not fit into 1e-09 GiB (--disk-gib): it runs in every epoch" in line for line in progress.lines)


def test_why_frozen_batchnorm_stays_in_eval_mode() -> None:
    """In training mode a frozen stage gives other values with every batch, and forgets the pretrained statistics."""
    torch.manual_seed(0)
    module = build("timm:resnet18", 3, "none").module
    recipe = RECIPES["head"]
    images = torch.randn(8, 3, 32, 32) * 3 + 1
    param_groups(module, recipe)
    train_mode(module, recipe)
    frozen = module.forward_features(images[:4])
    torch.testing.assert_close(module.forward_features(images)[:4], frozen)
    before = module.bn1.running_mean.clone()
    module.train()
    assert not torch.allclose(module.forward_features(images)[:4], module.forward_features(images[:4]), atol=1e-2)
    assert not torch.allclose(module.bn1.running_mean, before, atol=1e-2)


def test_batchnorm_of_trained_stages_can_be_frozen_too(data: Dataset, tmp_path: Path) -> None:
    fine_tune(data, options(recipe="all", epochs=1, batchnorm="frozen"), tmp_path / "out")
    state = load_module(tmp_path / "out")[1].state_dict()
    means = [value for key, value in state.items() if key.endswith("running_mean")]
    assert means
    assert all(not mean.any() for mean in means)  # as a network with random weights begins


def test_changed_views_are_another_run(data: Dataset, tmp_path: Path) -> None:
    fewer = dataclasses.replace(data, train=data.train[:12])
    fine_tune(fewer, options(recipe="last", views=1, epochs=1), tmp_path / "out")
    with pytest.raises(UserError, match="views 1, now 2"):
        fine_tune(fewer, options(recipe="last", views=2, epochs=1), tmp_path / "out")
