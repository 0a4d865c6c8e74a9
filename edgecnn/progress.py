"""How long work tells what it is doing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str], None]
"""Called with a line that says what is being done: a `Stage`, or a detail of the stage that was told before."""


class Stage(str):
    """A line that opens a stage. Of several equal ones, `done` of `of` are over when it begins; 0 of 0: it is alone."""

    done: float
    of: float

    def __new__(cls, text: str, done: float = 0, of: float = 0) -> Stage:
        """`done` and `of` in any unit in which the stages take about as long each."""
        stage = super().__new__(cls, text)
        stage.done, stage.of = done, of
        return stage
