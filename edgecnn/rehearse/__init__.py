"""Rehearse a bundle on an emulated Raspberry Pi: the board's own engine builds, its instruction set, its decisions.

Emulated: numerics only. No time is taken here, and none may be derived from it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn.artifact import Artifact, Bundle, Golden, load_bundle
from edgecnn.documents import Frozen
from edgecnn.errors import UserError
from edgecnn.rehearse.boards import Board, board
from edgecnn.rehearse.compare import EMULATED, Difference, Outcome, Rehearsed, difference, exit_code, judge
from edgecnn.rehearse.job import Answer, Job
from edgecnn.rehearse.process import Machine, Progress, Ran, emulated, native, run
from edgecnn.rehearse.userland import Say, Userland, cache_folder, check_host, set_up_userland
from edgecnn.rehearse.wheels import NoWheel, fetch_wheels
from edgecnn.runtimes import Logits, get, installed

__all__ = ["DEFAULT_IMAGES", "EMULATED", "Rehearsal", "Rehearsed", "exit_code", "rehearse"]

DEFAULT_IMAGES = 16
"""A network of 300 million multiply-accumulates takes seconds an image in the emulator."""
_START_S, _IMAGE_S = 300, 60
"""An emulated process that takes longer than start + images × this hangs: ten times what a slow host needs."""


class Rehearsal(Frozen):
    """What `edgecnn rehearse` found."""

    emulated: str = EMULATED
    bundle: str
    device: str
    description: str
    cpu: str
    """qemu's CPU model."""
    emulator: str
    system: str
    """Of the emulated board: the Debian release and its Python."""
    threads: int = 1
    tolerance: float
    """Largest logit error of an fp32 variant, relative to the logit scale."""
    images: tuple[str, ...]
    """Golden images of the bundle that were run."""
    variants: tuple[Rehearsed, ...]
    packages: dict[str, str]
    """Debian package files of the emulated system to their SHA-256."""

    @property
    def exit_code(self) -> int:
        """0 all the same · 1 one differs, died, or has no engine for the board · 3 none could be run."""
        return exit_code(self.variants)


@dataclass(frozen=True)
class _Stage:
    """What all variants share."""

    folder: Path
    bundle: Bundle
    golden: tuple[Golden, ...]
    board: Board
    userland: Userland
    cache: Path
    offline: bool
    say: Say

    @property
    def trained(self) -> Logits:
        """Eager fp32's logits (n, classes)."""
        return np.array([one.logits for one in self.golden], np.float32)

    @property
    def scale(self) -> float:
        """The unit of logit errors: the standard deviation of eager fp32's logits of all golden images."""
        return max(float(np.std([one.logits for one in self.bundle.golden])), 1e-12)


def rehearse(
    folder: Path,
    device: str,
    variants: Sequence[str] = (),
    images: int = DEFAULT_IMAGES,
    cache: Path | None = None,
    offline: bool = False,
    say: Say = lambda line: None,
) -> Rehearsal:
    """Run a bundle's variants on an emulated board, each in a process of its own, and compare with this machine.

    The first call sets up an arm64 userland in the cache (about 120 MB to fetch) and fetches each engine's aarch64
    wheels. One variant that dies does not stop the others. Raises UserError where nothing can be set up.
    """
    which = board(device)
    check_host()
    if images < 1:
        raise UserError(f"--images {images}: at least 1")
    bundle = load_bundle(folder)
    chosen = [bundle.artifact(name) for name in dict.fromkeys(variants)] or list(bundle.artifacts)
    if not bundle.golden:
        raise UserError(f"{folder}: the bundle has no golden images: export it again")
    golden = evenly(bundle.golden, images)
    place = cache_folder(cache)
    stage = _Stage(folder, bundle, golden, which, set_up_userland(place, offline, say), place, offline, say)
    rows = tuple(_rehearse_variant(stage, artifact) for artifact in chosen)
    return Rehearsal(
        bundle=bundle.name,
        device=which.name,
        description=which.description,
        cpu=which.cpu,
        emulator=f"qemu {stage.userland.qemu_version}",
        system=f"Debian {stage.userland.release.name}, Python {stage.userland.release.python}",
        tolerance=bundle.fp32_tolerance,
        images=tuple(one.file for one in golden),
        variants=rows,
        packages=stage.userland.contents.packages,
    )


def evenly(golden: Sequence[Golden], most: int) -> tuple[Golden, ...]:
    """At most so many, spread over all of them, since they are sorted by class."""
    places = np.linspace(0, len(golden) - 1, min(most, len(golden))).round().astype(int)
    return tuple(golden[place] for place in places)


def _rehearse_variant(stage: _Stage, artifact: Artifact) -> Rehearsed:
    name, count = artifact.variant, len(stage.golden)
    library = get(artifact.runtime).library
    try:
        unpacked = fetch_wheels(stage.cache, library, stage.userland.release, stage.offline, stage.say)
    except NoWheel as error:
        return Rehearsed(variant=name, outcome="not run", reason=str(error))
    here, remarks = _run_here(stage, artifact)
    with tempfile.TemporaryDirectory(prefix="edgecnn-board-") as empty:
        machine = emulated(stage.board, stage.userland, unpacked.folders, stage.cache, Path(empty))
        stage.say(f"{name}: on the emulated {stage.board.name}")
        ran = _run(machine, stage, artifact, lambda done: stage.say(f"{name}: image {done} of {count}"))
    remarks += _version_remarks(ran, here)
    if ran.answer is None:
        return Rehearsed(variant=name, outcome=_outcome(ran), reason=ran.reason, remarks=remarks)
    return _compared(stage, artifact, ran.answer, here, ran, remarks)


def _run_here(stage: _Stage, artifact: Artifact) -> tuple[Answer | None, tuple[str, ...]]:
    """The same variant on this machine, and why that could not be done."""
    if not installed(artifact.runtime):
        return None, (f"{artifact.runtime} is not installed here: not compared with this machine",)
    stage.say(f"{artifact.variant}: on this machine")
    ran = _run(native(), stage, artifact)
    return ran.answer, () if ran.answer else (f"not compared with this machine, where it failed: {ran.reason}",)


def _run(machine: Machine, stage: _Stage, artifact: Artifact, progress: Progress | None = None) -> Ran:
    folder = stage.folder.resolve()
    job = Job(
        model=str(folder / artifact.files[0]),
        runtime=artifact.runtime,
        precision=artifact.precision,
        threads=1,
        preprocess=stage.bundle.preprocess,
        images=tuple(str(folder / one.file) for one in stage.golden),
        out="",
        log=None,
    )
    return run(machine, job, _START_S + _IMAGE_S * len(stage.golden), progress)


def _outcome(ran: Ran) -> Outcome:
    return ran.failure or "crashed"


def _version_remarks(ran: Ran, here: Answer | None) -> tuple[str, ...]:
    if here is None or ran.answer is None:
        return ()
    differing = [
        f"{name} {there} there, {here.versions[name]} here"
        for name, there in ran.answer.versions.items()
        if name not in ("python", "machine") and here.versions[name].partition("+")[0] != there
    ]
    return (f"not the same versions: {', '.join(differing)}",) if differing else ()


def _compared(
    stage: _Stage, artifact: Artifact, there: Answer, here: Answer | None, ran: Ran, remarks: tuple[str, ...]
) -> Rehearsed:
    names, labels = [one.file for one in stage.golden], [one.label for one in stage.golden]

    def compare(logits: Logits, other: Logits) -> Difference:
        return difference(logits, other, stage.scale, names, labels, stage.bundle.classes)

    logits = _logits(there, stage)
    trained = compare(logits, stage.trained)
    against_native = compare(logits, _logits(here, stage)) if here else None
    native_trained = compare(_logits(here, stage), stage.trained) if here else None
    pixels_equal = there.pixels == tuple(one.pixels_sha256 for one in stage.golden)
    reason = judge(
        artifact.precision,
        trained,
        native_trained,
        pixels_equal,
        stage.bundle.fp32_tolerance,
        bool(np.isfinite(logits).all()),
    )
    return Rehearsed(
        variant=artifact.variant,
        outcome="differs" if reason else "same",
        reason=reason,
        against_trained=trained,
        against_native=against_native,
        native_against_trained=native_trained,
        pixels_equal=pixels_equal,
        instructions=dict(ran.instructions),
        versions=there.versions,
        native_versions=here.versions if here else {},
        peak_rss_mib=there.peak_rss_mib,
        remarks=remarks,
    )


def _logits(answer: Answer, stage: _Stage) -> Logits:
    return np.frombuffer(bytes.fromhex(answer.logits), "<f4").reshape(len(stage.golden), -1)
