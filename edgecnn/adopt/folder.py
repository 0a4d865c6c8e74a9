"""The run folder of a network that somebody else trained: written whole, and used again where nothing changed."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from edgecnn.adopt.agreement import agreement
from edgecnn.adopt.description import read_labels, read_preprocess
from edgecnn.adopt.state_dict import ENDINGS, library_preprocess, load_state_dict, refuse_programs
from edgecnn.artifact import Preprocess
from edgecnn.checkpoint import (
    SPLIT,
    WEIGHTS,
    Checkpoint,
    Leftovers,
    Metrics,
    read_checkpoint,
    write_checkpoint,
)
from edgecnn.cost import measure_cost
from edgecnn.data import Dataset, Item, calibration_items, save_split, split_hashes
from edgecnn.documents import folder_written_whole, sha256_of_file, write_atomically
from edgecnn.errors import UserError, must_be_file, not_one_of
from edgecnn.installed import installed_versions
from edgecnn.metadata import read
from edgecnn.models import ONNX, ONNX_FILE, Deployed, save_module
from edgecnn.onnx_graph.network import Network, load_network
from edgecnn.onnx_graph.onnx_file import Input, external_files, input_of, read_model
from edgecnn.parity import prepare_files
from edgecnn.progress import Progress
from edgecnn.transfer import RECIPES

ADOPTED = "adopted.json"
"""In the run folder: what it was made from, and what was remarked."""

_VERSION = 1
"""Raised when the same inputs give another folder."""
_LIBRARIES = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "numpy", "Pillow", "simplejpeg", "safetensors")
_AGREEMENT_IMAGES = 16
_BATCH = 32


@dataclass(frozen=True)
class Adopted:
    """A run folder for `edgecnn.export.export`."""

    run: Path
    checkpoint: Checkpoint
    notes: tuple[str, ...]
    """What the owner of the network should know: what was assumed, what was left out."""


@dataclass(frozen=True)
class _Taken:
    """A network, before its folder is written."""

    module: nn.Module
    outputs: int
    model: str
    preprocess: Preprocess
    notes: tuple[str, ...]
    eps: float | None = None
    leftovers: Leftovers = field(default_factory=Leftovers)
    labels: tuple[str, ...] | None = None
    """Names that the file itself gives to its outputs."""
    onnx: tuple[Input, Network] | None = None


def adopt(
    source: Path,
    data: Dataset,
    out: Path,
    *,
    model: str | None = None,
    preprocess: Path | None = None,
    labels: Path | None = None,
    seed: int = 0,
    progress: Progress = lambda text: None,
) -> Adopted:
    """Take in `source`, an .onnx file or the weights (.safetensors, .pth) of the network that `model` names.

    Writes the run folder `out`, with recipe `none`; where it already holds what the same inputs gave, nothing is done.
    `labels`: a file with a class a line, in the order of the outputs; without it the file's own description says it,
    else the sorted names of the data's folders. `seed`: of the split of `data`, for the record.
    Raises UserError, and then nothing is written: a file that cannot be taken in, classes that do not fit its outputs,
    an .onnx file that answers otherwise in ONNX Runtime, `out` is something else.
    """
    refuse_unfit(source, model, preprocess, labels)
    identity = _identity(source, data, model, preprocess, labels, seed)
    there = _already(out, identity)
    if there:
        progress(f"{source.name}: already taken in ({out})")
        return there
    progress(f"taking in {source.name}")
    taken = _take_onnx(source, preprocess) if model is None else _take_weights(source, model, preprocess)
    data = _with_classes(source, data, taken.outputs, read_labels(labels) if labels else taken.labels)
    if taken.onnx:
        taken = replace(taken, notes=(*taken.notes, _agree(source, taken, data)))
    with folder_written_whole(out) as folder:
        weights = _write_network(folder, source, taken)
        save_split(data, folder / SPLIT)
        checkpoint = _checkpoint(folder, source, taken, data, weights, seed)
        about = {"identity": identity, "notes": taken.notes}
        write_atomically(folder / ADOPTED, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
        write_checkpoint(folder, checkpoint)
    return Adopted(out, checkpoint, taken.notes)


def refuse_unfit(source: Path, model: str | None, preprocess: Path | None, labels: Path | None) -> None:
    """UserError where what was given does not go together, before anything is read."""
    if not source.exists():
        raise UserError(
            f"{source}: no such file or folder (expected a run folder of `edgecnn finetune`, an .onnx file, or weights)"
        )
    if source.suffix not in (".onnx", ".pt2", *ENDINGS):
        raise not_one_of(f"{source}: ending", source.suffix, [".onnx", *ENDINGS])
    must_be_file(source, "an .onnx file, or weights (.safetensors, .pth) of the network that --model names")
    if source.suffix == ".onnx" and model is not None:
        raise UserError(f"{source}: an .onnx file has its own network: leave --model {model} out")
    if source.suffix != ".onnx":
        refuse_programs(source)
        if model is None:
            raise UserError(
                f"{source}: which network are these weights of? give --model, such as timm:mobilenetv3_small_100"
            )
    for path, what in ((preprocess, "a .toml file with height, width, mean, std"), (labels, "class names, one a line")):
        if path:
            must_be_file(path, what)


def _identity(
    source: Path, data: Dataset, model: str | None, preprocess: Path | None, labels: Path | None, seed: int
) -> dict[str, Any]:
    """What the folder depends on."""
    files = {"source": source, "preprocess": preprocess, "labels": labels}
    beside = external_files(source) if source.suffix == ".onnx" else []
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
        "tools": installed_versions(_LIBRARIES),
    }


def _already(out: Path, identity: Mapping[str, Any]) -> Adopted | None:
    """What is in `out`, if it came from the same inputs. UserError where something else is there."""
    if not out.exists():
        return None
    path = out / ADOPTED
    if not path.is_file():
        raise UserError(f"{out}: exists and was not made by `edgecnn export`: move it away, or choose another --out")
    try:
        about = json.loads(path.read_bytes())
        notes = tuple(str(note) for note in about["notes"])
        if about["identity"] == identity:
            return Adopted(out, read_checkpoint(out), notes)
    except (ValueError, KeyError, TypeError, UserError):
        pass  # damaged: it is made again
    return None


def _take_weights(source: Path, model: str, preprocess: Path | None) -> _Taken:
    built, outputs = load_state_dict(source, model)
    usual = library_preprocess(built)
    found = read_preprocess(preprocess, usual.model_dump(), source.name)
    notes = [f"head of {outputs} classes"]
    if preprocess is None:
        notes.append(f"prepared as {built.name.partition(':')[0]} does ({_words(found)}): else give --preprocess")
    return _Taken(
        built.module.eval(),
        outputs,
        built.name,
        found,
        tuple(notes),
        eps=built.batchnorm_eps,
        leftovers=built.leftovers,
    )


def _take_onnx(source: Path, preprocess: Path | None) -> _Taken:
    model = read_model(source)
    entry = input_of(source, model)
    described = read({item.key: item.value for item in model.metadata_props}, str(source))
    known: dict[str, Any] = described.preprocess.model_dump() if described else {}
    known |= {name: size for name, size in (("height", entry.height), ("width", entry.width)) if size}
    missing = f"{source}: says nothing of its preprocessing"
    # A file that takes uint8 pixels normalises them itself: mean and std are read from its graph.
    inside: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)} if entry.pixels == "uint8" else {}
    found = read_preprocess(preprocess, inside | known, missing)
    network = load_network(source, found.height, found.width)
    if network.normalisation:
        inside = {"mean": network.normalisation.mean, "std": network.normalisation.std}
        found = _settled(preprocess, read_preprocess(preprocess, known | inside, missing), inside)
    notes = [f"{network.outputs} outputs"]
    if network.softmax:
        notes.append(f"ends in {network.softmax}: the logits before it are taken")
    if preprocess is None and described is None:
        notes.append(f"images are prepared as {_words(found)}: else give --preprocess")
    return _Taken(
        network.module,
        network.outputs,
        f"{ONNX}{re.sub(r'[^A-Za-z0-9._-]+', '-', source.stem)}",
        found,
        labels=described.classes if described else None,
        notes=tuple(notes),
        onnx=(entry, network),
    )


def _settled(preprocess: Path | None, found: Preprocess, inside: Mapping[str, Any]) -> Preprocess:
    """With the mean and std that are inside the file, which those of pre.toml must not contradict."""
    if not np.allclose((found.mean, found.std), (inside["mean"], inside["std"]), rtol=1e-3, atol=1e-4):
        raise UserError(
            f"{preprocess}: mean {list(found.mean)} and std {list(found.std)} are not those inside the .onnx file, "
            f"{list(inside['mean'])} and {list(inside['std'])}: leave them out"
        )
    return found.model_copy(update=inside)


def _with_classes(source: Path, data: Dataset, outputs: int, labels: Sequence[str] | None) -> Dataset:
    """The images with the labels in the order of the outputs. UserError where the two do not fit."""
    names = ", ".join(data.classes[:3]) + (", …" if len(data.classes) > 3 else "")
    if labels is None:
        if len(data.classes) == outputs:
            return data
        raise UserError(
            f"{source}: has {outputs} outputs, {data.root} has {len(data.classes)} classes ({names}): give the images "
            f"of those {outputs} classes, or --labels FILE with the {outputs} names in the order of the outputs"
        )
    if len(labels) != outputs:
        raise UserError(f"{source}: has {outputs} outputs, but there are {len(labels)} labels: one for each is needed")
    unknown = sorted(set(data.classes) - set(labels))
    if unknown:
        raise UserError(
            f"{data.root}: class folder {unknown[0]}/ is not among the {len(labels)} labels "
            f"({', '.join(labels[:3])}, …): rename it, or mend --labels"
        )
    place = {number: labels.index(name) for number, name in enumerate(data.classes)}

    def moved(items: Sequence[Item]) -> tuple[Item, ...]:
        return tuple(replace(item, label=place[item.label]) for item in items)

    return replace(data, classes=tuple(labels), train=moved(data.train), val=moved(data.val), test=moved(data.test))


def _agree(source: Path, taken: _Taken, data: Dataset) -> str:
    assert taken.onnx is not None
    items = calibration_items(data, _AGREEMENT_IMAGES)
    images = prepare_files([item.path for item in items], taken.preprocess)
    difference = agreement(source, *taken.onnx, images, taken.preprocess)
    return f"answers as in ONNX Runtime on {len(items)} images (at most {difference:.1e} of the scores' spread apart)"


def _write_network(folder: Path, source: Path, taken: _Taken) -> str:
    """Name of the file that holds the weights."""
    if taken.onnx is None:
        (folder / WEIGHTS).write_bytes(save_module(taken.module))
        return WEIGHTS
    import onnx

    model = onnx.load(source)  # with its external data: one file
    onnx.save(model, folder / ONNX_FILE)
    return ONNX_FILE


def _checkpoint(folder: Path, source: Path, taken: _Taken, data: Dataset, weights: str, seed: int) -> Checkpoint:
    spec = taken.preprocess
    return Checkpoint(
        model=taken.model,
        classes=data.classes,
        good_class=data.good_class,
        preprocess=spec,
        weights=f"file:{source.name} sha256:{sha256_of_file(source)}",
        batchnorm_eps=taken.eps,
        recipe=RECIPES["none"],
        reason=f"taken in as it is from {source.name}",
        options={"taken in": source.name, "notes": list(taken.notes)},
        seed=seed,
        device=f"cpu: {platform.machine()}",
        splits=split_hashes(data),
        cost=measure_cost(taken.module, spec.height, spec.width),
        metrics=_metrics(Deployed(taken.module, spec), data, spec),
        tools={"python": platform.python_version(), **installed_versions(_LIBRARIES)},
        leftovers=taken.leftovers,
        files={name: sha256_of_file(folder / name) for name in (weights, SPLIT)},
    )


def _metrics(network: nn.Module, data: Dataset, spec: Preprocess) -> Metrics:
    """Of the network as it is, on the validation images."""
    losses: list[float] = []
    right: dict[int, list[bool]] = {}
    for start in range(0, len(data.val), _BATCH):
        items = data.val[start : start + _BATCH]
        with torch.inference_mode():
            logits = network(torch.from_numpy(prepare_files([item.path for item in items], spec)))
        wanted = torch.tensor([item.label for item in items])
        losses += F.cross_entropy(logits, wanted, reduction="none").tolist()
        for item, decided in zip(items, logits.argmax(1).tolist(), strict=True):
            right.setdefault(item.label, []).append(decided == item.label)
    every = [hit for hits in right.values() for hit in hits]
    return Metrics(
        val_images=len(every),
        val_top1=float(np.mean(every)) if every else None,
        val_balanced=float(np.mean([np.mean(hits) for hits in right.values()])) if every else None,
        val_loss=float(np.mean(losses)) if every else None,
        best_epoch=0,
        epochs=0,
        minutes=0.0,
    )


def _words(spec: Preprocess) -> str:
    if spec.fit == "stretch":
        return f"{spec.height}×{spec.width}, the whole image"
    return f"{spec.height}×{spec.width}, central square of {spec.crop:g} of the shorter side"
