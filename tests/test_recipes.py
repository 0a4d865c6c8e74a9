"""One table of recipes, and one rule: what `plan` recommends is what `finetune --minutes 0` takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgecnn import recipes
from edgecnn.advice import Facts, advise
from edgecnn.checkpoint import Recipe
from edgecnn.errors import UserError
from edgecnn.models import EMBEDDED
from edgecnn.recipes import SIZES, StartingPoint, choice, help_text, named, names, recommend
from edgecnn.train.options import TrainOptions
from edgecnn.train.task import _settle_recipe
from edgecnn.transfer import RECIPES, starting_point

MODELS = ("timm:mobilenetv2_035", *EMBEDDED, "timm:vit_small_patch14_dinov2", "torchvision:resnet18")
MEASURED = Path(__file__).parents[1] / "benchmarks" / "results" / "transfer.jsonl"


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no fault of the rule
@given(
    images=st.integers(0, 10**7),
    domain=st.sampled_from(["near", "far", "unknown"]),
    model=st.sampled_from(MODELS),
    weights=st.sampled_from(["none", "hub:x", "file:x", "embedded:x"]),
    smallest=st.integers(0, 10**6),
    budget_ms=st.floats(0.01, 10**6),
)
def test_plan_and_finetune_agree_whatever_the_facts(
    images: int, domain: str, model: str, weights: str, smallest: int, budget_ms: float
) -> None:
    facts = Facts.model_validate(
        {
            "train_images": images,
            "classes": 3,
            "smallest_class": smallest,
            "largest_class": 10**6,
            "domain": domain,
            "start": starting_point(model, weights),
            "input_size": 96,
            "budget_ms": budget_ms,
        }
    )
    advice = advise(facts)
    built = SimpleNamespace(name=model, weights=weights)
    recipe, reason = _settle_recipe(images, TrainOptions(model=model, minutes=0), built)  # type: ignore[arg-type]
    assert advice.recipe == recipe.name
    assert advice.rules[0].text == reason


@pytest.mark.parametrize(
    ("images", "start", "expected"),
    [
        (0, StartingPoint(), "last"),
        (4_999, StartingPoint(), "last"),
        (5_000, StartingPoint(), "all"),
        (199, StartingPoint(embedded=True), "last"),
        (200, StartingPoint(embedded=True), "all"),
        (9_000, StartingPoint(features_only=True), "head"),
        (9_000, StartingPoint(random=True), "scratch"),
        (20, StartingPoint(random=True, embedded=True, features_only=True), "scratch"),
    ],
)
def test_the_rule_has_its_boundaries_and_names_its_numbers(images: int, start: StartingPoint, expected: str) -> None:
    found = recommend(images, start)
    assert found.recipe == expected
    if found.rule in ("size", "embedded"):
        assert f"{images:,} training images" in found.text


def test_the_rule_is_what_was_measured() -> None:
    """From the size that the rule names its recipe has the highest mean recall over the data sets; below it, a higher
    one than a new head alone."""
    recalls: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    train: dict[str, list[int]] = defaultdict(list)
    for row in map(json.loads, MEASURED.read_text().splitlines()):
        if row["recipe"] != "auto":
            recalls[row["images"]][row["recipe"]].append(row["balanced"])
            train[row["images"]].append(row["train"])
    several = {size: rows for size, rows in recalls.items() if len(rows["head"]) > 1}
    assert len(several) >= 4
    named_sizes = []
    for size, rows in several.items():
        means = {recipe: sum(values) / len(values) for recipe, values in rows.items()}
        (ruled,) = {recommend(images, StartingPoint()).recipe for images in train[size]}
        assert means[ruled] > means["head"]
        if means[ruled] == max(means.values()):
            named_sizes += train[size]
    assert f"from {min(named_sizes):,} to {max(named_sizes):,} training images" in SIZES[0].why
    assert all(min(train[size]) < min(named_sizes) for size in several if not set(train[size]) & set(named_sizes))


@pytest.mark.parametrize("name", names())
def test_every_recipe_can_be_asked_for_by_name_and_letter_and_is_in_the_help(name: str) -> None:
    known = named(name)
    assert known.lettered in help_text()
    assert known.does in help_text()
    assert choice(name) == name
    assert TrainOptions(model="x", recipe=name).recipe == name
    if known.letter:
        assert TrainOptions(model="x", recipe=known.letter).recipe == name
    assert RECIPES[name].epochs == known.epochs


def test_letters_and_names_are_each_ones_own() -> None:
    words = [word for known in recipes.RECIPES for word in (known.name, known.letter) if word]
    assert len(words) == len(set(words))
    assert recipes.AUTO not in words


def test_an_unknown_recipe_is_named_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"recipe: 'lest' is not one of auto, head \(A\), last \(B\), all \(C\)"):
        named("lest")
    with pytest.raises(UserError):
        named("")
    with pytest.raises(ValidationError, match="'lest' is not one of auto"):
        TrainOptions(model="x", recipe="lest")
    with pytest.raises(ValidationError, match="'auto' is not one of"):
        Recipe(name="auto", thawed=0, lr=0, stem_lr=1, epochs=0)


def test_a_new_recipe_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    new = replace(named("last"), name="half", letter="", thawed=0.5, does="half of the backbone")
    monkeypatch.setattr(recipes, "RECIPES", (*recipes.RECIPES, new))
    assert TrainOptions(model="x", recipe="half").recipe == "half"
    assert "half of the backbone" in help_text()
    assert (
        Recipe.model_validate({"name": "half", "thawed": 0.5, "lr": 1e-3, "stem_lr": 0.1, "epochs": 5}).name == "half"
    )


def test_it_is_light() -> None:
    code = "import sys, edgecnn.recipes; assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
