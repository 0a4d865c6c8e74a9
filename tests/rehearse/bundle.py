"""A small bundle to rehearse: a real convolutional network as ONNX fp32 and int8, made without training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecnn.artifact import Artifact, Bundle, Check, Cost, Golden, Interval, Preprocess, inventory, write_bundle
from edgecnn.documents import sha256_of
from edgecnn.imaging import prepare
from edgecnn.runtimes import open_file
from tests.conftest import encode, picture, provenance

CLASSES = ("good", "scratch", "hole")
SIDE = 32
SPEC = Preprocess(height=SIDE, width=SIDE)


def write_bundle_to_rehearse(folder: Path, damage: str | None = None) -> Path:
    """Write the bundle; `damage` names a file whose content is replaced before its hash is taken."""
    (folder / "golden").mkdir(parents=True)
    for number in range(len(CLASSES)):
        kind, suffix = ("JPEG", "jpg") if number else ("PNG", "png")
        (folder / f"golden/{number:03d}.{suffix}").write_bytes(encode(picture(number, 96 + number, 128), kind))
    (folder / "labels.txt").write_text("\n".join(CLASSES) + "\n")
    _write_networks(folder)
    golden = _golden(folder)
    if damage:
        (folder / damage).write_bytes(b"no network")
    artifacts = tuple(_artifact(folder, precision) for precision in ("fp32", "int8"))
    write_bundle(folder, _bundle(folder, golden, artifacts))
    return folder


def _write_networks(folder: Path) -> None:
    """uint8 NHWC → convolution, ReLU, depthwise convolution, ReLU, pointwise convolution, mean, classifier."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    rng = np.random.default_rng(0)
    shapes = {"w0": (16, 3, 3, 3), "w1": (16, 1, 3, 3), "w2": (32, 16, 1, 1), "w3": (32, len(CLASSES))}
    weights = {
        name: (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]) if len(shape) > 2 else shape[0])).astype(np.float32)
        for name, shape in shapes.items()
    }
    weights["scale"] = np.array(1 / 255, np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["x0"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x0", "w0"], ["c0"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["x1"]),
        helper.make_node("Conv", ["x1", "w1"], ["c1"], group=16, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["x2"]),
        helper.make_node("Conv", ["x2", "w2"], ["c2"]),
        helper.make_node("Relu", ["c2"], ["x3"]),
        helper.make_node("GlobalAveragePool", ["x3"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w3"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(CLASSES)])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (folder / "onnx-fp32.onnx").write_bytes(model.SerializeToString())

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = iter(_pixels(folder))

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {"images": image[None]}

    options = {
        "per_channel": True,
        "reduce_range": True,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
    }
    source, target = str(folder / "onnx-fp32.onnx"), str(folder / "onnx-int8.onnx")
    quantize_static(source, target, Reader(), quant_format=QuantFormat.QDQ, **options)
    assert onnx.load(target).graph.node


def _pixels(folder: Path) -> list[np.ndarray]:
    return [prepare(path.read_bytes(), SPEC) for path in sorted((folder / "golden").iterdir())]


def _golden(folder: Path) -> tuple[Golden, ...]:
    """fp32's own logits stand for the trained network's."""
    session = open_file(folder / "onnx-fp32.onnx", "onnxruntime", "fp32", 1)
    pixels = _pixels(folder)
    logits = [session.run(image[None])[0] for image in pixels]
    session.close()
    return tuple(
        Golden(
            file=f"golden/{path.name}",
            label=label,
            logits=tuple(map(float, row)),
            pixels_sha256=sha256_of(image.tobytes()),
        )
        for path, label, row, image in zip(sorted((folder / "golden").iterdir()), CLASSES, logits, pixels, strict=True)
    )


def _bundle(folder: Path, golden: tuple[Golden, ...], artifacts: tuple[Artifact, ...]) -> Bundle:
    return Bundle(
        name="small",
        target="raspberry-pi-4",
        budget="30ms@p99",
        threads=1,
        machine="aarch64",
        accuracy_loss_limit=1.0,
        fp32_tolerance=1e-4,
        classes=CLASSES,
        good_class="good",
        preprocess=SPEC,
        cost=Cost(params=1184, macs=300_000),
        artifacts=artifacts,
        golden=golden,
        provenance=provenance("2026-11-02T10:00:00+00:00", "small"),
        files=inventory(folder),
    )


def _artifact(folder: Path, precision: str) -> Artifact:
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
        confusion=None,
        missed_defects=0,
        false_alarms=0,
        reference_missed_defects=0,
        reference_false_alarms=0,
        flips=(),
        largest_decision_share=1 / 3,
        largest_label_share=1 / 3,
    )
    file = f"onnx-{precision}.onnx"
    return Artifact(
        variant=f"onnx-{precision}",
        format="onnx",
        precision=precision,  # type: ignore[arg-type]
        runtime="onnxruntime",
        files=(file,),
        bytes=(folder / file).stat().st_size,
        check=check,
    )
