"""The checkpoint folder proves itself: nothing damaged, missing or newer is read."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edgecnn.artifact import Cost, Preprocess
from edgecnn.checkpoint import (
    CHECKPOINT,
    WEIGHTS,
    Checkpoint,
    Leftovers,
    Metrics,
    Recipe,
    read_checkpoint,
    write_checkpoint,
)
from edgecnn.documents import sha256_of
from edgecnn.errors import UserError


def make(folder: Path) -> Checkpoint:
    (folder / WEIGHTS).write_bytes(b"weights")
    checkpoint = Checkpoint(
        model="timm:resnet18",
        classes=("good", "scratch"),
        good_class="good",
        preprocess=Preprocess(height=32, width=32),
        weights="none",
        recipe=Recipe(name="all", thawed=1.0, lr=1e-3, stem_lr=0.1, epochs=3),
        reason="asked for",
        seed=7,
        device="cpu",
        splits={"train": "0" * 64},
        cost=Cost(params=10, macs=20, uncounted=("x",)),
        metrics=Metrics(
            val_images=4, val_top1=0.5, val_balanced=0.5, val_loss=0.7, best_epoch=2, epochs=3, minutes=0.1
        ),
        tools={"torch": "2"},
        leftovers=Leftovers(missing=("fc.weight",)),
        files={WEIGHTS: sha256_of(b"weights")},
    )
    write_checkpoint(folder, checkpoint)
    return checkpoint


def test_a_checkpoint_comes_back_equal(tmp_path: Path) -> None:
    assert make(tmp_path) == read_checkpoint(tmp_path)


def test_a_checkpoint_is_a_value(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        make(tmp_path).seed = 8  # type: ignore[misc]


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        document = json.loads((folder / CHECKPOINT).read_text())
        change(document)
        (folder / CHECKPOINT).write_text(json.dumps(document))

    return damage


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights changed": (lambda folder: (folder / WEIGHTS).write_bytes(b"weightz"), "weights.safetensors is damaged"),
    "weights missing": (lambda folder: (folder / WEIGHTS).unlink(), "weights.safetensors is missing"),
    "description missing": (lambda folder: (folder / CHECKPOINT).unlink(), "no checkpoint.json there"),
    "description cut": (lambda folder: (folder / CHECKPOINT).write_text('{"version": 1,'), "damaged"),
    "description no object": (lambda folder: (folder / CHECKPOINT).write_text("[]"), "damaged"),
    "a digit changed": (edit(lambda document: document.update(seed=8)), "does not match its own hash"),
    "newer": (edit(lambda document: document.update(version=3)), "version 3, this edgecnn reads version 2"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_refused_with_what_to_do(name: str, tmp_path: Path) -> None:
    make(tmp_path)
    damage, message = DAMAGES[name]
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        read_checkpoint(tmp_path)


def test_a_file_outside_the_folder_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside").write_bytes(b"weights")
    checkpoint = make(inside).model_copy(update={"files": {"../outside": sha256_of(b"weights")}})
    write_checkpoint(inside, checkpoint)
    with pytest.raises(UserError, match="refused"):
        read_checkpoint(inside)


def test_reading_a_checkpoint_needs_no_torch() -> None:
    code = "import sys, edgecnn.checkpoint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
