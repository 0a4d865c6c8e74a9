"""`edgecnn models`: the backbones, and what is known of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from edgecnn.cli.options import Json
from edgecnn.cli.verbs import Verb

if TYPE_CHECKING:
    from rich.table import Table

    from edgecnn.catalogue import Entry


def models(
    family: Annotated[str | None, typer.Option(help="Only this family, such as mobilenet_v2.")] = None,
    max_macs: Annotated[str | None, typer.Option(help="At most so many MACs, such as 300M or 1.2G.")] = None,
    as_json: Json = False,
) -> None:
    """List the backbones: cost, published top-1, licence, formats.

    MACs: multiply-accumulates of one image. Top-1 is ImageNet's. Any other timm or torchvision classification network
    can be named with --model too, and edgecnn_mobilenetv2_035, whose weights come along.
    """
    from edgecnn.catalogue import parse_macs, read_catalogue, select
    from edgecnn.cli.show import show_table

    found = select(read_catalogue(), family, parse_macs(max_macs) if max_macs else None)
    if as_json:
        print(json.dumps([entry.model_dump(mode="json") for entry in found], indent=1))
        return
    if not found:
        print(_none_of(select(read_catalogue(), family), str(max_macs)))
        return
    show_table(_listed(found), name=1)
    for line in _footnotes(found):
        print(line)


VERB = Verb(models, after="embed", example="Example: edgecnn models --family mobilenet_v2 --max-macs 300M")


def _none_of(entries: Sequence[Entry], limit: str) -> str:
    least = min(entries, key=lambda entry: entry.macs)
    return (
        f"none of {len(entries)} networks has at most {limit} MACs: the smallest is {least.name} with "
        f"{least.macs / 1e6:,.1f}M: allow more"
    )


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
