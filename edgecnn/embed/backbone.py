"""A network up to its head: prepared pixels in, what the head would get out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecnn.artifact import Preprocess
from edgecnn.imaging import Images
from edgecnn.models import build, head_of, load_module

Fit = Literal["stretch", "center-crop"]
_CLASSES = 2
"""Of the head that a network must be built with; it is never run to its end."""


@dataclass(frozen=True)
class Backbone:
    """A network in eval mode whose head is not used."""

    module: nn.Module
    name: str
    """With its library, such as torchvision:mobilenet_v2."""
    weights: str
    """For the record: hub:…, file:… with hash, embedded:…, checkpoint:… or none."""
    preprocess: Preprocess
    fingerprint: str
    """sha256 over every layer and tensor but the head's: equal networks have equal ones."""

    def features(self, pixels: Images) -> NDArray[np.float32]:
        """uint8 (n, h, w, 3) to float32 (n, d): the head's input, a map (n, d, h, w) or tokens (n, t, d) averaged."""
        mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (self.preprocess.mean, self.preprocess.std))
        images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
        given = before_head(self.module, ((images - mean) / std).contiguous(memory_format=torch.channels_last))
        found: NDArray[np.float32] = flattened(given).float().cpu().numpy()
        return found


def open_backbone(
    name: str, weights: str | Path | None = None, size: int | None = None, fit: Fit = "stretch"
) -> Backbone:
    """A network by name; arguments as of `edgecnn.models.build`. Random weights are the same at every call.

    Raises UserError as `build` does.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = build(name, _CLASSES, weights, size=size)
    return _backbone(built.module, built.name, built.weights, built.preprocess.model_copy(update={"fit": fit}))


def backbone_of_checkpoint(folder: Path) -> Backbone:
    """The fine-tuned network of a run folder, with its own preprocessing. UserError where it is damaged."""
    checkpoint, module = load_module(folder)
    weights = f"checkpoint:{checkpoint.files['weights.safetensors']}"
    return _backbone(module, checkpoint.model, weights, checkpoint.preprocess)


def before_head(module: nn.Module, images: Tensor) -> Tensor:
    """float32 (n, 3, h, w) to the input of the head's layer, without gradients. The head itself is not run."""
    reached: list[Tensor] = []

    def stop(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        reached.append(inputs[0])
        raise _Reached

    handle = head_of(module)[1].register_forward_pre_hook(stop)
    try:
        with torch.no_grad():
            module(images)
    except _Reached:
        pass
    finally:
        handle.remove()
    return reached[0].detach()


def flattened(given: Tensor) -> Tensor:
    """(n, d), or (n, d, h, w) or (n, t, d) averaged over places: (n, d)."""
    if given.ndim == 4:
        return given.mean((2, 3))
    return given.mean(1) if given.ndim == 3 else given


class _Reached(Exception):
    """The head is reached: the rest need not run."""


def _backbone(module: nn.Module, name: str, weights: str, preprocess: Preprocess) -> Backbone:
    ready = module.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Backbone(ready, name, weights, preprocess, _fingerprint(ready))


def _fingerprint(module: nn.Module) -> str:
    """The head is left out: it is new, and so random, in a network that is built for other classes."""
    head_name, head = head_of(module)
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        if part is not head:
            digest.update(f"{name} {type(part).__name__} {part.extra_repr()}\n".encode())
    for name, tensor in sorted(module.state_dict().items()):
        if not name.startswith(f"{head_name}."):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
