"""Checkpoint and target to a verified bundle: convert, quantise, run from raw images, refuse what is not good."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from edgecnn.artifact import Artifact, Bundle, LeftOut, load_bundle, write_bundle
from edgecnn.called import let_call
from edgecnn.checkpoint import CHECKPOINT, read_checkpoint
from edgecnn.data import load_split, split_hashes
from edgecnn.documents import Frozen, Sha256, folder_written_whole, parse, sha256_of_file, write_atomically
from edgecnn.errors import UserError
from edgecnn.export.bundle import assemble, target_hash, tools_here
from edgecnn.export.job import Job, prepare_job
from edgecnn.export.variant import make_variant
from edgecnn.holding import temporary_folder
from edgecnn.profiles import Target, VariantSpec
from edgecnn.progress import Progress, Stage
from edgecnn.require import parse as parse_requirements
from edgecnn.wanted import refuse_missing, unfit

__all__ = ["export", "is_of", "refuse_other_content", "refuse_unknown", "target_hash", "tools_here"]
let_call(__name__)


_INT8_WORK = 8


def export(
    run: Path, target: Target, out: Path, data_root: Path | None = None, progress: Progress = lambda text: None
) -> Bundle:
    """Write the bundle folder `out` from a run folder of `edgecnn finetune`.

    Every variant of the target is converted, opened again in its own engine and judged on validation images
    (`edgecnn.judge`). Those that fail are in `bundle.left_out` with the reason, and their files are not in the bundle.
    The test images are run from their encoded files and select nothing: what they show is reported of every variant,
    and one that they show to be beyond a limit stays, marked, and is never chosen. `data_root`: the images, where they
    are no longer where the run found them. Calibration takes train images.

    A bundle of the same checkpoint, target and tools that is there is returned as it is. Variants that were done when
    an export was cut off are kept beside `out` and not done again.
    Raises UserError: a library is missing that a variant needs, no checkpoint or images there, `out` is something else
    than a bundle, no variant left.
    """
    from edgecnn.models import load_module

    refuse_unknown(target)
    refuse_missing(target)
    if target.require:
        parse_requirements(target.require)
    there = _already(run, target, out, progress)
    if there is not None:
        return there
    checkpoint, module = load_module(run)
    data = load_split(data_root, run / "split.json", progress)
    if split_hashes(data) != dict(checkpoint.splits):
        raise UserError(f"{run}: split.json is not the one that the checkpoint was trained with: train again")
    digest = sha256_of_file(run / CHECKPOINT)
    part = _part(out, digest, target)
    with temporary_folder("export") as work:
        job = prepare_job(checkpoint, digest, module, data, target, work, part, progress)
        done = []
        for index, spec in enumerate(target.variants):
            progress(Stage(f"export: {spec.variant}", _work(target.variants[:index]), _work(target.variants)))
            done.append(_variant_once(job, spec))
    if all(isinstance(one, LeftOut) and one.final for one in done):
        shutil.rmtree(part)  # there is nothing to go on from
    with folder_written_whole(out) as folder:
        bundle = assemble(job, done, folder)
        write_bundle(folder, bundle)
    shutil.rmtree(part)
    return bundle


def refuse_other_content(out: Path) -> None:
    """UserError where `out` is something else than a bundle: told before anything is read."""
    if out.exists() and not (out / "bundle.json").is_file():
        raise UserError(f"{out}: exists and is not a bundle: choose another --out or remove it")


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


def _already(run: Path, target: Target, out: Path, progress: Progress) -> Bundle | None:
    refuse_other_content(out)
    if not out.exists():
        return None
    try:
        bundle = load_bundle(out)
    except UserError as error:
        progress(f"export: made again, {error}")
        return None
    if not is_of(bundle, run, target):
        return None
    progress(Stage(f"export: already done ({out})"))
    return bundle


def _part(out: Path, digest: Sha256, target: Target) -> Path:
    """The folder of finished variants; emptied where they are not of this very export."""
    part = out.resolve().with_name(f".{out.resolve().name}.part")
    key = {"checkpoint": digest, "target": target_hash(target), "tools": tools_here()}
    text = json.dumps(key, sort_keys=True)
    if not (part / "key.json").is_file() or (part / "key.json").read_text(encoding="utf-8") != text:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write_atomically(part / "key.json", text)
    return part


def refuse_unknown(target: Target) -> None:
    """UserError with every variant of a target that cannot be made or opened, before anything is done."""
    wrong = [why for spec in target.variants for why in unfit(spec)]
    if wrong:
        raise UserError(f"target {target.name}: {'; '.join(wrong)}")


def _work(variants: Sequence[VariantSpec]) -> float:
    """How long they take, in units of one that is not int8: the ladder makes an int8 one several times."""
    return sum(_INT8_WORK if spec.precision == "int8" else 1 for spec in variants)


class _Done(Frozen):
    """A finished variant on disk, beside its files."""

    artifact: Artifact | None = None
    left_out: LeftOut | None = None


def _variant_once(job: Job, spec: VariantSpec) -> Artifact | LeftOut:
    """What an earlier export that was cut off left of this variant, else made now."""
    record = job.part / f"{spec.variant}.json"
    kept = _kept(record)
    if kept is not None:
        job.progress(f"{spec.variant}: kept from the export that was cut off")
        return kept
    folder = job.part / spec.variant
    shutil.rmtree(folder, ignore_errors=True)
    made = make_variant(job, spec, folder)
    if isinstance(made, Artifact):
        done = _Done(artifact=made)
    else:
        done = _Done(left_out=made)
        shutil.rmtree(folder, ignore_errors=True)
    if not isinstance(made, LeftOut) or made.final:
        write_atomically(record, done.model_dump_json())
    return made


def _kept(record: Path) -> Artifact | LeftOut | None:
    """None where there is no record, or none that this edgecnn reads: then it is made anew."""
    if not record.is_file():
        return None
    try:
        done = parse(_Done, record.read_bytes(), str(record))
    except UserError:
        return None
    return done.artifact or done.left_out
