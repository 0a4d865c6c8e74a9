"""One variant of an export: converted, opened again in its own engine, judged, and proven where it will run."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn import formats
from edgecnn.artifact import Artifact, LeftOut, Selection
from edgecnn.disk import FULL, refuse_full
from edgecnn.errors import UserError, first_line
from edgecnn.executed import Executed
from edgecnn.export.job import Job
from edgecnn.formats import Converted
from edgecnn.golden import decisions
from edgecnn.judge import judge, measure, unlike
from edgecnn.parity import compare_with, run_files
from edgecnn.profiles import VariantSpec
from edgecnn.quantize import quantize
from edgecnn.rehearse.cache import cache_folder
from edgecnn.rehearse.short import prove
from edgecnn.runtimes import open_file

_DISK = FULL | {errno.EROFS}
"""The system's refusals that no variant is to blame for."""


def make_variant(job: Job, spec: VariantSpec, folder: Path) -> Artifact | LeftOut:
    """Convert, open again in its own engine, judge by the images that select, report what the test images show."""
    name = spec.variant
    try:
        job.progress(f"{name}: convert")
        converted = _convert(job, spec, folder)
        job.progress(
            f"{name}: judge on {len(job.judging.items)} {job.judging.on}, run {len(job.data.test)} test images"
        )
        model = folder / converted.files[0]
        selecting, logits, executed = _run(job, spec, model)
    except UserError as error:
        refuse_full(folder, job.source.work)
        return LeftOut(variant=name, reason=str(error))
    except OSError as error:
        if error.errno in _DISK:
            raise
        return LeftOut(variant=name, reason=f"{type(error).__name__}: {first_line(error)}", final=False)
    except Exception as error:  # converters and engines raise whatever their libraries raise
        refuse_full(folder, job.source.work)
        return LeftOut(variant=name, reason=f"{type(error).__name__}: {first_line(error)}", final=False)
    selection = _selected(job, spec, selecting, executed)
    check = compare_with(job.reference, logits, job.yardstick, spec.precision, executed)
    # An engine that does not compute what it was given is found out by any image; what that costs is for the others.
    reason = unlike(measure(logits, job.reference.logits), spec.precision, job.yardstick.tolerance)
    if selection.judged.reason is not None:
        reason = f"on {selection.images} {selection.on}: {selection.judged.reason}"
    if reason is not None:
        return LeftOut(variant=name, reason=reason, selection=selection, check=check)
    made = Artifact(
        variant=name,
        format=spec.format,
        precision=spec.precision,
        runtime=spec.runtime,
        files=tuple(f"{name}/{file}" for file in converted.files),
        bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        notes=converted.notes,
        executed=executed,
        golden_decisions=decisions(job.golden, logits),
        selection=selection,
        check=check,
    )
    return _proven(job, made, model)


def _selected(job: Job, spec: VariantSpec, logits: NDArray[np.float32], executed: Executed) -> Selection:
    """Judged by the images that select. A strict target takes nothing as shown by images that had a part in it."""
    judging, yardstick = job.judging, job.yardstick
    found = measure(logits, judging.logits, judging.labels, judging.parts)
    judged = judge(found, yardstick, spec.precision, executed)
    if judging.on != "validation images" and judged.shown == "shown within" and spec.precision != "fp32":
        unknown = (*judged.too_few, f"not validated: there are no validation images, {judging.on} were looked at")
        acceptable = judged.acceptable and yardstick.not_shown == "keep"
        judged = judged.model_copy(update={"shown": "not shown", "too_few": unknown, "acceptable": acceptable})
    return Selection(
        on=judging.on,
        images=found.images,
        loss_points=found.loss_points,
        agreement=found.agreement,
        judged=judged,
    )


def _run(job: Job, spec: VariantSpec, path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32], Executed]:
    """(logits of the images that select, of the test images from their files, what the engine ran)."""
    with open_file(path, spec.runtime, spec.precision, job.target.threads) as session:
        selecting = np.concatenate([session.run(image[None]) for image in job.judging.images])
        logits = run_files(session, [item.path for item in job.data.test], job.checkpoint.preprocess)
        return selecting, logits, session.executed()


def _convert(job: Job, spec: VariantSpec, folder: Path) -> Converted:
    if spec.precision == "int8" and job.networks is not None:
        return quantize(spec.format, job.networks.with_io(spec.io), folder, job.progress)
    return formats.convert(spec.format, job.source, spec.precision, folder)


def _proven(job: Job, artifact: Artifact, model: Path) -> Artifact | LeftOut:
    """The variant with the instruction sets on which it is proven; left out where it decides otherwise on one."""
    shown = prove(
        artifact,
        model,
        [(one.path, one.golden) for one in job.golden],
        job.checkpoint.preprocess,
        job.yardstick,
        cache_folder(None),
        job.progress,
        older=job.target.machine == "x86_64" and job.target.isa == "any",
        needs="x86-64-vnni" if job.target.isa == "vnni" else None,
    )
    for remark in shown.remarks:
        job.progress(f"{artifact.variant}: {remark}")
    if shown.refused:
        return LeftOut(
            variant=artifact.variant, reason=shown.refused, selection=artifact.selection, check=artifact.check
        )
    notes = {**artifact.notes, "not_proven": list(shown.remarks)} if shown.remarks else artifact.notes
    return artifact.model_copy(update={"proven_on": shown.proven_on, "notes": notes})
