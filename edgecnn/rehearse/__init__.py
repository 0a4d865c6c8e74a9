"""Rehearse a bundle on a Raspberry Pi or an x86-64 processor that is not there: its instruction set, its decisions.

Emulated, or this machine held back: numerics only. No time is taken here, and none may be derived from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn.artifact import Artifact, Bundle, Golden, load_bundle, write_bundle
from edgecnn.disk import FullDisk
from edgecnn.documents import Frozen
from edgecnn.errors import UserError
from edgecnn.holding import temporary_folder
from edgecnn.judge import Distance, Mask, measure, most_new_flips, newly_flipped, yardstick_of
from edgecnn.progress import Stage
from edgecnn.proof import other_version
from edgecnn.rehearse.cache import Say, cache_folder
from edgecnn.rehearse.compare import EMULATED, HELD_BACK, Difference, Outcome, Rehearsed, difference, exit_code, judge
from edgecnn.rehearse.job import Answer, Job
from edgecnn.rehearse.process import ImagesDone, Machine, Ran, native, run
from edgecnn.rehearse.setups import Device, SetUp, check_host, device, set_up
from edgecnn.rehearse.wheels import NoWheel
from edgecnn.runtimes import Logits, installed

__all__ = ["DEFAULT_IMAGES", "EMULATED", "Rehearsal", "Rehearsed", "exit_code", "record", "rehearse"]

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
    """Of the emulated board: the Debian release and its Python. Of an x86-64 processor: this machine's own."""
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
    places: tuple[int, ...]
    """Of the golden images that are run, among the bundle's."""
    device: Device
    setup: SetUp
    say: Say

    @property
    def golden(self) -> tuple[Golden, ...]:
        """The images that are run."""
        return tuple(self.bundle.golden[place] for place in self.places)

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
    device_name: str,
    variants: Sequence[str] = (),
    images: int = DEFAULT_IMAGES,
    cache: Path | None = None,
    offline: bool = False,
    say: Say = lambda line: None,
) -> Rehearsal:
    """Run a bundle's variants on a device, each in a process of its own, and compare with this machine.

    For a board the first call sets up an arm64 userland in the cache (about 120 MB to fetch) and fetches each engine's
    aarch64 wheels. For an x86-64 processor it fetches an emulator (63 MB), which runs this very Python environment,
    unless this machine is such a processor or can hold every engine to it. One variant that dies does not stop the
    others. Raises UserError where nothing can be set up.
    """
    which = device(device_name)
    if which.name != device_name:
        say(Stage(f"{device_name} is many processors: rehearsed on the oldest of them, {which.description}"))
    check_host(which)
    if images < 1:
        raise UserError(f"--images {images}: at least 1")
    bundle = load_bundle(folder)
    chosen = [bundle.artifact(name) for name in dict.fromkeys(variants)] or list(bundle.artifacts)
    if not bundle.golden:
        raise UserError(f"{folder}: the bundle has no golden images: export it again")
    place = cache_folder(cache)
    ready = set_up(which, {artifact.runtime for artifact in chosen}, place, offline, lambda line: say(Stage(line)))
    stage = _Stage(folder, bundle, evenly(len(bundle.golden), images), which, ready, say)
    rows = tuple(_rehearse_variant(stage, artifact) for artifact in chosen)
    return Rehearsal(
        bundle=bundle.name,
        device=which.name,
        description=which.description,
        cpu=which.cpu,
        emulated=EMULATED if any(row.emulated == EMULATED for row in rows) else HELD_BACK,
        emulator=ready.emulator,
        system=ready.system,
        tolerance=bundle.fp32_tolerance,
        images=tuple(one.file for one in stage.golden),
        variants=rows,
        packages=dict(ready.packages),
    )


def record(folder: Path, found: Rehearsal) -> tuple[str, ...]:
    """Write into the bundle on which instruction sets its variants were proven by this; the variants that were.

    An INT8 variant takes as many images, and as few new flips, as its proof on a device: see `proof`. What decides
    otherwise is proven there no longer, whatever fewer images had shown. Another version of the engine than the one
    that the bundle was made with proves nothing.
    """
    bundle = load_bundle(folder)
    artifacts, proven = [], []
    for artifact in bundle.artifacts:
        row = next((one for one in found.variants if one.variant == artifact.variant), None)
        new = row is not None and row.outcome == "same" and not row.too_few and row.instruction_set
        if row and new and new not in artifact.proven_on and not other_version(bundle, artifact, row.versions):
            artifact = artifact.model_copy(update={"proven_on": (*artifact.proven_on, new)})
            proven.append(artifact.variant)
        elif row is not None and row.outcome == "differs":
            left = tuple(one for one in artifact.proven_on if one != row.instruction_set)
            artifact = artifact.model_copy(update={"proven_on": left})
        artifacts.append(artifact)
    write_bundle(folder, bundle.model_copy(update={"artifacts": tuple(artifacts)}))
    return tuple(proven)


def evenly(count: int, most: int) -> tuple[int, ...]:
    """The places of at most so many of `count` golden images, spread over all, since they are sorted by class."""
    return tuple(np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist())


def _rehearse_variant(stage: _Stage, artifact: Artifact) -> Rehearsed:
    name, count = artifact.variant, len(stage.golden)
    with temporary_folder("board") as empty:
        try:
            place = stage.setup.place(artifact.runtime, empty)
        except FullDisk:
            raise
        except (NoWheel, UserError) as error:  # of this engine alone: the rows of the others stand
            return Rehearsed(variant=name, outcome="not run", reason=str(error))
        here, remarks = _run_here(stage, artifact)
        stage.say(Stage(f"{name}: on {stage.device.name} ({place.how})"))
        ran = _run(place.machine, stage, artifact, lambda done: stage.say(f"{name}: image {done} of {count}"))
    remarks += _version_remarks(ran, here)
    other = other_version(stage.bundle, artifact, ran.answer.versions) if ran.answer else None
    remarks += (f"not proven by this: made with {other}",) if other else ()
    if ran.answer is None:
        row = Rehearsed(variant=name, outcome=_outcome(ran), reason=ran.reason, remarks=remarks)
    elif ran.answer.instruction_set != place.instruction_set:
        reason = f"ran on {ran.answer.instruction_set}, not on {place.instruction_set}: this says nothing of it"
        row = Rehearsed(variant=name, outcome="not run", reason=reason, remarks=remarks)
    else:
        row = _compared(stage, artifact, ran.answer, here, ran, remarks)
    seen = ran.answer.instruction_set if ran.answer else None
    return row.model_copy(update={"how": place.how, "emulated": place.emulated, "instruction_set": seen})


def _run_here(stage: _Stage, artifact: Artifact) -> tuple[Answer | None, tuple[str, ...]]:
    """The same variant on this machine, and why that could not be done."""
    if not installed(artifact.runtime):
        return None, (f"{artifact.runtime} is not installed here: not compared with this machine",)
    stage.say(f"{artifact.variant}: on this machine")
    ran = _run(native(), stage, artifact)
    return ran.answer, () if ran.answer else (f"not compared with this machine, where it failed: {ran.reason}",)


def _run(machine: Machine, stage: _Stage, artifact: Artifact, progress: ImagesDone | None = None) -> Ran:
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

    def compare(found: Distance) -> Difference:
        return difference(found, names, labels, stage.bundle.classes)

    logits, at_home = _logits(there, stage), _logits(here, stage) if here else None
    trained = measure(logits, stage.trained, scale=stage.scale)
    native_trained = None if at_home is None else measure(at_home, stage.trained, scale=stage.scale)
    pixels_equal = there.pixels == tuple(one.pixels_sha256 for one in stage.golden)
    flipped, home = _at_home(stage, artifact, native_trained)
    yardstick = yardstick_of(stage.bundle)
    found, why = judge(trained, flipped, pixels_equal, yardstick, artifact.precision, names, home)
    return Rehearsed(
        variant=artifact.variant,
        outcome="differs" if found == "differs" else "same",
        reason=why if found == "differs" else None,
        too_few=found == "too few",
        new_flips=int(newly_flipped(trained.flipped, flipped if artifact.precision != "fp32" else None).sum()),
        flips_allowed=most_new_flips(artifact.precision, trained.images, yardstick.agreement),
        against_trained=compare(trained),
        against_native=None if at_home is None else compare(measure(logits, at_home, scale=stage.scale)),
        native_against_trained=None if native_trained is None else compare(native_trained),
        pixels_equal=pixels_equal,
        instructions=dict(ran.instructions),
        versions=there.versions,
        native_versions=here.versions if here else {},
        peak_rss_mib=there.peak_rss_mib,
        remarks=(*remarks, f"not proven there: {why}") if found == "too few" else remarks,
    )


def _at_home(stage: _Stage, artifact: Artifact, native: Distance | None) -> tuple[Mask | None, str]:
    """Images flipped where the variant was judged, and where that is.

    Of int8 the exporting machine, as in `proof`: this one may itself be the processor that decides otherwise.
    """
    if artifact.precision == "int8" and artifact.golden_decisions:
        decided = np.array([artifact.golden_decisions[place] for place in stage.places])
        return np.not_equal(decided, stage.trained.argmax(1)), "the exporting machine"
    return None if native is None else native.flipped, "this machine"


def _logits(answer: Answer, stage: _Stage) -> Logits:
    return np.frombuffer(bytes.fromhex(answer.logits), "<f4").reshape(len(stage.golden), -1)
