"""Schedules, mixing, averaging, thawing, several processes, and what a run says when it cannot go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

import edgecnn.train.loop
from edgecnn.data import Dataset
from edgecnn.errors import UserError
from edgecnn.models import build, stages
from edgecnn.train import TrainOptions, fine_tune, one_cycle
from edgecnn.train.loop import mix
from edgecnn.transfer import RECIPES, freeze, param_groups, thawed_at, trained_stages
from tests.training import Recorder, options, weights_hash


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_one_cycle_is_pytorchs() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=100, pct_start=0.3)
    ours = []
    theirs = []
    for step in range(99):
        ours.append(one_cycle(step, 100))
        theirs.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"][0]))
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(np.array(ours), np.array(theirs), atol=1e-5)


@given(st.integers(1, 500), st.data())
def test_one_cycle_stays_in_its_range(steps: int, drawn: st.DataObject) -> None:
    scale, momentum = one_cycle(drawn.draw(st.integers(0, steps - 1)), steps)
    assert 0 < scale <= 1
    assert 0.85 <= momentum <= 0.95


def test_progressive_thaws_from_the_head_down() -> None:
    module = build("timm:resnet18", 3, "none").module
    recipe = RECIPES["progressive"].model_copy(update={"epochs": 10})
    counts = [len(trained_stages(module, recipe, epoch)) for epoch in range(1, 11)]
    assert counts[0] == 1
    assert counts == sorted(counts)
    assert counts[5:] == [len(stages(module))] * 5
    freeze(module, recipe, 1)
    assert {name for name, p in module.named_parameters() if p.requires_grad} == {"fc.weight", "fc.bias"}
    assert thawed_at(RECIPES["all"], 1) == 1.0


def test_decay_by_stage_and_by_layer() -> None:
    module = build("timm:resnet18", 3, "none").module
    recipe = RECIPES["all"].model_copy(update={"decay": 0.5})
    rates = [group.lr for group in param_groups(module, recipe) if group.decays]
    assert rates == pytest.approx([recipe.lr * 0.5**after for after in reversed(range(len(rates)))])
    by_layer = recipe.model_copy(update={"decay_by": "layer"})
    groups = param_groups(module, by_layer)
    assert sum(p.numel() for g in groups for p in g.parameters) == sum(p.numel() for p in module.parameters())
    assert max(group.lr for group in groups) == recipe.lr
    assert len({group.lr for group in groups}) > len(rates)
    with pytest.raises(UserError, match="take it from timm:"):
        param_groups(build("torchvision:resnet18", 3, "none").module, by_layer)


def test_mixing_keeps_shares_that_add_up_to_one() -> None:
    torch.manual_seed(0)
    images, labels = torch.rand(8, 3, 16, 16), torch.arange(8) % 3
    for mixup, cutmix in ((0.4, 0.0), (0.0, 1.0), (0.4, 1.0)):
        mixed, targets = mix(images, labels, 3, mixup, cutmix)
        assert mixed.shape == images.shape
        assert targets.shape == (8, 3)
        torch.testing.assert_close(targets.sum(1), torch.ones(8))
    assert mix(images, labels, 3, 0, 0) == (images, labels)
    features = torch.rand(8, 5)
    assert mix(features, labels, 3, 0.0, 1.0)[0] is features


WAYS = [
    {"schedule": "1cycle"},
    {"ema": 0.9},
    {"mixup": 0.2, "cutmix": 1.0, "augment": "natural"},
    {"precision": "bf16"},
    {"recipe": "progressive", "epochs": 4},
    {"recipe": "all", "decay": 0.8, "decay_by": "layer"},
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(way))
def test_every_way_is_repeatable_and_resumable(
    way: dict[str, object], data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = options(**{"recipe": "all", "epochs": 2, **way})
    fine_tune(data, wanted, tmp_path / "whole")
    save = edgecnn.train.loop.save_state

    def interrupt(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(edgecnn.train.loop, "save_state", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(data, wanted, tmp_path / "cut")
    fine_tune(data, wanted, tmp_path / "cut")
    assert weights_hash(tmp_path / "cut") == weights_hash(tmp_path / "whole")


def test_the_average_is_saved_and_differs_from_the_weights(data: Dataset, tmp_path: Path) -> None:
    fine_tune(data, options(recipe="all", epochs=2, ema=0.9), tmp_path / "averaged")
    fine_tune(data, options(recipe="all", epochs=2), tmp_path / "plain")
    assert weights_hash(tmp_path / "averaged") != weights_hash(tmp_path / "plain")


def test_too_little_memory_says_what_to_change(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(edgecnn.train.loop, "mix", exhausted)
    with pytest.raises(UserError, match=r"out of memory with 12 images in a step: lower --batch \(such as 6\)"):
        fine_tune(data, options(recipe="all"), tmp_path / "out")


def test_batches_of_one_class_are_remarked(data: Dataset, tmp_path: Path) -> None:
    progress = Recorder()
    fine_tune(data, options(recipe="head", epochs=1, batch=2), tmp_path / "out", progress)
    assert any("batches hold one class only: raise --batch" in line for line in progress.lines)


def test_curves_for_tensorboard(data: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    fine_tune(data, options(recipe="head", epochs=2, tensorboard=True), tmp_path / "out")
    assert list((tmp_path / "out" / "tensorboard").glob("events.*"))


def test_the_metrics_say_how_far_it_was_thawed(data: Dataset, tmp_path: Path) -> None:
    fine_tune(data, options(recipe="progressive", epochs=4), tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    counts = [line["stages"] for line in lines]
    assert counts[0] == 1
    assert counts == sorted(counts)
    assert counts[-1] > 5


TOGETHER = """
import sys
from pathlib import Path
from edgecnn.data import load_folder
from edgecnn.train import TrainOptions, fine_tune
fine_tune(load_folder(Path(sys.argv[1])), TrainOptions.model_validate_json(sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.mark.parametrize("recipe", ["all", "last"])
def test_two_processes_train_as_one_does(recipe: str, data: Dataset, tmp_path: Path) -> None:
    """LayerNorm: with BatchNorm each process would normalise by its own half of the batch."""
    wanted = TrainOptions(
        model="timm:convnext_atto",
        weights="none",
        recipe=recipe,
        epochs=2,
        size=32,
        batch=8,
        device="cpu",  # type: ignore[arg-type]
    )
    program = tmp_path / "train.py"
    program.write_text(TOGETHER)
    fine_tune(data, wanted, tmp_path / "one")
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    words += [str(data.root), wanted.model_dump_json(), str(tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (safetensors.torch.load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-4)
