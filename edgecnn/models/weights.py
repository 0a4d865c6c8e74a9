"""Tensors by name: from the hub, from the package, or from a file."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torchvision

from edgecnn.errors import UserError, must_be_file, not_one_of
from edgecnn.models.architecture import EMBEDDED, Architecture
from edgecnn.models.held import State, Tensors, WeightsFile
from edgecnn.models.weights_file import hash_of, is_weights, read_file, refuse_other_kinds

_WEIGHTS_FOLDER = Path(__file__).parent.parent / "weights"


def read_weights(architecture: Architecture, weights: str | Path) -> tuple[WeightsFile, str]:
    """The sets of tensors by name, and what to record of where they come from."""
    if weights == "hub":
        state, description = _read_hub(architecture)
        return WeightsFile((Tensors("", state, False),), {}), description
    if weights == "embedded":
        if architecture.full not in EMBEDDED:
            raise not_one_of("model with --weights embedded", architecture.full, EMBEDDED)
        path = _WEIGHTS_FOLDER / EMBEDDED[architecture.full][2]
        must_be_file(path, "the weights that come with edgecnn: install it again")
        return read_file(path), f"embedded:{path.stem} sha256:{hash_of(path)}"
    refuse_no_weights(weights)
    path = Path(weights)
    return read_file(path), f"file:{path.name} sha256:{hash_of(path)}"


def refuse_no_weights(weights: str | Path | None) -> None:
    """UserError where what was given is a file, and none of weights by its ending and its first bytes.

    Quickly: to be told before hours of other work.
    """
    if weights in (None, "hub", "embedded", "none"):
        return
    path = Path(str(weights))
    if path.is_dir():
        inside = next((one.name for one in sorted(path.iterdir()) if is_weights(one)), "model.safetensors")
        raise UserError(f"{path}: is a folder: give the weights in it, such as {path / inside}")
    must_be_file(path, "weights: a file (.safetensors, .pth, .ckpt, …), hub, embedded or none")
    refuse_other_kinds(path)


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
