"""What a rehearsal compares with: the decisions of the exporting machine, which this one need not be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecnn import rehearse as rehearsing
from edgecnn.artifact import Bundle, Golden, load_bundle
from edgecnn.documents import sha256_of
from edgecnn.rehearse.compare import HELD_BACK
from edgecnn.rehearse.job import Answer, Job
from edgecnn.rehearse.process import Machine, Ran, native
from edgecnn.rehearse.setups import Place, SetUp
from tests.rehearse.bundle import CLASSES, write_bundle_to_rehearse

EXPECTED = [number % 3 for number in range(60)]
SHOWN = rehearsing.evenly(60, 16)


def flipped(*places: int) -> list[int]:
    return [(one + 1) % 3 if place in places else one for place, one in enumerate(EXPECTED)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle]:
    folder = write_bundle_to_rehearse(tmp_path_factory.mktemp("home") / "bundle")
    golden = tuple(
        Golden(
            file=f"{number}.png",
            label=CLASSES[label],
            logits=tuple(float(label == place) for place in range(3)),
            pixels_sha256=sha256_of(b""),
        )
        for number, label in enumerate(EXPECTED)
    )
    return folder, load_bundle(folder).model_copy(update={"golden": golden})


@pytest.mark.parametrize(
    ("at_export", "here_and_there", "outcome", "too_few", "words"),
    [
        (EXPECTED, EXPECTED, "same", False, ""),
        (EXPECTED, flipped(*SHOWN[:4]), "differs", False, "and the exporting machine decides it like it"),
        (flipped(*SHOWN[:4]), flipped(*SHOWN[:4]), "same", False, ""),
        (flipped(*range(4)), flipped(*SHOWN[:4]), "differs", False, "3 of 16 images"),
        (EXPECTED, flipped(SHOWN[5]), "same", True, ""),
        ([], flipped(*SHOWN[:4]), "same", False, ""),
    ],
)
def test_this_machine_may_itself_be_the_one_that_decides_otherwise(
    at_export: list[int],
    here_and_there: list[int],
    outcome: str,
    too_few: bool,
    words: str,
    made: tuple[Path, Bundle],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, whole = made
    int8 = whole.artifact("onnx-int8").model_copy(update={"golden_decisions": tuple(at_export)})
    bundle = whole.model_copy(update={"artifacts": (int8,)})

    def run(machine: Machine, job: Job, *given: object) -> Ran:
        decided = [here_and_there[int(Path(one).stem)] for one in job.images]
        answer = Answer(
            logits=np.eye(3, dtype="<f4")[decided].tobytes().hex(),
            pixels=(sha256_of(b""),) * len(decided),
            versions={},
            instruction_set="x86-64-v3",
            engine_code=(),
            peak_rss_mib=1.0,
        )
        return Ran(answer, None, None, {})

    place = Place(native(), "this machine, which is x86-64-v3", HELD_BACK, "x86-64-v3")
    monkeypatch.setattr(rehearsing, "load_bundle", lambda folder: bundle)
    monkeypatch.setattr(rehearsing, "write_bundle", lambda folder, bundle: None)
    monkeypatch.setattr(rehearsing, "check_host", lambda which: None)
    monkeypatch.setattr(rehearsing, "installed", lambda runtime: True)
    monkeypatch.setattr(rehearsing, "set_up", lambda *given: SetUp("none", "this", {}, lambda *given: place))
    monkeypatch.setattr(rehearsing, "run", run)
    found = rehearsing.rehearse(folder, "x86-64-v3")
    (row,) = found.variants
    assert (row.outcome, row.too_few) == (outcome, too_few)
    assert words in (row.reason or "")
    assert any("which shows too little" in remark for remark in row.remarks) == too_few
    assert found.exit_code == (outcome == "differs")
    assert rehearsing.record(folder, found) == (("onnx-int8",) if outcome == "same" and not too_few else ())
    assert row.against_native is not None
    assert row.against_native.bit_equal
