"""What a file does to its logits before it answers: softmax, log-softmax, sigmoid, twice, scaled or shifted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Answers: TypeAlias = NDArray[np.float32]
"""(n, classes), of whatever kind."""
Kind: TypeAlias = Literal["logits", "softmax", "log-softmax", "softmax twice", "sigmoid"]

_SUMS_TO_ONE = 0.02
"""int8 probabilities are rounded to 1/256."""
_LOUD = 1e-3
"""Probabilities below it are rounding where a file is in low precision: they tell nothing of the logits."""
_SHIFTLESS: tuple[Kind, ...] = ("softmax", "log-softmax", "softmax twice")
"""Answers the same whatever is added to all logits of an image."""
_WORDS: dict[Kind, str] = {
    "logits": "gives logits",
    "softmax": "ends in a softmax",
    "log-softmax": "ends in a log-softmax",
    "softmax twice": "ends in two softmaxes, one after the other",
    "sigmoid": "ends in a sigmoid",
}


@dataclass(frozen=True)
class Output:
    """kind(scale · logits + shift)."""

    kind: Kind = "logits"
    scale: float = 1.0
    shift: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether the logits are neither scaled nor shifted."""
        return (self.scale, self.shift) == (1.0, 0.0)

    @property
    def words(self) -> str:
        """What the file does."""
        if self.plain:
            return _WORDS[self.kind]
        shift = f" {'+' if self.shift > 0 else '−'} {abs(self.shift):.3g}" if self.shift else ""
        of = "" if self.kind == "logits" else f" and {_WORDS[self.kind]}"
        return f"takes {self.scale:.3g} × the checkpoint's logits{shift}{of}"

    def of(self, logits: Answers) -> Answers:
        """What a file with this output answers where the network has these logits."""
        given = logits if self.plain else (self.scale * logits + self.shift).astype(np.float32)
        return _DOES[self.kind](given)


LOGITS = Output()


def softmax(logits: Answers) -> Answers:
    """Logits (n, classes) to probabilities."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    shares: Answers = powers / powers.sum(1, keepdims=True)
    return shares


def kinds_like(answers: Answers) -> tuple[Kind, ...]:
    """What answers of such a range may be, the likeliest first."""
    if not np.isfinite(answers).all():
        return ("logits",)
    sums = answers.sum(1)
    if answers.min() >= 0 and np.abs(sums - 1).max() <= _SUMS_TO_ONE:
        return ("softmax", "softmax twice")
    if answers.min() >= 0 and answers.max() <= 1:
        return ("sigmoid", "logits")
    if answers.max() <= 0 and np.abs(np.exp(answers).sum(1) - 1).max() <= _SUMS_TO_ONE:
        return ("log-softmax", "logits")
    return ("logits",)


def fitted(kind: Kind, answers: Answers, logits: Answers) -> Output | None:
    """The output of this kind whose scale and shift come closest to the answers; None where they do not tell."""
    undone, heard = _UNDOES[kind](answers)
    if heard.sum() <= 2:
        return None
    y, z = undone.astype(np.float64), logits.astype(np.float64)
    if kind in _SHIFTLESS:
        weights = heard / np.maximum(heard.sum(1, keepdims=True), 1)
        y, z = (one - (one * weights).sum(1, keepdims=True) for one in (y, z))
    y, z = y[heard], z[heard]
    spread = float(((z - z.mean()) ** 2).sum())
    if spread <= 0:
        return None
    scale = float(((z - z.mean()) * (y - y.mean())).sum() / spread)
    shift = 0.0 if kind in _SHIFTLESS else float(y.mean() - scale * z.mean())
    unit = max(float(logits.std()), 1e-12)
    if abs(scale - 1) < 1e-3:
        scale = 1.0
    return Output(kind, scale, shift if abs(shift) > 1e-3 * unit else 0.0)


def _log_softmax(logits: Answers) -> Answers:
    shifted = logits - logits.max(1, keepdims=True)
    logs: Answers = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return logs


def _sigmoid(logits: Answers) -> Answers:
    shares: Answers = (1 / (1 + np.exp(-np.clip(logits, -80, 80)))).astype(np.float32)
    return shares


_DOES: dict[Kind, Callable[[Answers], Answers]] = {
    "logits": lambda logits: logits,
    "softmax": softmax,
    "log-softmax": _log_softmax,
    "softmax twice": lambda logits: softmax(softmax(logits)),
    "sigmoid": _sigmoid,
}


def _heard_above(answers: Answers) -> NDArray[np.bool_]:
    return np.asarray(answers > _LOUD)


def _all_heard(answers: Answers) -> NDArray[np.bool_]:
    return np.ones(answers.shape, bool)


def _log(answers: Answers) -> Answers:
    return np.log(np.maximum(answers, np.float32(1e-30)))


def _odds(answers: Answers) -> Answers:
    return np.asarray(_log(answers) - _log(1 - answers), np.float32)


def _undo_second_softmax(answers: Answers) -> tuple[Answers, NDArray[np.bool_]]:
    """Probabilities p from softmax(p): log of the answers, up to the sum of each row, which is one."""
    logs = _log(answers)
    first = logs - logs.mean(1, keepdims=True) + 1 / answers.shape[1]
    return _log(np.maximum(first, 0)), _heard_above(first)


_UNDOES: dict[Kind, Callable[[Answers], tuple[Answers, NDArray[np.bool_]]]] = {
    "logits": lambda answers: (answers, _all_heard(answers)),
    "softmax": lambda answers: (_log(answers), _heard_above(answers)),
    "log-softmax": lambda answers: (answers, _all_heard(answers)),
    "softmax twice": _undo_second_softmax,
    "sigmoid": lambda answers: (_odds(answers), _heard_above(np.minimum(answers, 1 - answers))),
}
"""Answers to (the logits, those that tell something)."""
