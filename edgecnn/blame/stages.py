"""The stages of a preprocessing in their order, and how one pipeline is given another's stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from edgecnn.blame.description import smooths
from edgecnn.blame.pipeline import PerChannel, Pipeline, swapped
from edgecnn.blame.resizes import WITH_A_CHOICE

STAGES = (
    "decode",
    "orientation",
    "size",
    "colour order",
    "fit",
    "resize filter",
    "antialias",
    "normalisation",
    "layout",
)
_FIELDS = {
    "orientation": ("orientation",),
    "size": ("height", "width"),
    "fit": ("fit", "crop", "resize_short"),
    "layout": ("layout",),
}
_CLOSE = 1e-3
"""Mean and standard deviation are written with three digits."""


def walk(needed: Pipeline, described: Pipeline) -> Iterator[tuple[str, Pipeline]]:
    """(stage, pipeline with this and all earlier stages as described) for each stage in which the two differ."""
    at = needed
    for stage in STAGES:
        then = exchange(at, described, [stage])
        if then != at:
            yield stage, then
        at = then


def exchange(pipeline: Pipeline, donor: Pipeline, stages: Sequence[str]) -> Pipeline:
    """`pipeline` with these stages as the donor has them."""
    for stage in stages:
        if stage in _FIELDS:
            changes = {field: getattr(donor, field) for field in _FIELDS[stage]}
            pipeline = replace(pipeline, **changes)
        else:
            pipeline = _OTHERS[stage](pipeline, donor)
    return pipeline


def words(stage: str, pipeline: Pipeline) -> str:
    """What a pipeline does in a stage."""
    if stage == "decode":
        reduced = pipeline.decode == "scaled"
        return "reduced by 2, 4 or 8 first" if reduced or pipeline.resize == "edgecnn" else "the whole image"
    if stage == "orientation":
        return "as the Exif tag says" if pipeline.orientation == "exif" else "Exif tag ignored"
    if stage == "size":
        return f"{pipeline.height}×{pipeline.width}"
    if stage == "fit":
        return _fit_words(pipeline)
    if stage == "resize filter":
        return "bilinear, antialiased" if pipeline.resize == "edgecnn" else pipeline.resize
    if stage == "antialias":
        return "antialiased" if pipeline.antialias else "not antialiased"
    if stage == "normalisation":
        return _normalisation_words(pipeline)
    return pipeline.colour.upper() if stage == "colour order" else pipeline.layout.upper()


def same_numbers(first: Pipeline, second: Pipeline) -> bool:
    """Whether two pipelines normalise alike, position by position."""
    pairs = ((first.gain, second.gain), (first.offset, second.offset))
    return all(bool(np.allclose(a, b, rtol=_CLOSE, atol=1e-9)) for a, b in pairs)


def _with_decode(pipeline: Pipeline, donor: Pipeline) -> Pipeline:
    """Our resize belongs to our decode: whoever decodes otherwise does not reduce by a power of two first."""
    plain = pipeline.resize == "bilinear" and pipeline.antialias
    if donor.resize == "edgecnn":
        resize = "edgecnn" if plain and donor.decode == "scaled" else pipeline.resize
        return replace(pipeline, decode=donor.decode, resize=resize)
    resize = "bilinear" if pipeline.resize == "edgecnn" else pipeline.resize
    return replace(pipeline, decode=donor.decode, resize=resize)


def _with_filter(pipeline: Pipeline, donor: Pipeline) -> Pipeline:
    kind = {"edgecnn": "bilinear"}
    if kind.get(pipeline.resize, pipeline.resize) == kind.get(donor.resize, donor.resize):
        return pipeline
    if donor.resize == "edgecnn":  # ours, on what the pipeline decodes
        keeps = pipeline.resize in WITH_A_CHOICE
        return _as_ours(replace(pipeline, resize="bilinear", antialias=pipeline.antialias if keeps else True))
    # A library's resize takes what that library decodes.
    return replace(pipeline, resize=donor.resize, antialias=smooths(donor.resize), decode=donor.decode)


def _with_antialias(pipeline: Pipeline, donor: Pipeline) -> Pipeline:
    if donor.resize == "edgecnn":
        if pipeline.antialias or pipeline.resize not in WITH_A_CHOICE:
            return pipeline
        return _as_ours(replace(pipeline, antialias=True))
    if donor.resize not in WITH_A_CHOICE or donor.antialias == pipeline.antialias:
        return pipeline
    resize = "bilinear" if pipeline.resize == "edgecnn" else pipeline.resize
    return replace(pipeline, resize=resize, antialias=donor.antialias, decode=donor.decode)


def _as_ours(pipeline: Pipeline) -> Pipeline:
    """What a library's plain bilinear filter is on what our decoder reduced: ours, but for its rounding."""
    plain = pipeline.resize == "bilinear" and pipeline.antialias and pipeline.decode == "scaled"
    return replace(pipeline, resize="edgecnn") if plain else pipeline


def _with_colour(pipeline: Pipeline, donor: Pipeline) -> Pipeline:
    """The numbers of the normalisation stay where they stand if the donor has them there; else they go with their
    channel."""
    if pipeline.colour == donor.colour:
        return pipeline
    stay = same_numbers(pipeline, donor) or "grey" in (pipeline.colour, donor.colour)
    gain, offset = pipeline.gain, pipeline.offset
    if not stay:
        gain, offset = swapped(gain), swapped(offset)
    return replace(pipeline, colour=donor.colour, gain=gain, offset=offset)


def _with_normalisation(pipeline: Pipeline, donor: Pipeline) -> Pipeline:
    if same_numbers(pipeline, donor):
        return pipeline
    gain, offset = donor.gain, donor.offset
    if pipeline.colour != donor.colour:
        gain, offset = swapped(gain), swapped(offset)
    then = replace(pipeline, gain=gain, offset=offset)
    return pipeline if same_numbers(pipeline, then) else then


_OTHERS = {
    "decode": _with_decode,
    "colour order": _with_colour,
    "resize filter": _with_filter,
    "antialias": _with_antialias,
    "normalisation": _with_normalisation,
}


def _fit_words(pipeline: Pipeline) -> str:
    if pipeline.fit == "stretch":
        return "stretch"
    if pipeline.resize_short is not None:
        return f"shorter side to {pipeline.resize_short}, then center-crop"
    return f"center-crop of {pipeline.crop:g}"


def _normalisation_words(pipeline: Pipeline) -> str:
    if pipeline.dtype == "uint8":
        return "pixels as they are"
    for meaning, gain in (("pixels 0 to 255", 1.0), ("pixels 0 to 1", 1 / 255)):
        if np.allclose(pipeline.gain, gain) and np.allclose(pipeline.offset, 0):
            return f"{meaning}, no mean"
    std: PerChannel = tuple(1 / (255 * gain) for gain in pipeline.gain)  # type: ignore[assignment]
    mean = [-offset * one for offset, one in zip(pipeline.offset, std, strict=True)]
    if max(std) < 0.02:  # meant for pixels 0 to 255
        mean, std = [255 * one for one in mean], tuple(255 * one for one in std)  # type: ignore[assignment]
        return f"mean {_numbers(mean)}, std {_numbers(std)} of pixels 0 to 255"
    return f"mean {_numbers(mean)}, std {_numbers(std)}"


def _numbers(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in values) + "]"
