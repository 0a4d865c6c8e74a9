"""How somebody prepares images for their network: strict TOML to a frozen description, one format for every verb."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from edgecnn.blame.outputs import Kind
from edgecnn.blame.pipeline import PerChannel, Pipeline
from edgecnn.blame.resizes import WITH_A_CHOICE, ResizeName
from edgecnn.data.names import same
from edgecnn.documents import Frozen, checked
from edgecnn.errors import UserError
from edgecnn.texts import read_toml

SHORT_EXAMPLE = (
    'size = [224, 224], colour = "rgb", resize = "bilinear", antialias = true, fit = "stretch", scale = "1/255", '
    'mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225], layout = "nchw", dtype = "float32", output = "logits", '
    "one to a line"
)
_OTHER_WORDS = {
    ("color", "channels", "channel_order", "bgr"): 'write colour = "rgb" or "bgr"',
    ("rescale", "divide", "scale_factor"): 'write scale = "1/255", or "1" for pixels 0 to 255',
    ("input_size", "shape", "imgsz"): "write size = [height, width]",
    ("interpolation",): 'write resize = "bilinear" or "bicubic"',
    ("resize_shorter", "resize_size", "resize_shortest_edge"): 'write fit = "center-crop", resize_short = 256',
    ("crop_pct",): 'write fit = "center-crop", crop = 0.875',
    ("order",): "write classes = [...], in the order of the outputs",
}
"""What other programs call the same things."""
_ASSUMABLE = ("colour", "resize", "fit", "layout", "dtype", "output")


class Description(Frozen):
    """What is done to an image before it enters somebody's network, and what comes out of it. A key may be left out:
    what is then taken is its default here, or what is known of the network otherwise."""

    size: tuple[int, int] | None = None
    """Height, width."""
    colour: Literal["rgb", "bgr"] = "rgb"
    resize: ResizeName = "bilinear"
    antialias: bool | None = None
    """Of bilinear and bicubic (Pillow always does). None: true."""
    fit: Literal["stretch", "center-crop"] = "stretch"
    crop: float = Field(default=1.0, gt=0, le=1)
    resize_short: int | None = Field(default=None, gt=0, le=8192)
    scale: Literal["1/255", "1"] = "1/255"
    mean: PerChannel | None = None
    std: PerChannel | None = None
    layout: Literal["nchw", "nhwc"] = "nchw"
    dtype: Literal["float32", "uint8"] = "float32"
    output: Kind = "logits"
    classes: tuple[str, ...] | None = None
    """In the order of the outputs."""
    decode: Literal["whole", "scaled"] = "whole"
    orientation: Literal["exif", "ignored"] = "exif"
    bits: int | None = Field(default=None, ge=8, le=16)
    """As of `edgecnn.artifact.Preprocess`."""

    @model_validator(mode="after")
    def _fits_together(self) -> Description:
        """Every contradiction in one message."""
        wrong = []
        given = self.model_fields_set
        if self.size is not None and not all(1 <= side <= 4096 for side in self.size):
            wrong.append("size: from 1 to 4096 pixels")
        if self.antialias is not None and self.resize not in WITH_A_CHOICE:
            wrong.append(f"antialias: {self.resize} has no such choice: leave it out")
        if "fit" in given and self.fit == "stretch" and ("crop" in given or self.resize_short is not None):
            wrong.append("crop, resize_short: only with fit = 'center-crop'")
        if "crop" in given and self.resize_short is not None:
            wrong.append("crop, resize_short: give one of them")
        if self.resize_short is not None and self.size is not None and self.resize_short < max(self.size):
            wrong.append(f"resize_short: {self.resize_short} is smaller than the size")
        if self.dtype == "uint8" and given & {"scale", "mean", "std"}:
            wrong.append("scale, mean, std: dtype = 'uint8' takes pixels as they are: leave them out")
        if not all(math.isfinite(value) for value in (*(self.mean or ()), *(self.std or ()))):
            wrong.append("mean, std: must be finite")
        if self.std is not None and min(self.std) <= 0:
            wrong.append("std: must be above 0")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


def read_description(path: Path) -> Description:
    """Read a .toml description. UserError with all its mistakes in one line."""
    document = read_toml(path, f"a description such as: {SHORT_EXAMPLE}")
    other = {key: why for key in document for words, why in _OTHER_WORDS.items() if key in words}
    wrong = [f"{key}: {why}" for key, why in other.items()]
    values = {key: _as_model_wants(key, value) for key, value in document.items() if key not in other}
    values, sides = _with_size(values)
    try:
        found = checked(Description, values, path.name)
    except UserError as error:
        wrong.append(str(error).removeprefix(f"{path.name}: "))
    wrong += sides
    if wrong:
        raise UserError(f"{path.name}: {'; '.join(wrong)} (an example: {SHORT_EXAMPLE})")
    return found


def no_description(model: Path) -> UserError:
    """The error for a foreign file that nothing is said of."""
    return UserError(f"{model}: --preprocess is needed with --foreign: a .toml file such as: {SHORT_EXAMPLE}")


def described_pipeline(said: Description, where: str) -> Pipeline:
    """The pipeline that a description stands for. UserError where it leaves out what no default can stand for."""
    missing = [] if said.size else ["size: is missing"]
    if said.dtype == "float32" and (said.mean is None or said.std is None):
        missing.append("mean, std: needed with dtype = 'float32' (a file that normalises: scale '1', mean 0, std 1)")
    if said.fit == "stretch" and (said.resize_short is not None or "crop" in said.model_fields_set):
        missing.append("fit: is missing: write fit = 'center-crop'")
    if missing or said.size is None:
        raise UserError(f"{where}: {'; '.join(missing)} (an example: {SHORT_EXAMPLE})")
    scale = 1 / 255 if said.scale == "1/255" and said.dtype == "float32" else 1.0
    mean, std = said.mean or (0.0, 0.0, 0.0), said.std or (1.0, 1.0, 1.0)
    return Pipeline(
        height=said.size[0],
        width=said.size[1],
        decode=said.decode,
        orientation=said.orientation,
        colour=said.colour,
        fit=said.fit,
        crop=said.crop,
        resize_short=said.resize_short,
        resize=said.resize,
        antialias=smooths(said.resize) if said.antialias is None else said.antialias,
        gain=(scale / std[0], scale / std[1], scale / std[2]),
        offset=(-mean[0] / std[0], -mean[1] / std[1], -mean[2] / std[2]),
        layout=said.layout,
        dtype=said.dtype,
    )


def assumed_words(said: Description) -> str | None:
    """What a description leaves out, and what is taken instead; None where it says all that has a default."""
    left = [f"{key} = {getattr(said, key)!r}" for key in _ASSUMABLE if key not in said.model_fields_set]
    if said.dtype == "float32" and "scale" not in said.model_fields_set:
        left.append(f"scale = {said.scale!r}")
    return f"not described, and taken to be so: {', '.join(left)}" if left else None


def smooths(resize: ResizeName) -> bool:
    """Whether a resize, left to itself, lets every source pixel count."""
    return resize in ("edgecnn", "bilinear", "bicubic", "lanczos", "opencv-area")


def _with_size(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """`height` and `width`, another way to say the size, as `size`; and what is wrong with them."""
    sides = {key: values[key] for key in ("height", "width") if key in values}
    rest = {key: value for key, value in values.items() if key not in sides}
    if not sides:
        return rest, []
    if "size" in rest:
        return rest, [f"size, {', '.join(sides)}: give one of them"]
    wrong = [f"{key}: must be a whole number of pixels" for key, side in sides.items() if type(side) is not int]
    wrong += [f"{key}: is missing" for key in ("height", "width") if key not in sides]
    return (rest if wrong else {**rest, "size": (sides["height"], sides["width"])}), wrong


def _as_model_wants(key: str, value: Any) -> Any:
    """TOML has lists where the model has tuples, and whole numbers that are meant as fractions; names are compared."""
    if key == "classes" and isinstance(value, list):
        return tuple(same(item) if isinstance(item, str) else item for item in value)
    if isinstance(value, list):
        return tuple(_fraction(item) if key in ("mean", "std") else item for item in value)
    if key == "scale" and type(value) in (int, float) and value == 1:
        return "1"
    if key == "scale" and type(value) is float and abs(value * 255 - 1) < 1e-3:
        return "1/255"
    if key == "resize" and value == "bilinear-antialias/2":
        return "edgecnn"
    return _fraction(value) if key == "crop" else value


def _fraction(value: Any) -> Any:
    """A whole number that is not too large for a fraction, as one."""
    return float(value) if type(value) is int and abs(value) < 2**53 else value
