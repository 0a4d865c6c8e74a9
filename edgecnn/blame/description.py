"""How somebody else prepares images for their model file: strict TOML to a frozen description."""

from __future__ import annotations

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

_SHORT_EXAMPLE = (
    'size = [224, 224], colour = "rgb", resize = "bilinear", antialias = true, fit = "stretch", scale = "1/255", '
    'mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225], layout = "nchw", dtype = "float32", output = "logits", '
    "one to a line"
)


class Description(Frozen):
    """What is done to an image before it enters a foreign file, and what comes out of it."""

    size: tuple[int, int]
    """Height, width."""
    colour: Literal["rgb", "bgr"]
    resize: ResizeName
    antialias: bool | None = None
    """Of bilinear and bicubic (Pillow always does). None: true."""
    fit: Literal["stretch", "center-crop"]
    crop: float = Field(default=1.0, gt=0, le=1)
    resize_short: int | None = Field(default=None, gt=0, le=8192)
    scale: Literal["1/255", "1"] | None = None
    mean: PerChannel | None = None
    std: PerChannel | None = None
    layout: Literal["nchw", "nhwc"]
    dtype: Literal["float32", "uint8"]
    output: Kind
    classes: tuple[str, ...] | None = None
    decode: Literal["whole", "scaled"] = "whole"
    orientation: Literal["exif", "ignored"] = "exif"

    @model_validator(mode="after")
    def _fits_together(self) -> Description:
        """Every contradiction in one message."""
        wrong = []
        if not all(1 <= side <= 4096 for side in self.size):
            wrong.append("size: from 1 to 4096 pixels")
        if self.antialias is not None and self.resize not in WITH_A_CHOICE:
            wrong.append(f"antialias: {self.resize} has no such choice: leave it out")
        if self.fit == "stretch" and ("crop" in self.model_fields_set or self.resize_short is not None):
            wrong.append("crop, resize_short: only with fit = 'center-crop'")
        if "crop" in self.model_fields_set and self.resize_short is not None:
            wrong.append("crop, resize_short: give one of them")
        if self.resize_short is not None and self.resize_short < max(self.size):
            wrong.append(f"resize_short: {self.resize_short} is smaller than the size")
        numbers = (self.scale, self.mean, self.std)
        if self.dtype == "uint8" and any(number is not None for number in numbers):
            wrong.append("scale, mean, std: dtype = 'uint8' takes pixels as they are: leave them out")
        if self.dtype == "float32" and any(number is None for number in numbers):
            wrong.append(
                "scale, mean, std: needed with dtype = 'float32' (a file that normalises: scale '1', mean 0, std 1)"
            )
        if self.std is not None and min(self.std) <= 0:
            wrong.append("std: must be above 0")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


def read_description(path: Path) -> Description:
    """Read a .toml description. UserError with all its mistakes in one line."""
    document = read_toml(path, f"a description such as: {_SHORT_EXAMPLE}")
    try:
        return checked(Description, {key: _as_model_wants(key, value) for key, value in document.items()}, path.name)
    except UserError as error:
        raise UserError(f"{error} (an example: {_SHORT_EXAMPLE})") from None


def no_description(model: Path) -> UserError:
    """The error for a foreign file that nothing is said of."""
    return UserError(f"{model}: --preprocess is needed with --foreign: a .toml file such as: {_SHORT_EXAMPLE}")


def described_pipeline(said: Description) -> Pipeline:
    """The pipeline that a description stands for."""
    height, width = said.size
    scale = 1 / 255 if said.scale == "1/255" else 1.0
    mean, std = said.mean or (0.0, 0.0, 0.0), said.std or (1.0, 1.0, 1.0)
    return Pipeline(
        height=height,
        width=width,
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


def smooths(resize: ResizeName) -> bool:
    """Whether a resize, left to itself, lets every source pixel count."""
    return resize in ("edgecnn", "bilinear", "bicubic", "lanczos", "opencv-area")


def _as_model_wants(key: str, value: Any) -> Any:
    """TOML has lists where the model has tuples, and whole numbers that are meant as fractions; names are compared."""
    if key == "classes" and isinstance(value, list):
        return tuple(same(item) if isinstance(item, str) else item for item in value)
    if isinstance(value, list):
        of_floats = key in ("mean", "std")
        return tuple(float(item) if of_floats and type(item) is int else item for item in value)
    return float(value) if key == "crop" and type(value) is int else value
