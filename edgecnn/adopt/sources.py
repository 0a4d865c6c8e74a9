"""A file to a network: the network, how images are prepared for it, and what the file says of its classes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from edgecnn.adopt.description import read_preprocess
from edgecnn.adopt.state_dict import library_preprocess, load_state_dict, refuse_programs
from edgecnn.artifact import Preprocess
from edgecnn.checkpoint import CHECKPOINT, Leftovers
from edgecnn.errors import UserError, must_be_file, not_one_of
from edgecnn.filekinds import kind_of
from edgecnn.metadata import SelfDescription, read
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
    for path, what in ((preprocess, "a .toml file with height, width, mean, std"), (labels, "class names, one a line")):
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


def take(source: Path, model: str | None, preprocess: Path | None, weights_key: str | None = None) -> Taken:
    """The network of an .onnx file (`model` None), or of weights. UserError where it cannot be taken in."""
    if model is None:
        return _take_onnx(source, preprocess)
    return _take_weights(source, model, preprocess, weights_key)


def _take_weights(source: Path, model: str, preprocess: Path | None, weights_key: str | None) -> Taken:
    built, rows, file = load_state_dict(source, model, weights_key)
    outputs = max(rows, 2)
    usual = library_preprocess(built)
    found = read_preprocess(preprocess, usual.model_dump(), source.name)
    notes = [f"head of {outputs} classes", *built.remarks]
    library = built.name.partition(":")[0]
    by = f"as --preprocess says, else as {library} does" if preprocess else f"as {library} does: else give --preprocess"
    notes.append(prepared_words(found, by))
    return Taken(
        built.module.eval(),
        outputs,
        built.name,
        found,
        tuple(notes),
        eps=built.batchnorm_eps,
        leftovers=built.leftovers,
        names=class_names(file.about, outputs),
    )


def _take_onnx(source: Path, preprocess: Path | None) -> Taken:
    model = read_model(source).model
    entry = input_of(source, model)
    held = {item.key: item.value for item in model.metadata_props}
    described = read(held, str(source))
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
    notes = [f"{network.outputs} outputs", *network.remarks, *([ONE_MADE_TWO] if network.single else [])]
    if network.ends:
        ends = " and ".join(network.ends)
        notes.append(f"ends in {ends}: the logits before it are taken")
    notes.append(prepared_words(found, _who_says(preprocess, described, network)))
    return Taken(
        network.module,
        network.outputs,
        f"{ONNX}{re.sub(r'[^A-Za-z0-9._-]+', '-', source.stem)}",
        found,
        names=class_names(held, network.outputs),
        notes=tuple(notes),
        onnx=(entry, network),
    )


def _who_says(preprocess: Path | None, described: SelfDescription | None, network: Network) -> str:
    inside = "; mean and std are inside the file" if network.normalisation else ""
    if preprocess:
        return f"as --preprocess says{inside}"
    return f"{'as its own description says' if described else 'else give --preprocess'}{inside}"


def _settled(preprocess: Path | None, found: Preprocess, inside: Mapping[str, Any]) -> Preprocess:
    """With the mean and std that are inside the file, which those of pre.toml must not contradict."""
    if not np.allclose((found.mean, found.std), (inside["mean"], inside["std"]), rtol=1e-3, atol=1e-4):
        raise UserError(
            f"{preprocess}: mean {list(found.mean)} and std {list(found.std)} are not those inside the .onnx file, "
            f"{list(inside['mean'])} and {list(inside['std'])}: leave them out"
        )
    return found.model_copy(update=inside)


def prepared_words(spec: Preprocess, by: str) -> str:
    """In one line, how images are prepared, and who says so."""
    fit = "the whole image" if spec.fit == "stretch" else f"central square of {spec.crop:g} of the shorter side"
    mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (spec.mean, spec.std))
    return f"images prepared as RGB, {spec.height}×{spec.width}, {fit}, mean [{mean}], std [{std}] ({by})"
