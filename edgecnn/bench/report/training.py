"""How the network was trained: its curves, and the recipes that were compared; read from the run folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecnn.bench.report.cells import Table, text_rows
from edgecnn.errors import UserError


@dataclass(frozen=True)
class Training:
    """A run folder's metrics.jsonl and evidence.json."""

    epochs: tuple[dict[str, Any], ...]
    """Empty where nothing was trained."""
    evidence: dict[str, Any] | None

    @property
    def best(self) -> dict[str, Any]:
        """The epoch whose weights were kept."""
        return max(self.epochs, key=lambda row: (row["val_balanced"], -row["val_loss"]))


def read_training(run: Path) -> Training:
    """UserError where `run` is no run folder, or a file in it is damaged."""
    if not (run / "run.json").is_file():
        raise UserError(f"{run}: holds no training run (expected the folder that `edgecnn finetune` wrote)")
    metrics, evidence = run / "metrics.jsonl", run / "evidence.json"
    try:
        lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
        table = json.loads(evidence.read_bytes()) if evidence.is_file() else None
        return Training(tuple(json.loads(line) for line in lines), table)
    except ValueError:
        raise UserError(f"{run}: metrics.jsonl or evidence.json is damaged: train again") from None


def evidence_table(training: Training) -> Table | None:
    """A row for each recipe that was compared; None where none were."""
    if training.evidence is None:
        return None
    chosen = training.evidence["chosen"]
    rows = []
    for trial in training.evidence["trials"]:
        recalls = [100 * recall for recall in trial["recalls"]]
        mark = " (chosen)" if trial["recipe"] == chosen else ""
        rows.append(
            (
                trial["recipe"] + mark,
                str(trial["folds"]),
                f"{trial['epochs']} of {trial['full_epochs']}",
                ", ".join(f"{recall:.1f}" for recall in recalls),
                f"{trial['loss']:.3f}",
                f"{trial['minutes']:.1f}",
            )
        )
    return Table(("recipe", "folds", "epochs", "mean recall by fold, %", "loss", "minutes"), text_rows(rows))
