"""A weights file and the name of its network: tensors by name, never a pickled object."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import timm
import torchvision

from edgecnn.artifact import Preprocess
from edgecnn.errors import UserError
from edgecnn.models import Built, State, build, head_of
from edgecnn.models.architecture import Architecture, create_module, find_architecture
from edgecnn.models.weights import WeightsFile, read_file

ENDINGS = (".safetensors", ".pth", ".pt")

_HOW = (
    "save its state_dict (torch.save(net.state_dict(), 'weights.pth')), or write an .onnx file with torch.onnx.export"
)
_HEADS = ("classifier", "fc", "head", "heads", "last_linear")


def load_state_dict(path: Path, model: str) -> tuple[Built, int, WeightsFile]:
    """The network of that name with its head and weights, the number of its classes, read from the head, and the file.

    Raises UserError: a file that holds more than tensors, weights of another network, no head.
    """
    architecture = find_architecture(model)
    file = read_file(path)
    outputs = _head_outputs(path, architecture, file.state)
    return build(model, outputs, path, keep_head=True), outputs, file


def refuse_programs(path: Path) -> None:
    """UserError where a file holds a program rather than tensors: TorchScript or torch.export."""
    if path.suffix == ".pt2":
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


def _head_outputs(path: Path, architecture: Architecture, state: State) -> int:
    """Rows of the head's weights: under this library's name of the head, else of the last layer that is called so."""
    ours = f"{head_of(create_module(architecture, 2, None, None))[0]}.weight"
    heads = [
        key
        for key, tensor in state.items()
        if key.partition(".")[0] in _HEADS and key.endswith(".weight") and tensor.dim() in (2, 4)
    ]
    key = ours if ours in state else max(heads, key=_natural, default=None)
    if key is None:
        raise UserError(f"{path}: no head in it ({ours} is missing): give the weights of the whole fine-tuned network")
    return int(state[key].shape[0])


def _natural(name: str) -> list[tuple[int, str]]:
    """classifier.10 after classifier.9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in name.split(".")]
