"""A file to a network: the network, how images are prepared for it, and what the file says of its classes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from edgecnn.adopt.known import of_onnx, of_weights
from edgecnn.adopt.preprocessing import by_whom, note_on_resize, prepared, words
from edgecnn.adopt.state_dict import load_state_dict, refuse_programs, taking_rgb
from edgecnn.artifact import Preprocess
from edgecnn.blame.description import Description, read_description
from edgecnn.checkpoint import CHECKPOINT, Leftovers
from edgecnn.errors import UserError, must_be_file, not_one_of
from edgecnn.filekinds import kind_of
from edgecnn.modelfiles.class_names import Named, class_names
from edgecnn.models import ONNX
from edgecnn.models.naming import ONE_MADE_TWO
from edgecnn.models.weights_file import ENDINGS, is_weights
from edgecnn.onnx_graph.network import Network, load_network
from edgecnn.onnx_graph.onnx_file import Input, input_of, read_model


@dataclass(frozen=True)
class Taken:
    """A network, before its folder is written."""

    module: nn.Module
    outputs: int
    model: str
    preprocess: Preprocess
    notes: tuple[str, ...]
    eps: float | None = None
    leftovers: Leftovers = field(default_factory=Leftovers)
    names: Named | None = None
    """Names that the file itself gives to its outputs."""
    said: tuple[str, ...] | None = None
    """Their names by --preprocess, in the order of the outputs."""
    size_by: str = ""
    """Who gives a size that may be another network's of the same name; empty: it is known."""
    onnx: tuple[Input, Network] | None = None


def is_onnx(source: Path) -> bool:
    """Whether a file's name ends in .onnx, in whatever letters."""
    return source.suffix.lower() == ".onnx"


def refuse_unfit(
    source: Path, model: str | None, preprocess: Path | None, labels: Path | None, weights_key: str | None = None
) -> None:
    """UserError where what was given does not go together, before anything is read."""
    if not source.exists():
        raise UserError(
            f"{source}: no such file or folder (expected a run folder of `edgecnn finetune`, an .onnx file, or weights)"
        )
    if not is_onnx(source) and source.suffix.lower() != ".pt2" and not is_weights(source):
        kind = kind_of(source) if source.is_file() else None
        if kind is not None and kind.name not in ("torch", "safetensors", "pickle"):
            cure = f": {kind.cure}" if kind.cure else ""
            raise UserError(f"{source}: is {kind.words}{cure}; expected {', '.join(['.onnx', *ENDINGS])}")
        raise not_one_of(f"{source}: ending", source.suffix, [".onnx", *ENDINGS])
    must_be_file(source, "an .onnx file, or weights (.safetensors, .pth) of the network that --model names")
    if is_onnx(source) and model is not None:
        raise UserError(f"{source}: an .onnx file has its own network: leave --model {model} out")
    if is_onnx(source) and weights_key is not None:
        raise UserError(f"{source}: an .onnx file has one set of weights: leave --weights-key {weights_key} out")
    if not is_onnx(source):
        refuse_programs(source)
        if model is None:
            raise UserError(
                f"{source}: which network are these weights of? give --model, such as timm:mobilenetv3_small_100"
            )
    for path, what in ((preprocess, "a .toml file with size, mean, std"), (labels, "class names, one a line")):
        if path:
            must_be_file(path, what)


def refuse_foreign_folder(folder: Path) -> None:
    """UserError that says what a folder of another program's network is, where it is one."""
    if (folder / "saved_model.pb").is_file():
        raise UserError(
            f"{folder}: a TensorFlow SavedModel: write an .onnx file of it (python -m tf2onnx.convert --saved-model "
            f"{folder} --output model.onnx) and give that"
        )
    inside = [path for path in sorted(folder.iterdir()) if is_onnx(path) or is_weights(path)]
    if (folder / CHECKPOINT).is_file():
        return
    below = next((one for one in (folder / "train", *folder.glob("*/")) if (one / CHECKPOINT).is_file()), None)
    give = "a folder that `edgecnn finetune --out` wrote, an .onnx file, or weights with --model"
    if inside:
        give = f"the file in it, such as {inside[0]}"
    elif below:
        give = f"the run in it, {below}"
    raise UserError(f"{folder}: holds no run of `edgecnn finetune` (no {CHECKPOINT} there): give {give}")


def take(
    source: Path, model: str | None, preprocess: Path | None, weights_key: str | None = None, size: int | None = None
) -> Taken:
    """The network of an .onnx file (`model` None), or of weights. UserError where it cannot be taken in."""
    said = read_description(preprocess) if preprocess else None
    if model is None:
        return _take_onnx(source, said, size)
    return _take_weights(source, model, said, weights_key, size)


def _take_weights(
    source: Path, model: str, said: Description | None, weights_key: str | None, size: int | None
) -> Taken:
    built, rows, file = load_state_dict(source, model, weights_key)
    outputs = max(rows, 2)
    known = of_weights(source, file.about, built, outputs)
    found = prepared(said, known, source.name, size)
    notes = [f"head of {outputs} classes", *built.remarks]
    module = built.module.eval()
    if said and said.colour == "bgr":
        module = taking_rgb(module, source.name)
        notes.append("trained on BGR: the input channels of its first layer are turned round, so that it takes RGB")
    notes += [words(found, by_whom(said, known, size)), *note_on_resize(said, known)]
    open_size = not known.sure and size is None and not (said and said.size)
    return Taken(
        module.eval(),
        outputs,
        built.name,
        found,
        tuple(notes),
        eps=built.batchnorm_eps,
        leftovers=built.leftovers,
        names=class_names(file.about, outputs),
        said=said.classes if said else None,
        size_by=known.by if open_size else "",
    )


def _take_onnx(source: Path, said: Description | None, size: int | None) -> Taken:
    model = read_model(source).model
    entry = input_of(source, model)
    held = {item.key: item.value for item in model.metadata_props}
    known = of_onnx(source, held)
    own_size = {name: side for name, side in (("height", entry.height), ("width", entry.width)) if side}
    _refuse_misdescribed(source, said, size, entry)
    known = replace(known, values={**known.values, **own_size})
    where = f"{source}: says nothing of its preprocessing" if said is None else source.name
    # A file that takes uint8 pixels normalises them itself: mean and std are read from its graph.
    inside: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)} if entry.pixels == "uint8" else {}
    found = prepared(said, replace(known, values={**inside, **known.values}), where, size)
    network = load_network(source, found.height, found.width)
    if network.normalisation:
        inside = {"mean": network.normalisation.mean, "std": network.normalisation.std}
        given = prepared(said, replace(known, values={**known.values, **inside}), where, size)
        found = _settled(source, given, inside)
    notes = [f"{network.outputs} outputs", *network.remarks, *([ONE_MADE_TWO] if network.single else [])]
    if network.ends:
        ends = " and ".join(network.ends)
        notes.append(f"ends in {ends}: the logits before it are taken")
    by = by_whom(said, known if known.by else replace(known, by="the file's own input"), size)
    by += "; mean and std are inside the file" if network.normalisation else ""
    notes += [words(found, by), *note_on_resize(said, known)]
    return Taken(
        network.module,
        network.outputs,
        f"{ONNX}{re.sub(r'[^A-Za-z0-9._-]+', '-', source.stem)}",
        found,
        names=class_names(held, network.outputs),
        notes=tuple(notes),
        said=said.classes if said else None,
        onnx=(entry, network),
    )


def _refuse_misdescribed(source: Path, said: Description | None, size: int | None, entry: Input) -> None:
    """UserError where what is said of an .onnx file is not so, or cannot be put into it."""
    wrong = []
    height, width = (size, size) if size else (said.size if said and said.size else (None, None))
    if (height and entry.height not in (None, height)) or (width and entry.width not in (None, width)):
        wrong.append(f"size: {height}×{width}, but the file takes {entry.height}×{entry.width}")
    if said and said.colour == "bgr":
        wrong.append(
            "colour: 'bgr' of an .onnx file: export it with `x[:, [2, 1, 0]]` before the network, and RGB in "
            "--preprocess; or give its weights with --model, whose first layer is turned round"
        )
    if said and "layout" in said.model_fields_set and said.layout != entry.layout:
        wrong.append(f"layout: {said.layout!r}, but the file takes {entry.layout!r}")
    takes = "uint8" if entry.pixels == "uint8" else "float32"
    if said and "dtype" in said.model_fields_set and said.dtype != takes:
        wrong.append(f"dtype: {said.dtype!r}, but the file takes {takes!r}")
    if wrong:
        raise UserError(f"{source.name}: {'; '.join(wrong)}")


def _settled(source: Path, found: Preprocess, inside: Mapping[str, Any]) -> Preprocess:
    """With the mean and std that are inside the file, which those of --preprocess must not contradict."""
    if not np.allclose((found.mean, found.std), (inside["mean"], inside["std"]), rtol=1e-3, atol=1e-4):
        raise UserError(
            f"{source.name}: mean {list(found.mean)} and std {list(found.std)} are not those inside the .onnx file, "
            f"{list(inside['mean'])} and {list(inside['std'])}: leave them out"
        )
    return found.model_copy(update=inside)
