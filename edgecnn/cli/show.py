"""What the verbs print for people: tables and verdicts on stdout, progress on stderr."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from edgecnn.artifact import Artifact, Bundle, Check, Doubt, Judged
from edgecnn.cli.live import console, keep, say
from edgecnn.cli.narrow import fitted
from edgecnn.mistakes import optimism
from edgecnn.verify import Verified

if TYPE_CHECKING:
    from edgecnn.bench.rows import Row
    from edgecnn.train import Evidence

OUTCOME_STYLES = {
    "PASS": "bold green",
    "FAIL": "bold red",
    "INCONCLUSIVE": "bold yellow",
    "SKIPPED": "dim",
    "REFUSED": "bold red",
}
_PASSED = {True: ("yes", "green"), False: ("no", "red"), None: ("skipped", "dim")}


def log_bundle(bundle: Bundle) -> None:
    """All that is known of its variants, into the log; with --verbose on stderr too."""
    ladders = [ladder(artifact) for artifact in bundle.artifacts if "rung" in artifact.notes]
    _log([variants(bundle), Text(INTERVALS), *ladders, *(Text(remark) for remark in remarks(bundle))])


def log_rows(rows: Sequence[Row]) -> None:
    """All that is known of their latency, into the log; with --verbose on stderr too."""
    _log(_measured(rows))


def show_rows(rows: Sequence[Row]) -> None:
    """All that is known of their latency, on stdout."""
    for shown in _measured(rows):
        show_table(shown)


def _log(told: Sequence[RenderableType]) -> None:
    for shown in told:
        if keep(shown):
            show_table(shown, stderr=True)


def _measured(rows: Sequence[Row]) -> list[RenderableType]:
    """The table of latencies, and what each row has to say beside its numbers."""
    from edgecnn.bench import table

    title = "latency from encoded bytes to decision, ms (bound: 99 % confidence, of the budget's percentile)"
    told: list[RenderableType] = [Text(title), latencies(table(rows))]
    for row in table(rows):
        if row["reason"] and row["verdict"] != "PASS":
            told.append(Text(f"{row['variant']}: {row['reason']}"))
        told += [Text(f"{row['variant']}: {note}") for note in row["notes"]]
    return told


def show_table(table: RenderableType, name: int = 0, stderr: bool = False) -> None:
    """Printed, in parts where the terminal is too narrow; the column `name` opens each."""
    output = console(stderr)
    output.print(fitted(table, output, name) if isinstance(table, Table) else table)


def warn(doubts: Sequence[Doubt]) -> None:
    """Loudly, on stderr: the network may answer wrongly, whatever the engine."""
    for doubt in doubts:
        text = f"WARNING: the network does not fit what is assumed of it: {doubt.words}"
        console(stderr=True).print(styled(text, "bold red"), soft_wrap=True)


def shortfalls(bundle: Bundle) -> list[str]:
    """Why `export` and `run` exit with 1 whatever the latency, a phrase for each; none where the bundle is complete."""
    found = [f"{left.variant} is left out" for left in bundle.left_out]
    found += [
        f"{artifact.variant} is not within the target on test images"
        for artifact in bundle.artifacts
        if not artifact.check.judged.acceptable
    ]
    if bundle.doubts:
        found.append("the network itself is in doubt")
    if bundle.frames is not None and not bundle.frames.within:
        found.append(f"raw camera frames decide otherwise than their files in {1 - bundle.frames.agreement:.1%}")
    return found


def tell_why_1(reasons: Sequence[str]) -> None:
    """The last line on stderr: why the exit code is 1 although variants passed, or a verdict is PASS."""
    if reasons:
        say(f"exit code 1: {'; '.join(reasons)}")


def variants(bundle: Bundle) -> Table:
    """One row a variant: what verification found."""
    check = bundle.artifacts[0].check
    title = f"{bundle.name}: {check.images} test images, fp32 in PyTorch {check.reference_top1:.1%}"
    table = _table("variant", "MiB", *_CHECKED, "int8 layers, MACs", "kept", title=title)
    for artifact in bundle.artifacts:
        size = f"{artifact.bytes / 2**20:.2f}"
        ran = artifact.executed
        layers = _layers(ran.int8_layers, ran.float_layers, ran.int8_share) if ran and ran.layers else "–"
        fit = artifact.check.judged.acceptable
        kept = styled("yes", "green") if fit else styled("never choose", "bold red")
        table.add_row(artifact.variant, size, *_check_cells(artifact.check), layers, kept)
    for left in bundle.left_out:
        table.add_row(left.variant, "–", *_check_cells(left.check), "–", styled("no", "red"))
    return table


def tried(evidence: Evidence) -> Table:
    """One row a recipe that was compared on the data; the chosen one is marked."""
    title = f"{evidence.images} images, held-out folds; {evidence.minutes:.1f} of {evidence.limit_minutes:g} min"
    columns = ("recipe", "folds", "epochs", "mean recall, %", "top-1, %", "loss", "minutes")
    table = _table(*columns, title=title)
    for trial in evidence.trials:
        spread = f" ± {100 * trial.spread:.1f}" if trial.folds > 1 else ""
        table.add_row(
            f"{trial.recipe} ←" if trial.recipe == evidence.chosen else trial.recipe,
            str(trial.folds),
            f"{trial.epochs} of {trial.full_epochs}",
            f"{100 * trial.balanced:.1f}{spread}",
            f"{100 * trial.top1:.1f}",
            f"{trial.loss:.3f}",
            f"{trial.minutes:.1f}",
        )
    return table


def verified(rows: Sequence[Verified]) -> Table:
    """One row a variant of `edgecnn verify`."""
    table = _table("variant", *_CHECKED, "passed")
    for row in rows:
        table.add_row(row.variant, *_check_cells(row.check), styled(*_PASSED[row.passed]))
    return table


def latencies(rows: Sequence[dict[str, Any]]) -> Table:
    """One row a variant of a bench."""
    stages = ("decode", "prepare", "infer", "decide")
    percentiles = ("p50", "p90", "p99", "bound")
    table = _table("variant", *stages, *percentiles, "MiB RSS", "threads", "int8 layers, MACs", "verdict")
    for row in rows:
        numbers = [row[f"{stage}_p50_ms"] for stage in stages]
        numbers += [row["p50_ms"], row["p90_ms"], row["p99_ms"], row["bound_ms"]]
        table.add_row(
            f"{row['variant']} ←" if row["chosen"] else str(row["variant"]),
            *(_number(value, 2) for value in numbers),
            _number(row["peak_rss_mib"], 0),
            _number(row["threads_used"], 2),
            _layers(row["int8_layers"], row["float_layers"], row["int8_share"]),
            outcome(row["verdict"]) if row["verdict"] else "harness",
        )
    return table


def styled(text: str, style: str) -> Text:
    """Text for a cell or a line in a style: bold, red, …"""
    return Text(text, style)


def outcome(word: str) -> Text:
    """PASS in green, …"""
    return styled(word, OUTCOME_STYLES[word])


def remarks(bundle: Bundle) -> list[str]:
    """What a reader of the table must know besides."""
    found = [f"taken in: {note}" for note in bundle.notes]
    found += optimism(bundle)
    found += [f"{left.variant} is left out: {left.reason}" for left in bundle.left_out]
    for artifact in bundle.artifacts:
        if "rung" in artifact.notes:
            tried = len(artifact.notes["rungs_tried"])
            rungs = "1 rung" if tried == 1 else f"{tried} rungs"
            found.append(
                f"{artifact.variant}: {artifact.notes['rung']} ({rungs} tried on {artifact.notes['judged_on']})"
            )
            found += [f"{artifact.variant}: {line}" for line in artifact.notes.get("unfinished", ())]
        if artifact.executed is not None:
            found += [f"{artifact.variant}: engine: {remark}" for remark in artifact.executed.remarks]
        found += [f"{artifact.variant}: {line}" for line in artifact.notes.get("not_proven", ())]
        found += [f"{artifact.variant}: {text}" for text in judged_lines(artifact)]
    frames = bundle.frames
    if frames is not None:
        found.append(
            f"raw camera frames decide as their files do on {frames.agreement:.1%} of {frames.images} images "
            f"({'within' if frames.within else 'NOT within'} the limit of {frames.limit:.0%}, give or take one image); "
            f"pixels differ by {frames.mean_pixel_error:.2f} levels on average, "
            f"logits by {frames.mean_logit_error:.3f} of their scale"
        )
    return found


def judged_lines(artifact: Artifact) -> list[str]:
    """What its test images, and those that selected it, show and do not show."""
    selection = artifact.selection
    lines = judged_words(artifact.check.judged, "ON TEST IMAGES, never chosen")
    if selection is not None and not selection.validated:
        lines.append(f"not validated: no validation images, kept by {selection.images} {selection.on}")
    return lines


def judged_words(judged: Judged, where: str) -> list[str]:
    """Why it is not acceptable, else what may be chance and what so few images do not show."""
    if judged.acceptable:
        return [*judged.doubts, *judged.too_few]
    return [f"NOT WITHIN THE TARGET {where}: {judged.reason}"]


def ladder(artifact: Artifact) -> Table:
    """The rungs that an int8 variant's ladder tried, with what each was judged by; the taken one is marked."""
    aim, unfinished = artifact.notes.get("aim", ""), artifact.notes.get("unfinished", ())
    title = "\n".join([f"{artifact.variant}: its ladder{', to ' if aim else ''}{aim}", *unfinished])
    table = Table(title=title, title_justify="left", title_style="bold")
    for header in ("rung", "loss, points", "agree", "ms here", "judged by"):
        table.add_column(header, justify="left" if header in ("rung", "judged by") else "right")
    for row in artifact.notes["rungs_tried"]:
        # Which layers it kept in float is not repeated: of the taken rung, a line below says it.
        name = row["rung"].partition(" (")[0] + (" ←" if row["rung"] == artifact.notes["rung"] else "")
        numbers = (f"{row['loss_points']:+.1f}", f"{row['agreement']:.1%}", f"{row['latency_ms']:.2f}")
        table.add_row(name, *numbers, row.get("criterion", "–"))
    return table


def _table(*headers: str, title: str | None = None) -> Table:
    """The first column names the row and is never folded."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, header in enumerate(headers):
        table.add_column(header, justify="left" if index == 0 else "right", no_wrap=index == 0 or "[" in header)
    return table


_CHECKED = ("logit error", "agree", "top-1, % [95 %]", "loss, points [95 %]", "loss limit", "missed", "false alarms")
"""The last two with fp32's in brackets."""
INTERVALS = "[95 %]: of that figure alone, two-sided; loss limit: by one-sided bounds, 95 % for all variants at once"


def _check_cells(check: Check | None) -> tuple[str | Text, ...]:
    if check is None:
        return ("–",) * len(_CHECKED)
    return (
        f"{check.max_logit_error:.1e}",
        f"{check.agreement:.1%}",
        f"{100 * check.top1:.1f} [{100 * check.top1_interval.low:.1f}, {100 * check.top1_interval.high:.1f}]",
        f"{check.loss_points:+.1f} [{check.loss_interval.low:+.1f}, {check.loss_interval.high:+.1f}]",
        loss_shown(check.judged),
        _against(check.missed_defects, check.reference_missed_defects),
        _against(check.false_alarms, check.reference_false_alarms),
    )


def loss_shown(judged: Judged) -> Text:
    """In how far the loss is shown to be within the limit, and how many images would show it."""
    if judged.shown == "shown within":
        return styled("shown within", "green")
    if judged.shown == "shown beyond":
        return styled("shown beyond", "bold red")
    images = f" (n ≈ {judged.images_to_show:,})" if judged.images_to_show else ""
    return Text.assemble(styled("not shown", "yellow"), images)


def _layers(int8: int | None, floating: int | None, share: float | None) -> str:
    if int8 is None:
        return "–"
    counted = f"{int8}/{int8 + (floating or 0)}"
    return f"{counted}, {share:.0%}" if share and int8 else counted


def _against(value: int | None, reference: int | None) -> str:
    return "–" if value is None else f"{value} ({reference})"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def findings(lines: Sequence[tuple[str, str, str]]) -> Table:
    """(area, finding, what to do) of `edgecnn doctor`."""
    table = Table("area", "finding", "what to do")
    for line in lines:
        table.add_row(*line)
    return table
