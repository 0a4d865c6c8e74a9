"""Weights into a network, whichever library's tensor names they have; refused where they are another network's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgecnn.checkpoint import Leftovers
from edgecnn.errors import UserError
from edgecnn.models.architecture import Architecture, create_module, find_architecture
from edgecnn.models.held import State, WeightsFile
from edgecnn.models.matching import Chosen, Match, Naming, Wanted, choose, layers_beside
from edgecnn.models.parts import head_of

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


ONE_MADE_TWO = "its one output is a score of the second class against the first: it becomes two, ∓ half of it"


def match_weights(
    module: nn.Module, architecture: Architecture, file: WeightsFile, key: str | None, where: str
) -> Chosen:
    """The tensors of a file that are the network's, under this library's names or its twin's; as of `choose`.

    `module`: the network, with whatever number of classes.
    """
    ours = _naming(architecture, module)
    namings = [ours]
    twin = None if architecture.scale else _TWIN_OF.get(f"{architecture.library}:{architecture.name}")
    if twin:
        # A .safetensors file does not keep the order of its tensors: the twin, built, gives it back.
        namings.append(_naming(find_architecture(twin), create_module(find_architecture(twin), 2, None, None)))
    target = module.state_dict()
    columns = target[ours.head[0]].shape[1]
    wanted = Wanted(ours.keys, tuple(target[one] for one in ours.keys), columns)
    return choose(file.sets, namings, wanted, key, where)


def load_weights(module: nn.Module, architecture: Architecture, match: Match, keep_head: bool, where: str) -> Leftovers:
    """Copy the whole backbone into the network, and the head if asked. UserError where it is another network's."""
    target = module.state_dict()
    ours = _naming(architecture, module)
    _refuse_misfits(match, f"{where}: not weights of {architecture.full}", where)
    _refuse_extra(match, f"{where}: not weights of {architecture.full}")
    pairs = zip(ours.keys, match.names, strict=True)
    fresh = {key: _like(match.state[name], target[key]) for key, name in pairs}
    if keep_head:
        fresh |= _head_for(match, ours, target, where)
    module.load_state_dict(fresh, strict=False)
    return Leftovers(
        missing=() if keep_head else ours.head,
        unexpected=match.extra if keep_head else (*match.head, *match.extra),
    )


def head_rows(match: Match, where: str) -> int:
    """Outputs of the head in a file. UserError where there is none, or it is no single layer."""
    if not match.head:
        raise _no_head(match, where, "give the weights of the whole fine-tuned network")
    return int(match.state[match.head[0]].shape[0])


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


def _refuse_misfits(match: Match, problem: str, where: str) -> None:
    if not match.misfits:
        return
    place = match.misfits[0]
    wanted, name = tuple(match.wanted.tensors[place].shape), match.names[place]
    other = _another_form(match)
    if other:
        raise UserError(f"{where}: {other}")
    got = match.state.get(name)
    has = "the file has no such tensor" if got is None else f"the file has {tuple(got.shape)}"
    if got is not None and not got.is_floating_point():
        has = f"the file has {str(got.dtype).removeprefix('torch.')}: quantised? give the float weights"
    fit = len(match.names) - len(match.misfits)
    called = f"; its own are called {', '.join(list(match.state)[:2])}, …" if 2 * fit < len(match.names) else ""
    raise UserError(
        f"{problem}: {fit} of {len(match.names)} tensors fit; the first that does not: {name} should be {wanted}, "
        f"{has}{called}: give the file of this network, or another --model"
    )


def _another_form(match: Match) -> str | None:
    """Weights that were split into what training needs, and how to join them."""
    ends = {name.rpartition(".")[2] for name in match.state}
    if {"weight_orig", "weight_mask"} <= ends:
        return "is pruned by torch.nn.utils.prune, and still split: call prune.remove on each layer, and save it again"
    if {"weight_g", "weight_v"} <= ends or any(".parametrizations." in name for name in match.state):
        return "has parametrized layers: call torch.nn.utils.parametrize.remove_parametrizations, and save it again"
    if "_packed_params" in ends or "zero_point" in ends:
        return "is quantised: give the float weights that it was made from, int8 is made and judged here"
    return None


def _refuse_extra(match: Match, problem: str) -> None:
    """Where parts that the network has too have more layers: a larger one."""
    tops = {key.partition(".")[0] for key in match.naming.keys}
    heads = {key.partition(".")[0] for key in match.naming.head}
    start = _start_of(match)
    extra = [name for name in match.extra if name.removeprefix(start).partition(".")[0] in tops - heads]
    if extra:
        raise UserError(
            f"{problem}: all {len(match.names)} tensors fit, but it has {len(extra)} more, the first {extra[0]}"
        )


def _start_of(match: Match) -> str:
    """What stands before the names."""
    return match.names[0].removesuffix(match.naming.keys[0])


def _head_for(match: Match, ours: Naming, target: State, where: str) -> State:
    if not match.head:
        raise _no_head(match, where, "recipe none needs one; choose another --recipe")
    head = dict(zip(ours.head, match.head, strict=False))
    weight, rows = match.state[match.head[0]], target[ours.head[0]].shape[0]
    if weight.shape[0] == 1 and rows == 2:
        # One score z of a class against another: -z/2 and z/2, whose softmax is its sigmoid.
        return {
            key: _like(torch.cat([match.state[name] / -2, match.state[name] / 2]), target[key])
            for key, name in head.items()
        }
    if weight.shape[0] != rows:
        raise UserError(
            f"{where}: its head has {weight.shape[0]} outputs, the data {rows} classes: recipe none "
            "keeps the head, so they must be equal; choose another --recipe"
        )
    zeros = {key: torch.zeros_like(target[key]) for key in ours.head[len(match.head) :]}  # a head without bias
    return zeros | {key: _like(match.state[name], target[key]) for key, name in head.items()}


def _no_head(match: Match, where: str, cure: str) -> UserError:
    layers = layers_beside(match)
    if not layers:
        return UserError(f"{where}: has no head to keep ({match.naming.head[0]} is missing): {cure}")
    shown = ", ".join(f"{name} {'×'.join(map(str, match.state[name].shape))}" for name in layers[:4])
    return UserError(
        f"{where}: its head is {len(layers)} layer{'s' * (len(layers) > 1)} ({shown}{', …' * (len(layers) > 4)}), and "
        f"{match.naming.architecture.full} ends in one that takes {match.wanted.columns} features: write an .onnx file "
        "of the whole network (torch.onnx.export) and give that, or train a new head with `edgecnn finetune`"
    )


def _like(value: Tensor, target: Tensor) -> Tensor:
    return value.reshape(target.shape).to(target.dtype)


def _is_counter(key: str) -> bool:
    """BatchNorm's count of batches, which nothing depends on here."""
    return key.endswith("num_batches_tracked")
