"""What every variant of one export starts from: images, what eager fp32 answers to them, and the limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import JudgedOn
from edgecnn.checkpoint import Checkpoint
from edgecnn.data import Dataset, Item, calibration_items
from edgecnn.documents import Sha256
from edgecnn.errors import UserError
from edgecnn.formats import Source
from edgecnn.golden import Chosen, choose
from edgecnn.imaging import Images
from edgecnn.judge import Labels, Yardstick, yardstick_for
from edgecnn.metadata import describe
from edgecnn.parity import Reference, prepare_files
from edgecnn.profiles import Target
from edgecnn.progress import Progress, Stage
from edgecnn.quantize.ladder import TuningSet

if TYPE_CHECKING:
    from torch.nn import Module

    from edgecnn.models import Deployed
    from edgecnn.quantize.candidates import Networks

_TRAINING_IMAGES = 512
"""For training with rounding."""


@dataclass(frozen=True)
class Judging:
    """The images that select: what is beyond a limit on them is left out of the bundle."""

    on: JudgedOn
    items: tuple[Item, ...]
    images: Images
    labels: Labels
    logits: NDArray[np.float32]
    """Eager fp32's."""
    parts: NDArray[np.int64] | None
    """Which of them show one part."""


@dataclass(frozen=True)
class Job:
    """What the steps of one export share."""

    checkpoint: Checkpoint
    checkpoint_sha256: Sha256
    data: Dataset
    target: Target
    yardstick: Yardstick
    source: Source
    judging: Judging
    networks: Networks | None
    """What INT8 starts from, shared by the engines; None where no int8 is asked for."""
    reference: Reference
    """Eager fp32 on the test images, which are only reported."""
    golden: tuple[Chosen, ...]
    calibration: tuple[Item, ...]
    part: Path
    """Variants that are done, so that an export that was cut off goes on."""
    progress: Progress


def prepare_job(
    checkpoint: Checkpoint,
    digest: Sha256,
    module: Module,
    data: Dataset,
    target: Target,
    work: Path,
    part: Path,
    progress: Progress,
) -> Job:
    """Prepare images and run eager fp32 on them. UserError where the calibration would see one class only."""
    from edgecnn.models import Deployed

    int8 = any(variant.precision == "int8" for variant in target.variants)
    calibration = calibration_items(data, target.calibration_images)
    if int8:
        _refuse_one_class(calibration, data)
    spec, yardstick = checkpoint.preprocess, yardstick_for(target, data.classes, data.good_class)
    deployed = Deployed(module, spec).eval()
    progress(Stage("export: fp32 in PyTorch on validation and test images"))
    judging = _judging(deployed, checkpoint, data, calibration)
    logits = deployed.answers(prepare_files([item.path for item in data.test], spec))
    described = describe(checkpoint.classes, spec, checkpoint.model)
    source = Source(deployed, spec.height, spec.width, work, described)
    return Job(
        checkpoint=checkpoint,
        checkpoint_sha256=digest,
        data=data,
        target=target,
        yardstick=yardstick,
        source=source,
        judging=judging,
        networks=_networks(source, checkpoint, data, calibration, target, yardstick, judging) if int8 else None,
        reference=Reference(
            names=tuple(item.name for item in data.test),
            sha256=tuple(item.sha256 for item in data.test),
            labels=_labels(data.test),
            logits=logits,
            groups=_parts(data.test),
        ),
        golden=choose(data.test, logits, data.classes, spec),
        calibration=calibration,
        part=part,
        progress=progress,
    )


def _judging(deployed: Deployed, checkpoint: Checkpoint, data: Dataset, calibration: Sequence[Item]) -> Judging:
    """Validation images. Without any (weights taken as they are) train images, which validate nothing."""
    calibrating = set(calibration)
    others = tuple(item for item in data.train if item not in calibrating)
    on: JudgedOn = "calibration images"
    items = data.val or others or tuple(calibration)
    if data.val:
        on = "validation images"
    elif others:
        on = "train images outside the calibration"
    images = prepare_files([item.path for item in items], checkpoint.preprocess)
    return Judging(on, items, images, _labels(items), deployed.answers(images), _parts(items))


def _networks(
    source: Source,
    checkpoint: Checkpoint,
    data: Dataset,
    calibration: Sequence[Item],
    target: Target,
    yardstick: Yardstick,
    judging: Judging,
) -> Networks:
    from edgecnn.quantize.candidates import Networks

    # Its first images are the calibration's.
    training = calibration_items(data, max(_TRAINING_IMAGES, len(calibration))) if data.val else tuple(calibration)
    images = prepare_files([item.path for item in training], checkpoint.preprocess)
    tuning = TuningSet(
        calibration=images[: len(calibration)],
        validation=judging.images,
        validation_labels=judging.labels,
        validation_logits=judging.logits,
        yardstick=yardstick,
        threads=target.threads,
        validation_groups=judging.parts,
        judged_on=judging.on,
        minutes=target.int8_minutes,
        training=images,
        machine=target.machine,
        isa=target.isa,
        quick=target.quick,
    )
    return Networks(source, tuning)


def _parts(items: Sequence[Item]) -> NDArray[np.int64] | None:
    """A number for each image's part; None where no two images show one. Equal bytes are one part."""
    numbers = np.unique([item.part or item.sha256 for item in items], return_inverse=True)[1]
    return numbers if len(items) and numbers.max() + 1 < len(items) else None


def _labels(items: Sequence[Item]) -> Labels:
    return np.array([item.label for item in items], np.int64)


def _refuse_one_class(calibration: Sequence[Item], data: Dataset) -> None:
    classes = {item.label for item in calibration}
    if len(classes) == 1 and len(data.classes) > 1:
        raise UserError(
            f"calibration: all {len(calibration)} images are {data.classes[classes.pop()]!r}: INT8 ranges would fit "
            f"that class alone; raise calibration_images of the target, or put train images of the other "
            f"{len(data.classes) - 1} classes in"
        )
