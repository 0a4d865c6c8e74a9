"""Write edgecnn/catalogue.json: what each backbone costs, what is published of it, which formats it converts to.

    python benchmarks/catalogue.py --zoo zoo.csv            # cost, accuracy, licence, stages: a minute or two
    python benchmarks/catalogue.py --formats                # convert and compare, cheapest first: hours on one core

Each network is written as soon as it is done, and what is done is not done again (remove its entry to repeat it).
`--zoo` is a table (zoo, model, weights, img_size, top1) of published accuracies: torchvision's weights entries and
timm's results-imagenet.csv; without it the accuracies that are already in the catalogue stay.
Formats are compared on random images, with random weights whose BatchNorm has seen a few images: agreement of the
engines is a property of the graph, and no pretrained weights need be fetched.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from torch import nn

from edgecnn import formats, runtimes
from edgecnn.catalogue import CATALOGUE, Catalogue, Entry, read_catalogue
from edgecnn.cost import measure_cost
from edgecnn.documents import write_atomically
from edgecnn.formats import Source
from edgecnn.installed import installed_versions
from edgecnn.models import Deployed, build, stages
from edgecnn.models.architecture import Architecture, find_architecture
from edgecnn.models.families import FAMILIES, Family

CLASSES = 10
TOLERANCE = 1e-4
ENGINES = {"torchscript": "pytorch", "onnx": "onnxruntime", "openvino": "openvino"}
TOOLS = ("torch", "torchvision", "timm", "onnx", "onnxscript", "onnxslim", "onnxruntime", "openvino")
TORCHVISION_LICENCE = "BSD-3-Clause (torchvision's repository; of the weights, trained on ImageNet, nothing is stated)"
DINOV2 = {  # timm's name to the row of facebookresearch/dinov2's table
    "vit_small_patch14_dinov2": "dinov2_vits14",
    "vit_small_patch14_reg4_dinov2": "dinov2_vits14_reg",
    "vit_base_patch14_dinov2": "dinov2_vitb14",
}

Row = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, help="table of published accuracies")
    parser.add_argument("--formats", action="store_true", help="convert and compare what has not been yet")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no conversion after so many")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    write_costs(list(csv.DictReader(asked.zoo.open())) if asked.zoo else None)
    if asked.formats:
        try_formats(time.monotonic() + 60 * asked.minutes)


def write_costs(zoo: list[Row] | None) -> None:
    """Everything but the formats, of every network of the families table."""
    known = {entry.name: entry for entry in stored().networks}
    for family in FAMILIES:
        for name in family.members:
            old = known.get(name)
            if old is None or zoo is not None:
                known[name] = describe(name, family, zoo or [], old)
                print(f"{name}: {known[name].macs / 1e6:.1f} M MACs, top-1 {known[name].top1}", flush=True)
    store([known[name] for family in FAMILIES for name in family.members])


def describe(name: str, family: Family, zoo: list[Row], old: Entry | None) -> Entry:
    """One network, built with random weights and a head for 1,000 classes."""
    built = build(name, 1000, "none")
    size = built.preprocess.height
    cost = measure_cost(built.module, size, size)
    weights, licence, row = published(find_architecture(name), size, zoo)
    return Entry(
        name=name,
        family=family.name,
        params=cost.params,
        macs=cost.macs,
        uncounted=cost.uncounted,
        size=size,
        weights=weights,
        top1=float(row["top1"]) if row else None,
        top1_size=int(row["img_size"]) if row else None,
        top1_source=source_of(row) if row else None,
        licence=licence,
        stages=tuple(stage.name for stage in stages(built.module)),
        frozen_only=family.frozen_only,
        formats=old.formats if old else {},
        failed=old.failed if old else {},
    )


def published(architecture: Architecture, size: int, zoo: list[Row]) -> tuple[str | None, str | None, Row | None]:
    """What `--weights hub` gets: its name, its licence, the row of its accuracy."""
    if architecture.library == "torchvision":
        entry = torchvision.models.get_model_weights(architecture.name).DEFAULT
        rows = [row for row in zoo if (row["model"], row["weights"]) == (architecture.name, entry.name)]
        return f"torchvision {entry.name}", TORCHVISION_LICENCE, nearest(rows, size)
    if architecture.library != "timm":
        return None, None, None
    config = timm.get_pretrained_cfg(architecture.name)
    if not config.has_weights:
        return None, None, None
    names = {f"{architecture.name}.{config.tag}", DINOV2.get(architecture.name)}
    row = nearest([row for row in zoo if row["model"] in names], size)
    return f"timm {config.tag}", f"{config.license} (timm)" if config.license else "unknown", row


def nearest(rows: list[Row], size: int) -> Row | None:
    return min(rows, key=lambda row: abs(int(row["img_size"]) - size), default=None)


def source_of(row: Row) -> str:
    if row["zoo"] == "dinov2":
        return f"facebookresearch/dinov2 README, {row['weights'].split(' (')[0]} evaluation on frozen features"
    if row["zoo"].startswith("torchvision"):
        return f"{row['zoo']}, {row['weights']}"
    return row["zoo"].replace("(", "").replace(")", "")


def try_formats(until: float) -> None:
    """Convert, open and compare, the cheapest network first; written after each format."""
    for entry in sorted(stored().networks, key=lambda entry: entry.macs):
        if all(name in entry.formats or name in entry.failed for name in ENGINES):
            continue
        if time.monotonic() > until:
            break
        with tempfile.TemporaryDirectory() as folder:
            tried = compare(entry, Path(folder))
        store([tried if other.name == entry.name else other for other in stored().networks])
        print(f"{entry.name}: {dict(tried.formats)} {dict(tried.failed)}", flush=True)


def compare(entry: Entry, folder: Path) -> Entry:
    torch.manual_seed(0)
    built = build(entry.name, CLASSES, "none")
    deployed = Deployed(built.module, built.preprocess)
    settle(deployed, entry.size)
    images = noise(1, entry.size)
    with torch.inference_mode():
        reference = deployed(torch.from_numpy(images)).numpy()
    source = Source(deployed, entry.size, entry.size, folder)
    found, failed = dict(entry.formats), dict(entry.failed)
    for name, engine in ENGINES.items():
        try:
            error = error_of(name, engine, source, images, reference)
        except Exception as problem:  # a converter may raise whatever; the catalogue tells what it was
            failed[name] = f"{type(problem).__name__}: {str(problem).strip().splitlines()[0][:120]}"
            continue
        if error <= TOLERANCE:
            found[name] = float(f"{error:.1e}")
        else:
            failed[name] = f"logit error {error:.1e}"
    return entry.model_copy(update={"formats": found, "failed": failed})


def error_of(name: str, engine: str, source: Source, images: Any, reference: Any) -> float:
    """Largest logit error, of the logits' standard deviation."""
    out = source.work / name
    converted = formats.convert(name, source, "fp32", out)
    session = runtimes.open_file(out / converted.files[0], engine, "fp32", 1)
    logits = session.run(images)
    session.close()
    shutil.rmtree(out)
    return float(np.abs(logits - reference).max() / reference.std())


def settle(deployed: Deployed, size: int) -> None:
    """BatchNorm statistics of a few noisy images instead of 0 and 1, so that signals keep their scale."""
    norms = [layer for layer in deployed.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum, norm.training = None, True  # the plain mean of what it sees
    if norms:
        with torch.no_grad():
            deployed(torch.from_numpy(noise(4, size)))
    deployed.eval()


def noise(count: int, size: int) -> Any:
    """uint8 (count, size, size, 3)."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def stored() -> Catalogue:
    return read_catalogue() if CATALOGUE.is_file() else Catalogue()


def store(networks: list[Entry]) -> None:
    catalogue = Catalogue(tools=installed_versions(TOOLS), networks=tuple(networks))
    write_atomically(CATALOGUE, catalogue.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main()
