"""What a long run tells its caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edgecnn.progress import Progress


class ProgressBar(Protocol):
    """What a long run tells its caller."""

    def start(self, total: int, text: str) -> None:
        """A new part of `total` steps begins."""

    def advance(self, steps: int = 1, status: str = "") -> None:
        """So many steps of it are done; `status` is how it goes just now."""

    def text(self, text: str) -> None:
        """A line worth reading."""


class Silent:
    """Tells nobody."""

    def start(self, total: int, text: str) -> None: ...

    def advance(self, steps: int = 1, status: str = "") -> None: ...

    def text(self, text: str) -> None: ...


@dataclass(frozen=True)
class Lines:
    """Tells what begins, and each line worth reading, but no steps."""

    say: Progress

    def start(self, total: int, text: str) -> None:
        self.say(text)

    def advance(self, steps: int = 1, status: str = "") -> None: ...

    def text(self, text: str) -> None:
        self.say(text)
