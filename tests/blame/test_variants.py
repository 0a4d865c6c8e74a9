"""`edgecnn verify --explain` on a bundle of our own: stages, layers, prices, exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgecnn.artifact import Golden, inventory, write_bundle
from edgecnn.blame import engines
from edgecnn.blame.answers import Expected, class_order, correlation, effect
from edgecnn.blame.layers import match, sqnr_db
from edgecnn.blame.outputs import Output, kinds_like, softmax
from edgecnn.blame.prices import mistakes
from edgecnn.blame.variants import Explanation, explain
from edgecnn.documents import sha256_of
from edgecnn.imaging import prepare
from edgecnn.runtimes import open_session
from tests.blame.conftest import CLASSES, IMAGES, SPEC, Made, artifact
from tests.cli.test_cli import call, refused

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def explanation(made: Made) -> Explanation:
    return explain(made.folder, made.data)


def test_every_stage_of_fp32_is_the_checkpoints(explanation: Explanation) -> None:
    fp32 = explanation.variants[0]
    assert fp32.first is None
    assert [stage.state for stage in fp32.stages] == ["same"] * 4
    assert fp32.stages[0].stage.startswith("decode, orientation, colour order")


def test_int8_differs_first_in_precision(explanation: Explanation) -> None:
    int8 = explanation.variants[1]
    assert int8.first == "precision"
    assert "first stage that differs: precision" in int8.verdict
    assert [stage.state for stage in int8.stages[:3]] == ["same", "same", "same"]


def test_int8_layer_by_layer(explanation: Explanation) -> None:
    layers = explanation.variants[1].layers
    assert layers is not None
    assert len(layers.layers) >= 5
    levels = [layer.sqnr_db for layer in layers.layers]
    assert levels == sorted(levels)
    assert 10 < levels[0] < levels[-1] < 60


def test_a_layer_that_is_quantised_badly_is_the_worst(made: Made, tmp_path: Path) -> None:
    """One scale is made far too coarse: the layer where most is lost is that one."""
    import onnx

    folder = tmp_path / "bundle"
    shutil.copytree(made.folder, folder)
    path = folder / "onnx-int8" / "model.onnx"
    model = onnx.load(path)
    quantisers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    scales = {one.name: one for one in model.graph.initializer}
    convolutions = {node.output[0]: node for node in model.graph.node if node.op_type in ("Conv", "Clip", "Relu")}
    victim = [node for node in quantisers if node.input[0] in convolutions][1]
    scale = scales[victim.input[1]]
    coarse = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale) * np.float32(24), scale.name)
    scale.CopyFrom(coarse)
    onnx.save(model, path)
    write_bundle(folder, made.bundle.model_copy(update={"files": inventory(folder)}))
    layers = explain(folder, made.data, ["onnx-int8"]).variants[0].layers
    assert layers is not None
    assert max(layers.layers, key=lambda layer: layer.lost_db).name == victim.input[0]


def test_the_prices_of_mistakes(explanation: Explanation) -> None:
    prices = explanation.prices
    assert prices is not None
    assert prices.variant == "onnx-fp32"
    assert prices.images == IMAGES
    assert [one.points for one in prices.prices] == sorted(one.points for one in prices.prices)
    by_name = {one.mistake: one for one in prices.prices}
    assert set(by_name) >= {
        *("BGR instead of RGB", "cv2 linear resize (not antialiased)", "centre crop instead of stretch"),
        *("mean 0.5, std 0.5", "NCHW buffer read as NHWC", "pixels 0 to 255 normalised as if they were 0 to 1"),
        *("decoded to grey", "nearest-neighbour resize", "cv2 area resize"),
    }
    assert by_name["BGR instead of RGB"].flipped > 2
    for one in prices.prices:
        assert one.interval.low - 1e-9 <= one.points <= one.interval.high + 1e-9
        assert one.points == pytest.approx(100 * (one.top1 - prices.top1))
        assert one.agreement == pytest.approx(1 - one.flipped / IMAGES)
    assert any("Exif orientation" in line for line in prices.not_priced)


def test_wrong_numbers_are_those_of_a_net_that_is_fed_them(made: Made) -> None:
    """A priced normalisation gives what the network itself answers to pixels normalised that way."""
    import torch

    from edgecnn.blame.pipeline import EncodedImage
    from edgecnn.imaging import prepare

    engine = engines.get("onnxruntime")
    assert engine is not None
    assert engine.float_pixels is not None
    opened = engine.float_pixels(made.folder / "onnx-fp32" / "model.onnx", 1)
    wrong = {one.words: one.pipeline for one in mistakes(SPEC)}
    encoded = made.paths[3].read_bytes()
    pixels = torch.from_numpy(prepare(encoded, SPEC)).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        half = made.net((pixels / 255 - 0.5) / 0.5)[0].numpy()
        raw = made.net(pixels)[0].numpy()
    for words, expected in (("mean 0.5, std 0.5", half), ("pixels 0 to 255, no mean and std", raw)):
        got = opened.run(EncodedImage(encoded).enter(wrong[words], "nhwc"))
        assert got == pytest.approx(expected, rel=1e-3, abs=1e-3)


def with_model(made: Made, folder: Path, change: Callable[[object], None]) -> Path:
    """The bundle with a change to its fp32 ONNX graph."""
    import onnx

    shutil.copytree(made.folder, folder)
    path = folder / "onnx-fp32" / "model.onnx"
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    write_bundle(folder, made.bundle.model_copy(update={"files": inventory(folder)}))
    return folder


def test_an_export_with_other_weights_is_blamed(made: Made, tmp_path: Path) -> None:
    import onnx

    def spoil(model: onnx.ModelProto) -> None:
        weight = max(model.graph.initializer, key=lambda one: len(one.raw_data))
        values = onnx.numpy_helper.to_array(weight)
        noisy = values + 0.5 * np.random.default_rng(0).standard_normal(values.shape).astype(np.float32)
        weight.CopyFrom(onnx.numpy_helper.from_array(noisy.astype(np.float32), weight.name))

    folder = with_model(made, tmp_path / "bundle", spoil)  # type: ignore[arg-type]
    found = explain(folder, made.data, ["onnx-fp32"]).variants[0]
    assert found.first == "export"
    assert [stage.state for stage in found.stages] == ["unknown", "differs", "same", "same"]


def test_an_export_that_takes_bgr_is_blamed(made: Made, tmp_path: Path) -> None:
    import onnx

    def swap(model: onnx.ModelProto) -> None:
        graph = model.graph
        for node in graph.node:
            for index, name in enumerate(node.input):
                if name == "images":
                    node.input[index] = "swapped"
        order = onnx.numpy_helper.from_array(np.array([2, 1, 0], np.int64), "order")
        graph.initializer.append(order)
        graph.node.insert(0, onnx.helper.make_node("Gather", ["images", "order"], ["swapped"], axis=3))

    folder = with_model(made, tmp_path / "bundle", swap)  # type: ignore[arg-type]
    found = explain(folder, made.data, ["onnx-fp32"]).variants[0]
    assert found.first == "colour order"
    assert "answers right from BGR" in found.verdict


def test_the_layers_of_openvino(made: Made, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    nncf = pytest.importorskip("nncf")
    from edgecnn.blame.layers import Layers, layer_noise
    from edgecnn.parity import prepare_files

    pixels = prepare_files(made.paths[:12], SPEC)
    model = openvino.convert_model(made.folder / "onnx-fp32" / "model.onnx")
    model.reshape([1, SPEC.height, SPEC.width, 3])
    for variant in ("openvino-fp32", "openvino-int8"):
        (tmp_path / variant).mkdir()
    openvino.save_model(model, tmp_path / "openvino-fp32" / "model.xml", compress_to_fp16=False)
    quantised = nncf.quantize(model, nncf.Dataset([image[None] for image in pixels]), subset_size=12)
    openvino.save_model(quantised, tmp_path / "openvino-int8" / "model.xml", compress_to_fp16=False)
    int8, fp32 = (artifact(f"openvino-{kind}", "openvino", f"openvino-{kind}/model.xml") for kind in ("int8", "fp32"))
    layers = layer_noise(tmp_path, int8, fp32, pixels[:4])
    assert isinstance(layers, Layers)
    assert len(layers.layers) >= 4
    assert 5 < layers.layers[0].sqnr_db < 60


def test_an_engine_without_inner_tensors_says_so(made: Made) -> None:
    from edgecnn.blame.layers import layer_noise

    one = artifact("torchscript-int8", "pytorch", "x.pt")
    assert layer_noise(made.folder, one, one, np.zeros((1, 32, 32, 3), np.uint8)) == "pytorch gives no inner tensors"


def test_other_pixels_than_on_the_exporting_machine_are_blamed(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(made.folder, folder)
    golden = tuple(one.model_copy(update={"pixels_sha256": "0" * 64}) for one in made.bundle.golden)
    write_bundle(folder, made.bundle.model_copy(update={"golden": golden}))
    found = explain(folder, made.data, ["onnx-fp32"]).variants[0]
    assert found.first == "decode or resize"
    assert "1 of 1 golden images prepare to other pixels" in found.verdict


@pytest.mark.parametrize(("elsewhere", "state"), [(False, "same"), (True, "differs")])
def test_int8_is_asked_for_its_golden_decisions_where_it_was_not_proven(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool, state: str
) -> None:
    """As `verify` and `bench` ask; one that decides otherwise here prices nothing."""
    folder = tmp_path / "bundle"
    shutil.copytree(made.folder, folder)
    answers = explained_decisions(made)
    golden = []
    for number, path in enumerate(made.paths[:20]):
        file = f"golden/{number}.png"
        (folder / file).write_bytes(path.read_bytes())
        logits = tuple(float((answers[number] + elsewhere) % len(CLASSES) == label) for label in range(len(CLASSES)))
        digest = sha256_of(prepare(path.read_bytes(), SPEC).tobytes())
        golden.append(Golden(file=file, label="good", logits=logits, pixels_sha256=digest))
    changes = {"golden": tuple(golden), "files": inventory(folder)}
    write_bundle(folder, made.bundle.model_copy(update=changes))
    said: list[str] = []
    found = explain(folder, made.data, ["onnx-int8"], said.append)
    processor = next(stage for stage in found.variants[0].stages if stage.stage == "processor")
    assert (processor.state, "golden images decided unlike" in processor.words) == (state, True)
    assert found.variants[0].first == ("processor" if elsewhere else "precision")
    assert (found.prices is None) == elsewhere
    assert any("no mistake is priced with it: decides otherwise on" in line for line in said) == elsewhere
    assert call(monkeypatch, "verify", folder, "--data", made.data, "--explain", "--variant", "onnx-int8") in (
        {1} if elsewhere else {0, 1}
    )


def explained_decisions(made: Made) -> list[int]:
    """What onnx-int8 decides here of the first images."""
    with open_session(made.folder, made.bundle.artifact("onnx-int8"), 1) as session:
        return [int(session.run(prepare(path.read_bytes(), SPEC)[None])[0].argmax()) for path in made.paths[:20]]


# Pieces


def test_signal_to_noise() -> None:
    exact = np.full((4, 5), 2.0, np.float32)
    assert sqnr_db(exact, exact + np.float32(0.02)) == pytest.approx(40, abs=0.01)
    assert sqnr_db(exact, exact) == 200
    assert sqnr_db(exact, np.full((4, 5), np.nan, np.float32)) == -200


def test_tensors_of_other_names_are_matched_by_what_they_hold() -> None:
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(2, 50)).astype(np.float32) for _ in range(3)]
    clean = {name: engines.Tensor("Conv", one) for name, one in zip("abc", values, strict=True)}
    noisy = {"a": clean["a"], "other": engines.Tensor("Conv", values[2] + np.float32(0.1) * values[0])}
    pairs = match(noisy, clean)
    assert pairs["a"][1] is clean["a"]
    assert pairs["other"][1] is clean["c"]
    assert "noise" not in match({"noise": engines.Tensor("Conv", rng.normal(size=(2, 50)))}, clean)


def test_answers() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(30, 4)).astype(np.float32)
    expected = Expected(logits, logits.argmax(1))
    assert effect(logits, expected).error == 0
    assert kinds_like(logits) == ("logits",)
    assert kinds_like(softmax(logits))[0] == "softmax"
    assert effect(softmax(logits), expected, Output("softmax")).error == 0
    assert class_order(logits[:, [2, 0, 3, 1]], logits) == (1, 3, 0, 2)
    assert correlation(logits, 3 * logits + 1) == pytest.approx(1)
    broken = effect(np.full_like(logits, np.nan), expected)
    assert broken.error == 1e30
    assert broken.correlation == 0


def test_nothing_heavy_is_loaded() -> None:
    modules = "edgecnn.blame.variants, edgecnn.blame.foreign, edgecnn.blame.tables, edgecnn.blame.engines.onnxruntime"
    heavy = "{'torch', 'onnx', 'openvino', 'cv2', 'onnxruntime'}"
    code = f"import sys, {modules}; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)


# The command line


def test_the_verb_explains(
    made: Made,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("verify", made.folder, "--data", made.data, "--explain")
    assert call(monkeypatch, *words, "--variant", "onnx-fp32") == 0
    shown = capsys.readouterr().out
    assert "what mistakes cost: onnx-fp32" in shown
    assert "onnx-fp32: every stage is the checkpoint's" in shown
    assert call(monkeypatch, *words, "--variant", "onnx-int8", "--json") in (0, 1)
    document = json.loads(capsys.readouterr().out)
    assert document["variants"][0]["variant"] == "onnx-int8"
    assert document["explained"]["variants"][0]["layers"]["layers"]
    assert document["explained"]["prices"]["prices"]


def test_the_verb_without_explain_is_as_it_was(
    made: Made,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, "verify", made.folder, "--data", made.data, "--variant", "onnx-fp32", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["passed"] is True


def test_the_verb_judges_a_foreign_file(
    made: Made,
    foreign: Write,
    described: Write,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("verify", made.folder, "--data", made.data, "--foreign", foreign(), "--preprocess")
    assert call(monkeypatch, *words, described()) == 0
    assert "matches the checkpoint" in capsys.readouterr().out
    assert call(monkeypatch, *words, described(colour="bgr"), "--explain") == 1
    assert "first stage that differs: colour order" in capsys.readouterr().out.replace("\n", " ")
    assert call(monkeypatch, *words, described(colour="bgr"), "--explain", "--json") == 1
    assert json.loads(capsys.readouterr().out)["first"] == "colour order"


def test_mistakes_on_the_command_line(
    made: Made,
    foreign: Write,
    described: Write,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("verify", made.folder, "--data", made.data)
    assert "--preprocess is needed" in refused(monkeypatch, capsys, *words, "--foreign", foreign())
    assert "name it with --foreign" in refused(monkeypatch, capsys, *words, "--preprocess", described())
    line = refused(monkeypatch, capsys, *words, "--foreign", foreign(), "--variant", "onnx-fp32")
    assert "give one of them" in line
    assert "is not in the bundle" in refused(monkeypatch, capsys, *words, "--explain", "--variant", "onnx-fp64")
    assert len(CLASSES) == 4
