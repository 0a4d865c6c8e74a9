"""The sets of tensors that a weights file holds, however deep they lie: raw and averaged ones side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

State: TypeAlias = dict[str, Tensor]

_DEEPEST = 6
_OF_TRAINING = re.compile(r"optim|sched|scaler|rng", re.IGNORECASE)
"""Keys of what training keeps besides weights: its tensors have names too."""
_AVERAGED = re.compile(r"(^|[._-])(ema|averaged?|avg|swa|shadow)($|[._-])", re.IGNORECASE)
_COUNT = "n_averaged"
"""Beside the tensors of torch's AveragedModel."""
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of names that data parallel, torch.compile and their like put in, wherever in the network they were used."""


@dataclass(frozen=True)
class Tensors:
    """Tensors by name, without what wrappers put into the names."""

    key: str
    """The keys that lead to them, joined by dots; empty: they are the file itself."""
    state: State
    averaged: bool
    """Whether they are the mean over many steps of training."""
    stale: bool = False
    """Whether they are a mean over no steps yet: what training began with."""


@dataclass(frozen=True)
class WeightsFile:
    """What a weights file holds."""

    sets: tuple[Tensors, ...]
    about: Mapping[str, object]
    """What is in it besides tensors, such as names of classes."""


def is_averaged(key: str) -> bool:
    """Whether a key, or what stands before names, calls its tensors averaged: state_dict_ema, ema.module, swa_model."""
    return bool(_AVERAGED.search(key))


def held_in(loaded: Mapping[object, object]) -> WeightsFile:
    """The sets in what a file holds, in its order, and the rest of it."""
    sets = tuple(_sets(loaded, "", 0))
    swapped = {"state_dict", "current_model_state"} <= {one.key for one in sets}
    if swapped:  # Lightning's WeightAveraging: the averaged ones are under the usual key
        sets = tuple(Tensors(one.key, one.state, one.key == "state_dict") for one in sets)
    keys = {one.key.partition(".")[0] for one in sets}
    about = {str(key): value for key, value in loaded.items() if key not in keys and not isinstance(value, Tensor)}
    return WeightsFile(sets, about)


def _sets(held: Mapping[object, object], key: str, depth: int) -> Iterator[Tensors]:
    tensors = {name: value for name, value in held.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if any(tensor.dim() > 0 for tensor in tensors.values()):
        yield _named(key, tensors)
    if depth == _DEEPEST:
        return
    for name, value in held.items():
        if isinstance(name, str) and isinstance(value, Mapping) and not _OF_TRAINING.search(name):
            yield from _sets(value, f"{key}.{name}" if key else name, depth + 1)


def _named(key: str, tensors: State) -> Tensors:
    count = tensors.pop(_COUNT, None)
    counted = count is not None and count.numel() == 1 and int(count) > 0
    stale = count is not None and not counted
    state: State = {}
    for name, tensor in tensors.items():
        bare = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
        state[name if bare in state else bare] = tensor
    return Tensors(key, state, counted or (count is None and is_averaged(key)), stale)
