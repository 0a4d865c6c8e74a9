"""Tensors by name: from the hub, from the package, or from a file that may hold nothing else."""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import safetensors
import safetensors.torch
import timm
import torch
import torchvision
from safetensors import SafetensorError
from torch import Tensor

from edgecnn.documents import sha256_of_file
from edgecnn.errors import UserError, first_line, must_be_file, not_one_of
from edgecnn.models.architecture import EMBEDDED, Architecture

State: TypeAlias = dict[str, Tensor]

_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict")
"""Keys of weights that were averaged over training (timm, torchvision's script): what was validated and is meant."""
_WRAPPED = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""What wrappers put before every name: data parallel, torch.compile, Lightning."""

_WEIGHTS_FOLDER = Path(__file__).parent.parent / "weights"


@dataclass(frozen=True)
class WeightsFile:
    """What a weights file holds."""

    state: State
    taken: str | None
    """The key of the averaged weights, where the file has plain ones beside them."""
    about: Mapping[str, object]
    """What is in it besides tensors, such as names of classes."""


def read_weights(architecture: Architecture, weights: str | Path) -> tuple[State, str]:
    """Tensors by name, and what to record of where they come from."""
    if weights == "hub":
        return _read_hub(architecture)
    if weights == "embedded":
        if architecture.full not in EMBEDDED:
            raise not_one_of("model with --weights embedded", architecture.full, EMBEDDED)
        path = _WEIGHTS_FOLDER / EMBEDDED[architecture.full][2]
        must_be_file(path, "the weights that come with edgecnn: install it again")
        return read_file(path).state, f"embedded:{path.stem} sha256:{sha256_of_file(path)}"
    path = Path(weights)
    must_be_file(path, "weights: a .safetensors, .pth or .pt file, hub, embedded or none")
    file = read_file(path)
    return file.state, f"file:{path.name} sha256:{sha256_of_file(path)}{f' {file.taken}' if file.taken else ''}"


def _read_hub(architecture: Architecture) -> tuple[State, str]:
    if architecture.scale or architecture.library == "edgecnn":
        kind = "a scaled network" if architecture.scale else "edgecnn's own small networks"
        raise UserError(
            f"{architecture.full}: no pretrained weights exist for {kind}: "
            "pass --weights FILE with your own, or --weights none for random ones"
        )
    full = f"{architecture.name}.{architecture.tag}" if architecture.tag else architecture.name
    try:
        with _quick_when_offline():
            if architecture.library == "timm":
                module = timm.create_model(full, pretrained=True)
                return dict(module.state_dict()), f"hub:timm/{architecture.name}.{module.pretrained_cfg['tag']}"
            entry = torchvision.models.get_model_weights(architecture.name).DEFAULT
            state = entry.get_state_dict(progress=False, check_hash=True)
            return dict(state), f"hub:torchvision/{architecture.name}.{entry.name}"
    except Exception as error:
        # requests, httpx, urllib, huggingface_hub and torch.hub raise unrelated classes for the same thing.
        if "No pretrained weights" in str(error):
            raise UserError(f"{architecture.full} has no weights on the hub: pass --weights FILE or none") from None
        raise UserError(
            f"{architecture.full}: its pretrained weights cannot be fetched, the hub cannot be reached from here "
            f"({type(error).__name__}): pass --weights FILE, or --weights none for random ones"
        ) from None


@contextmanager
def _quick_when_offline() -> Iterator[None]:
    """huggingface_hub retries for 50 s, with a line each, where a host name cannot even be resolved: spare the wait."""
    import huggingface_hub

    logger = logging.getLogger("huggingface_hub")
    constants: Any = huggingface_hub.constants
    level, offline = logger.level, constants.HF_HUB_OFFLINE
    logger.setLevel(logging.CRITICAL)
    constants.HF_HUB_OFFLINE = offline or not _can_resolve(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        logger.setLevel(level)


def _can_resolve(endpoint: str) -> bool:
    if any(os.environ.get(name) for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")):
        return True
    try:
        socket.getaddrinfo(endpoint.partition("://")[2].partition("/")[0].partition(":")[0], 443)
    except OSError:
        return False
    return True


def read_file(path: Path) -> WeightsFile:
    """A .safetensors, .pth or .pt file. UserError: unreadable, more than tensors and plain values, not finite."""
    file = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for name, tensor in file.state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UserError(
                f"{path}: {name} holds values that are not finite numbers: training went wrong, or it broke"
            )
    return file


def _read_safetensors(path: Path) -> WeightsFile:
    try:
        with safetensors.safe_open(path, "pt") as opened:
            about = opened.metadata() or {}
        return WeightsFile(_without_prefixes(safetensors.torch.load_file(path)), None, about)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable .safetensors file: {first_line(error)}") from None


def _read_pickle(path: Path) -> WeightsFile:
    if path.suffix not in (".pth", ".pt"):
        raise not_one_of(f"{path}: ending", path.suffix, [".safetensors", ".pth", ".pt"])
    try:
        # timm and torchvision's script keep their options, a plain bag of values, beside the tensors.
        with torch.serialization.safe_globals([argparse.Namespace]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: holds Python objects or code, not only tensors: refused. "
            "Save its state_dict, best as .safetensors, where you trust the file"
        ) from None
    except Exception as error:  # a damaged file leads PyTorch's reader to whatever
        raise UserError(f"{path}: not a readable PyTorch file ({type(error).__name__}: {first_line(error)})") from None
    return _unwrapped(loaded, path)


def _unwrapped(loaded: object, path: Path) -> WeightsFile:
    if not isinstance(loaded, Mapping):
        raise UserError(f"{path}: holds {type(loaded).__name__}, not tensors by name: save the state_dict")
    there = [key for key in (*_AVERAGED, *_WRAPPED) if isinstance(loaded.get(key), Mapping)]
    inner = loaded[there[0]] if there else loaded
    if there and not isinstance(next(iter(inner.values()), None), Tensor):  # wrapped once more
        return _unwrapped(inner, path)
    state = {str(key): value for key, value in inner.items() if isinstance(value, Tensor)}
    about = {str(key): value for key, value in loaded.items() if key not in (*_AVERAGED, *_WRAPPED, *state)}
    taken = there[0] if there and there[0] in _AVERAGED and len(there) > 1 else None
    return WeightsFile(_without_prefixes(state), taken, about)


def _without_prefixes(state: State) -> State:
    """Names without what a wrapper put before all of them."""
    state = {name: tensor for name, tensor in state.items() if name != "n_averaged"}
    for prefix in _PREFIXES * 2:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state
