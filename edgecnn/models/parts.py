"""The parts of a network, found by structure: its stages from input to output, and the head they end in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from edgecnn.errors import UserError

_CONTAINERS = {
    "features",
    "layers",
    "blocks",
    "stages",
    "encoder",
    "trunk",
    "trunk_output",
    "backbone",
    "body",
    "model",
}
"""Modules that hold a sequence of stages rather than being one."""


@dataclass(frozen=True)
class Stage:
    """A part of a network between input and output: the unit of freezing and of learning rates."""

    name: str
    modules: tuple[nn.Module, ...]
    """Every module of the stage, containers and their leaves."""
    parameters: tuple[nn.Parameter, ...]


def head_of(module: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Name and layer of the classifier: the last linear layer or 1×1 convolution (squeezenet)."""
    classifier: Any = getattr(module, "get_classifier", None)  # timm's
    if classifier is not None:
        layer = classifier()
        for name, candidate in module.named_modules():
            if candidate is layer and isinstance(candidate, nn.Linear | nn.Conv2d):
                return name, candidate
    else:
        for name, candidate in reversed(list(module.named_modules())):
            if isinstance(candidate, nn.Linear | nn.Conv2d):
                return name, candidate
    raise UserError(
        f"{type(module).__name__} has no single linear or 1×1 convolutional classifier: choose another --model"
    )


def dropout_of(module: nn.Module) -> float:
    """Probability of the dropout before the head; 0 where there is none."""
    rate = getattr(module, "drop_rate", None)  # timm's
    if rate is not None:
        return float(rate)
    layers = head_dropouts(module)
    return layers[-1].p if layers else 0.0


def stages(module: nn.Module) -> list[Stage]:
    """The network's stages from input to output: stem, blocks …, and last the head, which is the classifier alone.

    Found by structure: children in order, containers such as `features` and `blocks` opened, a normalisation layer
    joined to what it follows. Parameters outside any module (class token, position embedding) belong to the stem.
    Every parameter is in exactly one stage.
    """
    head_name, head = head_of(module)
    stem: list[nn.Parameter] = []
    parts: list[tuple[str, list[nn.Module]]] = []
    for name, unit in _units(module, "", head, stem):
        if parts and not _starts_a_stage(unit):
            parts[-1][1].append(unit)
        else:
            parts.append((name, [unit]))
    found = [_stage(name, units) for name, units in parts]
    if stem and found:
        found[0] = replace(found[0], parameters=(*stem, *found[0].parameters))
    return [*found, _stage(head_name, [head])]


def head_dropouts(module: nn.Module) -> list[nn.Dropout]:
    """The dropout layers of the top-level module that holds the head, in order."""
    top = head_of(module)[0].partition(".")[0]
    return [layer for layer in module.get_submodule(top).modules() if isinstance(layer, nn.Dropout)]


def _stage(name: str, units: Sequence[nn.Module]) -> Stage:
    modules = tuple(itertools.chain.from_iterable(unit.modules() for unit in units))
    parameters = tuple(itertools.chain.from_iterable(unit.parameters() for unit in units))
    return Stage(name, modules, parameters)


def _units(
    module: nn.Module, prefix: str, head: nn.Module, stem: list[nn.Parameter]
) -> Iterator[tuple[str, nn.Module]]:
    """Children in order, containers and what holds the head opened; parameters of what is opened go to `stem`."""
    stem += module.parameters(recurse=False)
    for name, child in module.named_children():
        if child is head:
            continue
        opened = name in _CONTAINERS and any(True for _ in child.children())
        if opened or any(part is head for part in child.modules()):
            yield from _units(child, f"{prefix}{name}.", head, stem)
        else:
            yield f"{prefix}{name}", child


def _starts_a_stage(unit: nn.Module) -> bool:
    """Whether it holds a layer with weights of two or more dimensions: norms, activations and dropout do not."""
    return any(parameter.ndim >= 2 for parameter in unit.parameters())
