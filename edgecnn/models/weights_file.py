"""A weights file on disk: read by what is in it, not by its name, and only where it holds tensors and plain values."""

from __future__ import annotations

import argparse
import json
import pathlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError

from edgecnn.documents import Sha256, sha256_of, sha256_of_file
from edgecnn.errors import UserError, first_line, must_be_file, not_one_of
from edgecnn.filekinds import Kind, kind_of
from edgecnn.models.held import WeightsFile, held_in

ENDINGS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pth.tar")
"""Of weights files, in small letters."""
_INDEX = (".safetensors.index.json", ".bin.index.json")
"""Of the list of the files that large weights are cut into (Hugging Face)."""
_PART = re.compile(r"-\d{5}-of-(\d{5})\.(safetensors|bin)$", re.IGNORECASE)

_PLAIN: list[Any] = [
    argparse.Namespace,  # timm and torchvision's script keep their options
    pathlib.PosixPath,
    pathlib.PurePosixPath,
    (pathlib.PureWindowsPath, "pathlib.WindowsPath"),
    (dict, "lightning.fabric.utilities.data.AttributeDict"),
    (dict, "pytorch_lightning.utilities.parsing.AttributeDict"),
    np.dtype,
    *(type(np.dtype(name)) for name in ("float32", "float64", "int32", "int64", "bool")),
    *((np.float64(0).__reduce__()[0], f"numpy.{module}.multiarray.scalar") for module in ("core", "_core")),
]
"""Bags of plain values that are found beside tensors: they do nothing when they are read."""


def is_weights(path: Path) -> bool:
    """Whether a file's name ends as those of weights do."""
    return path.name.lower().endswith((*ENDINGS, *_INDEX))


def parts_of(path: Path) -> list[Path]:
    """The files that an index lists, beside it; none of any other file. UserError where it is no such list."""
    if not path.name.lower().endswith(_INDEX):
        return []
    try:
        names = sorted(set(json.loads(path.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: not a list of weights files (expected a weight_map of names to files)") from None
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise UserError(f"{path}: lists no files beside it in its weight_map")
    return [must_be_file(path.with_name(name), f"weights that {path.name} lists: copy it too") for name in names]


def hash_of(path: Path) -> Sha256:
    """Of the file; of an index, of it and of all that it lists."""
    parts = parts_of(path)
    own = sha256_of_file(path)
    return sha256_of("".join([own, *map(sha256_of_file, parts)]).encode()) if parts else own


def refuse_other_kinds(path: Path) -> None:
    """UserError where the file, or one of those that an index lists, is called or begins as no weights do."""
    for part in parts_of(path) or [path]:
        _kind_of_weights(part)


def read_file(path: Path) -> WeightsFile:
    """The sets of tensors in a file or in the files that an index lists.

    Raises UserError: another ending, unreadable, something else than tensors and plain values, no tensors in it.
    """
    parts = parts_of(path)
    if parts:
        return held_in({key: value for part in parts for key, value in _loaded(part)[0].items()})
    cut = _PART.search(path.name)
    if cut and int(cut[1]) > 1:
        raise UserError(f"{path}: one of {int(cut[1])} parts: give the .index.json that lists them")
    loaded, about = _loaded(path)
    file = held_in(loaded)
    if not file.sets:
        raise UserError(f"{path}: holds no tensors by name (but {_sorts_in(loaded)}): save the network's state_dict")
    return WeightsFile(file.sets, {**file.about, **about})


def _loaded(path: Path) -> tuple[Mapping[Any, object], Mapping[str, str]]:
    """What a file holds, and the text in its header."""
    kind = _kind_of_weights(path)
    by_name = path.suffix.lower() == ".safetensors"
    if (by_name and kind is None) or (kind is not None and kind.name == "safetensors"):
        return _read_safetensors(path)
    return _read_torch(path), {}


def _kind_of_weights(path: Path) -> Kind | None:
    """What the file is; None where its first bytes do not say. UserError where it is no weights."""
    if not is_weights(path):
        raise not_one_of(f"{path}: ending", "".join(path.suffixes[-1:]), ENDINGS)
    kind = kind_of(path)
    if kind is not None and kind.name not in ("torch", "safetensors", "pickle"):
        raise UserError(f"{path}: is {kind.words}{f': {kind.cure}' if kind.cure else ''}; expected weights")
    return kind


def _read_safetensors(path: Path) -> tuple[Mapping[Any, object], Mapping[str, str]]:
    try:
        with safetensors.safe_open(path, "pt") as opened:
            about = opened.metadata() or {}
        return safetensors.torch.load_file(path), about
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a readable .safetensors file, damaged or cut off: {first_line(error)}") from None


def _read_torch(path: Path) -> Mapping[Any, object]:
    try:
        # By its stream: of a path, torch goes by the ending.
        with torch.serialization.safe_globals(_PLAIN), path.open("rb") as stream:
            loaded = torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: holds Python objects or code{_named_in(error)}, not only tensors: refused. Save its state_dict, "
            "best as .safetensors, where you trust the file; or write an .onnx file of the network"
        ) from None
    except Exception as error:  # a damaged file leads PyTorch's reader to whatever
        raise UserError(
            f"{path}: not a readable PyTorch file, damaged or cut off ({type(error).__name__}: {first_line(error)})"
        ) from None
    if not isinstance(loaded, Mapping):
        raise UserError(f"{path}: holds {type(loaded).__name__}, not tensors by name: save the state_dict")
    return loaded


def _named_in(error: Exception) -> str:
    """The class that PyTorch's reader stumbled over."""
    found = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error).replace("`", ""))
    return f" ({found[1]})" if found and "." in found[1] else ""


def _sorts_in(loaded: Mapping[Any, object]) -> str:
    shown = [f"{key}: {type(value).__name__}" for key, value in list(loaded.items())[:3]]
    return ", ".join(shown) + (", …" if len(loaded) > 3 else "") if shown else "nothing"
