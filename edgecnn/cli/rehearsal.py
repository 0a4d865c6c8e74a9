"""What `edgecnn rehearse` prints: a line a variant, one sentence on all of them, and its flips explained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from edgecnn.cli.live import console
from edgecnn.cli.show import show_table, styled

if TYPE_CHECKING:
    from edgecnn.artifact import Flip
    from edgecnn.rehearse import Rehearsal, Rehearsed

_OUTCOME_STYLES = {"same": "green", "not run": "yellow"}
_INT8_AND_FLOAT = ("smmla", "sdot", "udot", "usdot", "smlal", "umlal", "smull", "umull", "fmla fp16", "fmla fp32")
_NAMED = 4


def show_rehearsal(found: Rehearsal, verbose: bool) -> None:
    """Print it; with `verbose` every figure too."""
    output = console()
    images = _counted(len(found.images), "image")
    output.print(f"{found.bundle} on {found.description} ({found.emulator}), {images}: {found.emulated}")
    output.print(_lines(found))
    output.print(closing(found), style="bold", soft_wrap=True)
    for line in (*_flips(found), *_remarks(found, verbose)):
        output.print(line, soft_wrap=True)
    if verbose:
        show_table(_figures(found))
        output.print(
            "errors are in units of the logits' standard deviation; `here` is the same variant on this machine; "
            "instructions are the different ones in the engine's code; memory is the emulator's and the program's "
            f"together; {found.system}",
            soft_wrap=True,
        )


def closing(found: Rehearsal) -> str:
    """The sentence on all variants."""
    rows, where = found.variants, _where(found)
    same = [row for row in rows if row.outcome == "same"]
    flips = sum(len(row.against_trained.flips) for row in same if row.against_trained)
    many = rows[0].variant if len(rows) == 1 else "both variants" if len(rows) == 2 else f"all {len(rows)} variants"
    decides = "decides" if len(rows) == 1 else "decide"
    by = f"({_counted(len(found.images), 'image')})"
    if len(same) == len(rows):
        how = "the same" if not flips else "as the rule allows"
        told = f", with {_counted(flips, 'flip')}" if flips else ""
        return f"{many} {decides} {how} on {where}{told} {by}"
    others = "; ".join(f"{row.variant}: {row.outcome}" for row in rows if row.outcome != "same")
    if not same:
        return f"no variant decides on {where} as it should: {others}"
    return f"{len(same)} of {len(rows)} variants decide the same on {where} {by}; {others}"


def _lines(found: Rehearsal) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for row in found.variants:
        outcome = styled(row.outcome, _OUTCOME_STYLES.get(row.outcome, "bold red"))
        table.add_row(row.variant, outcome, row.reason or _words(row))
    return table


def _words(row: Rehearsed) -> str:
    """How it decides, in one line."""
    trained, here = row.against_trained, row.against_native
    words = []
    if trained is not None:
        agree = trained.images - len(trained.flips)
        words.append(f"{agree} of {trained.images} images decided as trained")
    if here is not None:
        words.append("bit for bit as here" if here.bit_equal else f"logits within {here.max_error:.1e} of those here")
    return ", ".join(words)


def _flips(found: Rehearsal) -> list[str]:
    """What a flip is, which there are, and whether the rule allows them; nothing where there are none."""
    lines = []
    for row in found.variants:
        flips = row.against_trained.flips if row.against_trained else ()
        if not flips:
            continue
        known = len(flips) - row.new_flips
        old = f" ({known} also where it was exported, which count for nothing)" if known else ""
        allowed = f", {row.new_flips} new{old}; the rule allows {row.flips_allowed} new"
        lines.append(f"{row.variant}: {_counted(len(flips), 'flip')}{allowed}: {_named(flips)}")
    first = "a flip is an image that a variant decides otherwise than the trained network did in PyTorch:"
    return [first, *lines] if lines else []


def _named(flips: Sequence[Flip]) -> str:
    named = [f"{one.image} ({one.label}) is {one.variant}, was {one.reference}" for one in flips[:_NAMED]]
    more = len(flips) - len(named)
    return "; ".join([*named, f"{more} more: --json"] if more else named)


def _remarks(found: Rehearsal, verbose: bool) -> list[str]:
    """What there is to know besides, each with the variants that it is true of."""
    from edgecnn.rehearse import EMULATED

    told: dict[str, list[str]] = {}
    for row in found.variants:
        how = [f"on {row.how}"] if row.emulated != EMULATED and verbose else []
        for remark in (*how, *row.remarks):
            told.setdefault(remark, []).append(row.variant)
    return [f"{', '.join(names)}: {remark}" for remark, names in told.items()]


def _where(found: Rehearsal) -> str:
    """The processor: a Cortex-A76, x86-64-v3."""
    return f"a {found.cpu.title()}" if found.cpu.startswith("cortex-") else found.device


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _figures(found: Rehearsal) -> Table:
    table = Table()
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
