"""Weights into a network, whichever library's tensor names they have; refused where they are another network's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from edgecnn.checkpoint import Leftovers
from edgecnn.errors import UserError
from edgecnn.models.architecture import Architecture, create_module, find_architecture
from edgecnn.models.parts import head_of
from edgecnn.models.weights import State

_BATCH_NORM = nn.modules.batchnorm._BatchNorm

_TWINS = {
    "timm:mobilenetv2_100": "torchvision:mobilenet_v2",
    "timm:mobilenetv3_small_100": "torchvision:mobilenet_v3_small",
    "timm:mobilenetv3_large_100": "torchvision:mobilenet_v3_large",
}
"""The same network under both libraries' names. (ResNets have the same tensor names in both and need no entry.)

A pair belongs here once tests/models/test_models.py shows that its logits are equal after mapping.
"""

_TWIN_OF = {**_TWINS, **{theirs: ours for ours, theirs in _TWINS.items()}}

_HEAD_WORDS = {"classifier", "fc", "head", "heads", "head_dist", "last_linear", "aux1", "aux2", "AuxLogits"}
"""First parts of names under which a weights file may hold heads that are not ours."""


@dataclass(frozen=True)
class Naming:
    """A library's order and names of a network's tensors."""

    architecture: Architecture
    keys: tuple[str, ...]
    """Of the backbone, in module order."""
    head: tuple[str, ...]
    eps: float | None


def load_weights(
    module: nn.Module, architecture: Architecture, state: State, keep_head: bool, where: str
) -> tuple[Naming, Leftovers]:
    """Copy the whole backbone from `state`, under this library's tensor names or its twin's, and the head if asked."""
    ours = _naming(architecture, module)
    namings = [ours]
    twin = None if architecture.scale else _TWIN_OF.get(f"{architecture.library}:{architecture.name}")
    if twin:
        # A .safetensors file does not keep the order of its tensors: the twin, built, gives it back.
        namings.append(_naming(find_architecture(twin), create_module(find_architecture(twin), 2, None, None)))
    theirs = max(namings, key=lambda naming: len(set(naming.keys) & set(state)))
    target = module.state_dict()
    _refuse_misfits(ours, theirs, target, state, f"{where}: not weights of {architecture.full}")
    fresh = {key: _like(state[name], target[key]) for key, name in zip(ours.keys, theirs.keys, strict=True)}
    head = {key: state[name] for key, name in zip(ours.head, theirs.head, strict=True) if name in state}
    if keep_head:
        _refuse_other_head(head, target, where)
        fresh |= {key: _like(value, target[key]) for key, value in head.items()}
    module.load_state_dict(fresh, strict=False)
    known = {*theirs.keys} | ({*theirs.head} if keep_head else set())
    leftovers = Leftovers(
        missing=() if keep_head else ours.head,
        unexpected=tuple(key for key in state if key not in known and not _is_counter(key)),
    )
    return theirs, leftovers


def adopt_eps(module: nn.Module, eps: float | None) -> float | None:
    """Set BatchNorm's epsilon where the weights were trained with another; return it if anything changed."""
    changed = False
    for layer in module.modules():
        if isinstance(layer, _BATCH_NORM) and eps is not None and layer.eps != eps:
            layer.eps = eps
            changed = True
    return eps if changed else None


def _naming(architecture: Architecture, module: nn.Module) -> Naming:
    name, _ = head_of(module)
    keys = [key for key in module.state_dict() if not _is_counter(key)]
    head = tuple(key for key in keys if key.rpartition(".")[0] == name)
    eps = {layer.eps for layer in module.modules() if isinstance(layer, _BATCH_NORM)}
    return Naming(
        architecture, tuple(key for key in keys if key not in head), head, eps.pop() if len(eps) == 1 else None
    )


def _refuse_misfits(ours: Naming, theirs: Naming, target: State, state: State, problem: str) -> None:
    if len(ours.keys) != len(theirs.keys):
        raise UserError(f"{problem}: {theirs.architecture.full} has another number of tensors")
    pairs = list(zip(ours.keys, theirs.keys, strict=True))
    misfits = [(key, name) for key, name in pairs if not _fits(key, target[key], name, state.get(name))]
    if misfits:
        key, name = misfits[0]
        got = f"the file has {tuple(state[name].shape)}" if name in state else "the file has no such tensor"
        raise UserError(
            f"{problem}: {len(pairs) - len(misfits)} of {len(pairs)} tensors fit; the first that does not: "
            f"{name} should be {tuple(target[key].shape)}, {got}: give the file of this network, or another --model"
        )
    extra = [key for key in state if key not in {*theirs.keys, *theirs.head} and not _is_counter(key)]
    extra = [key for key in extra if key.partition(".")[0] not in _HEAD_WORDS]
    if extra:
        raise UserError(f"{problem}: all {len(pairs)} tensors fit, but it has {len(extra)} more, the first {extra[0]}")


def _fits(key: str, wanted: Tensor, name: str, got: Tensor | None) -> bool:
    """Same kind of tensor (weight, bias, running_mean …) and same shape, a linear layer being a 1×1 convolution."""
    same_kind = key.rpartition(".")[2] == name.rpartition(".")[2]
    return got is not None and same_kind and _squeezed(wanted.shape) == _squeezed(got.shape)


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """Without the 1s at its end."""
    sizes = list(shape)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)


def _refuse_other_head(head: State, target: State, where: str) -> None:
    if not head:
        raise UserError(f"{where}: has no head to keep: recipe none needs one; choose another --recipe")
    for key, value in head.items():
        if _squeezed(value.shape) != _squeezed(target[key].shape):
            raise UserError(
                f"{where}: its head has {value.shape[0]} outputs, the data {target[key].shape[0]} classes: recipe none "
                "keeps the head, so they must be equal; choose another --recipe"
            )


def _like(value: Tensor, target: Tensor) -> Tensor:
    return value.reshape(target.shape).to(target.dtype)


def _is_counter(key: str) -> bool:
    """BatchNorm's count of batches, which nothing depends on here."""
    return key.endswith("num_batches_tracked")
