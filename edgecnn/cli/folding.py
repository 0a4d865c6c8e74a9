"""`edgecnn run --folds`: a network and a bundle for each fold, and the table of all answers together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.cli.training import fine_tune_on, read_for_training
from edgecnn.progress import Stage

if TYPE_CHECKING:
    from edgecnn.artifact import Interval
    from edgecnn.pooled import Pooled
    from edgecnn.profiles import Target


def over_folds(
    data: Path, folder: Path, count: int, target: Target, training: Mapping[str, Any]
) -> tuple[Pooled, list[str]]:
    """Train, export and verify every fold, the first one in `folder` itself; folds that are done are not done again.

    Also what any fold's bundle falls short of.
    """
    from edgecnn.cli.live import say
    from edgecnn.cli.show import shortfalls
    from edgecnn.documents import write_atomically
    from edgecnn.export import export
    from edgecnn.folds import datasets, pool
    from edgecnn.pooled import POOLED

    done, short = [], []
    every = read_for_training(data, training, given_splits=False)
    for number, fold in enumerate(datasets(every, count, training["seed"]), 1):
        images = f"{len(fold.train)} train, {len(fold.val)} val, {len(fold.test)} test images"
        say(Stage(f"fold {number} of {count}: {images}"))
        place = folder if number == 1 else folder / f"fold-{number}"
        fine_tune_on(fold, place / "train", training)
        bundle = export(place / "train", target, place / "bundle", data, say)
        short += [f"fold {number}: {reason}" for reason in shortfalls(bundle)]
        done.append((fold, place / "bundle"))
    pooled = pool(done)
    write_atomically(folder / POOLED, pooled.model_dump_json(indent=1) + "\n")
    return pooled, short


def show_pooled(pooled: Pooled) -> None:
    """A line a variant, what the figures are of, and what they show against the target's limit."""
    from rich.table import Table

    from edgecnn.cli.live import console
    from edgecnn.cli.show import judged_words, loss_shown, show_table

    table = Table("variant", "passed", "top-1, %", "fp32, %", "loss, points", "loss limit")
    for title in ("agreement, %", "missed", "false alarms"):
        table.add_column(title)
    for row in pooled.variants:
        table.add_row(
            row.variant,
            f"{row.kept} of {pooled.folds} folds",
            _with(100 * row.top1, row.top1_interval, 100),
            f"{100 * row.reference_top1:.1f}",
            _with(row.loss_points, row.loss_interval, 1, "+.1f"),
            loss_shown(row.judged),
            _with(100 * row.agreement, row.agreement_interval, 100),
            "–"
            if row.missed_defects is None
            else f"{row.missed_defects} of {row.defects}, fp32 {row.reference_missed_defects}",
            "–" if row.false_alarms is None else f"{row.false_alarms}, fp32 {row.reference_false_alarms}",
        )
    output = console()
    output.print(pooled.words)
    show_table(table)
    for row in pooled.variants:
        for line in judged_words(row.judged, "OVER ALL FOLDS"):
            output.print(f"{row.variant}: {line}", soft_wrap=True)


def _with(value: float, interval: Interval, scale: float, form: str = ".1f") -> str:
    return f"{value:{form}} [{scale * interval.low:{form}}, {scale * interval.high:{form}}]"
