"""Which share of the arithmetic must run in which precision: `--require`, held against what an engine ran."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Literal

from edgecnn.errors import UserError
from edgecnn.executed import Executed, ExecutedLayer
from edgecnn.numbers import plain

Comparison = Literal[">=", "<=", "=="]
PRECISIONS = ("int8", "fp16", "bf16", "fp32")
_ONE = re.compile(rf"\s*({'|'.join(PRECISIONS)})\s*(>=|<=|==)\s*(\d{{1,3}}(?:\.\d+)?)\s*%\s*", re.ASCII)
_TOLERANCE = 1e-6
"""In per cent: shares are quotients of whole numbers."""
_NAMED = 5
"""Layers that a message names; the rest is counted."""


@dataclass(frozen=True)
class Requirement:
    """A bound on the share of the multiply-accumulates that run in a precision."""

    precision: str
    comparison: Comparison
    percent: float
    """0..100."""

    def __str__(self) -> str:
        return f"{self.precision}{self.comparison}{plain(self.percent)}%"


def parse(text: str) -> tuple[Requirement, ...]:
    """`int8>=90%`, or several with commas between. Raises UserError for anything else."""
    return tuple(_parse_one(part) for part in text.split(","))


def unmet(executed: Executed | None, requirements: Sequence[Requirement]) -> list[str]:
    """A line for each requirement that a session's `executed()` does not meet, the largest offenders named."""
    shares = executed.mac_shares if executed else {}
    if executed is None or not shares:
        return [
            f"{one.precision} must run {one.comparison} {plain(one.percent)} % of the MACs, but the engine does not "
            "tell what it ran in which precision"
            for one in requirements
        ]
    lines = []
    for one in requirements:
        percent = 100 * shares.get(one.precision, 0.0)
        if not _met(percent, one):
            wrong = _offenders(executed.layers, one, percent)
            lines.append(
                f"{one.precision} ran {_percent_unlike(percent, one)} % of the MACs,"
                f" required {one.comparison} {plain(one.percent)} %" + (f": {wrong}" if wrong else "")
            )
    return lines


def largest(layers: Iterable[ExecutedLayer], total: int) -> str:
    """Layers with precision and share of the MACs as text, the largest first: `features.1.conv (fp32, 10 %), …`."""
    ordered = sorted(layers, key=lambda layer: -layer.macs)
    named = [f"{one.name} ({one.precision}, {100 * one.macs / max(total, 1):.2g} %)" for one in ordered[:_NAMED]]
    left = len(ordered) - len(named)
    return ", ".join([*named, f"{left} more"] if left else named)


def unasked(asked: str, layers: Sequence[ExecutedLayer], int8: Set[str]) -> list[str]:
    """A remark where layers ran in another precision than the file was made for, the largest named.

    `int8`: names of those that an int8 file holds in int8; the others it
    keeps in float, which is no fault of the engine.
    """
    total = sum(layer.macs for layer in layers)
    groups: dict[str, list[ExecutedLayer]] = {}
    for layer in layers:
        if layer.precision != asked:
            why = "although int8 in the file" if layer.name in int8 else "kept in float by the file"
            groups.setdefault(why if asked == "int8" else "", []).append(layer)
    remarks = []
    for why, rows in groups.items():
        ran = " and ".join(sorted({layer.precision for layer in rows}))
        share = 100 * sum(layer.macs for layer in rows) / max(total, 1)
        remarks.append(
            f"asked for {asked}, but {len(rows)} of {len(layers)} layers ({share:.3g} % of the MACs) ran in {ran}"
            + (f", {why}: {largest(rows, total)}" if why else "")
        )
    return remarks


def _parse_one(part: str) -> Requirement:
    found = _ONE.fullmatch(part)
    if found is None or float(found[3]) > 100:
        raise UserError(
            f"--require: {part.strip()!r} is not a precision ({', '.join(PRECISIONS)}), one of >= <= ==, and 0 to 100"
            " with a % sign: write for example int8>=90%"
        )
    return Requirement(found[1], found[2], float(found[3]))  # type: ignore[arg-type]


def _met(percent: float, wanted: Requirement) -> bool:
    if wanted.comparison == ">=":
        return percent >= wanted.percent - _TOLERANCE
    if wanted.comparison == "<=":
        return percent <= wanted.percent + _TOLERANCE
    return abs(percent - wanted.percent) <= _TOLERANCE


def _offenders(layers: Sequence[ExecutedLayer], wanted: Requirement, percent: float) -> str:
    """The layers in another precision where too little ran in the wanted one; else those in it."""
    too_little = percent < wanted.percent
    wrong = [layer for layer in layers if layer.macs and (layer.precision != wanted.precision) == too_little]
    return largest(wrong, sum(layer.macs for layer in layers))


def _percent_unlike(percent: float, wanted: Requirement) -> str:
    """As few digits as still tell it from the bound."""
    texts = [f"{percent:.{digits}f}" for digits in range(7)]
    return next((text for text in texts if not _met(float(text), wanted)), texts[-1])
