"""How images are prepared for a network that is taken in: what its owner says, over what is known of it otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgecnn.artifact import Preprocess
from edgecnn.blame.description import Description, smooths
from edgecnn.blame.pipeline import swapped
from edgecnn.documents import checked
from edgecnn.errors import UserError

_PRICE = "what it costs: `edgecnn verify BUNDLE --data IMAGES --foreign FILE --preprocess … --explain`"
_OURS = "antialiased bilinear, the one resize that there is here"


@dataclass(frozen=True)
class Known:
    """What is known of how images are prepared, before its owner says anything."""

    by: str
    """Who says so, such as: timm's pretrained_cfg."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Preprocess`."""
    sure: bool = True
    """Whether it is said of these weights, not of their network's name: a fine-tuned one may have another size."""
    resize: str | None = None
    """Such as bicubic."""


def prepared(said: Description | None, known: Known, where: str, size: int | None = None) -> Preprocess:
    """What is said, over what is known. `where`: what is described, for errors. `size`: of --size, over all.

    Mean and std must come from one of the two: a wrong default would pass unseen. Raises UserError with everything that
    is missing, or that these pixels cannot reproduce.
    """
    values = {**known.values, **({"height": size, "width": size} if size else {})}
    wrong = _refused(said) if said else []
    if said:
        values |= _values(said, values, size)
    wrong += [f"{name}: is missing" for name in ("height", "width", "mean", "std") if name not in values]
    if not wrong:
        return checked(Preprocess, values, where)
    advice = "" if said else ": give --preprocess FILE.toml with size, mean, std, and fit and crop if it crops"
    raise UserError(f"{where}: {'; '.join(wrong)}{advice}")


def note_on_resize(said: Description | None, known: Known) -> tuple[str, ...]:
    """A note where the network was trained on pixels of another filter."""
    by = "--preprocess" if said and "resize" in said.model_fields_set else known.by
    theirs = said.resize if said and "resize" in said.model_fields_set else known.resize
    if theirs is None or theirs in ("bilinear", "edgecnn"):
        return ()
    return (f"resize: {by} says {theirs}; here it is {_OURS} (`edgecnn verify --explain` prices that)",)


def words(spec: Preprocess, by: str) -> str:
    """In one line, how images are prepared, and who says so."""
    fit = "the whole image" if spec.fit == "stretch" else f"center-crop {spec.crop:.3g}"
    mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (spec.mean, spec.std))
    return f"preprocessing: {spec.height}×{spec.width}, {fit}, RGB, mean [{mean}], std [{std}], from {by}"


def by_whom(said: Description | None, known: Known, size: int | None = None) -> str:
    """Who says how images are prepared."""
    first = [*(["--size"] if size else []), *(["--preprocess"] if said else [])]
    needed = {"size", "mean", "std", "fit"}
    rest = not said or not needed <= said.model_fields_set
    return ", the rest from ".join([*first, *([known.by] if known.values and rest else [])]) or "nobody"


def _refused(said: Description) -> list[str]:
    """What is described and neither these pixels nor the network can be made to do."""
    wrong = []
    if not smooths(said.resize) or said.antialias is False or said.resize == "opencv-area":
        theirs = said.resize + (" without antialias" if said.antialias is False else "")
        wrong.append(
            f"resize: {theirs} cannot be reproduced: bilinear, bicubic, lanczos (antialiased) and edgecnn are taken in "
            f"as {_OURS}; {_PRICE}"
        )
    if said.resize_short is not None and said.size is not None and said.size[0] != said.size[1]:
        wrong.append("resize_short: only of a square size: write crop, the share of the shorter side that is kept")
    if said.orientation == "ignored":
        wrong.append(f"orientation: the Exif tag is always obeyed: turn the images; {_PRICE}")
    if said.scale == "1/255" and said.mean is not None and not all(-1 <= value <= 1 for value in said.mean):
        wrong.append(
            f"mean: {list(said.mean)} is not of pixels 0 to 1: write scale = '1', or divide mean and std by 255"
        )
    if said.scale == "1" and (said.mean is None or said.std is None):
        wrong.append("scale: '1' needs mean and std of pixels 0 to 255 (none: mean = [0, 0, 0], std = [1, 1, 1])")
    return wrong


def _values(said: Description, known: Mapping[str, Any], size: int | None) -> dict[str, Any]:
    """Fields of `Preprocess`, RGB, of pixels 0 to 1."""
    found: dict[str, Any] = {}
    if said.size is not None and size is None:
        found |= {"height": said.size[0], "width": said.size[1]}
    scale = 255.0 if said.scale == "1" else 1.0
    for name, three in (("mean", said.mean), ("std", said.std)):
        if three is not None:
            in_rgb = swapped(three) if said.colour == "bgr" else three
            found[name] = tuple(value / scale for value in in_rgb)
    if "fit" in said.model_fields_set:
        found |= {"fit": said.fit, "crop": said.crop}
    elif "crop" in said.model_fields_set:
        found["crop"] = said.crop
    if said.resize_short is not None:
        sides = {**known, **found}
        found |= {"fit": "center-crop", "crop": min(1.0, sides.get("height", 1) / said.resize_short)}
    if said.bits is not None:
        found["bits"] = said.bits
    return found
