"""What is said of a network's preprocessing where it lies: in its file, beside it, or in the library that it is of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import timm
import torchvision

from edgecnn.adopt.preprocessing import Known
from edgecnn.artifact import Preprocess
from edgecnn.metadata import read
from edgecnn.models import Built
from edgecnn.models.architecture import Architecture, find_architecture
from edgecnn.texts import literal

_LARGEST = 4096
_LONGEST = 1_000_000
"""Bytes of a config.json that is read."""


def of_weights(source: Path, about: Mapping[str, object], built: Built, outputs: int) -> Known:
    """Of a weights file: `about` is what it holds besides tensors."""
    architecture = find_architecture(built.name)
    library = _of_library(architecture, built.preprocess, outputs)
    for held, where in ((about, source.name), (_beside(source), "config.json")):
        config = _mapping(held.get("pretrained_cfg"))
        if config and (found := _of_config(config)):
            return Known(f"{where}'s pretrained_cfg", {**library.values, **found}, True, _filter(config))
    options = _mapping(about.get("args"))
    found, sure = _of_training(options)
    if found or sure:
        by = f"the options of training in {source.name}"
        return Known(by, {**library.values, **found}, sure or library.sure, _filter(options) or library.resize)
    return library


def of_onnx(source: Path, held: Mapping[str, str]) -> Known:
    """Of an .onnx file, by its metadata; nothing where it says nothing. Raises UserError where ours is damaged."""
    ours = read(held, str(source))
    if ours:
        return Known("the file's own description", ours.preprocess.model_dump())
    if held.get("author") == "Ultralytics" and held.get("task") == "classify":
        # Its classifiers: the shorter side to the size, its middle, pixels 0 to 1.
        values: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "fit": "center-crop", "crop": 1.0}
        return Known("Ultralytics' metadata in the file", {**values, **_size(literal(str(held.get("imgsz", ""))))})
    config = _mapping(_beside(source).get("pretrained_cfg"))
    found = _of_config(config) if config else {}
    return Known("config.json's pretrained_cfg", found, True, _filter(config)) if found else Known("", {})


def _of_library(architecture: Architecture, usual: Preprocess, outputs: int) -> Known:
    """As the library itself prepares images for this network when it judges it: its centre crop, if it has one.

    A script of the user's most likely did the same. Where the head has as many classes as the library's own weights,
    they are taken for those.
    """
    values = usual.model_dump()
    if architecture.library == "edgecnn" or architecture.public:
        return Known("edgecnn's own network of that name", values, False)
    if architecture.library == "timm":
        name = f"{architecture.name}.{architecture.tag}" if architecture.tag else architecture.name
        config = timm.get_pretrained_cfg(name)
        theirs: dict[str, Any] = config.to_dict()
        fit = {"fit": "center-crop", "crop": min(1.0, float(config.crop_pct))} | _fit(theirs)
        return Known("timm's pretrained_cfg", values | fit, outputs == config.num_classes, _filter(theirs))
    weights = torchvision.models.get_model_weights(architecture.name).DEFAULT
    preset = weights.transforms()
    crop = {"fit": "center-crop", "crop": min(1.0, preset.crop_size[0] / preset.resize_size[0])}
    sure = outputs == len(weights.meta["categories"])
    return Known("torchvision's transforms of its weights", values | crop, sure, str(preset.interpolation.value))


def _of_config(config: Mapping[str, object]) -> dict[str, Any]:
    """timm's pretrained_cfg. Empty where it gives no size."""
    size = config.get("input_size")
    found = _size(size[1:]) if isinstance(size, list | tuple) and len(size) == 3 else {}
    return {**found, **_colours(config), **_fit(config)} if found else {}


def _of_training(options: Mapping[str, object]) -> tuple[dict[str, Any], bool]:
    """The options that timm's or torchvision's own training scripts keep, and whether they settle the size."""
    if "val_crop_size" in options:
        found = _size(options["val_crop_size"])
        short = options.get("val_resize_size")
        if found and type(short) is int and short >= found["height"]:
            found |= {"fit": "center-crop", "crop": found["height"] / short}
        return found, bool(found)
    if "img_size" in options and "input_size" in options:
        size = options["input_size"]
        found = _size(size[1:]) if isinstance(size, list | tuple) and len(size) == 3 else _size(options["img_size"])
        # None of both: timm trains with the size of its pretrained_cfg.
        return {**found, **_colours(options), **_fit(options)}, True
    return {}, False


def _colours(config: Mapping[str, object]) -> dict[str, Any]:
    found = {}
    for name in ("mean", "std"):
        three = config.get(name)
        if isinstance(three, list | tuple) and len(three) == 3 and all(map(_is_number, three)):
            found[name] = tuple(float(one) for one in three)
    return found if len(found) == 2 and min(found["std"]) > 0 else {}


def _fit(config: Mapping[str, object]) -> dict[str, Any]:
    share = config.get("crop_pct")
    if config.get("crop_mode") == "squash":
        return {"fit": "stretch", "crop": 1.0}
    if not _is_number(share) or share <= 0:
        return {}
    return {"fit": "center-crop", "crop": min(1.0, float(share))}


def _is_number(value: object) -> TypeGuard[int | float]:
    """One that a preprocessing may hold: neither a truth value nor infinite, nor none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _size(value: object) -> dict[str, Any]:
    sides = [value, value] if type(value) is int else value
    if not isinstance(sides, list | tuple) or len(sides) != 2:
        return {}
    if not all(type(side) is int and 1 <= side <= _LARGEST for side in sides):
        return {}
    return {"height": sides[0], "width": sides[1]}


def _filter(config: Mapping[str, object]) -> str | None:
    name = config.get("interpolation")
    return name if isinstance(name, str) and name in ("bilinear", "bicubic", "lanczos", "nearest") else None


def _beside(source: Path) -> Mapping[str, object]:
    """timm's config.json, as it lies beside weights that come from a hub."""
    path = source.with_name("config.json")
    try:
        if not path.is_file() or path.stat().st_size > _LONGEST:
            return {}
        return _mapping(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return {}


def _mapping(value: object) -> dict[str, object]:
    """Of a dictionary, an argparse.Namespace, or either as JSON."""
    if isinstance(value, str):
        value = literal(value)
    if hasattr(value, "__dict__") and not isinstance(value, Mapping):
        value = vars(value)
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}
