"""What the tests of bench share: a clock that only moves when told, a fake session, raw runs, a tiny real bundle."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgecnn.artifact import Artifact, Bundle, Check, Cost, Golden, Interval, Preprocess, inventory, write_bundle
from edgecnn.bench.host import Fingerprint, State
from edgecnn.bench.measure import MeasurePlan, Samples, Stages
from edgecnn.bench.records import BenchImage, Run, Subject
from edgecnn.documents import sha256_of
from edgecnn.executed import Executed, ExecutedLayer
from edgecnn.imaging import prepare
from edgecnn.runtimes import Session
from tests.conftest import provenance

CLASSES = ("good", "scratch", "hole")
SIDE = 8
WEIGHTS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32) / 64
"""The tiny network's classes are the mean red, green and blue."""


def executed(int8_layers: int, float_layers: int) -> Executed:
    """An engine's account of so many layers, without their sizes."""
    precisions = ["int8"] * int8_layers + ["fp32"] * float_layers
    return Executed(
        layers=tuple(ExecutedLayer(name=str(i), kind="", precision=one, macs=0) for i, one in enumerate(precisions))
    )


class FakeClock:
    """Nanoseconds that pass only through `advance`."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def advance(self, nanoseconds: int) -> None:
        self.now += nanoseconds


class FakePreparer:
    """Takes `decode_ns` and `fit_ns` of the clock; an encoded image is one byte, the class to decide."""

    def __init__(self, clock: FakeClock, decode_ns: int, fit_ns: int) -> None:
        self.clock, self.decode_ns, self.fit_ns = clock, decode_ns, fit_ns

    def decode(self, encoded: bytes) -> np.ndarray:
        self.clock.advance(self.decode_ns)
        return np.full((2 * SIDE, 2 * SIDE, 3), encoded[0], np.uint8)

    def fit(self, pixels: np.ndarray) -> np.ndarray:
        self.clock.advance(self.fit_ns)
        return pixels[:SIDE, :SIDE]


class FakeSession(Session):
    """Takes `run_ns(number of the run)` of the clock; the logit of the class that the pixels name is the largest."""

    def __init__(self, clock: FakeClock, run_ns: Callable[[int], int]) -> None:
        self.clock, self.run_ns, self.shapes = clock, run_ns, []

    def run(self, images: np.ndarray) -> np.ndarray:
        self.clock.advance(self.run_ns(len(self.shapes)))
        self.shapes.append((images.shape, images.dtype))
        logits = np.zeros((1, len(CLASSES)), np.float32)
        logits[0, images[0, 0, 0, 0]] = 1
        return logits

    def executed(self) -> Executed:
        return Executed(layers=())

    def close(self) -> None:
        pass


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def fake_preparer(clock: FakeClock) -> FakePreparer:
    return FakePreparer(clock, decode_ns=300, fit_ns=200)


@pytest.fixture
def fake_session(clock: FakeClock) -> Callable[[Callable[[int], int]], FakeSession]:
    return lambda run_ns: FakeSession(clock, run_ns)


HOST = Fingerprint(
    machine="aarch64",
    kernel_machine="aarch64",
    board="Raspberry Pi 5 Model B Rev 1.0",
    cpu="Cortex-A76",
    cores=4,
    usable_cpus=4.0,
    flags=("asimddp",),
    memory_bytes=2**33,
    system="Linux",
    kernel="6.12",
    python="3.11.2",
    libraries={"edgecnn": "0.1.0"},
)
QUIET = State(
    load_average=(0.1, 0.1, 0.1),
    mhz=(2400.0,) * 4,
    governor="performance",
    temperature_c=51.0,
    pi_throttled=0,
    thermal_throttles=None,
    quota_throttles=0,
    steal_ticks=0,
    idle_ticks=1000,
    total_ticks=4000,
    memory_available_bytes=2**32,
)


def _stages(total_ns: list[int]) -> Stages:
    """A tenth each for decode, prepare and decide, the rest in the engine."""
    tenth = tuple(value // 10 for value in total_ns)
    rest = tuple(value - 3 * (value // 10) for value in total_ns)
    return Stages(decode=tenth, prepare=tenth, infer=rest, decide=tenth)


@pytest.fixture
def make_run() -> Callable[..., Run]:
    """make_run(latencies in ms, field=value, …) to a Run of onnx-int8 for a quiet Raspberry Pi 5."""

    def make(total_ms: Any = (10.0,) * 1000, **changes: Any) -> Run:
        nanoseconds = [round(value * 1e6) for value in total_ms]
        samples = Samples(
            warmup=_stages([20_000_000] * 60),
            steady=True,
            measured=_stages(nanoseconds),
            decisions=((0, 0.9), (1, 0.8)),
            wall_ns=sum(nanoseconds),
            cpu_ns=2 * sum(nanoseconds),
            os_threads=5,
        )
        subject = Subject(
            bundle="tiles",
            target="raspberry-pi-5",
            target_machine="aarch64",
            variant="onnx-int8",
            format="onnx",
            precision="int8",
            runtime="onnxruntime",
            files={"onnx-int8.onnx": "0" * 64},
            file_bytes=3 * 2**20,
            params=2_200_000,
            macs=300_000_000,
        )
        run = Run(
            started="2026-11-02T10:00:00+00:00",
            subject=subject,
            plan=MeasurePlan(samples=len(nanoseconds)),
            threads=2,
            images=tuple(BenchImage(name=f"{i}.jpg", sha256="1" * 64, bytes=9, expected=i) for i in range(2)),
            images_found=2,
            host=HOST,
            before=QUIET,
            after=QUIET,
            open_ns=80_000_000,
            samples=samples,
            executed=executed(53, 1),
            baseline_rss_bytes=40 * 2**20,
            peak_rss_bytes=100 * 2**20,
        )
        return run.model_copy(update=changes)

    return make


@pytest.fixture
def bundle_folder(tmp_path: Path) -> Path:
    """A whole bundle with a real ONNX file: onnx-fp32, one golden image for each class, for the machine it runs on."""
    return write_tiny_bundle(tmp_path / "bundle")


@pytest.fixture
def change_bundle(bundle_folder: Path) -> Callable[..., Path]:
    """change_bundle(field=value, …) rewrites bundle.json of `bundle_folder`."""

    def change(**changes: Any) -> Path:
        write_bundle(bundle_folder, _tiny_bundle(bundle_folder).model_copy(update=changes))
        return bundle_folder

    return change


def write_tiny_bundle(folder: Path) -> Path:
    (folder / "golden").mkdir(parents=True)
    _write_network(folder / "onnx-fp32.onnx")
    for index, label in enumerate(CLASSES):
        pixels = np.full((3 * SIDE, 2 * SIDE, 3), 40, np.uint8)
        pixels[..., index] = 200
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "PNG" if index else "JPEG")
        (folder / "golden" / f"{label}.{'png' if index else 'jpg'}").write_bytes(encoded.getvalue())
    write_bundle(folder, _tiny_bundle(folder))
    return folder


def _write_network(path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(CLASSES)])],
        [numpy_helper.from_array(np.array([1, 2], np.int64), "axes"), numpy_helper.from_array(WEIGHTS, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _tiny_bundle(folder: Path) -> Bundle:
    from edgecnn.bench.host import machine

    logits = [tuple(3.0 if i == j else 0.6 for j in range(3)) for i in range(3)]
    files = sorted(path.relative_to(folder).as_posix() for path in (folder / "golden").iterdir())
    spec = Preprocess(height=SIDE, width=SIDE)
    golden = tuple(
        Golden(
            file=file,
            label=Path(file).stem,
            logits=logits[CLASSES.index(Path(file).stem)],
            pixels_sha256=sha256_of(prepare((folder / file).read_bytes(), spec).tobytes()),
        )
        for file in files
    )
    return Bundle(
        name="tiny",
        target="a-desk",
        budget="30ms@p90",
        threads=1,
        machine=machine(),
        accuracy_loss_limit=1.0,
        fp32_tolerance=1e-4,
        classes=CLASSES,
        good_class="good",
        preprocess=spec,
        cost=Cost(params=9, macs=9),
        artifacts=(tiny_artifact(folder),),
        golden=golden,
        provenance=provenance("2026-11-02T10:00:00+00:00", "tiny"),
        files=inventory(folder),
    )


def tiny_artifact(folder: Path) -> Artifact:
    check = Check(
        images=3,
        max_logit_error=0.0,
        mean_logit_error=0.0,
        agreement=1.0,
        top1=1.0,
        top1_interval=Interval(low=0.3, high=1.0),
        reference_top1=1.0,
        loss_points=0.0,
        loss_interval=Interval(low=-60.0, high=60.0),
        mcnemar_p=1.0,
        recall=dict.fromkeys(CLASSES, 1.0),
        confusion=((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        missed_defects=0,
        false_alarms=0,
        reference_missed_defects=0,
        reference_false_alarms=0,
        flips=(),
        largest_decision_share=1 / 3,
        largest_label_share=1 / 3,
    )
    return Artifact(
        variant="onnx-fp32",
        format="onnx",
        precision="fp32",
        runtime="onnxruntime",
        files=("onnx-fp32.onnx",),
        bytes=(folder / "onnx-fp32.onnx").stat().st_size,
        check=check,
    )
