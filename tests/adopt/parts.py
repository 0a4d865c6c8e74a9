"""Drawn parts whose classes need their colours, their edges and their scale; and a network trained on them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from PIL import Image
from torch import nn

from edgecnn.artifact import Preprocess
from edgecnn.parity import prepare_files
from tests.blame.conftest import save_onnx

SIDE = 24
SPEC = Preprocess(height=SIDE, width=SIDE)
CLASSES = ("border", "moss", "paint", "plain", "rust")
"""Rust is red, paint blue, moss yellow: swapped, two of them are one. A centre crop loses the mark of border."""
EACH = 16
_COLOURS = {"rust": [80, -30, -70], "paint": [-70, -30, 80], "moss": [50, 50, -80]}


def write_parts(root: Path) -> Path:
    rng = np.random.default_rng(5)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for number in range(EACH):
            pixels = rng.normal(rng.uniform(120, 150), 10, (40, 80, 3))
            y, x = rng.integers(12, 28), rng.integers(28, 52)
            disc = (np.mgrid[0:40, 0:80][0] - y) ** 2 + (np.mgrid[0:40, 0:80][1] - x) ** 2 < 64
            pixels[disc] += _COLOURS.get(name, [0, 0, 0])
            if name == "border":
                pixels[:, :10] -= 90
                pixels[:, -10:] -= 90
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / name / f"{number:02d}.png")
    return root


def train(root: Path) -> nn.Module:
    """Normalised float32 NCHW to logits, in the order of CLASSES; right on every part."""
    torch.manual_seed(0)
    paths = [path for name in CLASSES for path in sorted((root / name).iterdir())]
    labels = torch.arange(len(CLASSES)).repeat_interleave(EACH)
    entering = normalised(torch.from_numpy(prepare_files(paths, SPEC)))
    net = nn.Sequential(
        *(nn.Conv2d(3, 12, 5, 2, 2), nn.ReLU(), nn.Conv2d(12, 16, 3, 2, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16 * (SIDE // 4) ** 2, len(CLASSES))),
    )
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(entering), labels).backward()
        optimizer.step()
    with torch.no_grad():
        assert (net(entering).argmax(1) == labels).all()
    return net.eval()


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (SPEC.mean, SPEC.std))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


def write_onnx(
    path: Path,
    net: nn.Module,
    before: Callable[[Any], Any] = lambda x: x,
    behind: Callable[[Any], Any] = lambda x: x,
    names: dict[int, str] | None = None,
) -> Path:
    """Somebody else's file. `names`: as Ultralytics writes them."""

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = copy.deepcopy(net)

        def forward(self, x: Any) -> Any:
            return behind(self.net(before(x)))

    save_onnx(Whole().eval(), torch.zeros(2, 3, SIDE, SIDE), path, dynamo=False)
    if names:
        model = onnx.load(path)
        onnx.helper.set_model_props(model, {"names": str(names), "task": "classify"})
        onnx.save(model, path)
    return path


def described(path: Path, **changes: Any) -> Path:
    """A pre.toml, right but for the changes."""
    values = {"height": SIDE, "width": SIDE, "mean": list(SPEC.mean), "std": list(SPEC.std), "fit": "stretch"}
    lines = (f"{key} = {value!r}" for key, value in {**values, **changes}.items())
    path.write_text("\n".join(lines) + "\n")
    return path
