"""How near Pillow comes to the pinned resize, in the words of docs/stock-engines.md: pixels, logits, decisions.

    python benchmarks/pillow.py --shared SHARED [--images 300]

Photographs of ImageNet's validation set (227×227), as they are and enlarged, are prepared to 224×224 by the page's own
`prepare` and by `edgecnn.imaging`, and decided by torchvision's MobileNetV2 (1,000 classes) in PyTorch. Appends to
benchmarks/results/pillow.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgecnn.bench.host import fingerprint
from edgecnn.evaluate import frames_against_files
from edgecnn.models import Deployed, build
from edgecnn.parity import prepare_files

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/pillow.jsonl"
WAYS = (
    ("JPEG", None, "stretch", 1),
    ("JPEG", (640, 481), "stretch", 1),
    ("JPEG", (1283, 961), "center-crop", 1),
    ("JPEG", (1283, 961), "stretch", 6),
    ("PNG", (1283, 961), "stretch", 1),
)
"""Encoding, (width, height) where it is enlarged, fit, orientation."""


def main() -> None:
    """Measure each way; print and append its row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("EDGECNN_SHARED", "shared")))
    parser.add_argument("--images", type=int, default=300)
    arguments = parser.parse_args()
    photos = sorted((arguments.shared / "data/imagenet_val1300/data").glob("*.JPEG"))[: arguments.images]
    if not photos:
        parser.error(f"{arguments.shared}: no data/imagenet_val1300/data/*.JPEG there")
    weights = arguments.shared / "weights/mobilenet_v2/mobilenet_v2.safetensors"
    for way in WAYS:
        line = json.dumps(measure(photos, weights, *way))
        print(line)
        with RESULTS.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")


def measure(
    photos: list[Path], weights: Path, encoding: str, size: tuple[int, int] | None, fit: str, tag: int
) -> dict[str, Any]:
    """One row."""
    built = build("torchvision:mobilenet_v2", 1000, weights, keep_head=True)
    spec = built.preprocess.model_copy(update={"fit": fit, "crop": 0.875 if fit == "center-crop" else 1.0})
    network, by_pillow = Deployed(built.module, spec), the_pages_own()
    with tempfile.TemporaryDirectory() as folder:
        files = list(written(photos, Path(folder), encoding, size, tag))
        ours, theirs = prepare_files(files, spec), np.stack([by_pillow(path, spec.model_dump()) for path in files])
    apart = np.abs(ours.astype(np.int16) - theirs)
    return {
        "encoding": encoding,
        "size": size,
        "fit": fit,
        "orientation": tag,
        **frames_against_files(theirs, ours, network.answers(theirs), network.answers(ours)),
        "share_equal": float((apart == 0).mean()),
        "share_within_1": float((apart <= 1).mean()),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": fingerprint().model_dump(mode="json"),
    }


def written(photos: list[Path], folder: Path, encoding: str, size: tuple[int, int] | None, tag: int) -> Iterator[Path]:
    """The photographs, enlarged and encoded, stored so that the tag turns them upright."""
    for path in photos:
        if size is None:
            yield path
            continue
        picture = Image.open(path).convert("RGB").resize(size, Image.Resampling.BICUBIC)
        exif = Image.Exif()
        if tag == 6:
            picture, exif[0x0112] = picture.transpose(Image.Transpose.ROTATE_90), tag
        file = folder / f"{path.stem}.{encoding.lower()}"
        picture.save(file, encoding, exif=exif, **({"quality": 90} if encoding == "JPEG" else {"compress_level": 1}))
        yield file


def the_pages_own() -> Callable[[Path, dict[str, Any]], Any]:
    """`prepare` as the page has it."""
    page = (ROOT / "docs/stock-engines.md").read_text(encoding="utf-8")
    code = re.search(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1], names)  # our own page
    prepare: Callable[[Path, dict[str, Any]], Any] = names["prepare"]
    return lambda path, spec: np.asarray(prepare(path, spec))


if __name__ == "__main__":
    main()
