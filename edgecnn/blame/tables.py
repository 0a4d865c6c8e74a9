"""What `edgecnn verify --explain` prints for people: stages, layers, prices, and one line of verdict."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from edgecnn.blame.answers import Effect
from edgecnn.blame.foreign import ForeignReport
from edgecnn.blame.layers import Layers
from edgecnn.blame.prices import Prices
from edgecnn.blame.variants import Explained, Explanation

_WORST = 12
"""Layers that are shown; --json has all."""
_STATES = {"same": "green", "differs": "red", "unknown": "dim"}


def explanation_shown(explanation: Explanation) -> Iterator[Table | str]:
    """Of our own variants."""
    for explained in explanation.variants:
        yield _stages(explained)
        if explained.layers is not None:
            yield _layers(explained.variant, explained.layers)
        if explained.no_layers:
            yield f"{explained.variant}, layer by layer: {explained.no_layers}"
    if explanation.prices is not None:
        yield _prices(explanation.prices)
        for line in explanation.prices.not_priced:
            yield f"not priced: {line}"
    for explained in explanation.variants:
        yield f"{explained.variant}: {explained.verdict}"


def foreign_shown(found: ForeignReport) -> Iterator[Table | Text | str]:
    """Of a foreign file."""
    if found.steps:
        yield _steps(found)
    if found.takes is not None:
        yield f"takes (found by trying): {found.takes}"
    if found.cured_by:
        yield f"put right: {', '.join(found.cured_by)}"
    yield from found.remarks
    colour = "green" if found.matches else "red"
    yield Text.assemble((found.file, colour), f": {found.verdict}")


def _stages(explained: Explained) -> Table:
    table = Table(title=f"{explained.variant}, {explained.images} images", title_justify="left", title_style="bold")
    for header in ("stage", "", "error", "what was seen"):
        table.add_column(header)
    for stage in explained.stages:
        error = "–" if stage.error is None else f"{stage.error:.1e}"
        table.add_row(stage.stage, Text(stage.state, _STATES[stage.state]), error, stage.words)
    return table


def _layers(variant: str, layers: Layers) -> Table:
    title = f"{variant} against {layers.against}, {layers.images} images: the worst of {len(layers.layers)} layers"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("layer")
    table.add_column("operation")
    table.add_column("SQNR, dB", justify="right")
    table.add_column("lost there, dB", justify="right")
    for layer in layers.layers[:_WORST]:
        table.add_row(layer.name, layer.kind, f"{layer.sqnr_db:.1f}", f"{layer.lost_db:+.1f}")
    return table


def _prices(prices: Prices) -> Table:
    title = (
        f"what mistakes cost: {prices.variant}, {prices.images} test images, {prices.top1:.1%} with the right pixels"
    )
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("mistake")
    table.add_column("stage")
    for header in ("points [95 %]", "agree", "flipped", "pixels off by"):
        table.add_column(header, justify="right", no_wrap=True)
    for one in prices.prices:
        table.add_row(
            one.mistake if one.note is None else f"{one.mistake} ({one.note})",
            one.stage,
            f"{one.points:+.1f} [{one.interval.low:+.1f}, {one.interval.high:+.1f}]",
            f"{one.agreement:.1%}",
            str(one.flipped),
            f"{one.pixel_error:.1f}",
        )
    return table


def _steps(found: ForeignReport) -> Table:
    title = f"{found.file} on {found.explained_images} images, described and needed"
    table = Table(title=title, title_justify="left", title_style="bold")
    for header in ("stage", "described", "needed"):
        table.add_column(header)
    for header in ("moves by", "alone", "put right", "to blame"):
        table.add_column(header, justify="right")
    for step in found.steps:
        blame = Text("yes", "red") if step.to_blame else Text("no")
        cells = (f"{step.moves:.1e}", _cost(step.alone), _change(found.as_described, step.put_right), blame)
        table.add_row(step.stage, step.given, step.needed, *cells)
    return table


def _cost(effect: Effect) -> str:
    return f"{effect.error:.1e}, {0.0 - effect.loss_points:+.1f} points"


def _change(before: Effect, after: Effect) -> str:
    return f"error {before.error:.1e} → {after.error:.1e}, top-1 {before.top1:.1%} → {after.top1:.1%}"
