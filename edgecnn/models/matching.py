"""Which of the tensors in a file are a network's, whatever stands before their names; which set, where there are more.

A name of the network is looked for as the end of the names in the file. What stands before it, such as
`model.backbone.`, need not be known; the head may be elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgecnn.errors import UserError
from edgecnn.models.architecture import Architecture
from edgecnn.models.held import State, Tensors, is_averaged

OTHER_HEADS = {"head_dist", "aux1", "aux2", "AuxLogits", "aux", "aux_classifier"}
"""Second heads, used in training only."""
_FEW = 3
"""Elements of a tensor that is no layer: a mean, a scale, a count."""


@dataclass(frozen=True)
class Naming:
    """A library's order and names of a network's tensors."""

    architecture: Architecture
    keys: tuple[str, ...]
    """Of the backbone, in module order."""
    head: tuple[str, ...]
    eps: float | None


@dataclass(frozen=True)
class Wanted:
    """What the network itself has: its names, in the order of every naming of it, and its tensors."""

    keys: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    columns: int
    """Features that enter the head."""


@dataclass(frozen=True)
class Match:
    """Tensors of a file as those of a network."""

    label: str
    """How --weights-key names them."""
    averaged: bool
    stale: bool
    """Averaged over no steps yet."""
    wanted: Wanted
    naming: Naming
    state: State
    names: tuple[str, ...]
    """In `state`, for each key of the naming; what is not there has the key's own name."""
    head: tuple[str, ...]
    """The same for the keys of the head; empty: there is none, or it is no single layer."""
    extra: tuple[str, ...]
    """Names of the other tensors."""
    misfits: tuple[int, ...]
    """Places of the keys whose tensor is missing or of another shape or kind."""
    not_finite: str | None
    """A tensor with values that are not finite numbers."""

    @property
    def whole(self) -> bool:
        return not self.misfits and self.not_finite is None


@dataclass(frozen=True)
class Chosen:
    """The set that is taken."""

    match: Match
    remark: str | None
    """Which of several sets it is, and why; None where there was no choice."""


def choose(sets: Sequence[Tensors], namings: Sequence[Naming], wanted: Wanted, key: str | None, where: str) -> Chosen:
    """The set of a file that is the network's, by `key` where that is given.

    Averaged weights are preferred to plain ones where both are whole. UserError: no such key, several sets of which
    neither is the averaged one, values that are not finite. What does not fit at all is not judged here.
    """
    fitting = [naming for naming in namings if len(naming.keys) == len(wanted.keys)]
    matches = [match for held in sets for naming in fitting for match in _matches(held, naming, wanted)]
    if key is not None:
        matches = _of_key(matches, sets, key, where)
    whole = _without_twins([match for match in matches if match.whole])
    if not whole:
        best = max(matches, key=lambda match: (len(match.names) - len(match.misfits), match.not_finite is None))
        if best.not_finite and not best.misfits:
            raise UserError(
                f"{where}: {best.not_finite} holds values that are not finite numbers: training went wrong, or it broke"
            )
        return Chosen(best, None)
    averaged = [match for match in whole if match.averaged]
    left = averaged or [match for match in whole if not match.stale] or whole
    if len(left) > 1:
        labels = ", ".join(match.label or "the file itself" for match in left)
        raise UserError(
            f"{where}: holds {len(left)} sets of weights of this network ({labels}): choose with --weights-key"
        )
    return Chosen(left[0], _remark(left[0], whole, matches, key))


def _remark(taken: Match, whole: Sequence[Match], matches: Sequence[Match], key: str | None) -> str | None:
    name = taken.label or "the plain ones"
    if key is not None:
        return f"its weights under {name} are taken, as --weights-key says"
    others = [match.label or "the file itself" for match in whole if match is not taken]
    if taken.averaged and others:
        return f"its averaged weights ({name}) are taken, not the plain ones beside them ({', '.join(others)})"
    broken = next((match for match in matches if match.averaged and not match.whole), None)
    if broken is not None and not taken.averaged:
        fault = f"{broken.not_finite} is not finite" if broken.not_finite else f"{len(broken.misfits)} tensors short"
        return f"its plain weights ({name}) are taken: the averaged ones ({broken.label}) are not whole ({fault})"
    return f"its averaged weights ({name}) are taken: there are no others" if taken.averaged else None


def _of_key(matches: Sequence[Match], sets: Sequence[Tensors], key: str, where: str) -> list[Match]:
    wanted = key.strip(".")
    found = [match for match in matches if match.label == wanted]
    found = found or [match for match in matches if f"{match.label}.".startswith(f"{wanted}.")]
    if not found:
        there = list(dict.fromkeys([*(match.label for match in matches if match.whole), *(held.key for held in sets)]))
        named = ", ".join(label for label in there if label) or "none, the tensors are the file itself: leave it out"
        raise UserError(f"{where}: --weights-key {key!r} is not in it; there are: {named}")
    return found


def _without_twins(matches: Sequence[Match]) -> list[Match]:
    """One of those that hold the same tensors."""
    kept: list[Match] = []
    for match in matches:
        twin = next((place for place, other in enumerate(kept) if _same(other, match)), None)
        if twin is None:
            kept.append(match)
        elif match.averaged and not kept[twin].averaged:
            kept[twin] = match
    return kept


def _same(one: Match, other: Match) -> bool:
    if len(one.head) != len(other.head):
        return False
    pairs = zip((*one.names, *one.head), (*other.names, *other.head), strict=True)
    return all(_equal(one.state[left], other.state[right]) for left, right in pairs)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


def _matches(held: Tensors, naming: Naming, wanted: Wanted) -> list[Match]:
    """The ways to read a set as the network: one for each of the words before its names."""
    known = {*naming.keys, *naming.head}
    ends: dict[str, dict[str, str]] = {}
    """What stands before a name, to the key that it ends in, to the name."""
    for name in held.state:
        parts = name.split(".")
        for cut in range(len(parts)):
            end = ".".join(parts[cut:])
            if end in known:
                ends.setdefault(".".join(parts[:cut]), {})[end] = name
    most = max(map(len, ends.values()), default=0)
    befores = [before for before, found in ends.items() if 2 * len(found) > max(most, len(known))] or [""]
    return [
        _match(held, naming, wanted, before, {one: ends.get(one, {}) for one in befores}, ends) for before in befores
    ]


def _match(
    held: Tensors,
    naming: Naming,
    wanted: Wanted,
    before: str,
    rivals: Mapping[str, Mapping[str, str]],
    ends: Mapping[str, Mapping[str, str]],
) -> Match:
    """The set with `before` before its names. `rivals`: the other words that stand before many of them."""
    state, start = held.state, f"{before}." if before else ""
    names: list[str] = []
    for key in naming.keys:
        elsewhere = [found[key] for other, found in ends.items() if key in found and other not in rivals]
        lone = f"{start}{key}" not in state and len(elsewhere) == 1 and elsewhere[0] not in names
        names.append(elsewhere[0] if lone else f"{start}{key}")
    theirs = {name for other, found in rivals.items() if other != before for name in found.values()}
    others = tuple(f"{other}." for other in rivals if other and other != before and not start.startswith(f"{other}."))
    gone = theirs | set(names)
    free = [name for name in state if name not in gone and not name.startswith(others) and not _is_counter(name)]
    head = _head_among(free, [f"{start}{key}" for key in naming.head], start, state, wanted.columns)
    extra = tuple(name for name in free if name not in head)
    there = [name for name in (*names, *head, *extra) if name in state]
    return Match(
        label=".".join(part for part in (held.key, before) if part),
        averaged=held.averaged or (is_averaged(before) and not held.stale),
        stale=held.stale,
        wanted=wanted,
        naming=naming,
        state=state,
        names=tuple(names),
        head=head,
        extra=extra,
        misfits=tuple(
            place
            for place, (key, tensor, name) in enumerate(zip(wanted.keys, wanted.tensors, names, strict=True))
            if not _fits(key, tensor, name, state.get(name))
        ),
        not_finite=next((name for name in there if not _is_finite(state[name])), None),
    )


def layers_beside(match: Match) -> list[str]:
    """Names of the weights of layers that the network, but for its head, does not have."""
    return [name for name in match.extra if _is_layer(match.state[name]) and not _words_of(name) & OTHER_HEADS]


def _words_of(name: str) -> set[str]:
    return set(name.split("."))


def _head_among(free: Sequence[str], own: Sequence[str], start: str, state: State, columns: int) -> tuple[str, ...]:
    """The head under its own name, else the one layer that is left; none where several are."""
    layers = [name for name in free if _is_layer(state[name]) and not _words_of(name) & OTHER_HEADS]
    if len(layers) != 1 or squeezed(state[layers[0]].shape)[1:] not in ((columns,), ()):
        return ()
    if own and layers[0] == own[0]:
        return tuple(name for name in own if name in free)
    bias = f"{layers[0].rpartition('.')[0]}.bias"
    return (layers[0], bias) if bias in free else (layers[0],)


def _is_layer(tensor: Tensor) -> bool:
    return len(squeezed(tensor.shape)) >= 2 or (tensor.dim() >= 2 and tensor.numel() > _FEW)


def _fits(key: str, wanted: Tensor, name: str, got: Tensor | None) -> bool:
    """Same kind of tensor (weight, bias, running_mean …) and same shape, a linear layer being a 1×1 convolution."""
    if got is None or not got.is_floating_point():
        return False
    same_kind = key.rpartition(".")[2] == name.rpartition(".")[2]
    return same_kind and squeezed(wanted.shape) == squeezed(got.shape)


def squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """Without the 1s at its end."""
    sizes = list(shape)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)


def _is_finite(tensor: Tensor) -> bool:
    """Also as float32, which is what becomes of it."""
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor.to(torch.float32)).all())


def _is_counter(key: str) -> bool:
    """BatchNorm's count of batches, which nothing depends on here."""
    return key.endswith("num_batches_tracked")
