"""Raw runs on disk: JSONL, one line for one run of one variant, with every latency and the host's state."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from edgecnn.artifact import Bundle, Preprocess
from edgecnn.bench.host import Fingerprint, State
from edgecnn.bench.measure import MeasurePlan, Samples
from edgecnn.disk import refusal
from edgecnn.documents import Frozen, Sha256, parse
from edgecnn.errors import UserError
from edgecnn.executed import Executed
from edgecnn.progress import Progress
from edgecnn.proof import Proof

RUN_VERSION = 2
"""Raised when an older edgecnn could misread what this one writes."""
NULL_VARIANT = "harness (null session)"
"""The run that measures the harness: everything but an engine."""


class Subject(Frozen):
    """What was measured, identified by content."""

    bundle: str
    target: str
    target_machine: str
    """The target's processor architecture."""
    variant: str
    format: str | None = None
    """None, as all below, for the null session."""
    precision: str | None = None
    runtime: str | None = None
    files: Mapping[str, Sha256]
    """Of the artifact."""
    preprocess: Preprocess | None = None
    """What the images went through. None in runs of an edgecnn that did not record it."""
    file_bytes: int | None = None
    params: int | None = None
    macs: int | None = None


class BenchImage(Frozen):
    """An encoded image that units were made of."""

    name: str
    sha256: Sha256
    bytes: int
    expected: int | None = None
    """Class index that eager fp32 decided, for golden images."""


class Run(Frozen):
    """One variant, measured once in a process of its own. Nothing derived: see `edgecnn.bench.summary`."""

    version: int = RUN_VERSION
    started: str
    """UTC, ISO 8601."""
    subject: Subject
    plan: MeasurePlan
    threads: int
    """Asked of the engine."""
    images: tuple[BenchImage, ...]
    images_found: int
    """In the folder that `images` were taken from."""
    host: Fingerprint
    before: State
    after: State
    open_ns: int
    """To open the session, the engine's import included."""
    samples: Samples
    executed: Executed | None
    """What the engine really ran, read from the engine; None for the null session."""
    proof: Proof | None = None
    """Whether the variant decides here as where it was made; None for the null session and in older runs."""
    baseline_rss_bytes: int | None
    """Resident memory with Python, libraries and images loaded, before the engine."""
    peak_rss_bytes: int | None
    """Largest resident memory of the whole process until the last unit was measured."""


def subject_of(bundle: Bundle, variant: str | None) -> Subject:
    """What a run of a variant now would be of; None: of the null session."""
    if variant is None:
        return Subject(
            bundle=bundle.name,
            target=bundle.target,
            target_machine=bundle.machine,
            variant=NULL_VARIANT,
            files={},
            preprocess=bundle.preprocess,
        )
    artifact = bundle.artifact(variant)
    return Subject(
        bundle=bundle.name,
        target=bundle.target,
        target_machine=bundle.machine,
        variant=variant,
        format=artifact.format,
        precision=artifact.precision,
        runtime=artifact.runtime,
        files={name: bundle.files[name].sha256 for name in artifact.files if name in bundle.files},
        preprocess=bundle.preprocess,
        file_bytes=artifact.bytes,
        params=bundle.cost.params,
        macs=bundle.cost.macs,
    )


def refuse_other_content(path: Path) -> None:
    """UserError where runs cannot be added to `path`: it holds something else, or must not be written."""
    if not path.is_file():
        return
    try:
        with path.open("r+b") as stream:
            first = next((line for line in stream if line.strip()), None)
    except OSError as error:
        raise UserError(f"{refusal(error)}: choose another --out") from None
    if first is not None and not _is_run(first):
        raise UserError(f"{path}: holds something else than runs of `edgecnn bench`: choose another --out")


def write_run(path: Path, run: Run) -> None:
    """Append a run as one line, flushed to disk. It begins a line of its own after one that a full disk cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = run.model_dump_json().encode() + b"\n"
    try:
        with path.open("a+b") as stream:
            if stream.seek(0, os.SEEK_END):
                stream.seek(-1, os.SEEK_END)
                line = line if stream.read(1) == b"\n" else b"\n" + line
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        error.filename = str(path)  # of a full disk it has none
        raise


def read_runs(path: Path, say: Progress = lambda text: None) -> list[Run]:
    """Every run of a file, in its order. UserError with the line's number where one is another document or newer.

    A line that was cut off, as a full disk leaves it, is told to `say` and skipped: its run was not finished.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file (expected runs in JSONL, made by `edgecnn bench`)")
    runs = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        if _is_cut_off(line):
            say(f"{path}:{number}: skipped: the line was cut off, as when a disk is full")
        else:
            runs.append(_read_run(line, f"{path}:{number}"))
    if not runs:
        raise UserError(f"{path}: no runs in it (expected one line for each, made by `edgecnn bench`)")
    return runs


def _is_run(line: bytes) -> bool:
    """Also of one that was cut off."""
    if _is_cut_off(line):
        return line.startswith(b'{"version"')
    document = json.loads(line)
    return isinstance(document, dict) and {"version", "subject", "samples"} <= document.keys()


def _is_cut_off(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return True
    return False


def _read_run(line: bytes, where: str) -> Run:
    try:
        run = parse(Run, _upgraded(line), where)
    except UserError as error:
        hint = "remove the line, or measure again with `edgecnn bench`"
        raise UserError(f"{_shortened(str(error))}: {hint}") from None
    if run.version != RUN_VERSION:
        raise UserError(
            f"{where}: run version {run.version}, this edgecnn reads version {RUN_VERSION}: install a matching edgecnn"
        )
    return run


def _upgraded(line: bytes) -> bytes:
    """A line of version 1 as one of version 2. It held what the engine ran as counts: these become nameless layers."""
    try:
        document = json.loads(line)
    except ValueError:
        return line
    if not isinstance(document, dict) or document.get("version") != 1 or not isinstance(document.get("executed"), dict):
        return line
    told: dict[str, object] = document["executed"]
    layers = told.get("layers")
    if not isinstance(layers, list):
        counts = {"int8": told.get("int8_layers"), "float": told.get("float_layers")}
        layers = [
            {"name": "", "kind": "", "precision": precision, "macs": 0}
            for precision, count in counts.items()
            for _ in range(count if isinstance(count, int) else 0)
        ]
    kept = {name: told[name] for name in ("providers", "remarks") if name in told}
    return json.dumps({**document, "version": RUN_VERSION, "executed": {**kept, "layers": layers}}).encode()


def _shortened(message: str) -> str:
    """A line of another kind of file misses every key: the first few findings are enough."""
    findings = message.split("; ")
    return "; ".join(findings[:3]) + (f"; and {len(findings) - 3} more" if len(findings) > 3 else "")
