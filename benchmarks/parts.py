"""Which images of real sets show one part: file names against looks, and what a random split leaks.

    python benchmarks/parts.py --shared SHARED

SHARED holds data/ (not part of this project). The magnetic tiles' names say it: one tile is photographed under six
exposures with adjacent numbers. NEU-DET's and ImageNet's images are of different things: what is joined there is false.
Rows are appended to benchmarks/results/parts.jsonl.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.artifact import Preprocess
from edgecnn.bench.host import fingerprint
from edgecnn.data import SPLITS, Dataset, Item, load_folder, part_of
from edgecnn.data.looks import SIDE, alike, grey_picture
from edgecnn.imaging import Preparer

RESULTS = Path(__file__).parent / "results" / "parts.jsonl"
TILES, STEEL, PHOTOS = "defect_magnetic_tile", "defect_neu_det", "imagenet_val1300"
_NAME = re.compile(r"exp(\d)_num_(\d+)")
_FAR, _NEXT = 200, 30
"""A new tile begins where the number grows by more than the first, or by more than the second while the exposure does
not: six of one tile are 10 to 100 apart, and two tiles that were cut from one photograph are interleaved."""


def tiles(names: Sequence[str]) -> dict[str, str]:
    """File name to tile, from the names alone."""
    rows = sorted((int(match[2]), int(match[1]), name) for name in names if (match := _NAME.search(name)))
    tile, found = 0, {}
    for place, (number, exposure, name) in enumerate(rows):
        if place:
            before, last = rows[place - 1][:2]
            tile += number - before > _FAR or (exposure <= last and number - before > _NEXT)
        found[name] = str(tile)
    return found


def write_tiles(root: Path, table: Path) -> Path:
    """A table for `--group`: tiles by their names, joined where they look alike too (one was photographed again)."""
    data = load_folder(root)
    every = [item for name in SPLITS for item in data.split(name)]
    tile = tiles([item.name for item in every])
    whole: dict[str, str] = {}

    def least(name: str) -> str:
        while whole.get(name, name) != name:
            name = whole[name]
        return name

    for item in every:
        one, other = sorted((least(tile[item.name]), least(f"looks {part_of(item)}")))
        whole[other] = one
    with table.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("file", "group"), *((item.name, least(tile[item.name])) for item in every)])
    return table


def by_names_and_looks(root: Path) -> dict[str, Any]:
    """How well looks tell the tiles that the names tell, and what each way of splitting leaks."""
    data, plain = load_folder(root), load_folder(root, looks=False)
    every = [item for name in SPLITS for item in data.split(name)]
    tile = tiles([item.name for item in every])
    named, looks = np.array([tile[item.name] for item in every]), np.array([part_of(item) for item in every])
    pairs = np.triu_indices(len(every), 1)
    same, joined = (named[:, None] == named)[pairs], (looks[:, None] == looks)[pairs]
    return {
        "images": len(every),
        "tiles by names": len(set(named)),
        "parts by looks": len(set(looks)),
        "largest by looks": max(Counter(looks.tolist()).values()),
        "pairs of one tile that looks join": float(joined[same].mean()),
        "pairs joined of several tiles": int(joined[~same].sum()),
        "test images whose tile is in training, random split": _leaks(plain, tile),
        "test images whose tile is in training, by looks": _leaks(data, tile),
    }


def false_joins(root: Path) -> dict[str, Any]:
    """What looks join where nothing belongs together."""
    preparer = Preparer(Preprocess(height=SIDE, width=SIDE))
    files = [path for path in sorted(root.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg")]
    pictures = np.stack([grey_picture(preparer.prepare(path.read_bytes())) for path in files])
    sizes = np.bincount(alike(pictures))
    return {"images": len(files), "joined": int(sizes[sizes > 1].sum()), "largest by looks": int(sizes.max())}


def _leaks(data: Dataset, tile: dict[str, str]) -> float:
    def tiles_of(items: Sequence[Item]) -> list[str]:
        return [tile[item.name] for item in items]

    learnt = set(tiles_of(data.train))
    return float(np.mean([one in learnt for one in tiles_of(data.test)]))


def main() -> None:
    """Measure, print and append."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with data/")
    sets = parser.parse_args().shared / "data"
    rows = {TILES: by_names_and_looks(sets / TILES / "images")}
    rows |= {name: false_joins(sets / name) for name in (STEEL, PHOTOS)}
    about = {"date": datetime.now(UTC).date().isoformat(), "host": fingerprint().model_dump(mode="json")}
    with RESULTS.open("a") as stream:
        for name, row in rows.items():
            print(name, row)
            stream.write(json.dumps({"data": name, **row, **about}) + "\n")


if __name__ == "__main__":
    main()
