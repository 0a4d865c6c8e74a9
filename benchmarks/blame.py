"""Six planted mistakes in how a foreign ONNX is fed, and what the usual mistakes cost, on a real set.

    python benchmarks/blame.py --run runs/parts/train --bundle runs/parts/bundle --data parts/ [--variant onnx-fp32]

The trained network of the run folder is exported as somebody else would (float32 NCHW, normalised outside), and
described with one mistake at a time; the row says which stage the diagnosis names. Then every usual mistake is priced
with a variant of the bundle. Appends to benchmarks/results/blame.jsonl.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgecnn.artifact import Bundle, load_bundle
from edgecnn.bench.host import fingerprint
from edgecnn.blame.foreign import diagnose
from edgecnn.blame.images import given_images
from edgecnn.blame.prices import price

RESULTS = Path(__file__).parent / "results" / "blame.jsonl"
PLANTED: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({}, "decode"),
    "BGR": ({"colour": "bgr"}, "colour order"),
    "linear resize": ({"resize": "opencv-linear", "antialias": None}, "resize filter"),
    "no antialias": ({"antialias": False}, "antialias"),
    "wrong mean": ({"mean": [0.5] * 3, "std": [0.5] * 3}, "normalisation"),
    "NCHW fed as NHWC": ({"layout": "nhwc"}, "layout"),
    "centre crop instead of resize": ({"fit": "center-crop"}, "fit"),
}
"""Mistake to (what the description says instead, the stage that must be named). Without one, Pillow's resize of the
whole image remains, which is not ours to the last level where we reduce first. Grey images cannot show BGR."""


def main() -> None:
    """Diagnose each planted mistake, price the usual ones; print and append a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder of `edgecnn finetune`")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--variant", default="onnx-fp32")
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.bundle)
    about = {
        "model": bundle.name,
        "data": arguments.data.resolve().name,
        "date": datetime.now(UTC).date().isoformat(),
        "host": fingerprint().model_dump(mode="json"),
    }
    with TemporaryDirectory() as work:
        model = Path(work) / "foreign.onnx"
        export(arguments.run, bundle, model)
        for name in PLANTED:
            append({"planted": name, **diagnosed(arguments.bundle, bundle, arguments.data, model, name), **about})
    append({**priced(arguments.bundle, bundle, arguments.data, arguments.variant), **about})


def export(run: Path, bundle: Bundle, path: Path) -> None:
    """As most people do it: the bare network, float32 NCHW."""
    import torch

    from edgecnn.models import load_module

    _, module = load_module(run)
    example = torch.zeros(1, 3, bundle.preprocess.height, bundle.preprocess.width)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (example,), path, dynamo=True, external_data=False, verbose=False)


def diagnosed(folder: Path, bundle: Bundle, data: Path, model: Path, planted: str) -> dict[str, Any]:
    """What the diagnosis says of one mistake."""
    changes, stage = PLANTED[planted]
    spec = bundle.preprocess
    right = {
        "size": [spec.height, spec.width],
        "colour": "rgb",
        "resize": "bilinear",
        "antialias": True,
        "fit": "stretch",
        "scale": "1/255",
        "mean": list(spec.mean),
        "std": list(spec.std),
        "layout": "nchw",
        "dtype": "float32",
        "output": "logits",
    }
    description = model.with_name("pre.toml")
    lines = [f"{key} = {json.dumps(value)}" for key, value in {**right, **changes}.items() if value is not None]
    description.write_text("\n".join(lines))
    started = time.monotonic()
    found = diagnose(folder, data, model, description)
    after = next((step.put_right for step in found.steps if step.to_blame), None)
    return {
        "named": found.first,
        "right": found.first == stage or (planted == "none" and found.matches),
        "verdict": found.verdict,
        "images": found.images,
        "error": found.as_described.error,
        "points": 0.0 - found.as_described.loss_points,
        "flipped": found.as_described.flipped,
        "error_put_right": after.error if after else None,
        "flipped_put_right": after.flipped if after else None,
        "error_with_our_pixels": found.at_best.error if found.at_best else None,
        "seconds": round(time.monotonic() - started, 1),
    }


def priced(folder: Path, bundle: Bundle, data: Path, variant: str) -> dict[str, Any]:
    """Every usual mistake with one variant."""
    started = time.monotonic()
    prices = price(folder, bundle, bundle.artifact(variant), given_images(folder, data, bundle))
    return {**prices.model_dump(mode="json"), "seconds": round(time.monotonic() - started, 1)}


def append(row: dict[str, Any]) -> None:
    """One line of results."""
    print(json.dumps({key: value for key, value in row.items() if key != "host"}), flush=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as stream:
        stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
