"""The process that measures one variant: `python -m edgecnn.bench.child JOB.json`, started by `edgecnn.bench.process`.

It writes its run to the job's `out`. A user's mistake is one line on stderr and exit code 2.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from edgecnn import runtimes
from edgecnn.artifact import Bundle, load_bundle
from edgecnn.bench import host, memory
from edgecnn.bench.images import find_images
from edgecnn.bench.measure import NullSession, measure
from edgecnn.bench.process import DECIDES_OTHERWISE, FULL_DISK, Job
from edgecnn.bench.records import BenchImage, Run, subject_of
from edgecnn.child import USER_ERROR
from edgecnn.disk import FullDisk, naming_the_disk
from edgecnn.documents import parse, sha256_of, write_atomically
from edgecnn.ending import end_with
from edgecnn.errors import BadImage, UserError
from edgecnn.imaging import Preparer, read_encoded
from edgecnn.proof import DecidesOtherwise, Proof, prove_here
from edgecnn.runtimes import Session


def main(arguments: list[str]) -> int:
    """Measure the job that the one argument names. Exit code 0, 2 for a user's mistake, 4 for an unfit variant,
    5 for a full disk."""
    try:
        job = parse(Job, Path(arguments[0]).read_bytes(), arguments[0])
        if job.parent is not None:
            end_with(job.parent)
        with naming_the_disk(Path(job.out)):
            write_atomically(Path(job.out), run_job(job).model_dump_json())
    except UserError as error:
        print(error, file=sys.stderr)
        return _exit_code(error)
    return 0


def _exit_code(error: UserError) -> int:
    codes = {DecidesOtherwise: DECIDES_OTHERWISE, FullDisk: FULL_DISK}
    return next((code for kind, code in codes.items() if isinstance(error, kind)), USER_ERROR)


def run_job(job: Job) -> Run:
    """Measure one variant in this process: images, memory, engine, units, memory, what the engine ran."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    folder = Path(job.bundle)
    bundle = load_bundle(folder)
    preparer = Preparer(bundle.preprocess)
    paths, found = find_images(folder, bundle, Path(job.images) if job.images else None)
    encoded = [_read(path, preparer) for path in paths]
    baseline = memory.resident_bytes()
    before = host.state()
    clock_start = time.perf_counter_ns()
    with _open(folder, bundle, job) as session:
        open_ns = time.perf_counter_ns() - clock_start
        proof = _prove(folder, bundle, job, session)
        samples = measure(session, preparer, encoded, job.plan)
        # Some engines open the model a second time to tell what they run.
        peak, after = memory.peak_resident_bytes(), host.state()
        executed = session.executed()
    return Run(
        started=started,
        subject=subject_of(bundle, job.variant),
        plan=job.plan,
        threads=job.threads,
        images=_bench_images(job, bundle, paths, encoded),
        images_found=found,
        host=host.fingerprint(),
        before=before,
        after=after,
        open_ns=open_ns,
        samples=samples,
        executed=executed,
        proof=proof,
        baseline_rss_bytes=baseline,
        peak_rss_bytes=peak,
    )


def _open(folder: Path, bundle: Bundle, job: Job) -> Session:
    if job.variant is None:
        return NullSession(len(bundle.classes))
    return runtimes.open_session(folder, bundle.artifact(job.variant), job.threads)


def _prove(folder: Path, bundle: Bundle, job: Job, session: Session) -> Proof | None:
    """What is known of the variant on this processor. Raises DecidesOtherwise where its time is worth nothing."""
    if job.variant is None:
        return None
    proof = prove_here(folder, bundle, bundle.artifact(job.variant), session)
    if proof.refused:
        raise DecidesOtherwise(proof.text)
    return proof


def _read(path: Path, preparer: Preparer) -> bytes:
    """An image that can be prepared."""
    try:
        encoded = read_encoded(path)
        preparer.prepare(encoded)
    except BadImage as error:
        raise UserError(f"{path}: {error}: remove or replace it") from None
    return encoded


def _bench_images(job: Job, bundle: Bundle, paths: list[Path], encoded: list[bytes]) -> tuple[BenchImage, ...]:
    root = Path(job.bundle if job.images is None else job.images)
    expected = {golden.file: golden.logits.index(max(golden.logits)) for golden in bundle.golden if golden.logits}
    names = [path.relative_to(root).as_posix() for path in paths]
    return tuple(
        BenchImage(
            name=name,
            sha256=sha256_of(data),
            bytes=len(data),
            expected=expected.get(name) if job.images is None else None,
        )
        for name, data in zip(names, encoded, strict=True)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
