"""A weights file and the name of its network: tensors by name, never a pickled object."""

from __future__ import annotations

import copy
import re
import zipfile
from pathlib import Path

import torch
from torch import nn

from edgecnn.errors import UserError
from edgecnn.models import Built, build
from edgecnn.models.architecture import create_module, find_architecture
from edgecnn.models.held import WeightsFile
from edgecnn.models.naming import head_rows, match_weights
from edgecnn.models.weights_file import read_file

_HOW = (
    "save its state_dict (torch.save(net.state_dict(), 'weights.pth')), or write an .onnx file with torch.onnx.export"
)


def load_state_dict(path: Path, model: str, weights_key: str | None) -> tuple[Built, int, WeightsFile]:
    """The network of that name with its head and weights, the number of rows of the head in the file, and the file.

    A head of one row, a score of one class against another, becomes two. Raises UserError: a file that holds more than
    tensors, weights of another network, no head or one of several layers.
    """
    architecture = find_architecture(model)
    file = read_file(path)
    chosen = match_weights(create_module(architecture, 2, None, None), architecture, file, weights_key, str(path))
    rows = 0 if chosen.match.misfits else head_rows(chosen.match, str(path))  # which `build` refuses
    built = build(model, max(rows, 2), path, keep_head=True, weights_key=weights_key)
    return built, rows, file


def refuse_programs(path: Path) -> None:
    """UserError where a file holds a program rather than tensors: TorchScript or torch.export."""
    if path.suffix.lower() == ".pt2":
        raise UserError(f"{path}: a torch.export program, whose reader may run what the file says: {_HOW}")
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("constants.pkl") for name in names):
        raise UserError(f"{path}: a TorchScript program, not tensors: {_HOW}")
    if any(
        re.search(r"(^|/)(models/[^/]+\.json|archive_format|serialized_exported_program\.json)$", name)
        for name in names
    ):
        raise UserError(f"{path}: a torch.export program, whose reader may run what the file says: {_HOW}")


def taking_rgb(module: nn.Module, name: str) -> nn.Module:
    """A network that was trained on BGR, made to take RGB: the input channels of its first convolution turned round.

    Raises UserError where that does not make it answer to RGB as before to BGR.
    """
    first = next((one for one in module.modules() if isinstance(one, nn.Conv2d) and one.in_channels == 3), None)
    if first is None:
        raise UserError(
            f"{name}: colour: 'bgr': it has no first convolution of three channels to turn: give RGB weights"
        )
    turned = copy.deepcopy(module).eval()
    image = torch.rand(1, 3, 96, 96)
    with torch.inference_mode():
        wanted = turned(image.flip(1))
    own = next(one for one in turned.modules() if isinstance(one, nn.Conv2d) and one.in_channels == 3)
    own.weight = nn.Parameter(own.weight.detach().flip(1).contiguous())
    with torch.inference_mode():
        same = torch.allclose(turned(image), wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))
    if not same:
        raise UserError(f"{name}: colour: 'bgr' cannot be put into this network: give weights that take RGB")
    return turned
