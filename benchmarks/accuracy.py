"""Test accuracy of fp32 and of every exported variant on real data sets: what INT8 costs, flips, misses.

    python benchmarks/accuracy.py --shared SHARED --work WORK [--set defect_neu_det] [--model mobilenet_v2]
        [--target desktop-cpu]
    python benchmarks/accuracy.py --table          # the stored rows as Markdown

SHARED holds data/ and weights/ (not part of this project). Fine-tunes once per network and set (recipe `last` on the
magnetic tiles, `head` on NEU-DET, which more would saturate; ImageNet's sample takes the weights as they are: 200
images calibrate, 100 choose the rung, 1,000 test), exports for the target and appends one line per variant to
benchmarks/results/accuracy.jsonl. Finished work in WORK is reused.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgecnn.artifact import Artifact, Bundle, LeftOut
from edgecnn.bench.host import fingerprint
from edgecnn.checkpoint import read_checkpoint
from edgecnn.data import load_folder
from edgecnn.export import export as export_bundle
from edgecnn.profiles import load_target
from edgecnn.train import TrainOptions, fine_tune

RESULTS = Path(__file__).parent / "results" / "accuracy.jsonl"
MODELS = {
    "mobilenet_v2": ("torchvision:mobilenet_v2", "mobilenet_v2/mobilenet_v2.safetensors"),
    "squeezenet1_1": ("torchvision:squeezenet1_1", "squeezenet1_1/squeezenet1_1.safetensors"),
    "mobilenetv3_small": (
        "timm:tf_mobilenetv3_small_100",
        "mobilenetv3_small/tf_mobilenetv3_small_100.safetensors",
    ),
}
SETS = {"imagenet_val1300": "none", "defect_magnetic_tile": "last", "defect_neu_det": "head"}
"""Data sets with the recipe that they are fine-tuned by."""
_IMAGENET_SPLIT = {"train": 200, "val": 100, "test": 1000}


def main() -> None:
    """Run what is asked for; print and append its rows."""
    arguments = _arguments()
    if arguments.table:
        print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))
        return
    for set_name in arguments.set or SETS:
        for model in arguments.model or MODELS:
            for row in measure(arguments.shared, arguments.work, set_name, model, arguments.target):
                line = json.dumps(row)
                print(line, flush=True)
                RESULTS.parent.mkdir(parents=True, exist_ok=True)
                with RESULTS.open("a") as stream:
                    stream.write(line + "\n")


def measure(shared: Path, work: Path, set_name: str, model: str, target: str) -> Iterator[dict[str, Any]]:
    """Rows of one network on one data set, one for each variant."""
    name, weights = MODELS[model]
    recipe = SETS[set_name]
    as_they_are = recipe == "none"
    root = _imagenet_folders(shared, work) if as_they_are else shared / "data" / set_name / "images"
    data = load_folder(root, min_per_class=0 if as_they_are else 5, good="none" if as_they_are else None)
    options = TrainOptions(model=name, weights=str(shared / "weights" / weights), recipe=recipe)
    run = work / f"{set_name}-{model}"
    fine_tune(data, options, run / "train")
    began = time.monotonic()
    bundle = export_bundle(run / "train", load_target(target), run / Path(target).stem, progress=print)
    checkpoint = read_checkpoint(run / "train")
    shared_columns = {
        "data": set_name,
        "model": name,
        "recipe": checkpoint.recipe.name,
        "target": bundle.target,
        "export_seconds": round(time.monotonic() - began),
        "train_minutes": round(checkpoint.metrics.minutes, 2),
        "split_images": {split: len(data.split(split)) for split in ("train", "val", "test")},
        "date": datetime.now(UTC).date().isoformat(),
        "host": fingerprint().model_dump(mode="json"),
    }
    for variant in (*bundle.artifacts, *bundle.left_out):
        yield {**shared_columns, **_row(variant)}
    yield {**shared_columns, "variant": "raw frames", "frames": _frames(bundle)}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: the latest row of each variant that was verified; fp32 formats agree to the bit and are left out."""
    latest = {(row["data"], row["model"], row["variant"]): row for row in rows if "int8" in row["variant"]}
    head = ("data (test images)", "network", "variant", "fp32, %", "top-1, % [95 %]", "loss, points [95 %]")
    head += ("agreement", "flipped", "missed (fp32)", "false alarms (fp32)", "int8 layers", "kept", "rung")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in latest.values()]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> list[str]:
    named = [f"{row['data']} ({row.get('images')})", row["model"], row["variant"]]
    if row.get("top1") is None:
        return [*named, *["–"] * 8, "no", str(row["reason"])]
    top1, loss, layers = row["top1_interval"], row["loss_interval"], row["executed"]
    return [
        *named,
        f"{100 * row['reference_top1']:.1f}",
        f"{100 * row['top1']:.1f} [{100 * top1['low']:.1f}, {100 * top1['high']:.1f}]",
        f"{row['loss_points']:+.1f} [{loss['low']:+.1f}, {loss['high']:+.1f}]",
        f"{100 * row['agreement']:.1f} %",
        str(row["flips"]),
        _against(row["missed_defects"], row["reference_missed_defects"]),
        _against(row["false_alarms"], row["reference_false_alarms"]),
        f"{layers['int8_layers']}/{sum(layers.values())}" if layers else "–",
        "yes" if row["kept"] else f"no: {row['reason']}",
        str(row["rung"] or "–"),
    ]


def _against(value: int | None, reference: int | None) -> str:
    return "–" if value is None else f"{value} ({reference})"


def _row(variant: Artifact | LeftOut) -> dict[str, Any]:
    check = variant.check.model_dump(mode="json") if variant.check else {}
    flips = check.pop("flips", [])
    check.pop("confusion", None)
    check.pop("recall", None)
    kept = isinstance(variant, Artifact)
    return {
        "variant": variant.variant,
        "kept": kept,
        "reason": None if kept else variant.reason,
        "rung": variant.notes.get("rung") if kept else None,
        "bytes": variant.bytes if kept else None,
        "executed": {key: getattr(variant.executed, key) for key in ("int8_layers", "float_layers")} if kept else None,
        **check,
        "flips": len(flips),
    }


def _frames(bundle: Bundle) -> dict[str, Any] | None:
    return bundle.frames.model_dump(mode="json") if bundle.frames else None


def _imagenet_folders(shared: Path, work: Path) -> Path:
    """WORK/imagenet/{train,val,test}/<class index>/ from the sample's list; split by the hash of the file's name."""
    root = work / "imagenet"
    source = shared / "data" / "imagenet_val1300"
    if root.is_dir():
        return root
    rows = [
        line.replace(",", " ").split() for line in (source / "dataset.txt").read_text().splitlines() if line.strip()
    ]
    rows.sort(key=lambda row: hashlib.sha256(row[0].encode()).digest())
    part = root.with_name("imagenet.part")
    shutil.rmtree(part, ignore_errors=True)
    start = 0
    for split, count in _IMAGENET_SPLIT.items():
        for label in range(1000):
            (part / split / f"{label:04d}").mkdir(parents=True)
        for file, label in rows[start : start + count]:
            path = source / file
            shutil.copyfile(path, part / split / f"{int(label):04d}" / path.name)
        start += count
    part.rename(root)
    return root


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, help="folder with data/ and weights/")
    parser.add_argument("--work", type=Path, help="folder for runs; reused")
    parser.add_argument("--table", action="store_true", help="print the stored rows")
    parser.add_argument("--set", choices=tuple(SETS), action="append")
    parser.add_argument("--model", choices=tuple(MODELS), action="append")
    parser.add_argument("--target", default="desktop-cpu", help="name, or path to a .toml file")
    arguments = parser.parse_args()
    if not arguments.table and not (arguments.shared and arguments.work):
        parser.error("--shared and --work are needed")
    return arguments


if __name__ == "__main__":
    main()
