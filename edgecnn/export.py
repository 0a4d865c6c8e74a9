"""Checkpoint and target to a verified bundle: convert, quantise, run from raw images, refuse what is not good."""

from __future__ import annotations

import errno
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecnn import formats
from edgecnn.artifact import (
    Artifact,
    Bundle,
    FrameCheck,
    LeftOut,
    Provenance,
    inventory,
    load_bundle,
    write_bundle,
)
from edgecnn.checkpoint import CHECKPOINT, Checkpoint, read_checkpoint
from edgecnn.data import Dataset, Item, calibration_items, load_split, split_hash, split_hashes
from edgecnn.documents import Frozen, Sha256, folder_written_whole, parse, sha256_of, sha256_of_file, write_atomically
from edgecnn.errors import UserError, first_line
from edgecnn.formats import Converted, Source
from edgecnn.golden import Chosen, choose, decisions
from edgecnn.golden import write as write_golden
from edgecnn.imaging import Images
from edgecnn.installed import PREPARING, installed_versions
from edgecnn.judge import Yardstick, yardstick_for
from edgecnn.metadata import describe
from edgecnn.parity import (
    REFERENCE_FILE,
    Reference,
    check_frames,
    compare_with,
    prepare_files,
    run_files,
    save_reference,
)
from edgecnn.profiles import Target, VariantSpec
from edgecnn.progress import Progress
from edgecnn.quantize import libraries as quantize_libraries
from edgecnn.quantize import names as quantize_names
from edgecnn.quantize import quantize
from edgecnn.quantize.ladder import TuningSet
from edgecnn.rehearse.cache import cache_folder
from edgecnn.rehearse.short import prove
from edgecnn.require import parse as parse_requirements
from edgecnn.runtimes import get as get_runtime
from edgecnn.runtimes import libraries as runtime_libraries
from edgecnn.runtimes import names as runtime_names
from edgecnn.runtimes import open_file, open_session

if TYPE_CHECKING:
    from edgecnn.quantize.candidates import Networks

_BATCH = 32
_TRAINING_IMAGES = 512
"""For training with rounding."""
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""The system's refusals that no variant is to blame for."""


@dataclass(frozen=True)
class _Job:
    """What the steps of one export share."""

    checkpoint: Checkpoint
    checkpoint_sha256: Sha256
    data: Dataset
    target: Target
    yardstick: Yardstick
    source: Source
    tuning: TuningSet | None
    """None where no int8 is asked for."""
    networks: Networks | None
    """What INT8 starts from, shared by the engines; None where no int8 is asked for."""
    reference: Reference
    golden: tuple[Chosen, ...]
    calibration: tuple[Item, ...]
    part: Path
    """Variants that are done, so that an export that was cut off goes on."""
    progress: Progress


def export(
    run: Path, target: Target, out: Path, data_root: Path | None = None, progress: Progress = lambda text: None
) -> Bundle:
    """Write the bundle folder `out` from a run folder of `edgecnn finetune`.

    Every variant of the target is converted, opened again in its own engine and run from the encoded test images.
    Those that fail are in `bundle.left_out` with the reason, and their files are not in the bundle. `data_root`: the
    images, where they are no longer where the run found them. Calibration takes train images, the choice between
    quantisation rungs validation images; the test split is only judged on.

    A bundle of the same checkpoint, target and tools that is there is returned as it is. Variants that were done when
    an export was cut off are kept beside `out` and not done again.
    Raises UserError: no checkpoint or images there, `out` is something else than a bundle, no variant left.
    """
    from edgecnn.models import load_module

    refuse_unknown(target)
    if target.require:
        parse_requirements(target.require)
    there = _already(run, target, out, progress)
    if there is not None:
        return there
    checkpoint, module = load_module(run)
    data = load_split(data_root, run / "split.json")
    if split_hashes(data) != dict(checkpoint.splits):
        raise UserError(f"{run}: split.json is not the one that the checkpoint was trained with: train again")
    calibration = calibration_items(data, target.calibration_images)
    if any(variant.precision == "int8" for variant in target.variants):
        _refuse_one_class(calibration, data)
    digest = sha256_of_file(run / CHECKPOINT)
    part = _part(out, digest, target)
    with TemporaryDirectory(prefix="edgecnn-") as work:
        job = _prepare(checkpoint, digest, module, data, calibration, target, Path(work), part, progress)
        done = [_variant_once(job, spec) for spec in target.variants]
    if all(isinstance(one, LeftOut) and one.final for one in done):
        shutil.rmtree(part)  # there is nothing to go on from
    with folder_written_whole(out) as folder:
        bundle = _assemble(job, done, folder)
        write_bundle(folder, bundle)
    shutil.rmtree(part)
    return bundle


def is_of(bundle: Bundle, run: Path, target: Target) -> bool:
    """Whether a bundle is what an export of this run for this target, with the tools that are here, would write."""
    provenance = bundle.provenance
    read_checkpoint(run)
    return (
        provenance.checkpoint_sha256 == sha256_of_file(run / CHECKPOINT)
        and provenance.target_sha256 == target_hash(target)
        and provenance.tools == tools_here()
        and all(left.final for left in bundle.left_out)
    )


def tools_here() -> dict[str, str]:
    """Versions of all that may have a part in a bundle: what makes the network, writes, quantises and runs a file."""
    return installed_versions(
        ("torch", "torchvision", "timm", *PREPARING, *formats.libraries(), *quantize_libraries(), *runtime_libraries())
    )


def _already(run: Path, target: Target, out: Path, progress: Progress) -> Bundle | None:
    if not out.exists():
        return None
    if not (out / "bundle.json").is_file():
        raise UserError(f"{out}: exists and is not a bundle: choose another --out or remove it")
    try:
        bundle = load_bundle(out)
    except UserError as error:
        progress(f"export: made again, {error}")
        return None
    if not is_of(bundle, run, target):
        return None
    progress(f"export: already done ({out})")
    return bundle


def _part(out: Path, digest: Sha256, target: Target) -> Path:
    """The folder of finished variants; emptied where they are not of this very export."""
    part = out.with_name(f".{out.name}.part")
    key = {"checkpoint": digest, "target": target_hash(target), "tools": tools_here()}
    text = json.dumps(key, sort_keys=True)
    if not (part / "key.json").is_file() or (part / "key.json").read_text() != text:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write_atomically(part / "key.json", text)
    return part


def target_hash(target: Target) -> Sha256:
    """Identifies a target by all that it says."""
    return sha256_of(target.model_dump_json().encode())


def refuse_unknown(target: Target) -> None:
    """UserError with every variant of a target that cannot be made or opened, before anything is done."""
    wrong = []
    for spec in target.variants:
        able = quantize_names() if spec.precision == "int8" else formats.names()
        if spec.format not in able:
            wrong.append(f"{spec.variant}: {spec.format!r} is not one of {', '.join(able)}")
        elif spec.precision != "int8" and spec.precision not in formats.get(spec.format).precisions:
            precisions = ", ".join(formats.get(spec.format).precisions)
            wrong.append(f"{spec.variant}: {spec.precision!r} is not one of {precisions}")
        if spec.io == "int8" and (spec.format, spec.precision) != ("litert", "int8"):
            wrong.append(f"{spec.variant}: io 'int8' is for litert-int8 alone")
        if spec.runtime not in runtime_names():
            wrong.append(f"{spec.variant}: runtime {spec.runtime!r} is not one of {', '.join(runtime_names())}")
        elif spec.format not in get_runtime(spec.runtime).runs:
            wrong.append(f"{spec.variant}: {spec.runtime} does not open {spec.format}")
    if wrong:
        raise UserError(f"target {target.name}: {'; '.join(wrong)}")


def _prepare(
    checkpoint: Checkpoint,
    digest: Sha256,
    module: Any,
    data: Dataset,
    calibration: tuple[Item, ...],
    target: Target,
    work: Path,
    part: Path,
    progress: Progress,
) -> _Job:
    from edgecnn.models import Deployed

    spec = checkpoint.preprocess
    deployed = Deployed(module, spec).eval()
    progress("eager fp32 on the test images")
    test = prepare_files([item.path for item in data.test], spec)
    reference = Reference(
        names=tuple(item.name for item in data.test),
        sha256=tuple(item.sha256 for item in data.test),
        labels=np.array([item.label for item in data.test], np.int64),
        logits=_eager(deployed, test),
    )
    described = describe(checkpoint.classes, spec, checkpoint.model)
    source = Source(deployed, spec.height, spec.width, work, described)
    tuning = networks = None
    if any(variant.precision == "int8" for variant in target.variants):
        progress("calibration and validation images")
        tuning = _tuning(deployed, checkpoint, data, calibration, target)
        from edgecnn.quantize.candidates import Networks

        networks = Networks(source, tuning)
    golden = choose(data.test, reference.logits, data.classes, spec)
    yardstick = yardstick_for(target, data.classes, data.good_class)
    return _Job(
        checkpoint,
        digest,
        data,
        target,
        yardstick,
        source,
        tuning,
        networks,
        reference,
        golden,
        calibration,
        part,
        progress,
    )


def _refuse_one_class(calibration: Sequence[Item], data: Dataset) -> None:
    classes = {item.label for item in calibration}
    if len(classes) == 1 and len(data.classes) > 1:
        raise UserError(
            f"calibration: all {len(calibration)} images are {data.classes[classes.pop()]!r}: INT8 ranges would fit "
            f"that class alone; raise calibration_images of the target, or put train images of the other "
            f"{len(data.classes) - 1} classes in"
        )


def _tuning(
    deployed: Any, checkpoint: Checkpoint, data: Dataset, calibration: Sequence[Item], target: Target
) -> TuningSet:
    spec = checkpoint.preprocess
    # Without a validation split (weights taken as they are), rungs are judged on train images outside the calibration.
    calibrating = set(calibration)
    judged = data.val or tuple(item for item in data.train if item not in calibrating) or tuple(calibration)
    # Its first images are the calibration's.
    training = calibration_items(data, max(_TRAINING_IMAGES, len(calibration))) if data.val else tuple(calibration)
    images = prepare_files([item.path for item in training], spec)
    validation = prepare_files([item.path for item in judged], spec)
    return TuningSet(
        calibration=images[: len(calibration)],
        validation=validation,
        validation_labels=np.array([item.label for item in judged], np.int64),
        validation_logits=_eager(deployed, validation),
        yardstick=yardstick_for(target, data.classes, data.good_class),
        threads=target.threads,
        minutes=target.int8_minutes,
        training=images,
        machine=target.machine,
        isa=target.isa,
    )


def _eager(deployed: Any, images: Images) -> NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        batches = [
            deployed(torch.from_numpy(images[start : start + _BATCH])).numpy()
            for start in range(0, len(images), _BATCH)
        ]
    return np.concatenate(batches)


def _assemble(job: _Job, done: Sequence[Artifact | LeftOut], folder: Path) -> Bundle:
    """The finished variants, the reference and the golden images, in the bundle's folder."""
    artifacts = [one for one in done if isinstance(one, Artifact)]
    left_out = [one for one in done if isinstance(one, LeftOut)]
    if not artifacts:
        reasons = "; ".join(f"{left.variant}: {left.reason}" for left in left_out)
        raise UserError(f"no variant of {job.target.name} passed, nothing was written: {reasons}")
    for artifact in artifacts:
        shutil.copytree(job.part / artifact.variant, folder / artifact.variant)
    frames = _frames(job, artifacts, folder)
    save_reference(job.reference, folder / REFERENCE_FILE)
    (folder / "labels.txt").write_text("\n".join(job.data.classes) + "\n", encoding="utf-8")
    golden = write_golden(job.golden, folder)
    checkpoint, target = job.checkpoint, job.target
    return Bundle(
        name=f"{checkpoint.model.rpartition(':')[2]}-{target.name}",
        target=target.name,
        budget=target.budget,
        threads=target.threads,
        machine=target.machine,
        isa=target.isa,
        accuracy_loss_limit=target.accuracy_loss_limit,
        fp32_tolerance=target.fp32_tolerance,
        int8_agreement=target.int8_agreement,
        not_shown=target.not_shown,
        require=target.require,
        judged_together=job.yardstick.together,
        classes=checkpoint.classes,
        good_class=checkpoint.good_class,
        preprocess=checkpoint.preprocess,
        cost=checkpoint.cost,
        artifacts=tuple(artifacts),
        left_out=tuple(left_out),
        frames=frames,
        golden=golden,
        notes=checkpoint.notes,
        doubts=checkpoint.doubts,
        provenance=_provenance(job),
        files=inventory(folder),
    )


class _Done(Frozen):
    """A finished variant on disk, beside its files."""

    artifact: Artifact | None = None
    left_out: LeftOut | None = None


def _variant_once(job: _Job, spec: VariantSpec) -> Artifact | LeftOut:
    """What an earlier export that was cut off left of this variant, else made now."""
    record = job.part / f"{spec.variant}.json"
    if record.is_file():
        done = parse(_Done, record.read_bytes(), str(record))
        job.progress(f"{spec.variant}: kept from the export that was cut off")
        return _one_of(done)
    folder = job.part / spec.variant
    shutil.rmtree(folder, ignore_errors=True)
    made = _variant(job, spec, folder)
    if isinstance(made, Artifact):
        done = _Done(artifact=made)
    else:
        done = _Done(left_out=made)
        shutil.rmtree(folder, ignore_errors=True)
    if not isinstance(made, LeftOut) or made.final:
        write_atomically(record, done.model_dump_json())
    return made


def _one_of(done: _Done) -> Artifact | LeftOut:
    found = done.artifact or done.left_out
    assert found is not None
    return found


def _variant(job: _Job, spec: VariantSpec, folder: Path) -> Artifact | LeftOut:
    """Convert, open again in its own engine, run from the encoded test images, judge."""
    name = spec.variant
    try:
        job.progress(f"{name}: convert")
        converted = _convert(job, spec, folder)
        job.progress(f"{name}: verify on {len(job.data.test)} test images")
        logits, executed = _run(job, spec, folder / converted.files[0])
    except UserError as error:
        return LeftOut(variant=name, reason=str(error))
    except OSError as error:
        if error.errno in _DISK:
            raise
        return LeftOut(variant=name, reason=f"{type(error).__name__}: {first_line(error)}", final=False)
    except Exception as error:  # converters and engines raise whatever their libraries raise
        return LeftOut(variant=name, reason=f"{type(error).__name__}: {first_line(error)}", final=False)
    check = compare_with(job.reference, logits, job.yardstick, spec.precision, executed)
    reason = check.judged.reason
    if reason is not None:
        return LeftOut(variant=name, reason=reason, check=check)
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
        check=check,
    )
    return _proven(job, made, folder / converted.files[0])


def _run(job: _Job, spec: VariantSpec, path: Path) -> tuple[NDArray[np.float32], Mapping[str, Any]]:
    session = open_file(path, spec.runtime, spec.precision, job.target.threads)
    try:
        logits = run_files(session, [item.path for item in job.data.test], job.checkpoint.preprocess)
        return logits, session.executed()
    finally:
        session.close()


def _convert(job: _Job, spec: VariantSpec, folder: Path) -> Converted:
    if spec.precision == "int8" and job.networks is not None:
        return quantize(spec.format, job.networks.with_io(spec.io), folder, job.progress)
    return formats.convert(spec.format, job.source, spec.precision, folder)


def _frames(job: _Job, artifacts: Sequence[Artifact], folder: Path) -> FrameCheck:
    job.progress("raw frames against files")
    session = open_session(folder, artifacts[0], job.target.threads)
    paths = [item.path for item in job.data.test]
    try:
        file_logits = run_files(session, paths, job.checkpoint.preprocess)
        return check_frames(session, paths, job.checkpoint.preprocess, job.target.frame_agreement, file_logits)
    finally:
        session.close()


def _proven(job: _Job, artifact: Artifact, model: Path) -> Artifact | LeftOut:
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
    )
    for remark in shown.remarks:
        job.progress(f"{artifact.variant}: {remark}")
    if shown.refused:
        return LeftOut(variant=artifact.variant, reason=shown.refused, check=artifact.check)
    notes = {**artifact.notes, "not_proven": list(shown.remarks)} if shown.remarks else artifact.notes
    return artifact.model_copy(update={"proven_on": shown.proven_on, "notes": notes})


def _provenance(job: _Job) -> Provenance:
    checkpoint = job.checkpoint
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=checkpoint.model,
        weights=checkpoint.weights,
        recipe=checkpoint.recipe.name,
        checkpoint_sha256=job.checkpoint_sha256,
        target_sha256=target_hash(job.target),
        tools=tools_here(),
        host={"machine": platform.machine(), "system": platform.system(), "python": platform.python_version()},
        splits={**checkpoint.splits, "calibration": split_hash(job.calibration)},
        grouping=checkpoint.grouping,
    )
