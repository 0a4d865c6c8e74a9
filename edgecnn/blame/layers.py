"""Layer by layer, an int8 variant against the fp32 variant of its format: where the quantisation noise comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Artifact
from edgecnn.blame import engines
from edgecnn.blame.engines import Tensor, Tensors
from edgecnn.documents import Frozen
from edgecnn.errors import MissingExtra, UserError
from edgecnn.imaging import Images

LAYER_IMAGES = 8
"""How many images the layers are compared on: SQNR is a sum over all their values."""
_ALIKE = 0.5
"""Least correlation by which two tensors of different names are taken for the same one."""
_SAMPLED = 20_000


class LayerNoise(Frozen):
    """One layer's output in int8."""

    name: str
    kind: str
    sqnr_db: float
    """10·log10(Σ fp32² / Σ (fp32 − int8)²) of its output, with the noise that came in."""
    lost_db: float
    """How much lower than that of the tensor before it, in the order of computation: what the layer added."""


class Layers(Frozen):
    """What the engine showed of a variant."""

    images: int
    against: str
    """The fp32 variant."""
    layers: tuple[LayerNoise, ...]
    """Worst first."""
    unmatched: int = 0
    """Tensors of the int8 net that the fp32 net has not."""


def layer_noise(folder: Path, int8: Artifact, fp32: Artifact, images: Images) -> Layers | str:
    """Compare every inner tensor that both show; a string says why there is none."""
    engine = engines.get(int8.runtime)
    if engine is None or engine.tensors is None:
        return f"{int8.runtime} gives no inner tensors"
    try:
        engines.require(engine)
        noisy = engine.tensors(folder / int8.files[0], images)
        clean = engine.tensors(folder / fp32.files[0], images)
    except MissingExtra as error:
        return f"inner tensors cannot be read: {error}"
    except UserError as error:
        return str(error)
    pairs = match(noisy, clean)
    if not pairs:
        return f"no tensor of {int8.variant} is one of {fp32.variant}"
    found: list[LayerNoise] = []
    for name, (ours, theirs) in pairs.items():
        level = sqnr_db(theirs.values, ours.values)
        before = found[-1].sqnr_db if found else level
        found.append(LayerNoise(name=name, kind=ours.kind, sqnr_db=level, lost_db=before - level))
    worst = tuple(sorted(found, key=lambda one: one.sqnr_db))
    return Layers(images=len(images), against=fp32.variant, layers=worst, unmatched=len(noisy) - len(pairs))


def sqnr_db(exact: NDArray[np.float32], noisy: NDArray[np.float32]) -> float:
    """Signal to quantisation noise in decibels, at most 200; -200 where it is not finite."""
    signal = float((exact.astype(np.float64) ** 2).sum())
    noise = float(((exact.astype(np.float64) - noisy.reshape(exact.shape)) ** 2).sum())
    if not np.isfinite(noise):
        return -200.0
    if noise <= signal * 1e-20:
        return 200.0
    return float(np.clip(10 * np.log10(max(signal, 1e-300) / noise), -200, 200))


def match(noisy: Tensors, clean: Tensors) -> dict[str, tuple[Tensor, Tensor]]:
    """The tensors of two nets that are the same one: by name, else by what they hold (two exports of a net may name its
    layers differently)."""
    by_size: dict[int, list[str]] = {}
    for name, tensor in clean.items():
        by_size.setdefault(tensor.values.size, []).append(name)
    same = {name: _of_that_name(name, tensor, noisy, clean) for name, tensor in noisy.items()}
    taken = {other for other in same.values() if other is not None}
    pairs = {}
    for name, tensor in noisy.items():
        other = same[name] or _most_alike(tensor, clean, by_size.get(tensor.values.size, []), taken)
        if other is not None:
            pairs[name] = (tensor, clean[other])
    return pairs


def _of_that_name(name: str, tensor: Tensor, noisy: Tensors, clean: Tensors) -> str | None:
    if name not in clean or clean[name].values.size != tensor.values.size:
        return None
    clamp = clean[name].clamp
    # A clamp that the int8 net has no tensor of is done by the range of the one before it.
    return clamp if clamp in clean and clamp not in noisy else name


def _most_alike(tensor: Tensor, clean: Tensors, candidates: list[str], taken: set[str]) -> str | None:
    scores = {name: _alike(tensor.values, clean[name].values) for name in candidates if name not in taken}
    best = max(scores, key=lambda name: scores[name], default=None)
    return best if best is not None and scores[best] >= _ALIKE else None


def _alike(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    step = max(1, first.size // _SAMPLED)
    a, b = (values.reshape(-1)[::step].astype(np.float64) for values in (first, second))
    a, b = a - a.mean(), b - b.mean()
    norms = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / norms) if norms > 0 and np.isfinite(norms) else 0.0
