"""The bundle on disk: what it holds, what is known of each variant, and the hashes that prove it is whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field, field_validator

from edgecnn.documents import Frozen, Sha256, read_document, sha256_of_file, write_document
from edgecnn.errors import UserError
from edgecnn.executed import Executed

BUNDLE_VERSION = 3
"""Raised when a bundle written by this version can no longer be read by an older one."""

Precision = Literal["fp32", "fp16", "int8"]
Isa = Literal["any", "vnni"]
"""Of an x86-64 machine. vnni: it has AVX-512 VNNI or AVX-VNNI, so that int8 weights may use all of their range; any:
int8 weights are such that older processors, which add products in 16 bits, answer the same."""
Seen = Literal["no", "may be"]
"""Whether weights may have been trained on the test images: no split of ours kept those of others from them."""
NotShown = Literal["keep", "refuse"]
"""What a target does with a variant whose loss is not shown to be within its limit."""


class Preprocess(Frozen):
    """The one preprocessing: from encoded bytes to the uint8 pixels that the network takes. See `edgecnn.imaging`."""

    height: int = Field(gt=0, le=4096)
    width: int = Field(gt=0, le=4096)
    fit: Literal["stretch", "center-crop"] = "stretch"
    """stretch: the whole image fills the input. center-crop: the central square of `crop` × the shorter side."""
    crop: float = Field(default=1.0, gt=0, le=1)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """RGB, of pixels scaled to 0..1; applied inside the graph."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    bits: int | None = Field(default=None, ge=8, le=16)
    """How many bits of a file of 16 bits a channel count (a camera's 8, 10, 12 or 14, or all), found over the data set.

    None: the data set held no such file. Files of 8 bits are taken as they are."""
    resize: Literal["bilinear-antialias/2"] = "bilinear-antialias/2"
    """The pinned resize and its version: power-of-two reduction, then antialiased bilinear in fixed point."""

    @field_validator("resize", mode="before")
    @classmethod
    def _refuse_older_pixels(cls, resize: Any) -> Any:
        if resize == "bilinear-antialias/1":
            raise ValueError(
                f"{resize} gave other pixels than bilinear-antialias/2 of this edgecnn: train or adopt again"
            )
        return resize


class Cost(Frozen):
    """What one image costs the network."""

    params: int
    macs: int
    """Multiply-accumulates of convolutions and linear layers, batch 1."""
    uncounted: tuple[str, ...] = ()
    """Operations with arithmetic that `macs` leaves out."""

    @property
    def flops(self) -> int:
        """2 × macs."""
        return 2 * self.macs


class Interval(Frozen):
    """A confidence interval [low, high]."""

    low: float
    high: float

    @classmethod
    def of(cls, bounds: tuple[float, float]) -> Interval:
        """From (low, high)."""
        return cls(low=bounds[0], high=bounds[1])


class Flip(Frozen):
    """A test image whose decision differs between fp32 and a variant."""

    image: str
    label: str
    reference: str
    variant: str


Shown = Literal["shown within", "not shown", "shown beyond"]
"""What a number of images says of a loss and a limit: that it is within, neither, or beyond. See `edgecnn.judge`."""


class Judged(Frozen):
    """Whether what a variant's answers cost is acceptable. See `edgecnn.judge`."""

    shown: Shown = "not shown"
    loss_bounds: Interval = Interval(low=-100.0, high=100.0)
    """Points of top-1; each end holds for all variants of the target at once with 95 %."""
    independent: int = 0
    """So many images count: those of one part as one."""
    refused: tuple[str, ...] = ()
    """Why it must not be used: shown, not a matter of chance."""
    doubts: tuple[str, ...] = ()
    """What is beyond a limit in these images, and may be chance."""
    too_few: tuple[str, ...] = ()
    """What so few images cannot show."""
    images_to_show: int | None = None
    """So many answered as these would show the loss within the limit; None where it is shown, or none would."""
    acceptable: bool = True
    """To the target: nothing is refused, and where it asks for that, the loss is shown within its limit."""

    @property
    def reason(self) -> str | None:
        """Why it is not acceptable."""
        return None if self.acceptable else "; ".join(self.refused or (*self.doubts, *self.too_few))


class Check(Frozen):
    """What verification found for one variant, from the original encoded test images."""

    images: int
    max_logit_error: float
    """Largest |variant − eager| over all logits, divided by the logit scale (standard deviation of eager's logits)."""
    mean_logit_error: float
    agreement: float
    """Share of images with the same decision as eager."""
    top1: float
    top1_interval: Interval
    """95 %, as all here: Clopper–Pearson's; images of one part count as far as they say something of their own."""
    reference_top1: float
    """Eager fp32 on the same images."""
    loss_points: float
    """100 × (reference_top1 − top1): positive where the variant is worse."""
    loss_interval: Interval
    """95 %, in points, of the paired difference."""
    mcnemar_p: float
    """Exact two-sided p-value of 'as many images got worse as got better'; where parts are told, as many parts."""
    recall: Mapping[str, float | None]
    """Per class; None where the test split has no image of it."""
    recall_intervals: Mapping[str, Interval] = Field(default_factory=dict)
    """Per class that has test images."""
    confusion: tuple[tuple[int, ...], ...] | None
    """[label][decision], counts, in the order of the classes; None where there are too many to show."""
    largest_decision_share: float
    """Share of the images in the most frequent decision: near 1 the variant has collapsed."""
    largest_label_share: float
    missed_defects: int | None
    """Defects called good; None where no class is the good one."""
    false_alarms: int | None
    """Good parts called a defect."""
    missed_interval: Interval | None = None
    """Of the share of defects that are called good."""
    false_alarms_interval: Interval | None = None
    """Of the share of good parts that are called a defect."""
    reference_missed_defects: int | None
    reference_false_alarms: int | None
    flips: tuple[Flip, ...]
    judged: Judged = Judged()


JudgedOn = Literal["validation images", "train images outside the calibration", "calibration images"]


class Selection(Frozen):
    """What decided, before any test image was looked at, that a variant is kept."""

    on: JudgedOn
    """Anything but validation images is no validation: the network, or its INT8, was made with them."""
    images: int
    loss_points: float
    agreement: float
    judged: Judged

    @property
    def validated(self) -> bool:
        """Whether these images had no part in making the variant."""
        return self.on == "validation images"


class Artifact(Frozen):
    """One variant: its files and what is known of it."""

    variant: str
    """format-precision, such as onnx-int8."""
    format: str
    precision: Precision
    runtime: str
    files: tuple[str, ...]
    """Relative to the bundle; the first is the one to open."""
    bytes: int
    notes: Mapping[str, Any] = Field(default_factory=dict)
    """How it was made: exporter, opset, quantisation rung, calibration hash, …"""
    executed: Executed | None = None
    """What the engine really ran on the exporting machine, read from the engine."""
    proven_on: tuple[str, ...] = ()
    """Instruction sets on which it was seen to decide as it should, the exporting machine's first: see `processor`."""
    golden_decisions: tuple[int, ...] = ()
    """Class index that it decided for each golden image on the exporting machine; empty: not recorded."""
    selection: Selection | None = None
    check: Check
    """On the test images, which select nothing: shown beyond a limit by them, it is still here, and never chosen."""


class LeftOut(Frozen):
    """A variant that was asked for and is not in the bundle, with the reason."""

    variant: str
    reason: str
    selection: Selection | None = None
    check: Check | None = None
    """On the test images, for the record: they were not asked."""
    final: bool = True
    """False where another try may end otherwise: a fault of a library, not a refusal."""


class FrameCheck(Frozen):
    """How far a raw camera frame's decision may be from that of its encoded file, measured on the test images."""

    images: int
    mean_pixel_error: float
    """Mean |difference| of the prepared pixels, in levels of 255."""
    max_pixel_error: int
    mean_logit_error: float
    """Relative to the logit scale."""
    max_logit_error: float
    agreement: float
    """Share of images with the same decision."""
    limit: float
    """Least agreement that the target accepts, give or take one image."""
    within: bool


class Golden(Frozen):
    """An encoded test image that travels with the bundle, with eager fp32's logits for it."""

    file: str
    label: str
    logits: tuple[float, ...]
    pixels_sha256: Sha256
    """Of the prepared pixels, uint8 (height, width, 3), on the exporting machine."""


class File(Frozen):
    """What a file in the bundle must be."""

    sha256: Sha256
    bytes: int


class Doubt(Frozen):
    """Why a network that was taken in as it is may answer wrongly, whatever the engine: found by labelled images."""

    stage: str
    """class order, colour order, normalisation, fit; or answers, where none of them explains it."""
    words: str
    """One line."""


class Choice(Frozen):
    """The variant to deploy and why."""

    variant: str
    reason: str


class Grouping(Frozen):
    """Which images show one physical part, and so lie in one split."""

    by: Literal["names", "table", "looks", "content"]
    """A rule over file names, a table, likeness, or equal pixels alone."""
    rule: str
    """The regular expression, the table's name and hash, or what was compared."""
    images: int
    parts: int
    largest: int
    """Images of the largest part."""
    sha256: Sha256
    """Of the contents that are together, whatever the parts are called."""
    straddling: int = 0
    """Parts in several splits, where the folders gave the splits."""
    alike_apart: int = 0
    """Sets of images that look alike, are told to be of several parts, and are in several splits."""


class Provenance(Frozen):
    """Where a bundle comes from."""

    created: str
    """UTC, ISO 8601."""
    model: str
    weights: str
    recipe: str
    checkpoint_sha256: Sha256
    """Of checkpoint.json, which holds the hashes of weights and splits."""
    target_sha256: Sha256
    """Of the whole target profile."""
    tools: Mapping[str, str]
    """Library to version."""
    host: Mapping[str, Any]
    splits: Mapping[str, Sha256]
    """Hash of each split's image hashes, and of the calibration set."""
    grouping: Grouping | None = None
    """How images of one part were kept in one split; None where nobody looked."""


class Bundle(Frozen):
    """bundle.json."""

    version: int = BUNDLE_VERSION
    name: str
    target: str
    budget: str
    """Such as 30ms@p99."""
    threads: int
    machine: str
    isa: Isa = "any"
    """The target's processor architecture, such as x86_64."""
    accuracy_loss_limit: float
    """Points of top-1 that a variant may lose."""
    fp32_tolerance: float
    """Largest logit error of an fp32 variant, relative to the logit scale."""
    int8_agreement: float = 0.98
    """Least share of decisions equal to fp32's that the target wants of other precisions."""
    not_shown: NotShown = "keep"
    require: str | None = None
    """What an engine must run of an int8 variant. See `edgecnn.require`."""
    judged_together: int = Field(default=1, ge=1)
    """Variants, other than fp32, that share one chance of a wrong statement."""
    classes: tuple[str, ...]
    good_class: str | None
    preprocess: Preprocess
    cost: Cost
    artifacts: tuple[Artifact, ...]
    left_out: tuple[LeftOut, ...] = ()
    frames: FrameCheck | None = None
    golden: tuple[Golden, ...]
    choice: Choice | None = None
    notes: tuple[str, ...] = ()
    """What was assumed of a network that somebody else trained: the order of its classes, its preprocessing."""
    doubts: tuple[Doubt, ...] = ()
    """Where it does not fit that, by the labelled images."""
    test_seen: Seen = "no"
    provenance: Provenance
    files: Mapping[str, File]
    """Every file of the bundle but bundle.json itself."""

    def artifact(self, variant: str) -> Artifact:
        """The variant's artifact; UserError where the bundle has none."""
        for artifact in self.artifacts:
            if artifact.variant == variant:
                return artifact
        there = ", ".join(artifact.variant for artifact in self.artifacts) or "no variant"
        raise UserError(f"{variant!r} is not in the bundle: it has {there}")

    def unusable(self, artifact: Artifact) -> str | None:
        """Why a variant must not be deployed: the network is in doubt, or test images veto it. None: it may be."""
        if self.doubts:
            return f"the network itself is in doubt: {self.doubts[0].words}"
        reason = artifact.check.judged.reason
        return None if reason is None else f"not within the target on test images: {reason}"


def inventory(folder: Path) -> dict[str, File]:
    """Every file below a bundle folder but bundle.json, by its relative POSIX path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / "bundle.json")
    return {
        path.relative_to(folder).as_posix(): File(sha256=sha256_of_file(path), bytes=path.stat().st_size)
        for path in files
    }


def write_bundle(folder: Path, bundle: Bundle) -> None:
    """Write bundle.json."""
    write_document(folder / "bundle.json", bundle)


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle folder; every hash is checked before any artifact is opened.

    UserError: no bundle there, written by a newer version, or any file missing, added or changed."""
    path = folder / "bundle.json"
    if not path.is_file():
        raise UserError(f"{folder}: no bundle.json there (expected a bundle folder, made by `edgecnn export`)")
    bundle = read_document(path, Bundle, BUNDLE_VERSION, "copy or export the bundle again")
    named = {*(file for artifact in bundle.artifacts for file in artifact.files), *(one.file for one in bundle.golden)}
    if not named <= set(bundle.files):
        raise UserError(f"{path}: {sorted(named - set(bundle.files))[0]} has no hash: export the bundle again")
    _check_files(folder, bundle.files)
    return bundle


def _check_files(folder: Path, files: Mapping[str, File]) -> None:
    links = [path for path in folder.rglob("*") if path.is_symlink()]
    if links:
        raise UserError(f"{links[0]}: is a link: a bundle has none, copy it again")
    for name, expected in files.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"{folder}: file name {name!r} leaves the bundle: refused")
        path = folder / name
        if not path.is_file():
            raise UserError(f"{folder}: {name} is missing: copy or export the bundle again")
        if path.stat().st_size != expected.bytes or sha256_of_file(path) != expected.sha256:
            raise UserError(f"{folder}: {name} is damaged (its hash differs): copy or export the bundle again")
    extra = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} - set(files)
    if extra - {"bundle.json"}:
        raise UserError(f"{folder}: {sorted(extra - {'bundle.json'})[0]} does not belong to the bundle: remove it")
