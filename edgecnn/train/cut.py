"""A network cut where its frozen part ends: what comes before is computed once, what comes after is trained."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgecnn.checkpoint import Recipe
from edgecnn.models import Stage, dropout_of, head_of, stages
from edgecnn.transfer import trained_stages


@dataclass(frozen=True)
class Cut:
    """The two halves. They share their layers with the network: training the tail trains it."""

    name: str
    """Of the first trained stage."""
    module: nn.Module
    first: nn.Module
    """The first trained layer: its input is what is stored."""
    tail: nn.Module
    """Takes what `front` gives, returns logits."""

    def front(self, images: Tensor) -> Tensor:
        """float32 (n, 3, h, w) to what the first trained layer gets, in eval mode, without gradients."""
        reached: list[Tensor] = []

        def stop(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            reached.append(inputs[0])
            raise _Reached

        handle = self.first.register_forward_pre_hook(stop)
        self.module.eval()
        try:
            with torch.no_grad():
                self.module(images)
        except _Reached:
            pass
        finally:
            handle.remove()
        return reached[0].detach()


def cut(module: nn.Module, recipe: Recipe, images: Tensor) -> Cut | None:
    """The network cut for a recipe; None where the halves do not give what the whole gives for `images` (n, 3, h, w).

    Everything between the stages must be a layer: a vision transformer, which adds its position embedding in passing,
    cannot be cut, and the whole network is run instead.
    """
    if recipe.thaw_by or not 0 <= recipe.thawed < 1 or recipe.name == "none":
        return None
    trained = trained_stages(module, recipe)
    head = head_of(module)[1]
    halves: list[Cut] = []
    if len(trained) == 1:
        tail = nn.Sequential(nn.Dropout(dropout_of(module)), head)
        halves.append(Cut(trained[0].name, module, head, tail))
    frozen = stages(module)[: -len(trained)]
    if frozen:
        first = trained[0].modules[0]
        halves.append(Cut(trained[0].name, module, first, _tail(module, first, frozen, trained)))
    return next((half for half in halves if _agrees(half, images)), None)


class _Reached(Exception):
    """The first trained layer is reached: the rest need not run."""


class _Passed(nn.Module):
    """Stands where a frozen layer stood: hands on what the cut was given."""

    def forward(self, given: Tensor) -> Tensor:
        return given


def _tail(module: nn.Module, first: nn.Module, frozen: Sequence[Stage], trained: Sequence[Stage]) -> nn.Module:
    """A copy in which layers before `first` pass their input on, and trained layers are the network's own."""
    place = {id(part): number for number, part in enumerate(module.modules())}
    before = [unit for stage in frozen for unit in _roots(stage) if place[id(unit)] < place[id(first)]]
    own = {id(unit): unit for stage in trained for unit in _roots(stage)}
    return copy.deepcopy(module, {**{id(unit): _Passed() for unit in before}, **own})


def _roots(stage: Stage) -> list[nn.Module]:
    """The stage's modules that are inside none of its others."""
    inside = {id(child) for part in stage.modules for child in part.children()}
    return [part for part in stage.modules if id(part) not in inside]


def _agrees(half: Cut, images: Tensor) -> bool:
    modes = {part: part.training for part in (*half.module.modules(), *half.tail.modules())}
    try:
        with torch.no_grad():
            half.tail.eval()
            whole = half.module.eval()(images)
            parts = half.tail(half.front(images))
    except (RuntimeError, IndexError, TypeError, ValueError):
        return False
    finally:
        for part, mode in modes.items():
            part.training = mode
    return parts.shape == whole.shape and bool(torch.allclose(parts, whole, rtol=1e-4, atol=1e-5))
