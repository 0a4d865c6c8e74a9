"""Strict TOML to frozen profiles: the targets to export for, the suites to bench."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import Field, ValidationInfo, field_validator, model_validator

from edgecnn.artifact import Isa, NotShown, Precision
from edgecnn.documents import Frozen, checked
from edgecnn.errors import UserError, not_one_of
from edgecnn.intervals import samples_to_bound
from edgecnn.numbers import duration, plain
from edgecnn.require import parse as parse_requirements
from edgecnn.shipped import profiles_folder, target_names
from edgecnn.texts import read_toml

_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*ms\s*@\s*p(\d+(?:\.\d+)?)", re.ASCII)

BUDGET_CONFIDENCE = 0.99
"""Of the bound that is held against a budget: see `edgecnn.bench.stats.CONFIDENCE`."""
QUICK = "quick: first rung only"
"""Said wherever a ladder was told to end there: see `Target.quick`."""
MOST_THREADS = 256
MOST_SAMPLES = 1_000_000
"""Of one variant: each is stored, and a budget that takes more can be met but not shown to be."""
_USUAL_PERCENTILES = (99.999, 99.99, 99.9)


class Budget(Frozen):
    """Milliseconds at a percentile, end to end: from encoded bytes in memory to decision."""

    milliseconds: float = Field(gt=0, allow_inf_nan=False)
    percentile: float = Field(gt=0, lt=100)

    def __str__(self) -> str:
        """What `parse_budget` reads as the same budget."""
        return f"{plain(self.milliseconds)}ms@p{plain(self.percentile)}"


class VariantSpec(Frozen):
    """A variant that a target asks for."""

    format: str
    precision: Precision
    runtime: str
    io: Literal["uint8", "int8"] = "uint8"
    """Of the pixels that an int8 LiteRT file takes."""

    @field_validator("precision", mode="before")
    @classmethod
    def _not_dynamic(cls, value: object) -> object:
        if "dynamic" in str(value):
            raise ValueError(
                f"{value!r} is refused: dynamic quantisation finds the ranges of activations anew for every image, for "
                "which engines have int8 kernels of matrix products and none of convolutions that is faster than "
                "float; ask for int8, whose ranges come from calibration images"
            )
        return value

    @model_validator(mode="after")
    def _can_be_made(self, info: ValidationInfo) -> VariantSpec:
        """What can be made is known above this module, to who loads the target."""
        wrong = info.context(self) if info.context else ()
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def variant(self) -> str:
        """format-precision, such as onnx-int8."""
        return f"{self.format}-{self.precision}"


Unfit: TypeAlias = Callable[[VariantSpec], Sequence[str]]


class Target(Frozen):
    """A machine to export for: export/<name>.toml."""

    name: str
    description: str
    machine: Literal["x86_64", "aarch64"]
    """Processor architecture: a verdict from another one is not a verdict for this target."""
    isa: Isa = "any"
    threads: int = Field(ge=1, le=MOST_THREADS)
    budget: str
    accuracy_loss_limit: float = Field(gt=0, le=100)
    """Points that a variant may lose against fp32: of top-1, of the defects' recall, of each class's. See
    `edgecnn.judge`."""
    not_shown: NotShown = "keep"
    """Whether a variant is kept whose loss the images do not show to be within the limit."""
    fp32_tolerance: float = Field(default=1e-4, gt=0)
    """Largest logit error of an fp32 variant, relative to the logit scale."""
    int8_agreement: float = Field(default=0.98, gt=0, le=1)
    """Least share of decisions equal to fp32's, of variants in other precisions than fp32."""
    int8_minutes: float = Field(default=3.0, gt=0)
    """After which the ladder of a variant begins no further rung."""
    quick: bool = False
    """Whether the ladder of a variant ends with its first rung, however good that is."""
    frame_agreement: float = Field(default=0.98, gt=0, le=1)
    """Least share of equal decisions between a raw frame and its encoded file."""
    require: str | None = None
    """What the engine must run of an int8 variant, such as int8>=90%. See `edgecnn.require`."""
    calibration_images: int = Field(default=128, ge=1)
    variants: tuple[VariantSpec, ...] = Field(min_length=1)

    @field_validator("budget")
    @classmethod
    def _budget_parses(cls, value: str) -> str:
        try:
            return str(parse_budget(value))
        except UserError as error:  # as a ValueError it joins the other mistakes of the file
            raise ValueError(str(error).removeprefix("budget: ")) from None

    @field_validator("require")
    @classmethod
    def _require_parses(cls, value: str | None) -> str | None:
        try:
            parse_requirements(value) if value is not None else None
        except UserError as error:
            raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _vnni_is_of_x86(self) -> Target:
        if self.isa == "vnni" and self.machine != "x86_64":
            raise ValueError(f"isa 'vnni' is of x86_64 machines, and this one is {self.machine}: leave it out")
        return self

    @model_validator(mode="after")
    def _variants_differ(self) -> Target:
        names = [spec.variant for spec in self.variants]
        if len(set(names)) != len(names):
            raise ValueError("two variants have the same format and precision")
        return self


def parse_budget(text: str) -> Budget:
    """`30ms@p99` to a Budget. UserError where it is anything else, or where no run could show that it is met."""
    match = _BUDGET.fullmatch(text.strip())
    if not match or not 0 < float(match[1]) < math.inf or not 0 < float(match[2]) < 100:
        raise UserError(f"budget: {text!r} is not a latency at a percentile, such as 30ms@p99")
    budget = Budget(milliseconds=float(match[1]), percentile=float(match[2]))
    _refuse_unprovable(budget)
    return budget


def _refuse_unprovable(budget: Budget) -> None:
    needed = samples_to_bound(budget.percentile, BUDGET_CONFIDENCE)
    if needed <= MOST_SAMPLES:
        return
    usual = next(one for one in _USUAL_PERCENTILES if samples_to_bound(one, BUDGET_CONFIDENCE) <= MOST_SAMPLES)
    takes = duration(needed * budget.milliseconds / 1e3)
    raise UserError(
        f"budget: {budget} takes {needed:,} samples of each variant (the fewest n with "
        f"{plain(budget.percentile)} %ⁿ ≤ {plain(round(100 - 100 * BUDGET_CONFIDENCE, 9))} %), {takes} at "
        f"{plain(budget.milliseconds)} ms each; at most {MOST_SAMPLES:,} are measured: ask for p{plain(usual)} or "
        f"lower ({samples_to_bound(usual, BUDGET_CONFIDENCE):,} samples)"
    )


def refuse_threads(threads: int) -> None:
    """UserError where no engine is opened with so many."""
    if threads < 1:
        raise UserError(f"threads: {threads} is not a number of threads: give at least 1")
    if threads > MOST_THREADS:
        raise UserError(f"threads: {threads:,}: at most {MOST_THREADS}; this machine has {os.cpu_count()} processors")


def load_target(name_or_path: str, unfit: Unfit | None = None) -> Target:
    """A target by name, or from a TOML file of the user's. UserError where it is neither, or the file has mistakes.

    `unfit`: what cannot be made or opened of a variant, which is told with the other mistakes.
    """
    path = Path(name_or_path)
    if path.suffix.lower() != ".toml":
        path = profiles_folder("export") / f"{name_or_path}.toml"
        if not path.is_file():
            accepted = ", ".join(target_names())
            raise not_one_of("target", name_or_path, f"{accepted}, or a path to a .toml file like theirs")
    document = read_toml(path, "a target, as those in export/")
    # TOML has lists where the models have tuples: lax about that, strict about everything else.
    return checked(Target, _tuples(document), path.name, unfit)


def with_budget(target: Target, budget: str | None) -> Target:
    """The target with another budget, such as 20ms@p95; UserError where that is none. None: as it is."""
    return target if budget is None else target.model_copy(update={"budget": str(parse_budget(budget))})


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return value
