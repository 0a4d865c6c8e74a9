"""`edgecnn explain block` prints worked numbers, as a table or as JSON, and refuses what it does not know."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from edgecnn import explain as explaining
from edgecnn.cli.verbs import get, register
from edgecnn.errors import UserError


def _app() -> typer.Typer:
    app = typer.Typer()
    app.callback()(lambda: None)  # a single command would lose its name
    register(app, get("explain"))
    return app


def run(*arguments: str) -> str:
    result = CliRunner().invoke(_app(), ["explain", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_table_of_a_depthwise_separable_block() -> None:
    shown = run("block", "depthwise-separable", "--in", "64", "--out", "128", "--size", "56")
    for text in ("8,768", "27,496,448", "73,728", "231,211,008", "8.41×", "1/N + 1/9", "9,152 parameters"):
        assert text in shown
    assert explaining.CAUTION in shown.replace("\n", " ")


def test_a_projection_is_shown_apart() -> None:
    shown = run("block", "bottleneck", "--in", "16", "--out", "32", "--mid", "4")
    for text in ("projection", "848", "336", "13.71×", "4,608"):
        assert text in shown


@pytest.mark.parametrize("name", explaining.BLOCKS)
def test_json_of_every_block(name: str) -> None:
    found = json.loads(run("block", name, "--size", "14", "--json"))
    assert found["block"] == name
    assert found["total"]["weights"] == sum(layer["weights"] for layer in found["layers"])
    assert found["total"]["macs"] == sum(layer["macs"] for layer in found["layers"])
    assert found["measured"]["weights"] == found["total"]["weights"]
    assert found["measured"]["macs"] == found["total"]["macs"]
    assert found["measured"]["params"] > found["total"]["weights"]
    assert found["plain"]["weights"] == 9 * 64 * 64


def test_json_ratios() -> None:
    found = json.loads(run("block", "bottleneck", "--in", "256", "--mid", "64", "--json"))
    assert found["total"]["plain_weights_ratio"] == pytest.approx(8.47, abs=0.005)
    assert found["without_projection"] is None
    assert found["given"] == {"inputs": 256, "outputs": 256, "mid": 64, "height": 56, "width": 56}


def test_without_a_name_the_blocks_are_listed() -> None:
    assert json.loads(run("block", "--json")).keys() == explaining.BLOCKS.keys()
    shown = run("block")
    assert all(name in shown for name in explaining.BLOCKS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["block", "dense"], "block: 'dense' is not one of plain, basic"),
        (["loss", "focal"], "explain: 'loss' is not one of block"),
        (["block", "basic", "--mid", "4"], "block basic: --mid does not apply; it takes --in, --out, --stride"),
        (["block", "squeeze-excite", "--out", "4"], "--out does not apply; it takes --in, --reduction"),
        (["block", "inception", "--out", "40"], "--out 40 is no multiple of 16"),
    ],
)
def test_mistakes_say_what_is_accepted(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(_app(), ["explain", *arguments])
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)


def test_zero_channels_are_a_mistake() -> None:
    assert CliRunner().invoke(_app(), ["explain", "block", "plain", "--in", "0"]).exit_code == 2


def test_the_formulas_need_no_torch() -> None:
    """Where torch is absent, the table has the formulas alone."""
    program = """
import importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else real(name, *rest)
from edgecnn.explain import explain_block
assert explain_block("basic", 16, 8, 8, {"outputs": 32}).measured is None
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
