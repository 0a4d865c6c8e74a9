"""INT8 in every engine on whole defect sets: k folds, so that every image is a test image once.

    python benchmarks/int8_folds.py train  --shared SHARED --work WORK [--set defect_neu_det] [--model mobilenet_v2]
    python benchmarks/int8_folds.py export --shared SHARED --work WORK --target TARGET.toml
    python benchmarks/int8_folds.py --table        # the stored rows, pooled over the folds, as Markdown

SHARED holds data/ and weights/ (not part of this project). Fine-tunes one network a fold (stratified, parts whole:
magnetic tiles by their names, else what looks alike), exports each fold's checkpoint for the target, and appends one
line per fold and variant, with the flipped test images, to benchmarks/results/int8_folds.jsonl. Finished work in WORK
is reused.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from parts import TILES, write_tiles

from edgecnn.artifact import Bundle
from edgecnn.bench.host import fingerprint
from edgecnn.checkpoint import read_checkpoint
from edgecnn.data import Dataset, load_folder
from edgecnn.export import export as export_bundle
from edgecnn.folds import datasets
from edgecnn.intervals import clopper_pearson, mcnemar, paired_difference
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


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: each variant pooled over its folds, the latest row of each."""
    latest = {(row["data"], row["model"], row["variant"], row["fold"]): row for row in rows}
    pooled: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for (data, model, variant, _), row in latest.items():
        pooled[data, model, variant].append(row)
    head = ("data", "network", "variant", "images (folds)", "fp32, %", "top-1, % [95 %]", "loss, points [95 %]")
    head += ("McNemar", "agreement", "missed (fp32)", "false alarms (fp32)", "max logit error", "left out")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join((*key, *_pooled_cells(found))) + " |" for key, found in sorted(pooled.items())]
    return "\n".join(lines)


def _pooled_cells(rows: list[dict[str, Any]]) -> list[str]:
    checked = [row for row in rows if row.get("images")]
    if not checked:
        return [*["–"] * 9, str(rows[0]["reason"])]
    n = sum(row["images"] for row in checked)
    right = sum(round(row["top1"] * row["images"]) for row in checked)
    reference = sum(round(row["reference_top1"] * row["images"]) for row in checked)
    flips = [flip for row in checked for flip in row["flips"]]
    lost = sum(flip["reference"] == flip["label"] for flip in flips)
    gained = sum(flip["variant"] == flip["label"] for flip in flips)
    low, high = (100 * bound for bound in paired_difference(lost, gained, n))
    top = [100 * bound for bound in clopper_pearson(right, n)]
    out = sum(not row["kept"] for row in rows)
    return [
        f"{n} ({len(checked)})",
        f"{100 * reference / n:.2f}",
        f"{100 * right / n:.2f} [{top[0]:.1f}, {top[1]:.1f}]",
        f"{100 * (reference - right) / n:+.2f} [{low:+.2f}, {high:+.2f}]",
        f"{mcnemar(lost, gained):.2f}",
        f"{100 * (1 - len(flips) / n):.2f} %",
        _against(checked, "missed_defects"),
        _against(checked, "false_alarms"),
        f"{max(row['max_logit_error'] for row in checked):.1e}",
        f"{out} of {len(rows)}" if out else "–",
    ]


def _against(rows: list[dict[str, Any]], key: str) -> str:
    if rows[0][key] is None:
        return "–"
    return f"{sum(row[key] for row in rows)} ({sum(row[f'reference_{key}'] for row in rows)})"


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
            for row in export(arguments.work, set_name, model, arguments.target, only):
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
