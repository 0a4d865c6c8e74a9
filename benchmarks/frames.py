"""What a raw camera frame changes against its JPEG where the decoder reduces: pixels, logits, decisions.

    python benchmarks/frames.py --bundle demo/run/bundle [--images 250]

Draws labelled surfaces 2.2, 4.4 and 8.8 times as large as the network's input (so that they are reduced by 2, 4 and 8),
encodes them as JPEG, and compares the prepared file with the prepared full-size frame, in the bundle's first fp32
variant. Appends to benchmarks/results/frames.jsonl.
"""

from __future__ import annotations

import argparse
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgecnn.artifact import load_bundle
from edgecnn.bench.host import fingerprint
from edgecnn.data.surfaces import CLASSES, draw
from edgecnn.evaluate import frames_against_files
from edgecnn.imaging import decode_whole, prepare, prepare_frame, reduction
from edgecnn.runtimes import open_session

RESULTS = Path(__file__).parent / "results" / "frames.jsonl"
SCALES = (2.2, 4.4, 8.8)


def main() -> None:
    """Measure each scale; print and append its row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--images", type=int, default=250)
    arguments = parser.parse_args()
    for scale in SCALES:
        line = json.dumps(measure(arguments.bundle, arguments.images, scale))
        print(line, flush=True)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        with RESULTS.open("a") as stream:
            stream.write(line + "\n")


def measure(folder: Path, images: int, scale: float) -> dict[str, Any]:
    """One row: surfaces `scale` times as large as the input."""
    bundle = load_bundle(folder)
    spec = bundle.preprocess
    size = (round(spec.height * scale), round(spec.width * scale))
    files, frames = [], []
    for number in range(images):
        encoded = _jpeg(draw(CLASSES[number % len(CLASSES)], np.random.default_rng((7, number)), size))
        files.append(prepare(encoded, spec))
        frames.append(prepare_frame(decode_whole(encoded), spec))
    session = open_session(folder, bundle.artifacts[0], bundle.threads)
    try:
        logits = [session.run(np.stack(batch)) for batch in (frames, files)]
    finally:
        session.close()
    found = frames_against_files(np.stack(frames), np.stack(files), *logits)
    host = fingerprint().model_dump(mode="json")
    when = datetime.now(UTC).date().isoformat()
    return {
        "size": size,
        "reduction": reduction(*size, spec),
        **found,
        "model": bundle.name,
        "date": when,
        "host": host,
    }


def _jpeg(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


if __name__ == "__main__":
    main()
