"""How far prepared pixels are from the whole picture's, and what preparing takes, by way and size.

    python benchmarks/pixels.py --data data/          # holds imagenet_val1300
    python benchmarks/pixels.py --table

Pictures are encoded as JPEG (quality 90, 4:2:0) and prepared to 224×224. *Soft*: a photograph enlarged to the size, as
a lens or a phone's processing leaves it; *fine*: photographs side by side at their own resolution. Ways:

- *version 2*: `edgecnn.imaging` as it is;
- *version 1*: what it was until 2026-11: Pillow's box average and resize, the partial blocks stretched;
- *version 2, gap of two*: reduced only while the picture stays at least twice as large as the input.

The truth is the whole JPEG, decoded and turned upright, through Pillow's antialiased bilinear resize. Ways take turns
in each round, so that all see the same disturbances: the ratios are what counts. Times are of the fine pictures.
Appends to benchmarks/results/pixels.jsonl.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from edgecnn.artifact import Preprocess
from edgecnn.bench.host import fingerprint
from edgecnn.imaging import Pixels, Preparer, decode_whole, reduction

RESULTS = Path(__file__).parent / "results/pixels.jsonl"
SPEC = Preprocess(height=224, width=224)
DOUBLE = Preprocess(height=448, width=448)
SIZES = ((200, 200), (300, 300), (640, 480), (641, 481), (1280, 960), (1283, 961), (4000, 3000))
"""(width, height)."""
TURNED = 6
"""Of a camera held upright, beside pictures without a tag."""
WAYS = ("version 1", "version 2", "version 2, gap of two")
MOST_SECONDS = 3.0
"""Of one picture's rounds."""

Way: TypeAlias = Callable[[], Pixels]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("EDGECNN_SHARED", "shared"))
    parser.add_argument("--data", type=Path, default=shared / "data")
    parser.add_argument("--pictures", type=int, default=8, help="of each size, for the error")
    parser.add_argument("--table", action="store_true", help="print what is stored; measure nothing")
    arguments = parser.parse_args()
    if not arguments.table:
        photos = sorted((arguments.data / "imagenet_val1300/data").glob("*.JPEG"))
        if not photos:
            parser.error(f"{arguments.data}: no imagenet_val1300/data/*.JPEG there")
        measure_all(photos, arguments.pictures)
    print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))
    return 0


def measure_all(photos: list[Path], pictures: int) -> None:
    """Append a row for each size, orientation, kind of input and way."""
    host, when = fingerprint().model_dump(mode="json"), datetime.now(UTC).isoformat(timespec="seconds")
    rows = []
    for width, height in SIZES:
        for tag in (1, TURNED):
            files = {
                name: [_jpeg(draw(photos, width, height, number), tag) for number in range(pictures)]
                for name, draw in (("fine", _mosaic), ("soft", _enlarged))
            }
            for kind in ("jpeg", "frame"):
                if kind == "frame" and tag != 1:
                    continue
                rows += [{"size": [width, height], "orientation": tag, **row} for row in _measure(files, kind)]
                print(rows[-1], file=sys.stderr, flush=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as stream:
        stream.writelines(json.dumps({**row, "started": when, "host": host}) + "\n" for row in rows)


def table(rows: list[Mapping[str, Any]]) -> str:
    """Markdown of the newest run."""
    newest = max(row["started"] for row in rows)
    rows = [row for row in rows if row["started"] == newest]
    lines = [
        f"{newest}, {rows[0]['host']['cpu']}",
        "",
        "| picture | input | way | reduced by | mean error soft, levels | fine | p50, ms | relative to version 1 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        size = "×".join(map(str, row["size"])) + (", turned" if row["orientation"] != 1 else "")
        lines.append(
            f"| {size} | {row['kind']} | {row['way']} | {row['factor']} | {row['mean_error_soft']:.2f} | "
            f"{row['mean_error_fine']:.2f} | {row['p50_ms']:.2f} | {row['relative']:.2f} |"
        )
    return "\n".join(lines)


def _measure(files: Mapping[str, list[bytes]], kind: str) -> list[dict[str, Any]]:
    errors = {look: _errors(encoded, kind) for look, encoded in files.items()}
    ways = _ways(files["fine"][0], kind)
    spent: dict[str, list[int]] = {way: [] for way in WAYS}
    start = time.perf_counter()
    while time.perf_counter() - start < MOST_SECONDS:
        for name, way in ways.items():
            way()  # not kept: it pays for the other ways' use of the caches
            begun = time.process_time_ns()
            way()
            spent[name].append(time.process_time_ns() - begun)
    p50 = {name: float(np.median(times)) / 1e6 for name, times in spent.items()}
    return [
        {
            "kind": kind,
            "way": name,
            "factor": _factor(files["fine"][0], DOUBLE if "gap" in name else SPEC),
            **{f"mean_error_{look}": found[name] for look, found in errors.items()},
            "p50_ms": p50[name],
            "relative": p50[name] / p50["version 1"],
            "rounds": len(spent[name]),
            "pictures": len(files["fine"]),
        }
        for name in WAYS
    ]


def _errors(files: list[bytes], kind: str) -> dict[str, float]:
    """Mean |difference| to the truth in levels, by way."""
    errors: dict[str, list[float]] = {way: [] for way in WAYS}
    for encoded in files:
        truth = _truth(encoded)
        for name, way in _ways(encoded, kind).items():
            errors[name].append(float(np.abs(way().astype(np.int16) - truth).mean()))
    return {name: float(np.mean(found)) for name, found in errors.items()}


def _ways(encoded: bytes, kind: str) -> dict[str, Way]:
    """Of one picture; times are the process's own, so waiting for the processor is not counted."""
    own, wide = Preparer(SPEC), Preparer(DOUBLE)
    if kind == "jpeg":
        return {
            "version 1": lambda: _pillow(np.ascontiguousarray(own.decode(encoded).pixels)),
            "version 2": lambda: own.prepare(encoded),
            "version 2, gap of two": lambda: own.fit(wide.decode(encoded)),
        }
    frame = decode_whole(encoded)
    factor = reduction(*frame.shape[:2], SPEC)
    return {
        "version 1": lambda: _pillow(np.asarray(Image.fromarray(frame).reduce(factor)) if factor > 1 else frame),
        "version 2": lambda: own.prepare_frame(frame),
        "version 2, gap of two": lambda: own.fit(wide.reduce(frame)),
    }


def _pillow(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((SPEC.width, SPEC.height), Image.Resampling.BILINEAR))


def _truth(encoded: bytes) -> np.ndarray:
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    return np.asarray(upright.resize((SPEC.width, SPEC.height), Image.Resampling.BILINEAR), np.int16)


def _factor(encoded: bytes, spec: Preprocess) -> int:
    return Preparer(spec).decode(encoded).factor


def _mosaic(photos: list[Path], width: int, height: int, number: int) -> Image.Image:
    """Photographs side by side at their own resolution, other ones for each `number`."""
    canvas = Image.new("RGB", (width, height))
    draw = np.random.default_rng(number)
    top = 0
    while top < height:
        left, row = 0, height
        while left < width:
            photo = Image.open(photos[draw.integers(len(photos))]).convert("RGB")
            canvas.paste(photo, (left, top))
            left, row = left + photo.width, min(row, photo.height)
        top += row
    return canvas


def _enlarged(photos: list[Path], width: int, height: int, number: int) -> Image.Image:
    photo = Image.open(photos[np.random.default_rng(number).integers(len(photos))]).convert("RGB")
    return photo.resize((width, height), Image.Resampling.BICUBIC)


def _jpeg(picture: Image.Image, tag: int) -> bytes:
    """With the picture stored so that the tag turns it upright."""
    exif, stream = Image.Exif(), io.BytesIO()
    if tag == TURNED:
        picture = picture.transpose(Image.Transpose.ROTATE_90)
    exif[0x0112] = tag
    picture.save(stream, "JPEG", quality=90, exif=exif)
    return stream.getvalue()


if __name__ == "__main__":
    sys.exit(main())
