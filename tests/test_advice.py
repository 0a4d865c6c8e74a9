"""The rules of thumb: each boundary on its two sides, and some advice for whatever facts."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.advice import DEVICES, Advice, Facts, advise
from edgecnn.recipes import StartingPoint, recommend
from edgecnn.recipes import names as recipe_names


def facts(**changes: object) -> Facts:
    values = {"train_images": 500, "classes": 4, "smallest_class": 100, "largest_class": 150, "input_size": 224}
    return Facts.model_validate({**values, **changes})


def names(advice: Advice) -> set[str]:
    return {rule.name for rule in advice.rules}


def text(advice: Advice, name: str) -> str:
    return next(rule.text for rule in advice.rules if rule.name == name)


@pytest.mark.parametrize("domain", ["near", "far", "unknown"])
def test_the_recipe_is_the_rules_whatever_the_domain(domain: str) -> None:
    for images in (0, 24, 99, 1_234, 4_999, 5_000, 10**6):
        chosen = recommend(images, StartingPoint())
        advice = advise(facts(train_images=images, domain=domain))
        assert advice.recipe == chosen.recipe
        assert (advice.rules[0].name, advice.rules[0].text) == (chosen.rule, chosen.text)


@pytest.mark.parametrize(("images", "domain", "fires"), [
    (99_999, "far", False), (100_000, "far", True), (100_000, "near", False),
])  # fmt: skip
def test_from_scratch_is_an_option_for_very_many_images_of_a_far_domain(images: int, domain: str, fires: bool) -> None:
    assert ("scratch" in names(advise(facts(train_images=images, domain=domain)))) == fires


def test_random_weights_leave_nothing_to_freeze() -> None:
    advice = advise(facts(start=StartingPoint(random=True)))
    assert advice.recipe == "scratch"
    assert "--weights" in advice.rules[0].text


@pytest.mark.parametrize(
    ("machine", "target", "budget_ms", "first"),
    [
        ("aarch64", "raspberry-pi-4", 30.0, "mobilenetv3_small_100"),
        ("aarch64", "raspberry-pi-4", 30.1, "mobilenetv2_100"),
        ("aarch64", "raspberry-pi-5", 30.0, "mobilenetv4_conv_small"),
        ("x86_64", "desktop-cpu", 30.0, "mobilenetv3_large_100"),
        ("x86_64", "desktop-cpu", 30.1, "resnet50"),
    ],
)
def test_the_backbone_follows_the_target_and_its_budget(
    machine: str, target: str, budget_ms: float, first: str
) -> None:
    advice = advise(facts(machine=machine, target=target, budget_ms=budget_ms))
    assert advice.backbones[0] == first
    assert target in text(advice, "device")


def test_few_labels_ask_for_strong_features_where_the_target_can_run_them() -> None:
    assert "few labels" not in names(advise(facts(train_images=100)))
    assert "beyond this target" in text(advise(facts(train_images=99)), "few labels")
    roomy = advise(facts(train_images=99, budget_ms=200.0))
    assert "within reach" in text(roomy, "few labels")


@pytest.mark.parametrize(("smallest", "fires"), [(19, True), (20, False)])
def test_a_small_class_is_named(smallest: int, fires: bool) -> None:
    assert ("small class" in names(advise(facts(smallest_class=smallest)))) == fires


@pytest.mark.parametrize(("largest", "fires"), [(300, False), (301, True)])
def test_imbalance_asks_for_class_weights_and_recall(largest: int, fires: bool) -> None:
    advice = advise(facts(smallest_class=30, largest_class=largest))
    assert ("imbalance" in names(advice)) == fires
    if fires:
        assert "--class-weights" in text(advice, "imbalance")
        assert "recall" in text(advice, "imbalance")


@pytest.mark.parametrize(("side", "size", "fires"), [(800, 224, False), (801, 224, True), (801, 384, False)])
def test_large_files_say_how_much_a_defect_shrinks(side: float, size: int, fires: bool) -> None:
    assert ("high resolution" in names(advise(facts(median_side=side, input_size=size)))) == fires


def test_a_defect_in_a_large_image_is_worked_out() -> None:
    line = text(advise(facts(median_side=2240.0)), "high resolution")
    assert "shrinks 10.0 times" in line
    assert "20 px to 2 px" in line
    assert "--size 448" in line


def test_small_files_need_no_large_input() -> None:
    assert "low resolution" in names(advise(facts(median_side=100.0, least_side=90)))
    assert "low resolution" not in names(advise(facts(median_side=200.0, least_side=90)))


def test_it_calls_itself_a_rule_of_thumb() -> None:
    caution = advise(facts()).caution
    assert "rules of thumb" in caution
    assert "--recipe auto" in caution


def test_it_needs_no_torch() -> None:
    code = "import sys, edgecnn.advice; assert not {'torch', 'timm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@given(
    st.builds(
        Facts,
        train_images=st.integers(0, 10**7),
        classes=st.integers(1, 1000),
        smallest_class=st.integers(0, 10**6),
        largest_class=st.integers(0, 10**6),
        domain=st.sampled_from(["near", "far", "unknown"]),
        start=st.builds(StartingPoint, st.booleans(), st.booleans(), st.booleans()),
        median_side=st.none() | st.floats(1, 10**5),
        least_side=st.none() | st.integers(1, 10**5),
        input_size=st.integers(16, 2048),
        machine=st.sampled_from(["x86_64", "aarch64"]),
        target=st.text(max_size=30),
        budget_ms=st.floats(0.01, 10**6),
    )
)
def test_there_is_always_some_advice(given_facts: Facts) -> None:
    advice = advise(given_facts)
    assert advice.recipe in recipe_names()
    assert advice.recipe == recommend(given_facts.train_images, given_facts.start).recipe
    assert advice.backbones in {row.backbones for row in DEVICES}
    assert len(advice.rules) >= 2
    assert Advice.model_validate_json(advice.model_dump_json()) == advice
