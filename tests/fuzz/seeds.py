"""Whole inputs to spoil, small ones: images of every kind that is read, model files, weights, documents."""

from __future__ import annotations

import io
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.conftest import picture

SIDE = 24


def image(number: int) -> bytes:
    """A small PNG, another one for each number."""
    return _saved(Image.fromarray(picture(number, 12, 16)), "PNG")


def images() -> list[bytes]:
    """A file of every kind, and of the ways in which one can be stored."""
    colour = Image.fromarray(picture(1, 41, 53))
    grey, deep = colour.convert("L"), Image.fromarray(picture(2, 20, 30)[..., 0].astype(np.uint16) << 4)
    jpegs: Sequence[dict[str, object]] = (
        {"quality": 90, "subsampling": 0},
        {"quality": 60, "subsampling": 2},
        {"quality": 60, "progressive": True},
        {"quality": 60, "restart_marker_blocks": 3},
        {"quality": 60, "exif": _turned(6)},
    )
    found = [_saved(colour, "JPEG", **options) for options in jpegs]
    found += [_saved(one, "JPEG") for one in (grey, colour.convert("CMYK"))]
    found += [_saved(one, "PNG") for one in (colour, grey, deep, colour.convert("P"), colour.convert("RGBA"))]
    found += [_saved(colour, "PNG", exif=_turned(3))]
    found += [_saved(one, "TIFF", compression=way) for one in (colour, grey, deep) for way in ("raw", "tiff_lzw")]
    found += [_saved(colour, "TIFF", exif=_turned(8)), _saved(deep, "TIFF", compression="tiff_adobe_deflate")]
    found += [_saved(one, "PPM") for one in (colour, grey)]
    found += [_saved(colour, kind) for kind in ("BMP", "GIF", "WEBP")]
    return found


def _saved(one: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    one.save(stream, kind, **options)
    return stream.getvalue()


def _turned(tag: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = tag
    return exif


def networks(folder: Path) -> list[bytes]:
    """ONNX: several small graphs."""
    from tests.onnx_graph.files import classifier, pixels_inside

    made = (
        classifier(folder / "a.onnx"),
        classifier(folder / "b.onnx", softmax=True),
        pixels_inside(folder / "c.onnx"),
    )
    return [path.read_bytes() for path in made]


def tflite(folder: Path) -> list[bytes]:
    """One small network that takes uint8 pixels."""
    import torch
    from torch import nn

    from edgecnn import formats
    from edgecnn.artifact import Preprocess
    from edgecnn.formats import Source
    from edgecnn.models import Deployed

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    deployed = Deployed(net, Preprocess(height=SIDE, width=SIDE)).eval()
    done = formats.convert("litert", Source(deployed, SIDE, SIDE, folder, {}), "fp32", folder / "out")
    return [(folder / "out" / name).read_bytes() for name in done.files]


def weights(folder: Path) -> tuple[list[bytes], list[bytes]]:
    """The same tensors as .safetensors files, and as .pth files."""
    import safetensors.torch
    import torch

    rng = np.random.default_rng(0)
    state = {
        f"{name}.{kind}": torch.from_numpy(rng.normal(size=shape).astype(np.float32))
        for name, shape in (("stem.conv", (4, 3, 3, 3)), ("head", (3, 4)))
        for kind, shape in (("weight", shape), ("bias", shape[:1]))
    }
    safetensors.torch.save_file(state, folder / "a.safetensors", {"classes": "a,b"})
    wrapped = ({"state_dict": state, "state_dict_ema": state, "epoch": 3}, {f"module.{k}": v for k, v in state.items()})
    pickled = []
    for number, one in enumerate((state, *wrapped)):
        torch.save(one, folder / f"{number}.pth")
        pickled.append((folder / f"{number}.pth").read_bytes())
    return [(folder / "a.safetensors").read_bytes()], pickled


def target() -> bytes:
    """A target that comes with edgecnn."""
    return json.dumps(
        tomllib.loads((Path(__file__).parents[2] / "export" / "desktop-cpu.toml").read_text("utf-8"))
    ).encode()


def preprocess() -> bytes:
    """What is known of a network's input."""
    spec = {"height": SIDE, "width": SIDE, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "fit": "stretch"}
    return json.dumps(spec).encode()


def run(folder: Path) -> bytes:
    """A line of raw measurements."""
    from edgecnn.bench.child import run_job
    from edgecnn.bench.measure import MeasurePlan
    from edgecnn.bench.process import Job
    from tests.bench.conftest import write_tiny_bundle

    made = write_tiny_bundle(folder / "measured")
    plan = MeasurePlan(samples=20)
    job = Job(bundle=str(made), variant="onnx-fp32", images=None, plan=plan, threads=1, out=str(folder / "run.json"))
    return run_job(job).model_dump_json().encode()


def parsed(document: bytes) -> dict[str, Any]:
    """The keys and values of a seed that is JSON."""
    found: dict[str, Any] = json.loads(document)
    return found
