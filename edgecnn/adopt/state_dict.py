"""A weights file and the name of its network: tensors by name, never a pickled object."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import timm
import torchvision

from edgecnn.artifact import Preprocess
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


def library_preprocess(built: Built) -> Preprocess:
    """As the library itself prepares images for this network when it judges it: its centre crop, if it has one.

    A script of the user's most likely did the same.
    """
    architecture = find_architecture(built.name)
    if architecture.library == "edgecnn" or architecture.public:
        return built.preprocess
    if architecture.library == "timm":
        crop = float(timm.get_pretrained_cfg(architecture.name).crop_pct)
    else:
        preset = torchvision.models.get_model_weights(architecture.name).DEFAULT.transforms()
        crop = preset.crop_size[0] / preset.resize_size[0]
    return built.preprocess.model_copy(update={"fit": "center-crop", "crop": crop})
