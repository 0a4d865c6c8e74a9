"""What edgecnn writes into a model file about it: its classes, its preprocessing, what goes in and what comes out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from edgecnn.artifact import Preprocess
from edgecnn.documents import parse
from edgecnn.errors import UserError, first_line
from edgecnn.modelfiles.metadata import onnx_metadata, tflite_metadata

DESCRIPTION_VERSION = "1"
"""Raised when what this version writes can no longer be read by an older one."""

Description: TypeAlias = dict[str, str]
"""What `describe` gives, as a file holds it."""

_PREFIX = "edgecnn."


@dataclass(frozen=True)
class SelfDescription:
    """What a model file says of itself."""

    name: str
    classes: tuple[str, ...]
    """In the order of the outputs."""
    preprocess: Preprocess


def describe(
    classes: Sequence[str], preprocess: Preprocess, name: str, io: Literal["uint8", "int8"] = "uint8"
) -> Description:
    """Text by key, for a format with room for metadata. Plain words beside JSON: whoever opens the file can read it.

    `io`: of the pixels that the file takes, as in `edgecnn.formats.Source.io`.
    """
    height, width = preprocess.height, preprocess.width
    pixels = "pixels 0..255" if io == "uint8" else "pixels 0..255 minus 128"
    inside = "mean and std are applied inside the graph"
    return {
        f"{_PREFIX}description": DESCRIPTION_VERSION,
        f"{_PREFIX}name": name,
        f"{_PREFIX}classes": json.dumps(list(classes), ensure_ascii=False),
        f"{_PREFIX}preprocess": preprocess.model_dump_json(),
        f"{_PREFIX}input": f"{io} (n, {height}, {width}, 3), NHWC, RGB, {pixels}, {_words(preprocess)}; {inside}",
        f"{_PREFIX}output": f"(n, {len(classes)}) logits, before any softmax, in the order of {_PREFIX}classes",
    }


def taking(described: Mapping[str, str], io: Literal["uint8", "int8"]) -> Mapping[str, str]:
    """The same description for a file that takes its pixels so; what is no description of ours stays as it is."""
    found = read(described, "description")
    return described if found is None else describe(found.classes, found.preprocess, found.name, io)


def read(held: Mapping[str, str], where: str) -> SelfDescription | None:
    """The description among a file's metadata; None where the file is not ours.

    Raises UserError: written by a newer version, or damaged.
    """
    version = held.get(f"{_PREFIX}description")
    if version is None:
        return None
    if version != DESCRIPTION_VERSION:
        raise UserError(
            f"{where}: description version {version}, this edgecnn reads version {DESCRIPTION_VERSION}: "
            "install a matching edgecnn"
        )
    try:
        classes = json.loads(held[f"{_PREFIX}classes"])
        preprocess = parse(Preprocess, held[f"{_PREFIX}preprocess"], f"{where}: {_PREFIX}preprocess")
        name = held[f"{_PREFIX}name"]
    except (KeyError, ValueError) as error:
        raise UserError(f"{where}: its edgecnn description is damaged ({first_line(error)}): export it again") from None
    if not isinstance(classes, list) or not classes or not all(isinstance(one, str) for one in classes):
        raise UserError(f"{where}: {_PREFIX}classes is not a list of names: export it again")
    return SelfDescription(name, tuple(classes), preprocess)


def read_onnx(path: Path) -> SelfDescription | None:
    """What an .onnx file says of itself, by ONNX Runtime, without the onnx package. None where it is not ours."""
    return read(onnx_metadata(path), str(path))


def read_tflite(path: Path) -> SelfDescription | None:
    """What a .tflite file says of itself: its named metadata buffers. None where it is not ours."""
    return read(tflite_metadata(path), str(path))


def _words(preprocess: Preprocess) -> str:
    if preprocess.fit == "stretch":
        return f"the whole image resized ({preprocess.resize})"
    return f"the central square of {preprocess.crop:g} × the shorter side, resized ({preprocess.resize})"
