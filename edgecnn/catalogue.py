"""What is known of every named backbone: cost, published accuracy, licence, stages, formats that were tried."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from edgecnn.documents import Frozen
from edgecnn.errors import UserError, not_one_of

CATALOGUE = Path(__file__).parent / "catalogue.json"
"""Made by `python benchmarks/catalogue.py`, from edgecnn.models.families and from measurement."""

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


class Entry(Frozen):
    """A network."""

    name: str
    """As --model takes it, with its library."""
    family: str
    params: int
    """With a head for 1,000 classes, as published."""
    macs: int
    """Multiply-accumulates for one image of `size`."""
    uncounted: tuple[str, ...]
    """Operations with arithmetic that `macs` leaves out, such as scaled_dot_product_attention."""
    size: int
    """Input side in pixels: the default of --size."""
    weights: str | None
    """What --weights hub gets; None: there are none, or edgecnn's own."""
    top1: float | None
    """Published ImageNet top-1 of `weights`, in percent; None where none is published."""
    top1_size: int | None
    """Input side in pixels of `top1`, which may differ from `size`."""
    top1_source: str | None
    licence: str | None
    """Of `weights`, as their library states it; None where there are no weights."""
    stages: tuple[str, ...]
    """From input to output, the head last: what recipes freeze."""
    frozen_only: bool
    """Meant as fixed features: train the head only (--recipe head)."""
    formats: Mapping[str, float]
    """fp32 formats that were converted, opened and compared with the network: largest logit error, of the logits'
    standard deviation. A format that is missing here and in `failed` was not tried."""
    failed: Mapping[str, str]
    """Formats that were tried and did not work, with the reason."""


class Catalogue(Frozen):
    """catalogue.json."""

    tools: Mapping[str, str] = Field(default_factory=dict)
    """Library to version that `formats` were tried with."""
    networks: tuple[Entry, ...] = ()


def read_catalogue(path: Path = CATALOGUE) -> Catalogue:
    """The catalogue that comes with the package."""
    return Catalogue.model_validate_json(path.read_text(encoding="utf-8"))


def families(catalogue: Catalogue) -> list[str]:
    """Names of the families, in the catalogue's order."""
    return list(dict.fromkeys(entry.family for entry in catalogue.networks))


def select(catalogue: Catalogue, family: str | None = None, max_macs: int | None = None) -> list[Entry]:
    """The networks of one family, or with at most so many multiply-accumulates. UserError for an unknown family."""
    if family is not None and family not in families(catalogue):
        raise not_one_of("family", family, families(catalogue))
    return [
        entry
        for entry in catalogue.networks
        if family in (None, entry.family) and (max_macs is None or entry.macs <= max_macs)
    ]


def parse_macs(text: str) -> int:
    """`300M`, `1.2G` or `5000000` multiply-accumulates to a number. UserError where it is anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)", text.strip().lower())
    if not match or float(match[1]) <= 0:
        raise UserError(f"MACs: {text!r} is not a number of multiply-accumulates such as 300M or 1.2G")
    return round(float(match[1]) * _UNITS[match[2]])
