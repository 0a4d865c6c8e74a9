"""Compound scaling: the powers, names that travel through checkpoints, the largest network within a budget."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from edgecnn import scale as search
from edgecnn.checkpoint import WEIGHTS
from edgecnn.cli.verbs import get, register
from edgecnn.errors import UserError
from edgecnn.models import build, load_module, save_module, scaling
from edgecnn.models.scaling import PHI_LIMITS, WIDTH_LIMITS, Scale, parse_scale, scalable_names
from edgecnn.scale import STEPS_PER_PHI, Scaled, Timing, largest_within, largest_within_latency, parse_latency, scaled

B0 = "timm:efficientnet_b0"
PHI = st.floats(*PHI_LIMITS)


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer(pretty_exceptions_enable=False)
    made.callback()(lambda: None)  # a single command would lose its name
    register(made, get("scale"))
    return made


def test_the_powers_of_phi() -> None:
    one, two, half = Scale("phi", 1), Scale("phi", 2), Scale("phi", -1)
    assert (one.depth, one.width, one.resolution) == (1.2, 1.1, 1.15)
    assert (two.depth, two.width, two.resolution) == pytest.approx((1.44, 1.21, 1.3225))
    assert (half.depth, half.width, half.resolution) == pytest.approx((0.8333, 0.9091, 0.8696), abs=1e-4)
    product = scaling.DEPTH * scaling.WIDTH**2 * scaling.RESOLUTION**2
    assert product == pytest.approx(1.9203, abs=1e-4)
    assert [Scale("phi", phi).side(224) for phi in (-3, -1, 0, 1, 2)] == [144, 192, 224, 256, 296]


@given(PHI, PHI)
def test_multipliers_rise_with_phi_and_mirror(phi: float, other: float) -> None:
    low, high = Scale("phi", min(phi, other)), Scale("phi", max(phi, other))
    assert low.depth <= high.depth
    assert low.width <= high.width
    assert low.side(224) <= high.side(224)
    assert Scale("phi", phi).width * Scale("phi", -phi).width == pytest.approx(1)


@given(PHI, st.integers(32, 600))
def test_a_scaled_side_is_a_multiple_of_8_near_its_value(phi: float, native: int) -> None:
    side = Scale("phi", phi).side(native)
    assert side == native or side % 8 == 0
    assert side >= 32
    assert side == 32 or abs(side - native * 1.15**phi) <= 4 + 1e-9


@given(PHI)
def test_a_name_is_read_back_as_it_is_written(phi: float) -> None:
    parsed = parse_scale(f"phi={phi}", B0)
    assert parse_scale(str(parsed), B0) == parsed
    assert parsed.value == pytest.approx(phi, abs=5e-5)


@given(st.floats(*WIDTH_LIMITS))
def test_a_width_changes_nothing_else(width: float) -> None:
    parsed = parse_scale(f"width={width}", B0)
    assert (parsed.depth, parsed.resolution, parsed.side(224)) == (1, 1, 224)
    assert parse_scale(str(parsed), B0) == parsed


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        ("", "'' is not one of phi=…, width=…"),
        ("depth=2", "'depth' is not one of phi"),
        ("phi", "'' is not a number from -10 to 8"),
        ("phi=nan", "is not a number from -10 to 8"),
        ("phi=9", "'9' is not a number from -10 to 8"),
        ("width=0", "'0' is not a number from 0.1 to 4"),
        ("phi=1@phi=1", "is not a number"),
    ],
)
def test_a_bad_suffix_says_what_is_accepted(suffix: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(f"{B0}@{suffix}", 2, "none")


def test_what_has_no_multiplier_is_refused_with_what_has() -> None:
    with pytest.raises(UserError, match="'timm:resnet18' is not one of timm:efficientnet_b0"):
        build("resnet18@phi=1", 2, "none")
    with pytest.raises(UserError, match="depth, width and resolution: 'torchvision:mobilenet_v2' is not one of"):
        build("torchvision:mobilenet_v2@phi=1", 2, "none")
    with pytest.raises(UserError, match="is not one of"):
        build("edgecnn_mobilenetv2_035@width=0.5", 2, "none")


def test_the_hub_has_no_weights_of_a_scaled_network() -> None:
    with pytest.raises(UserError, match="no pretrained weights exist for a scaled network: pass --weights FILE"):
        build(f"{B0}@phi=-1", 2)


@pytest.mark.parametrize(
    "name",
    [
        *(f"{name}@phi=0" for name in scalable_names("phi")),
        *(f"{name}@width=1" for name in scalable_names("width") if name not in scalable_names("phi")),
    ],
)
def test_without_scaling_it_is_the_network_itself(name: str) -> None:
    with torch.device("meta"):
        plain, same = build(name.partition("@")[0], 3, "none"), build(name, 3, "none")
        wider = build(f"{name.partition('@')[0]}@width=1.5", 3, "none")
    shapes = {key: value.shape for key, value in plain.module.state_dict().items()}
    assert {key: value.shape for key, value in same.module.state_dict().items()} == shapes
    assert same.preprocess == plain.preprocess
    assert sum(p.numel() for p in wider.module.parameters()) > sum(p.numel() for p in plain.module.parameters())


@pytest.mark.parametrize("name", ["timm:mobilenetv2_100@width=0.35", "timm:efficientnet_b0@phi=-6"])
def test_a_scaled_network_travels_through_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = build(name, 3, "none")
    (tmp_path / WEIGHTS).write_bytes(save_module(built.module))
    again = build(name, 3, tmp_path / WEIGHTS, keep_head=True)
    assert (again.name, again.preprocess) == (name, built.preprocess)

    class Described:
        model, classes, preprocess, batchnorm_eps = built.name, ("a", "b", "c"), built.preprocess, None

    monkeypatch.setattr("edgecnn.models.read_checkpoint", lambda folder: Described)
    _, loaded = load_module(tmp_path)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), built.module.eval()(images))


def test_width_035_is_the_librarys_own_width_035() -> None:
    with torch.device("meta"):
        ours, theirs = build("mobilenetv2_100@width=0.35", 3, "none"), build("mobilenetv2_035", 3, "none")
    assert [p.shape for p in ours.module.parameters()] == [p.shape for p in theirs.module.parameters()]


def test_phi_0_is_the_base_and_macs_rise() -> None:
    found = [scaled(phi) for phi in (-4, -2, -1, 0, 1)]
    assert [network.macs for network in found] == sorted({network.macs for network in found})
    assert found[3].macs == pytest.approx(385.8e6, rel=1e-3)
    assert found[4].name == "timm:efficientnet_b0@phi=1"
    assert found[4].size == 256
    assert 1.5 < found[4].macs / found[3].macs < 2.5


def test_the_largest_within_a_budget_of_macs_is_the_largest() -> None:
    base = "timm:mobilenetv3_small_100"
    found = largest_within(20_000_000, base)
    assert found.macs <= 20_000_000
    assert scaled(found.phi + 1 / STEPS_PER_PHI, base).macs > 20_000_000


@pytest.fixture
def geometric(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Networks that cost exactly 2^φ million, not built; the list fills with the φ that were asked for."""
    asked: list[float] = []

    def fake(phi: float, base: str = B0) -> Scaled:
        asked.append(phi)
        return Scaled(f"{base}@phi={phi:g}", phi, 224, 1, round(1e6 * 2**phi))

    monkeypatch.setattr(search, "scaled", fake)
    return asked


@pytest.mark.parametrize("budget", [977, 10_000, 999_999, 1_000_000, 3_141_592, 255_000_000, 10**10])
def test_the_search_is_exact_and_short(budget: int, geometric: list[float]) -> None:
    phi = largest_within(budget).phi
    exact = min(PHI_LIMITS[1], math.floor(math.log2((budget + 0.5) / 1e6) * STEPS_PER_PHI) / STEPS_PER_PHI)
    assert phi == pytest.approx(exact)
    assert len(geometric) < 20


def test_a_budget_below_the_smallest_network_is_refused(geometric: list[float]) -> None:
    with pytest.raises(UserError, match="--max-macs: 900 is less than the 977 of"):
        largest_within(900)


def fake_timing(name: str, unit_ms: float = 10.0) -> Timing:
    latency = unit_ms * 1.9 ** float(name.partition("=")[2])
    return Timing(latency, 1.1 * latency)


@pytest.mark.parametrize("budget_ms", [1.0, 9.9, 10.0, 30.0, 200.0])
def test_the_largest_within_a_latency_budget_is_measured_and_near(budget_ms: float, geometric: list[float]) -> None:
    found = largest_within_latency(budget_ms, timing_of=fake_timing)
    assert len(found.measured) <= search.MAX_EXPORTS
    assert found.timing == fake_timing(found.best.name)
    assert 0.9 * budget_ms < found.timing.median_ms <= budget_ms
    assert dict(found.measured)[found.best.phi] == found.timing
    assert found.timing.steady


def test_latency_budgets_out_of_reach(geometric: list[float]) -> None:
    assert largest_within_latency(1e9, timing_of=fake_timing).best.phi == PHI_LIMITS[1]
    with pytest.raises(UserError, match=r"--budget: 0\.001 ms is not met by the \d networks tried"):
        largest_within_latency(0.001, timing_of=fake_timing)


def test_an_unsteady_timing_says_so() -> None:
    assert not Timing(10.0, 13.0).steady


def test_latencies_are_read() -> None:
    assert parse_latency("30ms") == parse_latency(" 30.0 ms") == 30
    for text in ("30", "30ms@p99", "0ms", "-1ms", "30s"):
        with pytest.raises(UserError, match="is not a median latency such as 30ms"):
            parse_latency(text)


def test_a_network_is_really_exported_and_timed() -> None:
    timing = search.time_network("edgecnn:resnet_small_32")
    assert 0 < timing.median_ms <= timing.p90_ms


def test_the_verb(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = CliRunner()
    shown = runner.invoke(app, ["scale", "--phi", "-2"], catch_exceptions=False)
    assert shown.stdout.startswith("timm:efficientnet_b0@phi=-2: ")
    assert "no pretrained weights" in shown.stdout
    found = json.loads(runner.invoke(app, ["scale", "--phi", "0", "--base", "mobilenetv2_100", "--json"]).stdout)
    assert found["macs"] == pytest.approx(300.8e6, rel=1e-3)
    assert (found["name"], found["depth"]) == ("timm:mobilenetv2_100@phi=0", 1)
    monkeypatch.setattr(search, "time_network", lambda name: Timing(29.9, 60.0))
    timed = runner.invoke(app, ["scale", "--budget", "30ms"], catch_exceptions=False)
    assert "an estimate; `edgecnn bench` of an exported bundle gives the verdict" in timed.stdout
    assert "unsteady: other work ran" in timed.stdout


@pytest.mark.parametrize("arguments", [[], ["--phi", "1", "--max-macs", "1G"], ["--budget", "30ms@p99"]])
def test_the_verb_refuses(arguments: list[str], app: typer.Typer) -> None:
    with pytest.raises(UserError, match=r"one of --phi|is not a median latency"):
        CliRunner().invoke(app, ["scale", *arguments], catch_exceptions=False)
