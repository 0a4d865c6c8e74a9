"""The short form of a rehearsal, which `export` does by itself: an INT8 variant on the x86-64 processors it may meet.

Only with what is there: an engine that can be held back runs on this machine, another one in an emulator that an
earlier `edgecnn rehearse` has fetched. Nothing is fetched here, and what cannot be run is said, not guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn import runtimes
from edgecnn.artifact import Artifact, Golden, Preprocess
from edgecnn.errors import UserError
from edgecnn.judge import FEWEST_IMAGES, Yardstick
from edgecnn.processor import INSTRUCTION_SETS
from edgecnn.proof import Proof, judged
from edgecnn.rehearse.cache import Say
from edgecnn.rehearse.job import Job
from edgecnn.rehearse.levels import LEVELS, Level, Qemu, find_emulator
from edgecnn.rehearse.process import Ran, run
from edgecnn.rehearse.setups import Place, on_level

_START_S, _IMAGE_S = 120, 10
Run = Callable[[Place, Job], Ran]
"""Run a job somewhere."""


@dataclass(frozen=True)
class Shown:
    """What the short form found of one variant."""

    proven_on: tuple[str, ...]
    """Instruction sets, the exporting machine's first."""
    refused: str | None
    """Why the variant must be left out."""
    remarks: tuple[str, ...]
    """What is not proven, and how it would be."""


def prove(
    artifact: Artifact,
    model: Path,
    golden: Sequence[tuple[Path, Golden]],
    preprocess: Preprocess,
    yardstick: Yardstick,
    cache: Path,
    say: Say,
    older: bool = True,
    needs: str | None = None,
    run_there: Run | None = None,
) -> Shown:
    """Run the first golden images (with their files) of an INT8 variant on every lower x86-64 level than this machine.

    `artifact` has its `golden_decisions`, `model` is its main file. `older`: whether the target may be an x86-64
    processor with less than this machine has. Where it may not, or the precision is another one, only this machine's
    own set is proven; so too where this machine is not known to be an x86-64, and then the remarks say so. `needs`: the
    instruction set that the target has for certain.
    """
    here = runtimes.instruction_set(artifact.runtime)
    proven = [here] if here else []
    if not older or artifact.precision != "int8":
        lacking = needs if needs != here and artifact.precision == "int8" else None
        return Shown(tuple(proven), None, (_never_ran(lacking, here),) if lacking else ())
    if here not in INSTRUCTION_SETS["x86_64"]:
        return Shown(tuple(proven), None, tuple(_elsewhere_only(level, here) for level in reversed(LEVELS)))
    remarks = []
    for level in levels_below(here):
        place = on_level(level, artifact.runtime, _emulator(cache, say))
        if place is None:
            cure = f"{_record(level)} fetches one and proves it"
            remarks.append(f"not proven on {level.name}: {artifact.runtime} needs an emulator for it: {cure}")
            continue
        say(f"{artifact.variant}: decisions on {level.name} ({place.how})")
        proof = _look(artifact, model, golden, preprocess, yardstick, place, run_there or _run)
        if proof.refused:
            return Shown(tuple(proven), proof.text, tuple(remarks))
        if proof.outcome == "same":
            proven.append(level.name)
        else:
            remarks.append(proof.text)
    return Shown(tuple(proven), None, tuple(remarks))


def _never_ran(needs: str, here: str | None) -> str:
    this = f"this machine is {here}" if here else "this machine's instruction set is not known"
    return (
        f"not proven on {needs}, which the target has: {this}, and int8 may saturate here where it does not there: "
        "export on such a machine"
    )


def _elsewhere_only(level: Level, here: str | None) -> str:
    this = f"this machine is {here}" if here else "this machine's instruction set is not known"
    return f"not proven on {level.name}: {this}: {_record(level)} on x86-64 Linux proves it"


def _record(level: Level) -> str:
    return f"`edgecnn rehearse bundle/ --device {level.name} --record`"


def levels_below(here: str | None) -> list[Level]:
    """The levels that a processor of this instruction set is above, the nearest first: the likeliest to saturate."""
    order = INSTRUCTION_SETS["x86_64"]
    if here not in order:
        return []
    return [one for one in reversed(LEVELS) if order.index(one.name) < order.index(here)]


def _look(
    artifact: Artifact,
    model: Path,
    golden: Sequence[tuple[Path, Golden]],
    preprocess: Preprocess,
    yardstick: Yardstick,
    place: Place,
    run_there: Run,
) -> Proof:
    shown = golden[:FEWEST_IMAGES]
    job = Job(
        model=str(model.resolve()),
        runtime=artifact.runtime,
        precision=artifact.precision,
        threads=1,
        preprocess=preprocess,
        images=tuple(str(path.resolve()) for path, _ in shown),
        out="",
        log=None,
    )
    ran = run_there(place, job)
    level = place.instruction_set
    if ran.answer is None:
        # An engine that cannot start there harms nobody: it does not decide otherwise.
        return _nothing(artifact, level, f"not proven on {level}: {ran.reason}")
    if ran.answer.instruction_set != level:
        return _nothing(artifact, level, f"not proven on {level}: it ran on {ran.answer.instruction_set} instead")
    logits = np.frombuffer(bytes.fromhex(ran.answer.logits), "<f4").reshape(len(shown), -1)
    return judged(artifact, [one for _, one in shown], yardstick, logits.argmax(1).tolist(), level)


def _nothing(artifact: Artifact, level: str, text: str) -> Proof:
    return Proof(variant=artifact.variant, instruction_set=level, outcome="too few", text=text)


def _run(place: Place, job: Job) -> Ran:
    return run(place.machine, job, _START_S + _IMAGE_S * len(job.images))


def _emulator(cache: Path, say: Say) -> Qemu | None:
    try:
        return find_emulator(cache)
    except UserError as error:
        say(str(error))
        return None
