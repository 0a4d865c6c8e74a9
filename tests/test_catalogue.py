"""The catalogue of backbones: complete, true to a fresh count, and listed by `edgecnn models`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from pydantic import ValidationError
from typer.testing import CliRunner

from edgecnn.catalogue import Catalogue, families, parse_macs, read_catalogue, select
from edgecnn.cli.verbs import get, register
from edgecnn.cost import measure_cost
from edgecnn.errors import UserError
from edgecnn.models import build, stages
from edgecnn.models.families import FAMILIES


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return read_catalogue()


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer(pretty_exceptions_enable=False)
    made.callback()(lambda: None)  # a single command would lose its name
    register(made, get("models"))
    return made


def test_every_member_of_every_family_is_in_it_in_order(catalogue: Catalogue) -> None:
    expected = [(family.name, name) for family in FAMILIES for name in family.members]
    assert [(entry.family, entry.name) for entry in catalogue.networks] == expected
    assert families(catalogue) == [family.name for family in FAMILIES]


def test_entries_are_whole(catalogue: Catalogue) -> None:
    frozen = {family.name for family in FAMILIES if family.frozen_only}
    for entry in catalogue.networks:
        assert entry.params > 0
        assert entry.macs > 0
        assert len(entry.stages) >= 4
        assert (entry.top1 is None) == (entry.top1_size is None) == (entry.top1_source is None)
        assert (entry.weights is None) == (entry.licence is None)
        assert entry.top1 is None or entry.weights
        assert entry.top1 is None or 50 < entry.top1 < 90
        assert all(0 <= error <= 1e-4 for error in entry.formats.values())
        assert not set(entry.formats) & set(entry.failed)
        assert entry.frozen_only == (entry.family in frozen)
        assert ("scaled_dot_product_attention" in entry.uncounted) == (entry.family in ("vit", "dinov2", "clip"))


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("torchvision:mobilenet_v2", 300.8e6),
        ("timm:resnet50", 4.089e9),
        ("timm:mobilenetv3_small_100", 56.5e6),
    ],
)
def test_published_counts_are_met(name: str, macs: float, catalogue: Catalogue) -> None:
    entry = next(entry for entry in catalogue.networks if entry.name == name)
    assert entry.macs == pytest.approx(macs, rel=1e-3)


@pytest.mark.parametrize("name", ["timm:mobilenetv2_035", "torchvision:shufflenet_v2_x0_5", "edgecnn:resnet_small_32"])
def test_it_agrees_with_a_fresh_count(name: str, catalogue: Catalogue) -> None:
    entry = next(entry for entry in catalogue.networks if entry.name == name)
    built = build(name, 1000, "none")
    assert built.preprocess.height == entry.size
    cost = measure_cost(built.module, entry.size, entry.size)
    assert (cost.params, cost.macs, cost.uncounted) == (entry.params, entry.macs, entry.uncounted)
    assert tuple(stage.name for stage in stages(built.module)) == entry.stages


def test_filters(catalogue: Catalogue) -> None:
    found = select(catalogue, "mobilenet_v2", 300_000_000)
    assert [entry.name for entry in found] == [f"timm:mobilenetv2_{width}" for width in ("035", "050", "075")]
    assert select(catalogue) == list(catalogue.networks)
    with pytest.raises(UserError, match="family: 'mobilnet' is not one of resnet, .*mobilenet_v2"):
        select(catalogue, "mobilnet")


@pytest.mark.parametrize(
    ("text", "macs"), [("300M", 300_000_000), ("1.2G", 1_200_000_000), ("5000000", 5_000_000), ("20 k", 20_000)]
)
def test_macs_are_read(text: str, macs: int) -> None:
    assert parse_macs(text) == macs


@pytest.mark.parametrize("text", ["", "M", "0", "-3M", "1.2GB", "30ms", "nan"])
def test_what_is_no_number_of_macs_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a number of multiply-accumulates such as 300M"):
        parse_macs(text)


def test_a_damaged_catalogue_is_refused(tmp_path: Path) -> None:
    (tmp_path / "catalogue.json").write_text('{"networks": [{"name": "x"}], "more": 1}')
    with pytest.raises(ValidationError):
        read_catalogue(tmp_path / "catalogue.json")


def test_models_lists_for_people_and_for_machines(app: typer.Typer, catalogue: Catalogue) -> None:
    runner = CliRunner()
    shown = runner.invoke(app, ["models", "--family", "dinov2"], catch_exceptions=False)
    assert shown.exit_code == 0
    assert "timm:vit_small_patch14_dinov2 †" in shown.stdout
    assert "* MACs without scaled_dot_product_attention" in shown.stdout
    listed = runner.invoke(app, ["models", "--family", "mobilenet_v2", "--max-macs", "300M", "--json"])
    entries = json.loads(listed.stdout)
    assert [entry["name"] for entry in entries] == [
        entry.name for entry in select(catalogue, "mobilenet_v2", 300_000_000)
    ]
    assert {"params", "macs", "size", "top1", "top1_source", "licence", "stages", "formats"} <= set(entries[0])
    none = runner.invoke(app, ["models", "--max-macs", "3"], catch_exceptions=False).stdout
    least = min(catalogue.networks, key=lambda entry: entry.macs)
    assert f"networks has at most 3 MACs: the smallest is {least.name} with" in none
    with pytest.raises(UserError, match="is not one of resnet"):
        runner.invoke(app, ["models", "--family", "x"], catch_exceptions=False)
