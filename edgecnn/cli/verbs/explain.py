"""`edgecnn explain`: what a building block costs, as a table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from edgecnn.cli.options import Json
from edgecnn.cli.verbs import Verb
from edgecnn.errors import not_one_of

if TYPE_CHECKING:
    from rich.table import Table

    from edgecnn.explain import Count, Explained

TOPICS = ("block",)
_Optional = int | None


def explain(
    topic: Annotated[str, typer.Argument(help="block.")],
    name: Annotated[str | None, typer.Argument(help="Which one. Without it: a list.")] = None,
    inputs: Annotated[int, typer.Option("--in", min=1, help="Input channels.")] = 64,
    outputs: Annotated[_Optional, typer.Option("--out", min=1, help="Output channels. Default: as many.")] = None,
    size: Annotated[int, typer.Option(min=1, help="Height and width of the input in pixels.")] = 56,
    stride: Annotated[_Optional, typer.Option(min=1, help="Default: 1.")] = None,
    mid: Annotated[_Optional, typer.Option(min=1, help="bottleneck: channels in its middle. Default: out / 4.")] = None,
    expand: Annotated[_Optional, typer.Option(min=1, help="inverted-residual: times wider. Default: 6.")] = None,
    reduction: Annotated[_Optional, typer.Option(min=1, help="squeeze-excite: times narrower. Default: 16.")] = None,
    as_json: Json = False,
) -> None:
    """Print what a building block costs.

    Its weights and multiply-accumulates (MACs), beside those of the plain convolution.
    """
    from edgecnn.explain import explain_block

    if topic not in TOPICS:
        raise not_one_of("explain", topic, TOPICS)
    if name is None:
        _list(as_json)
        return
    options = {"outputs": outputs, "stride": stride, "mid": mid, "expand": expand, "reduction": reduction}
    given = {option: value for option, value in options.items() if value is not None}
    explained = explain_block(name, inputs, size, size, given)
    if as_json:
        print(json.dumps(explained.to_json(), indent=1))
    else:
        _show(explained)


VERB = Verb(
    explain,
    after="scale",
    example="Example: edgecnn explain block depthwise-separable --in 64 --out 128 --size 56",
)


def _list(as_json: bool) -> None:
    from rich.table import Table

    from edgecnn.cli.show import show_table
    from edgecnn.explain import BLOCKS

    if as_json:
        print(json.dumps({name: block.summary for name, block in BLOCKS.items()}, indent=1))
        return
    table = Table("block", "what it is", "weights")
    for name, block in BLOCKS.items():
        table.add_row(name, block.summary, block.formula)
    show_table(table)


def _show(explained: Explained) -> None:
    from edgecnn.cli.live import console
    from edgecnn.cli.show import show_table
    from edgecnn.explain import CAUTION, COUNTED

    output = console()
    output.print(f"{explained.name}: {explained.block.summary}")
    output.print(f"weights: {explained.block.formula}")
    show_table(_layers(explained))
    if explained.measured is not None:
        output.print(f"Built: {explained.measured.params:,} parameters with biases and normalisation.")
    output.print(COUNTED)
    output.print(CAUTION)


def _layers(explained: Explained) -> Table:
    """The layers, their sum, and the plain convolution. Ratios: how many times as much the plain convolution is."""
    from rich.table import Table

    table = Table("layer", "channels", "writes", "weights", "MACs", "plain is")
    for column in table.columns[2:]:
        column.justify = "right"
    for layer in explained.layers:
        channels, written = f"{layer.inputs} → {layer.outputs}", f"{layer.out.height}×{layer.out.width}"
        table.add_row(layer.name, channels, written, f"{layer.weights:,}", f"{layer.macs:,}", "")
    table.add_section()
    table.add_row("sum", "", "", *_cells(explained.total, explained.plain))
    if explained.without_projection is not None:
        table.add_row("without the projection", "", "", *_cells(explained.without_projection, explained.plain))
    table.add_row("plain 3×3", "", "", f"{explained.plain.weights:,}", f"{explained.plain.macs:,}", "")
    return table


def _cells(count: Count, plain: Count) -> tuple[str, str, str]:
    by_weights, by_macs = plain.weights / count.weights, plain.macs / count.macs
    same = round(by_weights, 2) == round(by_macs, 2)
    ratio = f"{by_weights:,.2f}×" if same else f"{by_weights:,.2f}× weights, {by_macs:,.2f}× MACs"
    return f"{count.weights:,}", f"{count.macs:,}", ratio
