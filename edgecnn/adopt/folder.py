"""The run folder of a network that somebody else trained: written whole, and used again where nothing changed."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from edgecnn.adopt.agreement import agreement
from edgecnn.adopt.classes import order_of, with_order
from edgecnn.adopt.preprocessing import words
from edgecnn.adopt.sizes import settle
from edgecnn.adopt.sources import Taken, is_onnx, refuse_unfit, take
from edgecnn.artifact import Preprocess, Seen
from edgecnn.blame.doubts import doubts
from edgecnn.checkpoint import (
    SPLIT,
    WEIGHTS,
    Checkpoint,
    Metrics,
    read_checkpoint,
    write_checkpoint,
)
from edgecnn.cost import measure_cost
from edgecnn.data import Dataset, calibration_items, save_split, split_hashes
from edgecnn.documents import Json, folder_written_whole, sha256_of_file, write_atomically
from edgecnn.errors import UserError
from edgecnn.installed import installed_versions
from edgecnn.models import ONNX_FILE, Deployed, save_module
from edgecnn.models.weights_file import hash_of, parts_of
from edgecnn.onnx_graph.onnx_file import external_files, read_model
from edgecnn.parity import prepare_files
from edgecnn.progress import Progress
from edgecnn.transfer import RECIPES

ADOPTED = "adopted.json"
"""In the run folder: what it was made from."""

_VERSION = 4
"""Raised when the same inputs give another folder."""
_LIBRARIES = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "numpy", "Pillow", "simplejpeg", "safetensors")
_AGREEMENT_IMAGES = 16


def adopt(
    source: Path,
    data: Dataset,
    out: Path,
    *,
    model: str | None = None,
    preprocess: Path | None = None,
    labels: Path | None = None,
    weights_key: str | None = None,
    size: int | None = None,
    test_seen: Seen = "may be",
    seed: int = 0,
    progress: Progress = lambda text: None,
) -> Checkpoint:
    """Take in `source`, an .onnx file or the weights (.safetensors, .pth) of the network that `model` names.

    Writes the run folder `out`, with recipe `none`; where it already holds what the same inputs gave, nothing is done.
    The checkpoint's notes say what was assumed, its doubts where the network does not fit that.
    `labels`: a file with a class a line, in the order of the outputs; without it the file's own names say it, else the
    sorted names of the data's folders. `weights_key`: as of `edgecnn.models.build`. `size`: in pixels, of square
    images, whatever else says one; where nobody says it, sizes are tried on the train and validation images.
    `test_seen`: whether the weights may have been trained on the test images. `seed`: of the split of `data`, for the
    record.
    Raises UserError, and then nothing is written: a file that cannot be taken in, classes that do not fit its outputs
    or whose order nobody says, a size that nobody says and the images do not tell, an .onnx file that answers
    otherwise in ONNX Runtime, `out` is something else.
    """
    refuse_unfit(source, model, preprocess, labels, weights_key)
    more: dict[str, Json] = {"weights key": weights_key, "size": size, "test seen": test_seen}
    identity = {**_identity(source, data, model, preprocess, labels, seed), **more}
    there = _already(out, identity)
    if there:
        progress(f"{source.name}: already taken in ({out})")
        return there
    progress(f"taking in {source.name}")
    taken = _at_the_depth_of(data, take(source, model, preprocess, weights_key, size))
    order = order_of(source, data, taken.outputs, labels, taken.names, taken.said)
    data = with_order(data, order.classes)
    taken = _at_its_size(source, taken, data, progress)
    notes = [*taken.notes, order.words]
    if taken.onnx:
        notes.append(_agree(source, taken, data))
    with folder_written_whole(out) as folder:
        weights = _write_network(folder, source, taken)
        save_split(data, folder / SPLIT)
        checkpoint = _checkpoint(folder, source, taken, data, weights, seed, tuple(notes))
        checkpoint = checkpoint.model_copy(update={"test_seen": test_seen})
        write_atomically(folder / ADOPTED, json.dumps({"identity": identity}, indent=1, ensure_ascii=False) + "\n")
        write_checkpoint(folder, checkpoint)
    return checkpoint


def _at_the_depth_of(data: Dataset, taken: Taken) -> Taken:
    """Where the source does not say how many bits of 16-bit files count, the images do."""
    if taken.preprocess.bits is not None:
        return taken
    return replace(taken, preprocess=taken.preprocess.model_copy(update={"bits": data.bits}))


def _at_its_size(source: Path, taken: Taken, data: Dataset, progress: Progress) -> Taken:
    """Where only the network's name says a size, the images may say another."""
    if not taken.size_by:
        return taken
    spec = taken.preprocess
    macs = measure_cost(taken.module, spec.height, spec.width).macs
    items = (*data.train, *data.val)
    found, how = settle(Deployed(taken.module, spec), spec, items, macs, source.name, progress)
    was = next(note for note in taken.notes if note.startswith("preprocessing: "))
    now = f"{words(found, taken.size_by)}; size: {how}"
    return replace(taken, preprocess=found, notes=tuple(now if note == was else note for note in taken.notes))


def _identity(
    source: Path, data: Dataset, model: str | None, preprocess: Path | None, labels: Path | None, seed: int
) -> dict[str, Json]:
    """What the folder depends on."""
    files = {"source": source, "preprocess": preprocess, "labels": labels}
    beside = external_files(source) if is_onnx(source) else parts_of(source)
    return {
        "version": _VERSION,
        "name": source.name,
        "model": model,
        **{name: sha256_of_file(path) if path else None for name, path in files.items()},
        "external data": {path.name: sha256_of_file(path) for path in beside},
        "classes": list(data.classes),
        "good class": data.good_class,
        "seed": seed,
        "splits": split_hashes(data),
        "parts": data.grouping.sha256 if data.grouping else None,
        "tools": installed_versions(_LIBRARIES),
    }


def _already(out: Path, identity: Mapping[str, Json]) -> Checkpoint | None:
    """What is in `out`, if it came from the same inputs. UserError where something else is there."""
    refuse_other_content(out)
    if not out.exists():
        return None
    try:
        if json.loads((out / ADOPTED).read_bytes())["identity"] == identity:
            return read_checkpoint(out)
    except (ValueError, KeyError, TypeError, UserError):
        pass  # damaged: it is made again
    return None


def refuse_other_content(out: Path) -> None:
    """UserError where `out` was not made by this: told before anything is read."""
    if out.exists() and not (out / ADOPTED).is_file():
        raise UserError(f"{out}: exists and was not made by `edgecnn export`: move it away, or choose another --out")


def _agree(source: Path, taken: Taken, data: Dataset) -> str:
    assert taken.onnx is not None
    items = calibration_items(data, _AGREEMENT_IMAGES)
    images = prepare_files([item.path for item in items], taken.preprocess)
    difference = agreement(source, *taken.onnx, images, taken.preprocess)
    return f"answers as in ONNX Runtime on {len(items)} images (at most {difference:.1e} of the scores' spread apart)"


def _write_network(folder: Path, source: Path, taken: Taken) -> str:
    """Name of the file that holds the weights."""
    if taken.onnx is None:
        (folder / WEIGHTS).write_bytes(save_module(taken.module))
        return WEIGHTS
    import onnx

    onnx.save(read_model(source).model, folder / ONNX_FILE)  # with its external data: one file
    return ONNX_FILE


def _checkpoint(
    folder: Path, source: Path, taken: Taken, data: Dataset, weights: str, seed: int, notes: tuple[str, ...]
) -> Checkpoint:
    spec = taken.preprocess
    network = Deployed(taken.module, spec)
    cost = measure_cost(taken.module, spec.height, spec.width)
    return Checkpoint(
        model=taken.model,
        classes=data.classes,
        good_class=data.good_class,
        preprocess=spec,
        weights=f"file:{source.name} sha256:{hash_of(source)}",
        batchnorm_eps=taken.eps,
        recipe=RECIPES["none"],
        reason=f"taken in as it is from {source.name}",
        options={"taken in": source.name},
        seed=seed,
        device=f"cpu: {platform.machine()}",
        splits=split_hashes(data),
        grouping=data.grouping,
        cost=cost,
        metrics=_metrics(network, data, spec),
        tools={"python": platform.python_version(), **installed_versions(_LIBRARIES)},
        leftovers=taken.leftovers,
        notes=notes,
        doubts=doubts(network.answers, spec, data.classes, (*data.train, *data.val, *data.test), cost.macs),
        files={name: sha256_of_file(folder / name) for name in (weights, SPLIT)},
    )


def _metrics(network: Deployed, data: Dataset, spec: Preprocess) -> Metrics:
    """Of the network as it is, on the validation images."""
    top1 = balanced = loss = None
    if data.val:
        labels = np.array([item.label for item in data.val])
        logits = network.answers(prepare_files([item.path for item in data.val], spec))
        right = logits.argmax(1) == labels
        top1 = float(right.mean())
        balanced = float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))
        loss = float(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)))
    return Metrics(
        val_images=len(data.val),
        val_top1=top1,
        val_balanced=balanced,
        val_loss=loss,
        best_epoch=0,
        epochs=0,
        minutes=0.0,
    )
