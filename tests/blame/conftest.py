"""A small bundle with a network that sees colours, edges and fine texture, and its images, larger than its input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn import formats
from edgecnn.artifact import (
    Artifact,
    Bundle,
    Check,
    Cost,
    Golden,
    Interval,
    Precision,
    Preprocess,
    inventory,
    write_bundle,
)
from edgecnn.documents import sha256_of, sha256_of_file
from edgecnn.formats import Source
from edgecnn.imaging import prepare
from edgecnn.parity import Reference, prepare_files, save_reference
from tests.conftest import encode, picture, provenance

CLASSES = ("crack", "dent", "good", "stain")
SIDE = 32
IMAGES = 24
SPEC = Preprocess(height=SIDE, width=SIDE)


@dataclass(frozen=True)
class Made:
    """A bundle, where it lies, and what it was made from."""

    folder: Path
    data: Path
    bundle: Bundle
    net: Any
    """torch module: normalised float32 NCHW to logits."""
    paths: tuple[Path, ...]


def textured(seed: int) -> np.ndarray:
    """Smooth colours, an edge, and a texture too fine for the network's input; wider than high, or the reverse."""
    rng = np.random.default_rng(seed)
    height, width = [(75, 110), (90, 61), (66, 140)][seed % 3]
    image = picture(seed, height, width).astype(np.float64)
    y, x = np.mgrid[0:height, 0:width]
    image += rng.uniform(20, 60) * ((x + (seed % 3) * y) % 3 == 0)[:, :, None] * rng.uniform(0.3, 1, 3)
    image[: height // 4] *= rng.uniform(0.2, 1.3, 3)  # what a centre crop loses
    return np.clip(image, 0, 255).astype(np.uint8)


def network() -> Any:
    """Random weights; BatchNorm statistics of real images, so that answers differ from image to image."""
    import torch
    from torch import nn

    torch.manual_seed(3)
    return nn.Sequential(
        *(nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6()),
        *(nn.Conv2d(12, 12, 3, 1, 1, groups=12, bias=False), nn.BatchNorm2d(12), nn.ReLU6()),
        *(nn.Conv2d(12, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(24), nn.Linear(24, len(CLASSES))),
    )


def settle(net: Any, pixels: np.ndarray) -> Any:
    import torch

    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (SPEC.mean, SPEC.std))
    entering = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
    with torch.no_grad():
        for _ in range(30):
            net.train()(entering)
    return net.eval()


def blank_check() -> Check:
    values = dict.fromkeys(("max_logit_error", "mean_logit_error", "loss_points"), 0.0)
    shares = dict.fromkeys(("agreement", "top1", "reference_top1", "mcnemar_p"), 1.0)
    return Check(
        **values,
        **shares,
        images=IMAGES,
        top1_interval=Interval(low=0.9, high=1.0),
        loss_interval=Interval(low=-1.0, high=1.0),
        recall={},
        confusion=None,
        largest_decision_share=0.5,
        largest_label_share=0.5,
        missed_defects=None,
        false_alarms=None,
        reference_missed_defects=None,
        reference_false_alarms=None,
        flips=(),
    )


def artifact(variant: str, runtime: str, file: str) -> Artifact:
    form, _, precision = variant.rpartition("-")
    kinds: dict[str, Precision] = {"fp32": "fp32", "fp16": "fp16", "int8": "int8"}
    return Artifact(
        variant=variant,
        format=form,
        precision=kinds[precision],
        runtime=runtime,
        files=(file,),
        bytes=1,
        check=blank_check(),
    )


def bundle_of(folder: Path, artifacts: tuple[Artifact, ...], logits: np.ndarray, golden: Path) -> Bundle:
    pixels = sha256_of(prepare(golden.read_bytes(), SPEC).tobytes())
    (folder / "golden").mkdir(exist_ok=True)
    (folder / "golden" / "0.png").write_bytes(golden.read_bytes())
    return Bundle(
        name="small",
        target="test",
        budget="30ms@p99",
        threads=1,
        machine="x86_64",
        accuracy_loss_limit=1.0,
        fp32_tolerance=1e-4,
        classes=CLASSES,
        good_class="good",
        preprocess=SPEC,
        cost=Cost(params=1, macs=1),
        artifacts=artifacts,
        golden=(Golden(file="golden/0.png", label="good", logits=tuple(map(float, logits[0])), pixels_sha256=pixels),),
        provenance=provenance("2026-01-01T00:00:00+00:00", "test:small"),
        files=inventory(folder),
    )


def write_int8(fp32: Path, out: Path, pixels: np.ndarray) -> None:
    """A QDQ file by ONNX Runtime's own quantiser; 7-bit weights, whose products no processor cuts off."""
    import logging

    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter([{"images": image[None]} for image in pixels])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    logging.disable(logging.WARNING)
    try:
        quantize_static(
            fp32,
            out,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,
        )
    finally:
        logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """onnx-fp32 and onnx-int8 of the network; labels are mostly what it decides."""
    import torch

    from edgecnn.models import Deployed

    root = tmp_path_factory.mktemp("blame")
    data, folder, work = root / "parts", root / "bundle", root / "work"
    for one in (data, folder, work):
        one.mkdir()
    paths = tuple(data / f"{seed:02d}.png" for seed in range(IMAGES))
    for seed, path in enumerate(paths):
        path.write_bytes(encode(textured(seed)))
    pixels = prepare_files(paths, SPEC)
    net = settle(network(), pixels)
    deployed = Deployed(net, SPEC)
    with torch.inference_mode():
        logits = deployed(torch.from_numpy(pixels)).numpy()
    labels = logits.argmax(1).astype(np.int64)
    labels[::8] = (labels[::8] + 1) % len(CLASSES)
    formats.convert("onnx", Source(deployed, SIDE, SIDE, work), "fp32", folder / "onnx-fp32")
    (folder / "onnx-int8").mkdir()
    write_int8(folder / "onnx-fp32" / "model.onnx", folder / "onnx-int8" / "model.onnx", pixels[:16])
    names = tuple(path.name for path in paths)
    save_reference(
        Reference(names, tuple(sha256_of_file(path) for path in paths), labels, logits), folder / "reference.npz"
    )
    artifacts = tuple(
        artifact(variant, "onnxruntime", f"{variant}/model.onnx") for variant in ("onnx-fp32", "onnx-int8")
    )
    bundle = bundle_of(folder, artifacts, logits, paths[0])
    write_bundle(folder, bundle)
    return Made(folder, data, bundle, net, paths)


@pytest.fixture(scope="session")
def foreign(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(name, what stands before the net, behind it) to a foreign ONNX file: float32 NCHW in."""
    import torch
    from torch import nn

    folder = tmp_path_factory.mktemp("foreign")

    def export(
        name: str = "plain", before: Any = None, behind: Any = None, net: Any = None, uint8: bool = False
    ) -> Path:
        path = folder / f"{name}.onnx"
        if not path.exists():
            parts = [part for part in (before, net or made.net, behind) if part is not None]
            # Strangers use either exporter; the older one takes no seconds.
            example = torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8 if uint8 else torch.float32)
            save_onnx(nn.Sequential(*parts).eval(), example, path, dynamo=name == "plain")
        return path

    return export


def save_onnx(module: Any, example: Any, path: Path, dynamo: bool) -> None:
    import contextlib
    import io
    import logging
    import warnings

    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = ({0: torch.export.Dim("batch")},)
            torch.onnx.export(
                module, (example,), path, dynamo=True, external_data=False, verbose=False, dynamic_shapes=shapes
            )
        else:
            axes = {"images": {0: "batch"}, "scores": {0: "batch"}}
            names = {"input_names": ["images"], "output_names": ["scores"]}
            torch.onnx.export(module, (example,), path, dynamo=False, opset_version=17, dynamic_axes=axes, **names)


RIGHT = {
    "size": [SIDE, SIDE],
    "colour": "rgb",
    "resize": "edgecnn",
    "fit": "stretch",
    "scale": "1/255",
    "mean": list(SPEC.mean),
    "std": list(SPEC.std),
    "layout": "nchw",
    "dtype": "float32",
    "output": "logits",
    "decode": "scaled",
}
"""What the plain foreign file needs."""


@pytest.fixture
def described(tmp_path: Path) -> Callable[..., Path]:
    """The right description with changes; None takes a key out."""

    def write(**changes: object) -> Path:
        values = {key: value for key, value in {**RIGHT, **changes}.items() if value is not None}
        path = tmp_path / "pre.toml"
        path.write_text("\n".join(f"{key} = {_toml(value)}" for key, value in values.items()))
        return path

    return write


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)
