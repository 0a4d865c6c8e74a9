"""The bundle of an export that is through: its variants, reference, golden images and provenance, in one folder."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from edgecnn import formats
from edgecnn.artifact import Artifact, Bundle, Doubt, FrameCheck, LeftOut, Provenance, inventory
from edgecnn.data import split_hash
from edgecnn.documents import Sha256, sha256_of
from edgecnn.errors import UserError
from edgecnn.export.job import Job
from edgecnn.golden import write as write_golden
from edgecnn.installed import PREPARING, installed_versions
from edgecnn.judge import measure, network_faults
from edgecnn.parity import REFERENCE_FILE, check_frames, run_files, save_reference
from edgecnn.profiles import Target
from edgecnn.quantize import libraries as quantize_libraries
from edgecnn.runtimes import libraries as runtime_libraries
from edgecnn.runtimes import open_session

EXPORT_RULES = 1
"""Raised when the same checkpoint, target and libraries give another bundle: by what is kept, made or recorded."""


def assemble(job: Job, done: Sequence[Artifact | LeftOut], folder: Path) -> Bundle:
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
        doubts=(*checkpoint.doubts, *_network_doubts(job)),
        test_seen=checkpoint.test_seen,
        provenance=_provenance(job),
        files=inventory(folder),
    )


def _frames(job: Job, artifacts: Sequence[Artifact], folder: Path) -> FrameCheck:
    job.progress("raw frames against files")
    paths = [item.path for item in job.data.test]
    with open_session(folder, artifacts[0], job.target.threads) as session:
        file_logits = run_files(session, paths, job.checkpoint.preprocess)
        return check_frames(session, paths, job.checkpoint.preprocess, job.target.frame_agreement, file_logits)


def _network_doubts(job: Job) -> list[Doubt]:
    """What is wrong with the network itself, said of fp32: no variant is to blame for it."""
    found = measure(job.reference.logits, job.reference.logits, job.reference.labels)
    return [Doubt(stage="answers", words=words) for words in network_faults(found, job.yardstick)]


def _provenance(job: Job) -> Provenance:
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


def tools_here() -> dict[str, str]:
    """Versions of all that may have a part in a bundle: edgecnn and its rules, and what makes the network, writes,
    quantises and runs a file."""
    libraries = installed_versions(
        ("torch", "torchvision", "timm", *PREPARING, *formats.libraries(), *quantize_libraries(), *runtime_libraries())
    )
    return {"edgecnn's export rules": str(EXPORT_RULES), **libraries}


def target_hash(target: Target) -> Sha256:
    """Identifies a target by all that it says."""
    return sha256_of(target.model_dump_json().encode())
