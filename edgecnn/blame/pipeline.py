"""A preprocessing taken apart into its stages, ours or anybody's, so that each stage can be exchanged for another's."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgecnn.artifact import Preprocess
from edgecnn.blame.resizes import ResizeName, resize
from edgecnn.imaging import Pixels, Preparer, Reduced, as_stored, decode_whole, orientation

PerChannel: TypeAlias = tuple[float, float, float]
Colour: TypeAlias = Literal["rgb", "bgr", "grey"]
Layout: TypeAlias = Literal["nchw", "nhwc"]
Shape: TypeAlias = tuple[int | None, ...]
"""Of a file's input, with the batch; None where any size goes."""


@dataclass(frozen=True)
class Pipeline:
    """From encoded bytes to what enters a file: (pixel · gain + offset) of the channels in the order `colour` says."""

    height: int
    width: int
    decode: Literal["scaled", "whole"] = "scaled"
    """scaled: reduced by a power of two while decoding, as `edgecnn.imaging` does."""
    orientation: Literal["exif", "ignored"] = "exif"
    colour: Colour = "rgb"
    fit: Literal["stretch", "center-crop"] = "stretch"
    crop: float = 1.0
    """center-crop: share of the shorter side that is kept."""
    resize_short: int | None = None
    """center-crop: resize the whole image so that its shorter side has so many pixels, then crop. Instead of `crop`."""
    resize: ResizeName = "edgecnn"
    antialias: bool = True
    gain: PerChannel = (1.0, 1.0, 1.0)
    offset: PerChannel = (0.0, 0.0, 0.0)
    layout: Layout = "nhwc"
    dtype: Literal["float32", "uint8"] = "uint8"

    @property
    def spatial(self) -> tuple[Hashable, ...]:
        """What decides which pixels there are: pipelines that agree in it share them."""
        crop = (self.crop, self.resize_short) if self.fit == "center-crop" else None
        grey = self.colour == "grey"
        size = (self.height, self.width)
        return (*size, self.decode, self.orientation, grey, self.fit, crop, self.resize, self.antialias)


def own_pipeline(spec: Preprocess) -> Pipeline:
    """The checkpoint's preprocessing as `edgecnn.imaging` does it, up to the uint8 pixels that our graphs take."""
    crop = spec.crop if spec.fit == "center-crop" else 1.0
    return Pipeline(height=spec.height, width=spec.width, fit=spec.fit, crop=crop)


def normalised(spec: Preprocess) -> tuple[PerChannel, PerChannel]:
    """(gain, offset) by which the trained network's pixels are normalised, RGB."""
    gain = tuple(1 / (255 * std) for std in spec.std)
    offset = tuple(-mean / std for mean, std in zip(spec.mean, spec.std, strict=True))
    return gain, offset  # type: ignore[return-value]


def trained_pipeline(spec: Preprocess) -> Pipeline:
    """The checkpoint's preprocessing with its normalisation: what the trained network itself is given."""
    gain, offset = normalised(spec)
    return replace(own_pipeline(spec), gain=gain, offset=offset, dtype="float32")


def swapped(values: PerChannel) -> PerChannel:
    """RGB to BGR and back."""
    return values[::-1]


class EncodedImage:
    """Prepares one encoded image after many pipelines; what they share is done once."""

    def __init__(self, encoded: bytes, bits: int | None = None) -> None:
        self._encoded, self._bits = encoded, bits
        self._decoded: dict[tuple[Hashable, ...], Reduced] = {}
        self._pixels: dict[tuple[Hashable, ...], Pixels] = {}

    def pixels(self, pipeline: Pipeline) -> Pixels:
        """uint8 (height, width, 3), RGB whatever the pipeline's colour order is. Raises BadImage."""
        key = pipeline.spatial
        if key not in self._pixels:
            self._pixels[key] = self._fitted(pipeline)
        return self._pixels[key]

    def enter(self, pipeline: Pipeline, wanted: Layout | None) -> NDArray[np.generic]:
        """What the file is given: (1, …) in the pipeline's layout; in the file's shape where it wants another layout.

        A buffer in the wrong layout is read as it lies, as a program does that copies it into the file's input.
        """
        values = self.pixels(pipeline)
        if pipeline.colour == "bgr":
            values = values[:, :, ::-1]
        if pipeline.dtype == "float32":
            values = values * np.array(pipeline.gain, np.float32) + np.array(pipeline.offset, np.float32)
        if pipeline.layout == "nchw":
            values = values.transpose(2, 0, 1)
        values = np.ascontiguousarray(values)
        if wanted is not None and wanted != pipeline.layout:
            size = (pipeline.height, pipeline.width)
            values = values.reshape((3, *size) if wanted == "nchw" else (*size, 3))
        return values[None]

    def _fitted(self, pipeline: Pipeline) -> Pixels:
        spec = _spec(pipeline, self._bits)
        reduced = self._oriented(pipeline, spec)
        if pipeline.colour == "grey" and reduced.pixels.ndim == 3:
            reduced = replace(reduced, pixels=np.asarray(Image.fromarray(reduced.pixels).convert("L")))
        if pipeline.resize == "edgecnn":
            preparer = Preparer(spec)
            fitted = preparer.fit(reduced if pipeline.decode == "scaled" else preparer.reduce(reduced.pixels))
        else:
            fitted = _fitted_otherwise(reduced.pixels, pipeline)
        fitted = fitted if fitted.ndim == 3 else np.repeat(fitted[:, :, None], 3, axis=2)
        return np.array(fitted)

    def _oriented(self, pipeline: Pipeline, spec: Preprocess) -> Reduced:
        key: tuple[Hashable, ...] = (pipeline.decode,)
        if pipeline.decode == "scaled":
            key = (pipeline.decode, spec)
        if key not in self._decoded:
            if pipeline.decode == "scaled":
                found = Preparer(spec).decode(self._encoded)
                self._decoded[key] = replace(found, pixels=np.array(found.pixels))
            else:
                pixels = decode_whole(self._encoded, self._bits)
                self._decoded[key] = Reduced(pixels, 1, *pixels.shape[:2])
        upright = self._decoded[key]
        return upright if pipeline.orientation == "exif" else as_stored(upright, orientation(self._encoded))


def layout_of(shape: Shape) -> Layout | None:
    """Where the three channels are; None where the shape does not tell."""
    if len(shape) != 4 or (shape[1] == 3) == (shape[3] == 3):
        return None
    return "nchw" if shape[1] == 3 else "nhwc"


def _spec(pipeline: Pipeline, bits: int | None) -> Preprocess:
    crop = pipeline.crop
    if pipeline.resize_short is not None:
        crop = min(1.0, min(pipeline.height, pipeline.width) / pipeline.resize_short)
    return Preprocess(height=pipeline.height, width=pipeline.width, fit=pipeline.fit, crop=crop, bits=bits)


def _fitted_otherwise(pixels: Pixels, pipeline: Pipeline) -> Pixels:
    """The resize of another library: crop first, or (`resize_short`) resize first as torchvision does."""
    height, width = pixels.shape[:2]
    size = (pipeline.height, pipeline.width)
    if pipeline.fit == "center-crop" and pipeline.resize_short is not None:
        short = pipeline.resize_short
        tall, wide = (short, int(short * width / height)) if height <= width else (int(short * height / width), short)
        resized = resize(pixels, tall, wide, pipeline.resize, pipeline.antialias)
        top, left = (round((have - want) / 2) for have, want in ((tall, size[0]), (wide, size[1])))
        return resized[top : top + size[0], left : left + size[1]]
    if pipeline.fit == "center-crop":
        side = max(1, round(min(height, width) * pipeline.crop))
        top, left = (height - side) // 2, (width - side) // 2
        pixels = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    return resize(pixels, *size, pipeline.resize, pipeline.antialias)
