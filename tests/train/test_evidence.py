"""Recipes are compared on the data within a time box, never on the test split, and what was seen is kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import edgecnn.train.evidence
from edgecnn.checkpoint import RecipeName, read_checkpoint
from edgecnn.data import Dataset
from edgecnn.recipes import RECIPES, StartingPoint, recommend
from edgecnn.train import fine_tune, read_evidence
from edgecnn.train.evidence import Trial, expected, symptoms
from edgecnn.train.state import Epoch
from tests.training import Recorder, options, weights_hash


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def trial(
    recipe: RecipeName, recalls: tuple[float, ...], losses: list[float], train_losses: list[float] | None = None
) -> Trial:
    rows = tuple(
        Epoch(epoch=i + 1, lr=1e-3, train_loss=t, val_loss=v, val_top1=0.5, val_balanced=0.5, seconds=1.0)
        for i, (v, t) in enumerate(zip(losses, train_losses or losses, strict=True))
    )
    return Trial(
        recipe=recipe,
        folds=len(recalls),
        epochs=len(losses),
        full_epochs=len(losses),
        recalls=recalls,
        top1=0.5,
        loss=min(losses),
        minutes=1.0,
        history=rows,
    )


def embedded(**changes: object) -> dict[str, object]:
    return {"model": "edgecnn_mobilenetv2_035", "weights": "embedded", "recipe": "auto", "minutes": 60.0, **changes}


def test_auto_compares_chooses_and_keeps_the_table(data: Dataset, tmp_path: Path) -> None:
    hidden = tuple(dataclasses.replace(item, path=tmp_path / "nowhere.png") for item in data.test)
    out = tmp_path / "out"
    wanted = options(**embedded(epochs=2))
    checkpoint = fine_tune(dataclasses.replace(data, test=hidden), wanted, out)
    evidence = read_evidence(out)
    assert evidence is not None
    assert [one.recipe for one in evidence.trials] == [known.name for known in RECIPES if known.tried_for is not None]
    assert {one.folds for one in evidence.trials} == {3}
    scores = {one.recipe: one.balanced for one in evidence.trials}
    assert scores[evidence.chosen] == pytest.approx(max(scores.values()), abs=1e-3)
    assert checkpoint.recipe.name == evidence.chosen
    assert checkpoint.reason == evidence.reason
    assert "evidence.json" in checkpoint.files
    assert read_checkpoint(out) == checkpoint


def test_a_trial_that_was_finished_is_not_run_again(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = options(**embedded(epochs=1))
    fine_tune(data, wanted, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(edgecnn.train.evidence, "_judge", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(data, wanted, tmp_path / "cut")
    progress = Recorder()
    fine_tune(data, wanted, tmp_path / "cut", progress)
    assert not any(line.startswith("trying") for line in progress.lines)
    assert weights_hash(tmp_path / "cut") == weights_hash(tmp_path / "whole")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_short_time_box_tries_what_fits(data: Dataset, tmp_path: Path) -> None:
    progress = Recorder()
    fine_tune(data, options(**embedded(minutes=1e-4)), tmp_path / "out", progress)
    evidence = read_evidence(tmp_path / "out")
    assert evidence is not None
    assert [one.recipe for one in evidence.trials] == ["head"]
    assert any("is not tried" in line for line in progress.lines)


def test_a_time_box_that_cuts_the_rules_recipe_short_does_not_overrule_it(data: Dataset, tmp_path: Path) -> None:
    many = dataclasses.replace(data, train=data.train * 10)  # the rule for an embedded backbone then says all
    checkpoint = fine_tune(many, options(**embedded(minutes=1e-4, epochs=1)), tmp_path / "out")
    assert checkpoint.recipe.name == "all"
    assert "too few to try all in full" in checkpoint.reason


def test_without_time_the_stated_rule_decides(data: Dataset, tmp_path: Path) -> None:
    checkpoint = fine_tune(data, options(**embedded(minutes=0.0, epochs=1)), tmp_path / "out")
    assert checkpoint.recipe.name == recommend(len(data.train), StartingPoint(embedded=True)).recipe
    assert read_evidence(tmp_path / "out") is None


def test_random_weights_leave_nothing_to_compare(data: Dataset, tmp_path: Path) -> None:
    checkpoint = fine_tune(data, options(recipe="auto", minutes=60.0, epochs=1), tmp_path / "out")
    assert checkpoint.recipe.name == "scratch"
    assert read_evidence(tmp_path / "out") is None


def test_negative_transfer_a_plateau_and_overfitting_are_named() -> None:
    better = trial("scratch", (0.9,), [1.0, 0.6, 0.4])
    worse = trial("head", (0.5,), [1.2, 1.1, 1.0])
    assert "negative transfer: validation loss 1.000" in symptoms([worse, better], "scratch")[0]
    assert symptoms([trial("head", (0.9,), [0.9, 0.5, 0.2]), better], "head") == ()
    flat = trial("head", (0.5,), [1.0] * 8)
    assert symptoms([flat], "head")[0].startswith("plateau: head's")
    rising = trial("all", (0.9,), [1.0, 0.5, 0.4, 0.4, 0.5, 0.6], [1.0, 0.8, 0.6, 0.5, 0.3, 0.2])
    assert symptoms([rising], "all")[0].startswith("overfitting: all's")
    assert symptoms([rising, flat], "scratch") == ()


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.integers(1, 3))
def test_fewer_folds_are_compared_on_the_folds_of_both(recalls: list[float], folds: int) -> None:
    full = trial("head", tuple(recalls), [1.0])
    same = trial("last", tuple(recalls[:folds]), [1.0])
    better = trial("all", tuple(recall + 0.1 for recall in recalls[:folds]), [1.0])
    trials = [full, same, better]
    assert expected(full, trials) == pytest.approx(full.balanced)
    assert expected(same, trials) == pytest.approx(full.balanced)
    assert expected(better, trials) == pytest.approx(full.balanced + 0.1)
