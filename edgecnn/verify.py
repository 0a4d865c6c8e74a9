"""Every variant of a bundle again, from the encoded test images, each in a process of its own.

An engine that does not load, dies of an illegal instruction or does not take its file costs that one row. The process
is `python -m edgecnn.verify JOB.json`, started by `verify`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgecnn import runtimes
from edgecnn.artifact import Artifact, Bundle, Check, load_bundle
from edgecnn.called import let_call
from edgecnn.child import USER_ERROR, child_environment, death
from edgecnn.documents import Frozen, parse, write_atomically
from edgecnn.ending import end_with
from edgecnn.errors import MissingExtra, UserError
from edgecnn.executed import Executed
from edgecnn.holding import temporary_folder
from edgecnn.judge import yardstick_of
from edgecnn.parity import REFERENCE_FILE, Reference, compare_with, find_test_images, load_reference, run_files
from edgecnn.progress import Progress
from edgecnn.proof import Proof, prove_here

let_call(__name__)


class Verified(Frozen):
    """What `edgecnn verify` found."""

    variant: str
    passed: bool | None
    """None where its engine is not installed here, does not load, dies, or does not take the file."""
    reason: str | None
    check: Check | None
    proof: Proof | None = None
    """Whether it decides here as where it was made; None where it was not run."""


class _Job(Frozen):
    """What a child is to answer."""

    bundle: str
    variant: str
    images: tuple[str, ...]
    """Paths of the test images, in the order of the reference."""
    out: str
    """Where it writes its answers, whole or not at all."""
    parent: int
    """With which it ends."""


class _Answers(Frozen):
    """What the child found."""

    logits: str
    """float32 little-endian (images, classes) in hexadecimal."""
    executed: Executed
    proof: Proof


def verify(folder: Path, data: Path, variants: Sequence[str] = (), progress: Progress | None = None) -> list[Verified]:
    """Check every variant of a bundle again, from the encoded test images, which are found in `data` by content hash.

    Judged as on export: by the bundle's limits, and by what the engine ran here, where the target required it. What
    could not be run is a row that says why.

    Needs no torch: eager fp32's logits travel with the bundle. Raises UserError where the bundle is damaged or test
    images are missing.
    """
    bundle = load_bundle(folder)
    reference = load_reference(folder / REFERENCE_FILE)
    paths = find_test_images(data, reference, bundle.classes, progress)
    chosen = [bundle.artifact(name) for name in variants] or list(bundle.artifacts)
    results = []
    for artifact in chosen:
        if progress:
            progress(artifact.variant)
        try:
            answers = _in_child(folder, bundle, artifact, paths)
        except UserError as error:
            results.append(Verified(variant=artifact.variant, passed=None, reason=str(error), check=None))
        else:
            results.append(_judged(bundle, artifact, reference, answers))
    return results


def _judged(bundle: Bundle, artifact: Artifact, reference: Reference, answers: _Answers) -> Verified:
    logits = np.frombuffer(bytes.fromhex(answers.logits), "<f4").reshape(len(reference.names), -1)
    check = compare_with(reference, logits, yardstick_of(bundle), artifact.precision, answers.executed)
    refused = answers.proof.text if answers.proof.refused else check.judged.reason
    return Verified(variant=artifact.variant, passed=refused is None, reason=refused, check=check, proof=answers.proof)


def _in_child(folder: Path, bundle: Bundle, artifact: Artifact, paths: Sequence[Path]) -> _Answers:
    """UserError where there are no answers."""
    runtime = runtimes.get(artifact.runtime)
    if not runtimes.installed(artifact.runtime):
        raise runtime.missing() if runtime.missing else MissingExtra(runtime.library, runtime.extra or "all")
    with temporary_folder("verify") as place:
        job = _Job(
            bundle=str(folder.resolve()),
            variant=artifact.variant,
            images=tuple(str(path.resolve()) for path in paths),
            out=str(place / "answers.json"),
            parent=os.getpid(),
        )
        write_atomically(place / "job.json", job.model_dump_json())
        done = subprocess.run(
            [sys.executable, "-P", "-m", "edgecnn.verify", str(place / "job.json")],
            env=child_environment(os.environ, bundle.threads),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode != 0:
            raise UserError(death(done.returncode, done.stderr, "verifying"))
        return parse(_Answers, Path(job.out).read_bytes(), "the child's answers")


def main(arguments: list[str]) -> int:
    """Answer the job that the one argument names. Exit code 0, or 2 for a user's mistake, told in one line."""
    try:
        job = parse(_Job, Path(arguments[0]).read_bytes(), arguments[0])
        end_with(job.parent)
        folder = Path(job.bundle)
        bundle = load_bundle(folder)
        artifact = bundle.artifact(job.variant)
        with runtimes.open_session(folder, artifact, bundle.threads) as session:
            proof = prove_here(folder, bundle, artifact, session)
            logits = run_files(session, [Path(path) for path in job.images], bundle.preprocess)
            executed = session.executed()
        answers = _Answers(logits=np.ascontiguousarray(logits, "<f4").tobytes().hex(), executed=executed, proof=proof)
        write_atomically(Path(job.out), answers.model_dump_json())
    except UserError as error:
        print(error, file=sys.stderr)
        return USER_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
