"""What the engines' own default settings make of a network in INT8, beside what the ladder made of it.

    python benchmarks/int8_defaults.py RUN BUNDLE [RUN BUNDLE …]     # a run folder and the bundle exported from it
    python benchmarks/int8_defaults.py --table                       # the stored rows as Markdown

The defaults: `onnxruntime.quantization.quantize_static` (QDQ, per tensor, MinMax), ai-edge-quantizer's static int8
recipe with its own calibration, `nncf.quantize` on the OpenVINO model. All see the calibration images of the ladder;
both are judged on the test images. Appends to benchmarks/results/int8_defaults.jsonl.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgecnn.artifact import load_bundle
from edgecnn.bench.host import fingerprint
from edgecnn.checkpoint import read_checkpoint
from edgecnn.data import calibration_items, load_split
from edgecnn.evaluate import compare
from edgecnn.formats import Source
from edgecnn.formats.onnx import fp32_file
from edgecnn.imaging import Images
from edgecnn.judge import yardstick_of
from edgecnn.models import Deployed, load_module
from edgecnn.parity import load_reference, prepare_files
from edgecnn.runtimes import open_file

RESULTS = Path(__file__).parent / "results" / "int8_defaults.jsonl"
CALIBRATION = 128


def by_onnxruntime(source: Source, images: Images, out: Path) -> Path:
    """quantize_static as it comes."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.left, None)
            return None if image is None else {"images": image[None]}

    logging.disable(logging.WARNING)
    quantize_static(fp32_file(source), out / "model.onnx", Reader())
    logging.disable(logging.NOTSET)
    return out / "model.onnx"


def by_ai_edge_quantizer(source: Source, images: Images, out: Path) -> Path:
    """Its static recipe and its own calibration, from our float file."""
    from ai_edge_quantizer import quantizer, recipe

    from edgecnn.modelfiles.tflite import save
    from edgecnn.quantize.engines.litert import float_file
    from edgecnn.quantize.flat import flatten

    flat = Source(flatten(source.module, source.height, source.width), source.height, source.width, source.work)
    with contextlib.redirect_stdout(io.StringIO()):
        work = quantizer.Quantizer(str(float_file(flat)), recipe.static_wi8_ai8())
        ((signature, name),) = ((key, names) for key, names in _signatures(float_file(flat)).items())
        data = [{name: image[None].astype(np.float32)} for image in images]
        made = work.quantize(work.calibrate({signature: data}))
    save(bytes(made.quantized_model), out / "model.tflite")
    return out / "model.tflite"


def _signatures(path: Path) -> dict[str, str]:
    from ai_edge_litert.interpreter import Interpreter

    found = Interpreter(model_path=str(path)).get_signature_list()
    return {key: value["inputs"][0] for key, value in found.items()}


def by_nncf(source: Source, images: Images, out: Path) -> Path:
    """nncf.quantize as it comes."""
    import nncf
    import openvino

    with contextlib.redirect_stdout(io.StringIO()):
        made = nncf.quantize(openvino.convert_model(fp32_file(source)), nncf.Dataset([image[None] for image in images]))
    openvino.save_model(made, out / "model.xml", compress_to_fp16=False)
    return out / "model.xml"


DEFAULTS: dict[str, tuple[str, Callable[[Source, Images, Path], Path]]] = {
    "onnx-int8": ("onnxruntime", by_onnxruntime),
    "litert-int8": ("litert", by_ai_edge_quantizer),
    "openvino-int8": ("openvino", by_nncf),
}


def measure(run: Path, folder: Path) -> list[dict[str, Any]]:
    """A row for each engine: its default settings, and the ladder's variant of the bundle."""
    bundle, (checkpoint, module) = load_bundle(folder), load_module(run)
    data = load_split(None, run / "split.json")
    spec = checkpoint.preprocess
    calibration = prepare_files([item.path for item in calibration_items(data, CALIBRATION)], spec)
    test = prepare_files([item.path for item in data.test], spec)
    reference = load_reference(folder / "reference.npz")
    made = {one.variant: one.check for one in (*bundle.artifacts, *bundle.left_out)}
    rungs = {one.variant: one.notes.get("rung") for one in bundle.artifacts}
    rows = []
    for variant, (engine, write) in DEFAULTS.items():
        with TemporaryDirectory() as work:
            source = Source(Deployed(module, spec).eval(), spec.height, spec.width, Path(work))
            (Path(work) / "out").mkdir()
            session = open_file(write(source, calibration, Path(work) / "out"), engine, "int8", 1)
            logits = np.concatenate([session.run(image[None]) for image in test])
            session.close()
        check = compare(logits, reference.logits, reference.labels, reference.names, yardstick_of(bundle), "int8")
        ladder = made.get(variant)
        rows.append(
            {
                "data": data.root.parent.name,
                "model": checkpoint.model,
                "size": spec.height,
                "variant": variant,
                "images": len(test),
                "fp32_top1": check.reference_top1,
                "default": _row(check),
                "ladder": _row(ladder) if ladder else None,
                "rung": rungs.get(variant),
                "recipe": read_checkpoint(run).recipe.name,
                "date": datetime.now(UTC).date().isoformat(),
                "host": fingerprint().model_dump(mode="json"),
            }
        )
    return rows


def _row(check: Any) -> dict[str, Any]:
    keys = ("top1", "loss_points", "agreement", "missed_defects", "false_alarms", "mcnemar_p", "largest_decision_share")
    return {key: getattr(check, key) for key in keys}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    head = (
        "data (test images)",
        "network",
        "engine",
        "fp32, %",
        "default, %",
        "agreement",
        "ladder, %",
        "agreement",
        "rung",
    )
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    latest = {(row["data"], row["model"], row["variant"]): row for row in rows}
    for row in latest.values():
        default, ladder = row["default"], row["ladder"]
        cells = [f"{row['data']} ({row['images']})", row["model"], row["variant"], f"{100 * row['fp32_top1']:.1f}"]
        cells += [f"{100 * default['top1']:.1f}", f"{100 * default['agreement']:.1f} %"]
        cells += [f"{100 * ladder['top1']:.1f}", f"{100 * ladder['agreement']:.1f} %"] if ladder else ["–", "–"]
        lines.append("| " + " | ".join([*cells, str(row["rung"] or "left out")]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure pairs of folders, or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="RUN BUNDLE pairs")
    parser.add_argument("--table", action="store_true", help="print the stored rows")
    arguments = parser.parse_args()
    if arguments.table:
        print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))
        return
    if len(arguments.folders) % 2 or not arguments.folders:
        parser.error("give pairs of a run folder and a bundle")
    for run, folder in zip(arguments.folders[::2], arguments.folders[1::2], strict=True):
        for row in measure(run, folder):
            print(row["data"], row["model"], row["variant"], row["default"], row["ladder"], flush=True)
            with RESULTS.open("a") as stream:
                stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
