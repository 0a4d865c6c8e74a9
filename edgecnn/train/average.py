"""A running average of the weights, scored and saved in place of the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from edgecnn.models import State


class Average:
    """Exponential moving average of the tensors that training changes (Polyak and Juditsky, 1992)."""

    def __init__(self, module: nn.Module, keep: float, state: State) -> None:
        self._tensors = module.state_dict()
        self._keep = keep
        self.state = state
        """The average so far."""

    def update(self) -> None:
        """After a step of the optimiser."""
        with torch.no_grad():
            for key, average in self.state.items():
                now = self._tensors[key].detach().cpu()
                if average.is_floating_point():
                    average.lerp_(now, 1 - self._keep)
                else:
                    average.copy_(now)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The module holds the average; afterwards its own weights again."""
        own = {key: self._tensors[key].detach().clone() for key in self.state}
        self._copy(self.state)
        try:
            yield
        finally:
            self._copy(own)

    def _copy(self, state: State) -> None:
        with torch.no_grad():
            for key, value in state.items():
                self._tensors[key].copy_(value)
