"""`edgecnn rehearse`: every variant on a board or a processor that is not there."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecnn.cli.options import BundleFolder, Json
from edgecnn.cli.terminal import print_json
from edgecnn.cli.verbs import Verb

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from edgecnn.rehearse import Rehearsal, Rehearsed

_OUTCOME_STYLES = {"same": "green", "not run": "yellow"}
_INT8_AND_FLOAT = ("smmla", "sdot", "udot", "usdot", "smlal", "umlal", "smull", "umull", "fmla fp16", "fmla fp32")


def rehearse(
    bundle: BundleFolder,
    device: Annotated[
        str,
        typer.Option(
            help="raspberry-pi-3, raspberry-pi-4, raspberry-pi-5, x86-64-v2 (SSE4), x86-64-v3 (AVX2, no VNNI) or "
            "desktop-cpu (its oldest: x86-64-v3)."
        ),
    ],
    variant: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    images: Annotated[int, typer.Option(help="At most so many golden images.")] = 16,
    out: Annotated[Path | None, typer.Option(help="Also write the report as JSON there.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Where the board is set up. Default: EDGECNN_CACHE or ~/.cache/edgecnn.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing: only what the cache has.")] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Write into the bundle on which instruction sets its variants are proven.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a bundle on an emulated Raspberry Pi or an older x86-64.

    The same decisions, the same pixels, no illegal instruction? Numerics only, no times. Exit code 1 where a variant
    differs or dies, 3 where none could be run. The first call for a board fetches about 120 MB, for an x86-64 processor
    63 MB unless every engine can be held to it on this machine (Debian, Ubuntu or their like; no root needed).
    """
    from edgecnn import outputs
    from edgecnn.cli.live import say
    from edgecnn.cli.show import show_table
    from edgecnn.documents import write_atomically
    from edgecnn.errors import UserError
    from edgecnn.rehearse import record as write_proofs
    from edgecnn.rehearse import rehearse as run

    if out and out.resolve().is_relative_to(bundle.resolve()):
        raise UserError(f"{out}: lies inside the bundle, whose files are listed by hash: choose another --out")
    with ExitStack() as stack:
        stack.enter_context(outputs.files(out))
        if record:
            stack.enter_context(outputs.folders(bundle, least_bytes=outputs.LITTLE))
        found = run(bundle, device, variant or (), images, cache, offline, say)
        text = found.model_dump_json(indent=1)
        if out:
            write_atomically(out, text + "\n")
        proven = write_proofs(bundle, found) if record else ()
    if as_json:
        print_json(text)
    else:
        show_table(_table(found))
        for line in _remarks(found):
            print(line)
        if record:
            print(f"{bundle}: recorded as proven: {', '.join(proven) or 'nothing new'}")
    raise typer.Exit(found.exit_code)


VERB = Verb(rehearse, after="verify", example="Example: edgecnn rehearse bundle/ --device raspberry-pi-4", engines=True)


def _table(found: Rehearsal) -> Table:
    from rich.table import Table

    title = (
        f"{found.bundle} on {found.description} ({found.emulator}, {found.system}), {len(found.images)} images\n"
        f"{found.emulated}"
    )
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("variant", no_wrap=True)
    for header in (
        "error vs trained",
        "flips vs trained",
        "error vs here",
        "flips vs here",
        "bit-equal",
        "pixels",
        "instructions of one image",
        "MiB RSS",
        "outcome",
    ):
        table.add_column(header, justify="right")
    for row in found.variants:
        table.add_row(*_cells(row))
    return table


def _cells(row: Rehearsed) -> tuple[str | Text, ...]:
    from edgecnn.cli.show import styled

    trained, here = row.against_trained, row.against_native
    style = _OUTCOME_STYLES.get(row.outcome, "bold red")
    return (
        row.variant,
        "–" if trained is None else f"{trained.max_error:.1e}",
        "–" if trained is None else str(len(trained.flips)),
        "–" if here is None else f"{here.max_error:.1e}",
        "–" if here is None else str(len(here.flips)),
        "–" if here is None else "yes" if here.bit_equal else "no",
        "–" if row.pixels_equal is None else "equal" if row.pixels_equal else "NOT equal",
        ", ".join(f"{row.instructions[kind]} {kind}" for kind in _INT8_AND_FLOAT if kind in row.instructions) or "–",
        "–" if row.peak_rss_mib is None else f"{row.peak_rss_mib:.0f}",
        styled(row.outcome, style),
    )


def _remarks(found: Rehearsal) -> list[str]:
    """What a reader of the table must know besides."""
    from edgecnn.rehearse import EMULATED

    lines = [f"{row.variant}: {row.reason}" for row in found.variants if row.reason]
    for row in found.variants:
        lines += [f"{row.variant}: on {row.how}"] if row.emulated != EMULATED else []
        lines += [f"{row.variant}: {remark}" for remark in row.remarks]
        flips = row.against_native.flips if row.against_native else ()
        lines += [
            f"{row.variant}: {flip.image} ({flip.label}) is {flip.variant} on the board, {flip.reference} here"
            for flip in flips
        ]
    lines.append(
        "errors are in units of the logits' standard deviation; `here` is the same variant on this machine; "
        "instructions are the different ones in the engine's code; memory is the emulator's and the program's together"
    )
    return lines
