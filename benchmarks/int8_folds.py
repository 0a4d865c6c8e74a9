"""INT8 in every engine on whole defect sets: k folds, so that every image is a test image once.

    python benchmarks/int8_folds.py train  --shared SHARED --work WORK [--set defect_neu_det] [--model mobilenet_v2]
    python benchmarks/int8_folds.py export --shared SHARED --work WORK --target TARGET.toml
    python benchmarks/int8_folds.py --table        # the stored rows, pooled over the folds, as Markdown

SHARED holds data/ and weights/ (not part of this project). Fine-tunes one network a fold (stratified, parts whole:
magnetic tiles by their names, else what looks alike), exports each fold's checkpoint for the target, and appends to
benchmarks/results/int8_folds.jsonl one line per fold and variant, with the flipped test images, and, of all folds
together, one line per variant, as `edgecnn run --folds` pools them: intervals by part. Finished work in WORK is reused.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from parts import TILES, write_tiles

from edgecnn.artifact import Bundle
from edgecnn.bench.host import fingerprint
from edgecnn.checkpoint import read_checkpoint
from edgecnn.data import Dataset, load_folder
from edgecnn.export import export as export_bundle
from edgecnn.folds import datasets, pool
from edgecnn.profiles import load_target
from edgecnn.train import TrainOptions, fine_tune

RESULTS = Path(__file__).parent / "results" / "int8_folds.jsonl"
FOLDS = 5
MODELS = {
    "mobilenet_v2": ("torchvision:mobilenet_v2", "mobilenet_v2/mobilenet_v2.safetensors"),
    "squeezenet1_1": ("torchvision:squeezenet1_1", "squeezenet1_1/squeezenet1_1.safetensors"),
    "mobilenetv3_small": (
        "timm:tf_mobilenetv3_small_100",
        "mobilenetv3_small/tf_mobilenetv3_small_100.safetensors",
    ),
    "resnet18": ("timm:resnet18", None),
    "efficientnet_b0": ("timm:efficientnet_b0", None),
}
"""Those without a file are trained from random weights: none are at hand."""
ABOUT = ("data", "model", "recipe", "size", "target", "date", "host")
"""Of a row: the same for all folds."""
RECIPES = {"defect_magnetic_tile": "last", "defect_neu_det": "head"}


def folds(shared: Path, set_name: str, work: Path) -> tuple[Dataset, ...]:
    """The dataset once a fold, as `edgecnn run --folds` makes them: parts whole, the tiles' told by their names."""
    root = shared / "data" / set_name / "images"
    work.mkdir(parents=True, exist_ok=True)
    group = str(write_tiles(root, work / "tiles.csv")) if set_name == TILES else None
    return datasets(load_folder(root, group=group), FOLDS, 0)


def train(
    shared: Path, work: Path, set_name: str, model: str, size: int, only: Sequence[int], recipe: str | None
) -> None:
    """Fine-tune one network a fold."""
    name, weights = MODELS[model]
    recipe = recipe or (RECIPES[set_name] if weights else "scratch")
    options = TrainOptions(
        model=name, weights=str(shared / "weights" / weights) if weights else "none", recipe=recipe, size=size
    )
    for fold, part in enumerate(folds(shared, set_name, work)):
        if fold in only:
            checkpoint = fine_tune(part, options, work / f"{set_name}-{model}-{fold}" / "train")
            print(
                set_name, model, fold, checkpoint.metrics.val_top1, f"{checkpoint.metrics.minutes:.1f} min", flush=True
            )


def export(work: Path, set_name: str, model: str, target: str, only: Sequence[int]) -> Iterator[dict[str, Any]]:
    """One row a fold and variant."""
    for fold in only:
        run = work / f"{set_name}-{model}-{fold}"
        if not (run / "train" / "checkpoint.json").is_file():
            continue
        bundle = export_bundle(run / "train", load_target(target), run / Path(target).stem, progress=print)
        checkpoint = read_checkpoint(run / "train")
        for row in _rows(bundle):
            yield {
                "data": set_name,
                "model": MODELS[model][0],
                "fold": fold,
                "recipe": checkpoint.recipe.name,
                "size": checkpoint.preprocess.height,
                "parts": checkpoint.grouping.parts if checkpoint.grouping else None,
                "target": Path(target).stem,
                "date": datetime.now(UTC).date().isoformat(),
                "host": fingerprint().model_dump(mode="json"),
                **row,
            }


def _rows(bundle: Bundle) -> Iterable[dict[str, Any]]:
    for variant in (*bundle.artifacts, *bundle.left_out):
        kept = variant in bundle.artifacts
        check = variant.check.model_dump(mode="json") if variant.check else {}
        for key in ("recall", "confusion"):
            check.pop(key, None)
        notes = getattr(variant, "notes", {})
        executed = getattr(variant, "executed", None)
        yield {
            "variant": variant.variant,
            "kept": kept,
            "reason": None if kept else variant.reason,
            "rung": notes.get("rung"),
            "rungs": notes.get("rungs_tried"),
            "mac_shares": executed.mac_shares if executed else None,
            **check,
        }


def pooled(
    shared: Path, work: Path, set_name: str, model: str, target: str, bundles: Mapping[int, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """One row a variant: its answers over all folds."""
    parts = folds(shared, set_name, work)
    found = pool([(parts[fold], work / f"{set_name}-{model}-{fold}" / Path(target).stem) for fold in sorted(bundles)])
    about = next(iter(bundles.values()))
    for variant in found.variants:
        yield {**about, "fold": None, "parts": found.parts, **variant.model_dump(mode="json")}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: each variant pooled over its folds, the latest row of each."""
    latest = {(row["data"], row["model"], row["variant"]): row for row in rows if row["fold"] is None}
    head = ("data", "network", "variant", "images (parts)", "fp32, %", "top-1, % [95 %]", "loss, points [95 %]")
    head += ("agreement, %", "missed (fp32)", "false alarms (fp32)", "kept")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join((*key, *_cells(row))) + " |" for key, row in sorted(latest.items())]
    return "\n".join(lines)


def _cells(row: Mapping[str, Any]) -> list[str]:
    top, loss, same = row["top1_interval"], row["loss_interval"], row["agreement_interval"]
    return [
        f"{row['images']:,} ({row['parts']:,})",
        f"{100 * row['reference_top1']:.2f}",
        f"{100 * row['top1']:.2f} [{100 * top['low']:.1f}, {100 * top['high']:.1f}]",
        f"{row['loss_points']:+.2f} [{loss['low']:+.2f}, {loss['high']:+.2f}]",
        f"{100 * row['agreement']:.2f} [{100 * same['low']:.1f}, {100 * same['high']:.1f}]",
        _against(row, "missed_defects"),
        _against(row, "false_alarms"),
        f"{row['kept']} of {row['folds']}",
    ]


def _against(row: Mapping[str, Any], key: str) -> str:
    return "–" if row[key] is None else f"{row[key]} ({row[f'reference_{key}']})"


def main() -> None:
    """Train, export, or print."""
    arguments = _arguments()
    if arguments.table:
        print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))
        return
    only = arguments.fold or list(range(FOLDS))
    for set_name in arguments.set or RECIPES:
        for model in arguments.model or ["mobilenet_v2"]:
            if arguments.step == "train":
                train(arguments.shared, arguments.work, set_name, model, arguments.size, only, arguments.recipe)
                continue
            bundles: dict[int, dict[str, Any]] = {}
            for row in export(arguments.work, set_name, model, arguments.target, only):
                bundles[row["fold"]] = {key: row[key] for key in ABOUT}
                _append(row)
            if len(bundles) == FOLDS:
                for row in pooled(arguments.shared, arguments.work, set_name, model, arguments.target, bundles):
                    _append(row)


def _append(row: Mapping[str, Any]) -> None:
    shown = ("data", "model", "fold", "variant", "rung", "loss_points", "agreement", "reason")
    print(*(row.get(key) for key in shown), flush=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as stream:
        stream.write(json.dumps(row) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", nargs="?", choices=("train", "export"))
    parser.add_argument("--shared", type=Path, help="folder with data/ and weights/")
    parser.add_argument("--work", type=Path, help="folder for runs; reused")
    parser.add_argument("--table", action="store_true", help="print the stored rows")
    parser.add_argument("--set", choices=tuple(RECIPES), action="append")
    parser.add_argument("--model", choices=tuple(MODELS), action="append")
    parser.add_argument("--fold", type=int, choices=range(FOLDS), action="append")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--recipe", help="default: last on magnetic tiles, head on NEU-DET; scratch without weights")
    parser.add_argument("--target", default="desktop-cpu")
    arguments = parser.parse_args()
    if not arguments.table and not (arguments.step and arguments.shared and arguments.work):
        parser.error("a step, --shared and --work are needed")
    return arguments


if __name__ == "__main__":
    main()
