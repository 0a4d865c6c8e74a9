"""Fine-tuning is deterministic, survives a kill at any moment, and says what is wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import edgecnn.train.loop
import edgecnn.train.task
from edgecnn.artifact import Preprocess
from edgecnn.checkpoint import read_checkpoint
from edgecnn.data import Dataset, Item, load_folder, split_hashes
from edgecnn.documents import sha256_of
from edgecnn.errors import UserError
from edgecnn.models import build, load_module
from edgecnn.train import TrainOptions, augment, class_weights, fine_tune, lr_scale, prepared
from edgecnn.transfer import RECIPES
from tests.training import CLASSES, Recorder, options, weights_hash


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("recipe", ["head", "last", "all"])
def test_a_run_leaves_a_whole_checkpoint_and_nothing_else(recipe: str, data: Dataset, tmp_path: Path) -> None:
    progress = Recorder()
    out = tmp_path / "out"
    checkpoint = fine_tune(data, options(recipe=recipe), out, progress)
    names = {path.name for path in out.iterdir()}
    assert names == {"checkpoint.json", "weights.safetensors", "split.json", "run.json", "metrics.jsonl"}
    assert checkpoint == read_checkpoint(out)
    assert checkpoint.classes == CLASSES
    assert checkpoint.recipe.name == recipe
    assert checkpoint.recipe.epochs == 3
    assert checkpoint.splits == split_hashes(data)
    assert checkpoint.preprocess.height == 32
    assert checkpoint.weights == "none"
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    best = max(lines, key=lambda line: (line["val_balanced"], -line["val_loss"]))
    assert checkpoint.metrics.best_epoch == best["epoch"]
    assert checkpoint.metrics.val_top1 == best["val_top1"]
    assert progress.parts[-1] == (6, f"training ({recipe})")
    assert progress.done == 6


def test_the_checkpoint_loads_and_scores_as_recorded(data: Dataset, tmp_path: Path) -> None:
    checkpoint = fine_tune(data, options(recipe="all", epochs=2), tmp_path / "out")
    found, module = load_module(tmp_path / "out")
    assert found == checkpoint
    assert not module.training
    items = sorted(data.val, key=lambda item: (item.sha256, item.label, item.name))
    pixels = np.array(prepared(items, checkpoint.preprocess, tmp_path / "cache", Recorder()))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (checkpoint.preprocess.mean, checkpoint.preprocess.std))
    with torch.no_grad():
        logits = module((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std)
    labels = torch.tensor([item.label for item in items])
    assert float((logits.argmax(1) == labels).double().mean()) == pytest.approx(checkpoint.metrics.val_top1)
    assert float(torch.nn.functional.cross_entropy(logits, labels)) == pytest.approx(
        checkpoint.metrics.val_loss, rel=1e-3
    )


def test_a_head_on_trained_features_learns(data: Dataset, tmp_path: Path) -> None:
    """Separable classes: the mean colour alone tells them apart, and so must a head on a random backbone's features."""
    checkpoint = fine_tune(
        data, options(model="torchvision:resnet18", recipe="head", epochs=40, patience=40), tmp_path / "out"
    )
    assert checkpoint.metrics.val_top1 is not None
    assert checkpoint.metrics.val_top1 > 0.8


def test_a_head_that_works_on_a_map_is_trained_through_the_whole_network(data: Dataset, tmp_path: Path) -> None:
    progress = Recorder()
    fine_tune(data, options(model="torchvision:squeezenet1_1", recipe="head", epochs=1), tmp_path / "out", progress)
    assert progress.parts[-1] == (2, "training (head)")


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(data: Dataset, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fine_tune(data, options(recipe="all", epochs=1, dropout=0.2, seed=seed), tmp_path / name)
    assert weights_hash(tmp_path / "a") == weights_hash(tmp_path / "b") != weights_hash(tmp_path / "c")


def test_frozen_stages_do_not_change(data: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(5)
    start = build("torchvision:resnet18", 3, "none").module.state_dict()
    path = tmp_path / "start.safetensors"
    safetensors.torch.save_file({key: value.clone() for key, value in start.items()}, path)
    fine_tune(data, options(model="torchvision:resnet18", weights=str(path), recipe="last", epochs=1), tmp_path / "out")
    end = load_module(tmp_path / "out")[1].state_dict()
    counted = [key for key in start if "num_batches" not in key]
    changed = {key.partition(".")[0] for key in counted if not torch.equal(start[key], end[key])}
    assert changed == {"layer4", "fc"}


KILLED = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import edgecnn.train.loop
from edgecnn.data import load_folder
save = edgecnn.train.loop.save_state
def slow(task, optimizer, position, folder):
    save(task, optimizer, position, folder)
    print(len(position.history), flush=True)
    time.sleep(60 if len(position.history) == int(sys.argv[4]) else 0)
edgecnn.train.loop.save_state = slow
options = edgecnn.train.TrainOptions.model_validate_json(sys.argv[3])
edgecnn.train.fine_tune(load_folder(Path(sys.argv[1])), options, Path(sys.argv[2]))
"""


@pytest.mark.parametrize("recipe", ["all", "head"])
def test_a_killed_run_goes_on_and_ends_with_the_same_weights(recipe: str, data: Dataset, tmp_path: Path) -> None:
    wanted = options(recipe=recipe, epochs=4, dropout=0.2)
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(data.root), str(out), wanted.model_dump_json(), "2"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == b"2":
            os.kill(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    assert (out / "state" / "latest.safetensors").is_file()
    assert not (out / "checkpoint.json").exists()
    progress = Recorder()
    resumed = fine_tune(data, wanted, out, progress)
    assert not any("preparing" in text for _, text in progress.parts)
    assert [line.partition(":")[0] for line in progress.lines if line.startswith("epoch")] == ["epoch 3/4", "epoch 4/4"]
    straight = fine_tune(data, wanted, tmp_path / "straight")
    assert resumed.files["weights.safetensors"] == straight.files["weights.safetensors"]
    assert resumed.metrics.best_epoch == straight.metrics.best_epoch
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_run_killed_between_weights_and_description_is_finished(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(edgecnn.train, "write_checkpoint", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(data, options(recipe="all", epochs=2), out)
    weights = sha256_of((out / "weights.safetensors").read_bytes())
    assert fine_tune(data, options(recipe="all", epochs=2), out).files["weights.safetensors"] == weights


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_prepared_pixels_are_those_of_the_images_in_their_order(data: Dataset, tmp_path: Path) -> None:
    spec = Preprocess(width=8, height=8)
    there, back = (
        np.array(prepared(items, spec, tmp_path, Recorder())) for items in (data.train[:4], data.train[:4][::-1])
    )
    assert not np.array_equal(there[0], there[-1])
    np.testing.assert_array_equal(there, back[::-1])


def test_a_finished_run_is_recognised(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = fine_tune(data, options(epochs=1), tmp_path / "out")
    monkeypatch.setattr(edgecnn.train.task, "build", _interrupt)
    assert fine_tune(data, options(epochs=1), tmp_path / "out") == checkpoint


def test_a_folder_with_another_run_is_refused_and_restart_replaces_it(data: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fine_tune(data, options(epochs=1), out)
    with pytest.raises(UserError, match=r"lr not set, now 0\.01\).*another --out.*--restart"):
        fine_tune(data, options(epochs=1, lr=0.01), out)
    fewer = dataclasses.replace(data, train=data.train[1:])
    with pytest.raises(UserError, match="train images changed"):
        fine_tune(fewer, options(epochs=1), out)
    assert fine_tune(data, options(epochs=1, lr=0.01), out, restart=True).recipe.lr == 0.01


def test_changed_weights_are_another_run(data: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    for seed, message in ((1, ""), (2, "weights file changed")):
        torch.manual_seed(seed)
        path.write_bytes(safetensors.torch.save(build("timm:mobilenetv2_035", 3, "none").module.state_dict()))
        if message:
            with pytest.raises(UserError, match=message):
                fine_tune(data, options(weights=str(path), epochs=1), tmp_path / "out")
        else:
            fine_tune(data, options(weights=str(path), epochs=1), tmp_path / "out")


def test_a_folder_with_other_files_is_left_alone(data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for restart in (False, True):
        with pytest.raises(UserError, match="is not empty"):
            fine_tune(data, options(), tmp_path, restart=restart)
    assert (tmp_path / "thesis.tex").is_file()
    with pytest.raises(UserError, match="is a file"):
        fine_tune(data, options(), tmp_path / "thesis.tex")


def test_an_infinite_loss_says_to_lower_the_rate(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the loss is (nan|inf): lower --lr .*1e\+30.* add --restart"):
        fine_tune(data, options(recipe="all", lr=1e30, warmup=0), tmp_path / "out")


def test_a_changed_image_is_refused(data: Dataset, tmp_path: Path) -> None:
    item = data.train[0]
    changed = dataclasses.replace(data, train=(dataclasses.replace(item, sha256="0" * 64), *data.train[1:]))
    with pytest.raises(UserError, match="its bytes changed since the split was made"):
        fine_tune(changed, options(), tmp_path / "a")
    gone: Item = dataclasses.replace(item, path=item.path.with_name("gone.png"))
    with pytest.raises(UserError, match="cannot be read"):
        fine_tune(dataclasses.replace(data, train=(gone, *data.train[1:])), options(), tmp_path / "b")


def test_no_validation_images_is_refused(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no validation images"):
        fine_tune(dataclasses.replace(data, val=()), options(), tmp_path / "out")


def test_the_test_split_is_never_read(data: Dataset, tmp_path: Path) -> None:
    hidden = tuple(dataclasses.replace(item, path=tmp_path / "nowhere.png") for item in data.test)
    fine_tune(dataclasses.replace(data, test=hidden), options(epochs=1), tmp_path / "out")


def test_recipe_none_keeps_weights_and_head(data: Dataset, tmp_path: Path) -> None:
    source = build("timm:mobilenetv2_035", 3, "none").module.state_dict()
    path = tmp_path / "start.safetensors"
    path.write_bytes(safetensors.torch.save(source))
    checkpoint = fine_tune(data, options(weights=str(path), recipe="none", epochs=None), tmp_path / "out")
    end = load_module(tmp_path / "out")[1].state_dict()
    assert all(torch.equal(value, end[key]) for key, value in source.items())
    assert checkpoint.metrics.epochs == 0
    assert checkpoint.metrics.val_top1 is not None
    assert checkpoint.recipe == RECIPES["none"]
    with pytest.raises(UserError, match="no head to keep"):
        fine_tune(data, options(recipe="none"), tmp_path / "random")


def test_training_stops_when_validation_no_longer_improves(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("val_top1", "val_balanced", "val_loss")
    scores = iter(dict(zip(names, row, strict=True)) for row in [(0.5, 0.5, 1.0), *[(0.6, 0.6, 0.9)] * 6])
    monkeypatch.setattr(edgecnn.train.loop, "_score", lambda task: next(scores))
    progress = Recorder()
    checkpoint = fine_tune(data, options(recipe="head", epochs=20, patience=3), tmp_path / "out", progress)
    assert checkpoint.metrics.best_epoch == 2
    assert checkpoint.metrics.epochs == 5
    assert progress.lines[-1] == "stopped: 3 epochs without a better validation result"


def test_an_unusable_device_is_refused(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="device 'tpu' cannot be used here"):
        fine_tune(data, options(device="tpu"), tmp_path / "out")


def test_augmentation_follows_from_its_draws_alone() -> None:
    images = torch.rand(4, 3, 24, 24)
    draws = torch.rand(4, 8)
    whole = augment(images, draws)
    torch.testing.assert_close(whole[2:], augment(images[2:], draws[2:]))
    assert whole.shape == images.shape
    assert 0 <= float(whole.min()) <= float(whole.max()) <= 1


def test_augmentation_in_the_middle_of_its_ranges_is_a_flip() -> None:
    images = torch.rand(1, 3, 8, 8)
    draws = torch.full((1, 8), 0.5)
    draws[0, 0], draws[0, 1] = 0.9, 0.9
    torch.testing.assert_close(augment(images, draws), images, atol=1e-5, rtol=0)
    draws[0, 0] = 0.1
    torch.testing.assert_close(augment(images, draws), images.flip(3), atol=1e-5, rtol=0)


def test_rare_classes_weigh_more_and_an_image_weighs_one_on_average() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    for kind, ratio in (("none", 1.0), ("sqrt", 3.0), ("balanced", 9.0)):
        weights = class_weights(labels, 2, kind)  # type: ignore[arg-type]
        assert float(weights[1] / weights[0]) == pytest.approx(ratio)
        assert float(weights[labels].mean()) == pytest.approx(1)


def test_the_rate_rises_then_falls() -> None:
    scales = [lr_scale(step, 100, 10) for step in range(100)]
    assert max(scales) == scales[9] == 1.0
    assert scales[:10] == sorted(scales[:10])
    assert scales[10:] == sorted(scales[10:], reverse=True)
    assert 0.009 < scales[-1] < 0.02
    assert lr_scale(0, 5, 0) == 1.0


@pytest.mark.slow
@pytest.mark.shared
def test_a_real_network_on_real_defects(shared: Path, tmp_path: Path) -> None:
    data = load_folder(shared / "data" / "defect_neu_det" / "images")
    weights = shared / "weights" / "mobilenet_v2" / "mobilenet_v2.safetensors"
    checkpoint = fine_tune(
        data,
        TrainOptions(model="mobilenetv2_100", weights=str(weights), recipe="head", size=96, device="cpu"),
        tmp_path / "out",
    )
    assert checkpoint.metrics.val_top1 is not None
    assert checkpoint.metrics.val_top1 > 0.9
