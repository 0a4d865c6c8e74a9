"""A network of timm, torchvision or edgecnn by name, with our head, and weights from hub, file, package or none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import nn

from edgecnn.artifact import Preprocess
from edgecnn.checkpoint import WEIGHTS, Checkpoint, Leftovers, read_checkpoint
from edgecnn.errors import UserError, first_line
from edgecnn.models.architecture import EMBEDDED, create_module, find_architecture, preprocess_of
from edgecnn.models.deployed import Deployed
from edgecnn.models.held import State
from edgecnn.models.naming import ONE_MADE_TWO, adopt_eps, load_weights, match_weights
from edgecnn.models.parts import Stage, dropout_of, head_of, stages
from edgecnn.models.weights import read_weights, refuse_no_weights

__all__ = [
    "EMBEDDED",
    "ONNX",
    "ONNX_FILE",
    "Built",
    "Deployed",
    "Stage",
    "State",
    "build",
    "dropout_of",
    "head_of",
    "load_module",
    "refuse_no_network",
    "save_module",
    "stages",
]

ONNX = "onnx:"
"""Before the name of a network that was taken in from an .onnx file: that file, in the run folder, is the network."""
ONNX_FILE = "model.onnx"


@dataclass(frozen=True)
class Built:
    """A network with a head for the wanted classes, and what is known of its weights."""

    module: nn.Module
    name: str
    """With its library, such as timm:mobilenetv2_100: `build` takes it again."""
    preprocess: Preprocess
    """The input size and normalisation that the weights were trained with."""
    weights: str
    """For the record: hub:…, file:… with hash, embedded:…, or none."""
    leftovers: Leftovers
    remarks: tuple[str, ...]
    """Which of several sets of weights in a file was taken."""
    batchnorm_eps: float | None
    """Set where the weights want another BatchNorm epsilon than the network is built with (and now has)."""


def build(
    name: str,
    classes: int,
    weights: str | Path | None = None,
    *,
    keep_head: bool = False,
    dropout: float | None = None,
    size: int | None = None,
    weights_key: str | None = None,
) -> Built:
    """A network by name with a head for `classes` classes.

    `name`: any timm or torchvision classification network, `timm:` or `torchvision:` before it where both know it
    (else timm's), one of EMBEDDED, or one of `edgecnn.blocks.NETS`; scaled with a suffix such as @phi=-1.5 or
    @width=0.6 (`edgecnn.models.scaling`; no pretrained weights exist then). `weights`: "hub" (the library's pretrained
    ones), "embedded", "none" (random), or a .safetensors, .pth or .pt file with timm's or torchvision's tensor names;
    None: embedded where there are such, else hub. `keep_head` keeps the weights' own head. `dropout` before the head;
    None: as the library builds it.
    `weights_key`: which set of tensors in a file that holds several, such as state_dict_ema; None: the averaged one.
    `size` in pixels matters here only to networks whose weights depend on it (vision transformers).

    Raises UserError: unknown name, hub out of reach, a file that is not weights of this network, a head of another
    number of classes with `keep_head`, several sets of weights and no key.
    """
    architecture = find_architecture(name)
    if weights is None:
        weights = "embedded" if architecture.full in EMBEDDED else "hub"
    module = create_module(architecture, classes, dropout, size)
    if weights == "none":
        if weights_key is not None:
            raise UserError(
                f"{name}: random weights have no sets to choose from: leave --weights-key {weights_key} out"
            )
        if keep_head:
            raise UserError(f"{name}: random weights have no head to keep: give --weights FILE or another recipe")
        return Built(module, architecture.full, preprocess_of(architecture, size), "none", Leftovers(), (), None)
    file, description = read_weights(architecture, weights)
    where = description.split(" ")[0]
    chosen = match_weights(module, architecture, file, weights_key, where)
    match, remark = chosen.match, chosen.remark
    leftovers = load_weights(module, architecture, match, keep_head, where)
    naming = match.naming
    eps = adopt_eps(module, naming.eps)
    preprocess = preprocess_of(architecture, size)
    if naming.architecture != architecture:
        theirs = preprocess_of(naming.architecture, size)
        preprocess = preprocess.model_copy(update={"mean": theirs.mean, "std": theirs.std})
    if match.label:
        description += f" {match.label}"
    one = keep_head and match.head and match.state[match.head[0]].shape[0] == 1 != classes
    remarks = tuple(words for words in (remark, ONE_MADE_TWO if one else None) if words)
    return Built(module, architecture.full, preprocess, description, leftovers, remarks, eps)


def refuse_no_network(name: str, weights: str | Path | None) -> None:
    """UserError where no network is called so, or its weights are to come from a file that is none of weights.

    Quickly, and so before images are read; what `build` raises else takes the network.
    """
    find_architecture(name)
    refuse_no_weights(weights)


def load_module(folder: Path) -> tuple[Checkpoint, nn.Module]:
    """A checkpoint folder to its description and network in eval mode. Raises UserError where it is damaged."""
    checkpoint = read_checkpoint(folder)
    if checkpoint.model.startswith(ONNX):
        return checkpoint, _load_onnx(folder, checkpoint)
    module = create_module(
        find_architecture(checkpoint.model), len(checkpoint.classes), None, checkpoint.preprocess.height
    )
    try:
        module.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder / WEIGHTS}: not weights of {checkpoint.model}: {first_line(error)}") from None
    adopt_eps(module, checkpoint.batchnorm_eps)
    return checkpoint, module.eval()


def _load_onnx(folder: Path, checkpoint: Checkpoint) -> nn.Module:
    from edgecnn.onnx_graph.network import load_network

    network = load_network(folder / ONNX_FILE, checkpoint.preprocess.height, checkpoint.preprocess.width)
    if network.outputs != len(checkpoint.classes):
        raise UserError(f"{folder / ONNX_FILE}: {network.outputs} outputs, but {len(checkpoint.classes)} classes")
    return network.module


def save_module(module: nn.Module) -> bytes:
    """The bytes of weights.safetensors: every parameter and buffer, float32, the same bytes for the same values."""
    return safetensors.torch.save({key: value.contiguous() for key, value in module.state_dict().items()})
