"""Verbs about backbones: `models` lists them, `scale` makes one larger or smaller."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecnn.cli.options import Json
from edgecnn.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from edgecnn.catalogue import Entry
    from edgecnn.scale import Scaled, Searched

_ESTIMATE = (
    "median of the network alone on this machine (ONNX Runtime fp32, one thread, batch 1, no decoding): an estimate; "
    "`edgecnn bench` of an exported bundle gives the verdict"
)


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command(epilog="Example: edgecnn models --family mobilenet_v2 --max-macs 300M")(models)
    app.command(epilog="Example: edgecnn scale --max-macs 100M · edgecnn scale --phi 1 --base mobilenetv2_100")(scale)


def models(
    family: Annotated[str | None, typer.Option(help="Only this family, such as mobilenet_v2.")] = None,
    max_macs: Annotated[str | None, typer.Option(help="At most so many MACs, such as 300M or 1.2G.")] = None,
    as_json: Json = False,
) -> None:
    """List the backbones: parameters, MACs, input size, published ImageNet top-1, licence, formats that were tried.

    Any other timm or torchvision classification network can be named with --model too.
    """
    from edgecnn.catalogue import parse_macs, read_catalogue, select

    found = select(read_catalogue(), family, parse_macs(max_macs) if max_macs else None)
    if as_json:
        print(json.dumps([entry.model_dump(mode="json") for entry in found], indent=1))
        return
    _console().print(_listed(found))
    for line in _footnotes(found):
        print(line)


def scale(
    phi: Annotated[float | None, typer.Option(help="φ: depth 1.2^φ, width 1.1^φ, resolution 1.15^φ.")] = None,
    base: Annotated[str, typer.Option(help="Network to scale.")] = "efficientnet_b0",
    max_macs: Annotated[str | None, typer.Option(help="The largest within so many MACs, such as 100M.")] = None,
    budget: Annotated[str | None, typer.Option(help="The largest within a median latency here, such as 30ms.")] = None,
    as_json: Json = False,
) -> None:
    """Scale a network's depth, width and resolution together; its name is what --model takes.

    MACs grow about by 2^φ, φ may be negative. Scaled networks have no pretrained weights. (EfficientNet, Tan and Le,
    2019, arXiv:1905.11946.)
    """
    if [phi, max_macs, budget].count(None) != 2:
        raise UserError("scale: give one of --phi, --max-macs and --budget")
    from edgecnn.cli.extras import need_training

    need_training()
    from edgecnn.catalogue import parse_macs
    from edgecnn.models.architecture import find_architecture
    from edgecnn.scale import largest_within, largest_within_latency, parse_latency, scaled

    full = find_architecture(base).full
    search: Searched | None = None
    if budget is not None:
        search = largest_within_latency(parse_latency(budget), full)
        found = search.best
    elif max_macs is not None:
        found = largest_within(parse_macs(max_macs), full)
    else:
        assert phi is not None
        # Through the name's parser: it says what range is accepted.
        scale_of = find_architecture(f"{full}@phi={phi}").scale
        assert scale_of is not None
        found = scaled(scale_of.value, full)
    _show_scaled(found, scaled(0.0, full), search, as_json)


def _show_scaled(found: Scaled, base: Scaled, search: Searched | None, as_json: bool) -> None:
    from edgecnn.models.scaling import Scale

    multipliers = Scale("phi", found.phi)
    if as_json:
        document: dict[str, Any] = {**asdict(found), "depth": multipliers.depth, "width": multipliers.width}
        document |= {"resolution": multipliers.resolution, "weights": None}
        if search is not None:
            measured = [{"phi": phi, **asdict(timing)} for phi, timing in search.measured]
            document |= {"latency": asdict(search.timing), "measured": measured, "note": _ESTIMATE}
        print(json.dumps(document, indent=1))
        return
    print(
        f"{found.name}: {found.macs / 1e6:,.1f} M MACs ({found.macs / base.macs:.2f} × those of φ 0, "
        f"2^φ = {2**found.phi:.2f}), {found.params / 1e6:.2f} M parameters, {found.size} px"
    )
    print(
        f"depth × {multipliers.depth:.2f} (blocks rounded up), width × {multipliers.width:.2f}, "
        f"resolution × {multipliers.resolution:.2f}; no pretrained weights: --weights none or your own file"
    )
    if search is not None:
        _show_timing(search)


def _show_timing(search: Searched) -> None:
    print(f"{search.timing.median_ms:.2f} ms, {_ESTIMATE}")
    print("measured: " + ", ".join(f"φ {phi:g}: {timing.median_ms:.2f} ms" for phi, timing in search.measured))
    if not all(timing.steady for _, timing in search.measured):
        print("unsteady: other work ran on this machine (p90 over 1.25 × median): repeat on an idle one")


def _console() -> Any:
    from edgecnn.cli.show import console

    return console()


def _listed(entries: Sequence[Entry]) -> Table:
    from rich.table import Table

    table = Table()
    for header in ("family", "network"):
        table.add_column(header, no_wrap=True)
    for header in ("params, M", "MACs, M", "px", "top-1, %"):
        table.add_column(header, justify="right", no_wrap=True)
    for header in ("source", "licence", "fp32 formats that work"):
        table.add_column(header)
    family = ""
    for entry in entries:
        table.add_row(entry.family if entry.family != family else "", *_cells(entry))
        family = entry.family
    return table


def _cells(entry: Entry) -> tuple[str, ...]:
    top1 = "–" if entry.top1 is None else f"{entry.top1:.1f}"
    if entry.top1_size not in (None, entry.size):
        top1 += f" ({entry.top1_size} px)"
    formats = [*entry.formats, *(f"{name} FAILS" for name in entry.failed)]
    return (
        entry.name + (" †" if entry.frozen_only else ""),
        f"{entry.params / 1e6:.2f}",
        f"{entry.macs / 1e6:,.1f}" + (" *" if entry.uncounted else ""),
        str(entry.size),
        top1,
        entry.top1_source or "–",
        (entry.licence or "no weights").partition(" (")[0],
        ", ".join(formats) or "not tried",
    )


def _footnotes(entries: Sequence[Entry]) -> list[str]:
    notes = [f"{len(entries)} networks; stages and the licences' details with --json"]
    uncounted = sorted({operation for entry in entries for operation in entry.uncounted})
    if uncounted:
        notes.append(f"* MACs without {', '.join(uncounted)}")
    if any(entry.frozen_only for entry in entries):
        notes.append("† meant as frozen features: --recipe head")
    return notes
