"""What `edgecnn.load` gives decides as bench and verify do, and refuses what it cannot answer for."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn.artifact import Choice, Doubt, load_bundle, write_bundle
from edgecnn.bench.child import run_job
from edgecnn.bench.measure import MeasurePlan
from edgecnn.bench.process import Job
from edgecnn.errors import BadImage, UserError
from edgecnn.imaging import decode_whole
from edgecnn.parity import run_files
from edgecnn.predictor import Predictor, load
from edgecnn.proof import DecidesOtherwise
from edgecnn.runtimes import open_session
from tests.conftest import encode, picture
from tests.rehearse.bundle import CLASSES, write_bundle_to_rehearse


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Variants onnx-fp32 and onnx-int8, three golden images, none chosen."""
    return write_bundle_to_rehearse(tmp_path_factory.mktemp("predictor") / "bundle")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A bundle of the test's own, to change."""
    return write_bundle_to_rehearse(tmp_path / "own")


@pytest.fixture
def predictor(bundle: Path) -> Iterator[Predictor]:
    with load(bundle, "onnx-fp32") as opened:
        yield opened


def changed(folder: Path, **changes: Any) -> Path:
    write_bundle(folder, load_bundle(folder).model_copy(update=changes))
    return folder


def golden(bundle: Path) -> list[Path]:
    return sorted((bundle / "golden").iterdir())


@pytest.mark.parametrize("variant", ["onnx-fp32", "onnx-int8"])
@pytest.mark.filterwarnings("ignore:.*which shows too little:UserWarning")
def test_it_decides_as_bench_and_verify_do(bundle: Path, variant: str) -> None:
    known = load_bundle(bundle)
    plan = MeasurePlan(samples=len(CLASSES), warmup_seconds=0.0)
    job = Job(bundle=str(bundle), variant=variant, images=None, plan=plan, threads=1, out="unused")
    benched = run_job(job).samples.decisions
    with open_session(bundle, known.artifact(variant), 1) as session:
        verified = run_files(session, golden(bundle), known.preprocess)
    with load(bundle, variant) as predictor:
        decisions = list(predictor.decide_many(golden(bundle)))
    assert [(one.index, one.probability) for one in decisions] == list(benched)
    assert np.array_equal(np.array([one.logits for one in decisions], np.float32), verified)


def test_a_decision_tells_label_and_softmax(predictor: Predictor, bundle: Path) -> None:
    decision = predictor.predict(golden(bundle)[0])
    weights = np.exp(np.array(decision.logits, np.float64))
    assert list(decision.probabilities) == list(CLASSES)
    assert np.allclose(list(decision.probabilities.values()), weights / weights.sum())
    assert decision.probability == decision.probabilities[decision.label] == max(decision.probabilities.values())
    assert decision.label == CLASSES[decision.index]
    assert decision.is_good == (decision.label == "good")
    assert math.isfinite(decision.milliseconds)
    assert pickle.loads(pickle.dumps(decision)) == decision
    with pytest.raises(FrozenInstanceError):
        decision.label = "hole"  # type: ignore[misc]


def test_a_path_its_bytes_and_its_pixels_are_one_image(predictor: Predictor, tmp_path: Path) -> None:
    pixels = picture(7, 90, 120)
    path = tmp_path / "part.png"
    path.write_bytes(encode(pixels))
    answers = {predictor.predict(image).logits for image in (path, str(path), path.read_bytes(), pixels)}
    assert len(answers) == 1
    grey = predictor.predict(pixels[:, :, 0])
    assert grey.logits == predictor.predict(encode(pixels[:, :, 0])).logits
    jpeg = encode(pixels, "JPEG")
    assert predictor.predict(decode_whole(jpeg)).classes == predictor.classes


def test_it_says_what_it_is(predictor: Predictor, bundle: Path) -> None:
    assert (predictor.variant, predictor.classes, predictor.threads) == ("onnx-fp32", CLASSES, 1)
    assert predictor.preprocess == load_bundle(bundle).preprocess == predictor.bundle.preprocess
    assert predictor.proof.outcome == "not looked at"
    assert "onnx-fp32, 3 classes" in repr(predictor)


def test_many_are_decided_in_order_and_only_when_asked_for(predictor: Predictor) -> None:
    taken = []

    def camera() -> Iterator[np.ndarray]:
        for seed in range(5):
            taken.append(seed)
            yield picture(seed)

    decisions = predictor.decide_many(camera())
    assert taken == []
    first = next(decisions)
    assert taken == [0]
    rest = list(decisions)
    assert [one.logits for one in (first, *rest)] == [predictor.predict(picture(seed)).logits for seed in range(5)]
    stack = np.stack([picture(seed) for seed in range(5)])
    assert [one.logits for one in predictor.decide_many(stack)] == [one.logits for one in (first, *rest)]


def test_one_that_cannot_be_read_is_named_and_the_next_can_be_decided(predictor: Predictor, tmp_path: Path) -> None:
    broken, whole = tmp_path / "broken.jpg", tmp_path / "whole.png"
    broken.write_bytes(b"\xff\xd8\xff not really")
    whole.write_bytes(encode(picture(1)))
    decisions = predictor.decide_many([broken, whole])
    with pytest.raises(BadImage, match=r"broken\.jpg: not a readable JPEG"):
        next(decisions)
    assert next(decisions).logits == predictor.predict(whole).logits


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("nowhere.png", "nowhere.png: no such file"),
        (".", "no such file"),
        (b"", "empty file"),
        (b"a text", "not an image"),
        (3, "int is not a path"),
        (np.zeros((4, 4, 3), np.float32), r"float32 \(4, 4, 3\) is not uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), "is not uint8"),
        (np.zeros((0, 4, 3), np.uint8), "holds no pixels"),
    ],
)
def test_what_is_no_image_is_refused(predictor: Predictor, image: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        predictor.predict(image)


@pytest.mark.parametrize("alone", ["part.png", Path("part.png"), b"bytes", picture(0)])
def test_one_image_is_not_many(predictor: Predictor, alone: Any) -> None:
    with pytest.raises(UserError, match="give one alone to predict"):
        predictor.decide_many(alone)


def test_threads_may_share_it(predictor: Predictor) -> None:
    frames = [picture(seed) for seed in range(24)]
    one_by_one = [predictor.predict(frame).logits for frame in frames]
    with ThreadPoolExecutor(4) as pool:
        assert [one.logits for one in pool.map(predictor.predict, frames)] == one_by_one


def test_a_closed_one_decides_nothing(bundle: Path) -> None:
    with load(bundle, "onnx-fp32") as predictor:
        pass
    predictor.close()
    with pytest.raises(UserError, match="closed: load the bundle again"):
        predictor.predict(picture(0))


def test_the_chosen_variant_is_opened(own: Path) -> None:
    changed(own, choice=Choice(variant="onnx-fp32", reason="by hand"))
    with load(own) as predictor:
        assert predictor.variant == "onnx-fp32"


def test_the_only_variant_is_opened(own: Path) -> None:
    changed(own, artifacts=load_bundle(own).artifacts[:1])
    with load(own) as predictor:
        assert predictor.variant == "onnx-fp32"


def test_where_none_is_chosen_it_asks(bundle: Path) -> None:
    with pytest.raises(UserError, match="no chosen variant: .* give variant=, one of 'onnx-fp32', 'onnx-int8'"):
        load(bundle)


def test_of_a_network_in_doubt_none_is_opened_unasked_and_a_named_one_warns(own: Path) -> None:
    changed(own, doubts=(Doubt(stage="fit", words="it was trained with another fit"),))
    with pytest.raises(UserError, match="no chosen variant: the network itself is in doubt: it was trained"):
        load(own)
    with pytest.warns(UserWarning, match="onnx-fp32: the network itself is in doubt"), load(own, "onnx-fp32"):
        pass


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"variant": "onnx-int4"}, "'onnx-int4' is not in the bundle: it has onnx-fp32, onnx-int8"),
        ({"variant": "onnx-fp32", "threads": 0}, "threads: 0 is not a number of threads"),
    ],
)
def test_what_it_has_not_is_refused(bundle: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load(bundle, **arguments)


def test_a_damaged_bundle_is_refused(own: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no bundle\.json there"):
        load(tmp_path, "onnx-fp32")
    (own / "onnx-fp32.onnx").write_bytes(b"another network")
    with pytest.raises(UserError, match=r"onnx-fp32\.onnx is damaged"):
        load(own, "onnx-fp32")


def test_int8_that_is_not_proven_here_runs_the_golden_images(bundle: Path, own: Path) -> None:
    with pytest.warns(UserWarning, match="of 3 golden images .* shows too little"), load(bundle, "onnx-int8") as opened:
        assert (opened.proof.outcome, opened.proof.images) == ("too few", 3)
    other = [one.model_copy(update={"pixels_sha256": "0" * 64}) for one in load_bundle(own).golden]
    changed(own, golden=tuple(other))
    with pytest.raises(DecidesOtherwise, match="onnx-int8: prepares golden/000.png to other pixels"):
        load(own, "onnx-int8")
