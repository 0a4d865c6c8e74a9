"""The folder of a run: free for it, holding it, or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from edgecnn.checkpoint import CHECKPOINT, SPLIT, WEIGHTS, Checkpoint, read_checkpoint
from edgecnn.data import Dataset, split_hashes
from edgecnn.documents import Json
from edgecnn.errors import UserError
from edgecnn.holding import remove_leftovers
from edgecnn.models.weights_file import hash_of
from edgecnn.train.options import TrainOptions

RUN, STATE, CACHE, HISTORY, EVIDENCE = "run.json", "state", "cache", "metrics.jsonl", "evidence.json"
"""In the checkpoint folder: what the run is; until it ends, where it is and its prepared pixels; a line an epoch; the
table that its recipe was chosen from."""
CURVES = "tensorboard"
"""Beside them: the curves for TensorBoard."""


def identity_of(data: Dataset, options: TrainOptions) -> dict[str, Json]:
    """What the outcome depends on. Two runs with the same identity end with the same weights."""
    path = Path(options.weights) if options.weights else None
    return {
        **options.model_dump(mode="json"),
        "weights file": hash_of(path) if path and path.is_file() else None,
        "classes": list(data.classes),
        "good class": data.good_class,
        **{f"{name} images": digest for name, digest in split_hashes(data).items()},
        "parts": data.grouping.sha256 if data.grouping else None,
    }


def open_folder(out: Path, identity: Mapping[str, Json], restart: bool) -> Checkpoint | None:
    """See that `out` is free for this run or holds it; the checkpoint if it is there already."""
    refuse_other_content(out)
    if restart and (out / RUN).is_file():
        _remove_run(out)
    if not (out / RUN).is_file():
        return None
    _refuse_other_run(out, identity)
    for folder in (out, out / STATE, out / CACHE):
        remove_leftovers(folder)
    if not (out / CHECKPOINT).is_file():
        return None
    remove_working_files(out)
    return read_checkpoint(out)


def refuse_other_content(out: Path) -> None:
    """UserError where `out` holds something else than a run: told before any image is read."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file (expected a folder for the checkpoint): choose another --out")
    if (out / RUN).is_file() or not out.is_dir():
        return
    there = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    if there:
        raise UserError(f"{out}: is not empty ({there[0]}) and holds no training run: choose another --out")


def remove_working_files(out: Path) -> None:
    """What is needed until a run ends: its state, its prepared pixels, half-written files."""
    for name in (STATE, CACHE):
        shutil.rmtree(out / name, ignore_errors=True)
    for path in out.glob(".*.tmp"):  # of a process that was killed while writing
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _refuse_other_run(out: Path, identity: Mapping[str, Json]) -> None:
    try:
        found: dict[str, Json] = dict(json.loads((out / RUN).read_bytes()))
    except (ValueError, TypeError):
        raise UserError(f"{out / RUN}: damaged: choose another --out, or --restart to train anew") from None
    differences = [
        f"{name} changed" if _is_digest(found.get(name)) else f"{name} {_word(found.get(name))}, now {_word(wanted)}"
        for name, wanted in identity.items()
        if found.get(name) != wanted
    ]
    if differences:
        raise UserError(
            f"{out}: holds a run with other settings ({'; '.join(differences)}): choose another --out, give the same "
            "settings, or --restart to replace it"
        )


def _word(value: object) -> str:
    return "not set" if value is None else ", ".join(value) if isinstance(value, list) else str(value)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64


def _remove_run(out: Path) -> None:
    remove_working_files(out)
    shutil.rmtree(out / CURVES, ignore_errors=True)
    for name in (CHECKPOINT, WEIGHTS, SPLIT, HISTORY, EVIDENCE, RUN):
        (out / name).unlink(missing_ok=True)
