"""Proof on another instruction set: what is run, what it takes to refuse, how often a rule errs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn import runtimes
from edgecnn.artifact import Artifact, Bundle, Golden, load_bundle
from edgecnn.documents import sha256_of
from edgecnn.executed import Executed
from edgecnn.imaging import prepare
from edgecnn.installed import installed_versions
from edgecnn.judge import FEWEST_IMAGES, newly_flipped, verdict
from edgecnn.proof import DecidesOtherwise, Proof, other_version, prove_here, without_looking
from edgecnn.runtimes import Session
from tests.conftest import encode
from tests.rehearse.bundle import CLASSES, SPEC, write_bundle_to_rehearse


class Deciding(Session):
    """A session that gives the next of these decisions."""

    def __init__(self, decisions: list[int]) -> None:
        self.decisions, self.runs = decisions, 0

    def run(self, images: np.ndarray) -> np.ndarray:
        logits = np.zeros((1, len(CLASSES)), np.float32)
        logits[0, self.decisions[self.runs]] = 1
        self.runs += 1
        return logits

    def executed(self) -> Executed:
        return Executed(layers=())

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle]:
    """A bundle whose 60 golden images fp32 decides as class 0, 1, 2, 0, …"""
    folder = write_bundle_to_rehearse(tmp_path_factory.mktemp("proof") / "bundle")
    bundle = load_bundle(folder)
    golden = []
    for number in range(60):
        data = encode(np.full((40, 40, 3), number, np.uint8))
        file = f"golden/more-{number:03d}.png"
        (folder / file).write_bytes(data)
        logits = tuple(float(number % 3 == place) for place in range(3))
        digest = sha256_of(prepare(data, SPEC).tobytes())
        golden.append(Golden(file=file, label=CLASSES[number % 3], logits=logits, pixels_sha256=digest))
    return folder, bundle.model_copy(update={"golden": tuple(golden)})


EXPECTED = [number % 3 for number in range(60)]


def flipped(*places: int) -> list[int]:
    return [(one + 1) % 3 if place in places else one for place, one in enumerate(EXPECTED)]


def variant(bundle: Bundle, precision: str = "int8", **changes: Any) -> Artifact:
    return bundle.artifact(f"onnx-{precision}").model_copy(update=changes)


def here(made: tuple[Path, Bundle], artifact: Artifact, decisions: list[int], **given: Any) -> tuple[Proof, int]:
    folder, bundle = made
    session = Deciding(decisions)
    return prove_here(folder, bundle, artifact, session, **given), session.runs


def test_where_it_was_proven_nothing_is_run(made: tuple[Path, Bundle]) -> None:
    on = runtimes.instruction_set("onnxruntime") or ""
    proof, runs = here(made, variant(made[1], proven_on=("x86-64-of-elsewhere", on)), [])
    assert (proof.outcome, runs) == ("proven", 0)


def test_an_engine_that_is_held_back_is_on_another_instruction_set(
    made: tuple[Path, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = runtimes.instruction_set("openvino")
    if whole not in ("x86-64-v3", "x86-64-avx512", "x86-64-vnni"):
        pytest.skip(f"{whole} cannot be held to SSE4")
    openvino = variant(made[1], runtime="openvino", proven_on=(whole,))
    assert here(made, openvino, [])[0].outcome == "proven"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    proof, runs = here(made, openvino, flipped(*range(20)))
    assert (proof.outcome, proof.instruction_set, runs) == ("differs", "x86-64-v2", 60)
    assert here(made, variant(made[1], proven_on=(whole,)), [])[0].outcome == "proven"  # ONNX Runtime obeys nothing


def test_fp32_is_noted_and_not_run(made: tuple[Path, Bundle]) -> None:
    proof, runs = here(made, variant(made[1], "fp32", proven_on=("elsewhere",)), [])
    assert (proof.outcome, runs, proof.refused) == ("not looked at", 0, False)
    assert "only on elsewhere" in proof.text


@pytest.mark.parametrize(
    ("decisions", "at_home", "outcome", "flips"),
    [
        (flipped(), EXPECTED, "same", 0),
        (flipped(7), EXPECTED, "same", 1),
        (flipped(7, 20), EXPECTED, "too few", 2),
        (flipped(7, 20, 33), EXPECTED, "differs", 3),
        (flipped(7, 20, 33), flipped(7, 20, 33), "same", 0),
        (flipped(7, 20, 33), flipped(7, 20), "same", 1),
        (flipped(7, 20, 33), [], "differs", 3),
        (flipped(), flipped(7, 20, 33), "same", 0),
    ],
)
def test_three_new_flips_of_sixty_are_refused(
    made: tuple[Path, Bundle], decisions: list[int], at_home: list[int], outcome: str, flips: int
) -> None:
    proof, runs = here(made, variant(made[1], golden_decisions=tuple(at_home), proven_on=("elsewhere",)), decisions)
    assert (proof.outcome, len(proof.flips), runs) == (outcome, flips, 60)
    assert proof.refused == (outcome == "differs")
    assert "60 golden images" in proof.text
    assert ("decides otherwise on" in proof.text) == proof.refused


def test_a_slow_device_stops_early_but_not_too_early(made: tuple[Path, Bundle]) -> None:
    ticks = iter(range(0, 1000))
    proof, runs = here(made, variant(made[1]), EXPECTED, limit_s=5.0, clock=lambda: float(next(ticks)))
    assert runs == proof.images == FEWEST_IMAGES + 5
    assert proof.outcome == "same"


def test_too_few_golden_images_are_said_to_be_too_few(made: tuple[Path, Bundle]) -> None:
    folder, bundle = made
    few = folder, bundle.model_copy(update={"golden": bundle.golden[: FEWEST_IMAGES - 1]})
    proof, _ = here(few, variant(bundle), EXPECTED)
    assert (proof.outcome, proof.refused) == ("too few", False)
    assert "not proven on" in proof.text
    assert "shows too little" in proof.text
    proof, _ = here(
        (folder, few[1].model_copy(update={"golden": bundle.golden[:12]})), variant(bundle), flipped(1, 2, 3)
    )
    assert proof.refused


def test_other_pixels_are_refused(made: tuple[Path, Bundle]) -> None:
    folder, bundle = made
    wrong = bundle.golden[3].model_copy(update={"pixels_sha256": sha256_of(b"")})
    changed = bundle.model_copy(update={"golden": (*bundle.golden[:3], wrong, *bundle.golden[4:])})
    proof, _ = here((folder, changed), variant(bundle), EXPECTED)
    assert proof.refused
    assert "more-003.png to other pixels" in proof.text


def test_an_image_counts_where_here_is_worse_than_at_home() -> None:
    there, at_home = np.array([False, True, True]), np.array([False, False, True])
    assert newly_flipped(there, at_home).tolist() == [False, True, False]
    assert newly_flipped(there, None).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("images", "rate", "refused", "silent"),
    # What saturation did (18 and 35 % of the decisions), and what engines on Arm do (up to 0.4 %).
    [
        (16, 0.18, (0.70, 1.0), (0.0, 0.06)),
        (60, 0.18, (0.99, 1.0), (0.0, 0.001)),
        (120, 0.05, (0.8, 1.0), (0.0, 0.1)),
        (16, 0.35, (0.98, 1.0), (0.0, 0.01)),
        (16, 0.004, (0.0, 0.005), (0.9, 1.0)),
        (60, 0.004, (0.0, 0.005), (0.9, 1.0)),
        (120, 0.004, (0.0, 0.01), (0.9, 1.0)),
    ],
)
def test_how_often_the_rule_refuses_and_how_often_it_lets_pass(
    images: int, rate: float, refused: tuple[float, float], silent: tuple[float, float]
) -> None:
    flips = np.random.default_rng(0).binomial(images, rate, 20_000)
    outcomes = [verdict(images, int(count), 0.98) for count in flips]
    assert refused[0] <= outcomes.count("differs") / len(outcomes) <= refused[1]
    assert silent[0] <= outcomes.count("same") / len(outcomes) <= silent[1]


def test_refusal_is_a_users_error() -> None:
    from edgecnn.errors import UserError

    assert issubclass(DecidesOtherwise, UserError)


@pytest.mark.parametrize(("made_with", "proven"), [("", True), ("+cpu", True), (".99", False)])
def test_another_version_of_the_engine_is_looked_at(made: tuple[Path, Bundle], made_with: str, proven: bool) -> None:
    """ONNX Runtime 1.21 answered otherwise than 1.20, on the same processor."""
    folder, bundle = made
    version = installed_versions(["onnxruntime"])["onnxruntime"] + made_with
    tools = {"onnxruntime": version}
    whole = bundle.model_copy(update={"provenance": bundle.provenance.model_copy(update={"tools": tools})})
    on = runtimes.instruction_set("onnxruntime") or ""
    artifact = variant(bundle, proven_on=(on,), golden_decisions=tuple(EXPECTED))
    proof, runs = here((folder, whole), artifact, flipped())
    assert (proof.outcome, runs) == (("proven", 0) if proven else ("same", 60))
    assert ("not proven with this version" in proof.text) != proven
    assert (version in proof.text) != proven
    proof, _ = here((folder, whole), artifact, flipped(1, 2, 3))
    assert proof.refused != proven
    assert ("made with onnxruntime" in proof.text) != proven
    assert (without_looking(artifact, on, other_version(whole, artifact)).outcome == "proven") == proven
