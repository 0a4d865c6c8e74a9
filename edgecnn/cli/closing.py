"""The last screen of `run`, `export` and `bench`: the verdicts first, one table, what is open, what comes next."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from edgecnn.artifact import Artifact, Bundle
from edgecnn.cli.live import console
from edgecnn.cli.show import OUTCOME_STYLES, judged_lines
from edgecnn.mistakes import Share, mistakes_of, optimism
from edgecnn.numbers import plain, rounded
from edgecnn.profiles import QUICK

if TYPE_CHECKING:
    from edgecnn.bench.rows import Row
    from edgecnn.bench.summary import Summary

COLUMNS, LINES = 100, 25
_LABEL = 9
_MOST_ROWS = 10
_DISPENSABLE = ("max", "false", "loss", "MiB", "top-1 %", "missed")
"""Columns that a narrow terminal goes without, the first of them first."""
_LEAST_OPEN = 3
_SPACE = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Ending:
    """What a verb ends with, beside the bundle and its rows."""

    next: Sequence[str]
    """Commands."""
    files: Sequence[tuple[str, str]]
    """What was written: a word and the path."""
    seconds: float


def next_commands(bundle: Bundle, folder: Path) -> list[str]:
    """What is to be done with a bundle that was made here."""
    where = "the machine" if bundle.choice is None else "every machine"
    name = shlex.quote(str(folder))
    found = [f"edgecnn bench {name} (on {where} that it is for)"]
    if any("not_proven" in artifact.notes for artifact in bundle.artifacts):
        found.append(f"edgecnn rehearse {name} --device x86-64-v2 --record (INT8 on older processors)")
    return found


def show_closing(bundle: Bundle, rows: Sequence[Row], ending: Ending) -> None:
    """Print it, in at most 25 lines of 100 columns for nine variants."""
    output = console()
    for line in closing(bundle, rows, ending, min(COLUMNS, output.width)):
        output.print(line, soft_wrap=True)


def closing(bundle: Bundle, rows: Sequence[Row], ending: Ending, width: int = COLUMNS) -> list[Text | Table]:
    """Labelled lines and the table, in so many columns. Without `rows` nothing was measured."""
    from edgecnn.bench import overall

    lines: list[Text | Table] = []
    subject = None
    if rows:
        verdict = overall(rows)
        subject = next((row for row in _summaries(rows) if row.variant == verdict.variant), None)
        lines += _labelled("LATENCY", _latency(verdict.reason, subject), width, verdict.outcome)
    artifact = _subject(bundle, subject.variant if subject else None)
    if artifact is not None:
        lines += _labelled("PARTS", parts_words(bundle, artifact), width)
    measured = {row.variant for row in rows}
    if bundle.choice is not None and (not rows or bundle.choice.variant in measured):
        lines += _labelled("WHY", f"{bundle.choice.variant}: {bundle.choice.reason}", width)
    table = _fitting(bundle, rows, width)
    lines.append(table)
    after: list[Text | Table] = []
    for index, command in enumerate(ending.next):
        after += _labelled("NEXT" if index == 0 else "", command, width)
    files = [f"{word} {path}" for word, path in ending.files]
    after += _labelled("FILES", " · ".join([*files, f"took {_clock_words(ending.seconds)}"]), width)
    room = LINES - len(lines) - table.row_count - len(after)
    return [*lines, *_undecided(_open(bundle, rows, artifact), max(room, _LEAST_OPEN), width), *after]


def parts_words(bundle: Bundle, artifact: Artifact) -> str:
    """How one variant judges the test images, in words and counts."""
    found = mistakes_of(bundle, artifact.check)
    words = [f"{artifact.variant} is right on {_share(found.right)}"]
    if found.missed is not None:
        words.append(f"missed defects {_share(found.missed)}")
    if found.false_alarms is not None:
        words.append(f"false alarms {_share(found.false_alarms)}")
    if found.weakest is not None:
        words.append(f"weakest class {found.weakest[0]}, right on {_share(found.weakest[1])}")
    return f"{'; '.join(words)} (test images; intervals of 95{_SPACE}%)"


def _clock_words(seconds: float) -> str:
    """4 min 43 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _latency(reason: str, row: Summary | None) -> str:
    if row is None:
        return reason
    over = f"{row.over_budget:,} of {row.samples:,} over {plain(row.budget.milliseconds)} ms"
    return f"{reason} · p50 {rounded(row.p50_ms, 3)} ms, max {rounded(row.max_ms, 3)} ms, {over}"


def _share(share: Share) -> str:
    low, high = 100 * share.interval.low, 100 * share.interval.high
    return f"{share.count:,} of {share.of:,}: {100 * share.value:.1f}{_SPACE}% [{low:.1f}, {high:.1f}]"


def _subject(bundle: Bundle, measured: str | None) -> Artifact | None:
    """The variant that the words are about: the verdict's, else the chosen one, else the first that may be used."""
    wanted = measured or (bundle.choice.variant if bundle.choice is not None else None)
    usable = [artifact for artifact in bundle.artifacts if bundle.unusable(artifact) is None]
    named = [artifact for artifact in bundle.artifacts if artifact.variant == wanted]
    return next(iter([*named, *usable, *bundle.artifacts]), None)


def _fitting(bundle: Bundle, rows: Sequence[Row], width: int) -> Table:
    """The table without as many columns as a narrow terminal has no room for: all are in the report."""
    table = _table(bundle, rows)
    dropped: list[str] = []
    for title in _DISPENSABLE:
        if Measurement.get(console(), console().options, table).maximum <= width:
            return table
        dropped.append(title)
        table = _table(bundle, rows, dropped)
    return table


def _table(bundle: Bundle, rows: Sequence[Row], without: Sequence[str] = ()) -> Table:
    """A row a variant; those that were left out last."""
    measured = {row.variant: row for row in rows}
    titles = ["variant", "MiB", "top-1 %", "loss", "missed", "false"]
    titles += ["p50 ms", f"p{_percentile(rows)} ≤", "max"] if rows else []
    kept = [index for index, title in enumerate(titles) if title not in without]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for index, title in enumerate([*(titles[index] for index in kept), "verdict" if rows else "kept"]):
        table.add_column(title, justify="left" if index in (0, len(kept)) else "right", no_wrap=True)
    # A bench of some variants is shown of these; who made the bundle looks for every one that was asked for.
    shown = [one for one in bundle.artifacts if not rows or one.variant in measured]
    left_out = [] if rows and len(shown) < len(bundle.artifacts) else bundle.left_out
    for artifact in shown[:_MOST_ROWS]:
        check, row = artifact.check, measured.get(artifact.variant)
        chosen = bundle.choice is not None and bundle.choice.variant == artifact.variant
        numbers = [f"{artifact.bytes / 2**20:.2f}", f"{100 * check.top1:.1f}", f"{check.loss_points:+.1f}"]
        numbers += [_number(check.missed_defects), _number(check.false_alarms)]
        if rows:
            numbers += _times(row)
        veto = None if artifact.check.judged.acceptable else "never choose"
        last = veto or (_verdict(row) if rows else "yes")
        style = "bold red" if veto else OUTCOME_STYLES.get(last, "green" if last == "yes" else "")
        name = Text(f"{artifact.variant} ←" if chosen else artifact.variant, "bold" if chosen else "")
        table.add_row(name, *(numbers[index - 1] for index in kept[1:]), Text(last, style))
    for left in left_out[: max(0, _MOST_ROWS - len(shown))]:
        table.add_row(left.variant, *["–"] * (len(kept) - 1), Text("left out", "red"))
    hidden = len(shown) + len(left_out) - _MOST_ROWS
    if hidden > 0:
        table.add_row(Text(f"… {hidden} more: -v", "dim"))
    return table


def _percentile(rows: Sequence[Row]) -> str:
    return next((plain(row.budget.percentile) for row in _summaries(rows)), "99")


def _times(row: Row | None) -> list[str]:
    from edgecnn.bench.summary import Summary

    if not isinstance(row, Summary):
        return ["–"] * 3
    bound = "–" if row.upper_ms is None else f"{row.upper_ms:.2f}"
    return [f"{row.p50_ms:.2f}", bound, f"{row.max_ms:.2f}"]


def _verdict(row: Row | None) -> str:
    from edgecnn.bench.summary import Summary

    if row is None:
        return "not measured"
    if isinstance(row, Summary):
        return row.verdict.outcome if row.verdict else "not measured"
    return "REFUSED" if row.refused else "SKIPPED"


def _open(bundle: Bundle, rows: Sequence[Row], subject: Artifact | None) -> list[str]:
    """What a reader must not take as decided, the gravest first."""
    from edgecnn.bench.summary import Summary

    found = [f"the network itself is in doubt: {doubt.words}" for doubt in bundle.doubts]
    found += optimism(bundle)
    found += [f"{left.variant} is left out: {left.reason}" for left in bundle.left_out]
    # The one that the screen is about first, then whatever must never be chosen.
    vetoed = [one for one in bundle.artifacts if one is not subject and not one.check.judged.acceptable]
    for one in ([subject] if subject is not None else []) + vetoed:
        found += [f"{one.variant}: {line}" for line in judged_lines(one)]
    if bundle.frames is not None and not bundle.frames.within:
        found.append(f"raw camera frames decide otherwise than their files in {1 - bundle.frames.agreement:.1%}")
    quick = [one.variant for one in bundle.artifacts if one.notes.get("quick")]
    if quick:
        found.append(f"{QUICK} ({', '.join(quick)}): without --quick further ones are tried")
    measured = {row.variant: row for row in rows}
    row = measured.get(subject.variant) if subject is not None else None
    if isinstance(row, Summary):
        found += [f"{row.variant}: {note}" for note in row.notes if not note.startswith("engine: ")]
    found += [f"{row.variant} was not measured: {row.reason}" for row in rows if not isinstance(row, Summary)]
    undecided = [row.variant for row in _summaries(rows) if row.verdict and row.verdict.outcome == "INCONCLUSIVE"]
    if len(undecided) > 1:
        found.append(f"latency is INCONCLUSIVE of {', '.join(undecided)}")
    not_shown = [
        one.variant
        for one in bundle.artifacts
        if one.check.judged.too_few and one is not subject and (not rows or one.variant in measured)
    ]
    if not_shown:
        found.append(f"too few test images to show the loss of {', '.join(not_shown)} within the limit")
    return found


def _summaries(rows: Sequence[Row]) -> list[Summary]:
    from edgecnn.bench.summary import Summary

    return [row for row in rows if isinstance(row, Summary) and row.verdict is not None]


def _undecided(words: Sequence[str], room: int, width: int) -> list[Text | Table]:
    """As many as there is room for, in lines, and how many more there are."""
    shown: list[Text | Table] = []
    for index, text in enumerate(words):
        short = textwrap.shorten(text, 2 * (width - _LABEL), placeholder=" …")
        lines = _labelled("OPEN" if index == 0 else "", short, width)
        last = index == len(words) - 1
        if shown and len(shown) + len(lines) > room - (not last):
            return [*shown, *_labelled("", f"{len(words) - index} more: in the report and with -v", width)]
        shown += lines
    return shown


def _labelled(label: str, words: str, width: int, outcome: str = "") -> list[Text | Table]:
    """Lines of at most `width` characters, the label before the first; `outcome` is a coloured word after it."""
    text = f"{outcome}  {words}" if outcome else words
    wrapped = textwrap.wrap(text, max(width - _LABEL, _LABEL), break_long_words=False, break_on_hyphens=False) or [""]
    lines: list[Text | Table] = []
    for index, line in enumerate(wrapped):
        whole = Text(f"{label if index == 0 else '':<{_LABEL}}", "bold")
        lead, rest = (outcome, line[len(outcome) :]) if outcome and index == 0 else ("", line)
        lines.append(Text.assemble(whole, (lead, OUTCOME_STYLES.get(lead, "")), (rest, "")))
    return lines


def _number(value: int | None) -> str:
    return "–" if value is None else str(value)
