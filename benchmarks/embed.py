"""What `edgecnn embed` finds in real data sets: baselines on the features, duplicates, doubtful labels.

    python benchmarks/embed.py --shared SHARED

SHARED holds data/ and weights/ (not part of this project). MobileNetV2 with torchvision's ImageNet weights at 96×96,
magnetic tiles split by tile (benchmarks/parts.py).
One row a data set is appended to benchmarks/results/embed.jsonl.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from parts import TILES, write_tiles

from edgecnn.bench.host import fingerprint
from edgecnn.embeddings import embed, read_images
from edgecnn.embeddings.features import from_model
from edgecnn.train.progress import Silent

RESULTS = Path(__file__).parent / "results" / "embed.jsonl"
SETS = ("defect_neu_det", "defect_magnetic_tile")


def main() -> None:
    """Measure, print and append."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with data/ and weights/")
    shared = parser.parse_args().shared
    weights = shared / "weights" / "mobilenet_v2" / "mobilenet_v2.safetensors"
    source = from_model("torchvision:mobilenet_v2", str(weights), 96, "stretch")
    for name in SETS:
        with tempfile.TemporaryDirectory() as folder:
            root = shared / "data" / name / "images"
            group = str(write_tiles(root, Path(folder) / "tiles.csv")) if name == TILES else None
            images = read_images(root, group=group)
            findings = embed(images, source, Path(folder) / "features.npz", Silent())
        row = {
            "data": name,
            "split": "by tile" if group else "by looks",
            **findings.model_dump(mode="json", exclude={"out", "page"}),
            "date": datetime.now(UTC).date().isoformat(),
            "host": fingerprint().model_dump(mode="json"),
        }
        line = json.dumps(row)
        print(line)
        with RESULTS.open("a") as stream:
            stream.write(line + "\n")


if __name__ == "__main__":
    main()
