"""At which input size weights were trained, where nobody says it: sizes are tried on the owner's labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from edgecnn.artifact import Preprocess
from edgecnn.blame.doubts import ERROR, judged
from edgecnn.data import Item
from edgecnn.errors import UserError
from edgecnn.intervals import paired_difference
from edgecnn.models import Deployed
from edgecnn.parity import prepare_files
from edgecnn.progress import Progress, Stage

SIZES = (96, 128, 160, 192, 224, 256, 320, 384)
MOST_IMAGES = 64
LEAST_IMAGES = 16
MISFIT = 0.05
"""Probability with which a size that fits as well as any is asked about: not shared, for asking costs a word."""
_MACS = 100e9
"""Of all sizes and images together."""


@dataclass(frozen=True)
class Trial:
    """What the network answers with its images prepared in one way."""

    spec: Preprocess
    right: NDArray[np.bool_]
    loss: NDArray[np.float32]
    """Cross-entropy of each image."""


def settle(
    network: Deployed, spec: Preprocess, items: Sequence[Item], macs: int, where: str, progress: Progress
) -> tuple[Preprocess, str]:
    """The preprocessing by these images, which must not be test images, and how that was found. `macs`: at `spec`.

    The library's own size stands unless images are shown to fit another better. That one is taken where it is shown to
    be right more often than every other size. Raises UserError, asking, where neither is so.
    """
    trials = _tried(network, spec, items, macs) if spec.height == spec.width else []
    if not trials:
        return spec, "no other size could be tried"
    images = len(trials[0].right)
    found = choose(trials, spec)
    # Where the library's size stands, the table is a detail.
    kind = str if found is not None and found.spec == spec else Stage
    progress(kind(f"{where}: at which size was it trained? tried on {images} labelled images, none of the test split"))
    for line in table(trials):
        progress(kind(f"  {line}"))
    if found is None:
        likely = min(trials, key=lambda trial: float(trial.loss.mean())).spec
        raise UserError(
            f"{where}: says no input size, and {images} labelled images fit {likely.height}×{likely.width} better than "
            f"the library's {spec.height}×{spec.width}, but not clearly best: give the size it was trained at, "
            f"such as --size {likely.height}, or --preprocess FILE.toml"
        )
    if found.spec == spec:
        return spec, f"none of the other sizes tried fits {images} labelled images better; --size says another"
    return found.spec, f"its size clearly fits {images} labelled images best; --size says another"


def table(trials: Sequence[Trial]) -> list[str]:
    """A line a size, with each fit that was tried."""
    lines = []
    for side in sorted({trial.spec.height for trial in trials}):
        cells = [
            f"{'the whole image' if spec.fit == 'stretch' else f'center-crop {spec.crop:.3g}'} "
            f"{trial.right.mean():6.1%} right, loss {trial.loss.mean():.3f}"
            for trial in trials
            for spec in [trial.spec]
            if spec.height == side
        ]
        lines.append(f"{side}×{side}: {'; '.join(cells)}")
    return lines


def choose(trials: Sequence[Trial], usual: Preprocess) -> Trial | None:
    """The trial that the images speak for; None where they speak against the usual one and for none clearly.

    They speak against it where those of another have lower losses (Wilcoxon's signed ranks, one-sided, MISFIT):
    accuracy alone is the same at many sizes where images were learnt by heart. A size is clear where it is right more
    often than every other (Tango's interval, ERROR shared by them).
    """
    own = next((trial for trial in trials if trial.spec == usual), None)
    best = min(trials, key=lambda trial: float(trial.loss.mean()))
    if own is not None and (best is own or not _fits_better(best, own)):
        return own
    if own is not None and own.spec.height == best.spec.height:
        return best if _more_right(best, own, 1) else own
    others = [trial for trial in trials if trial.spec.height != best.spec.height]
    if others and all(_more_right(best, trial, len(others)) for trial in others):
        return best
    return None


def _fits_better(one: Trial, other: Trial) -> bool:
    from scipy.stats import wilcoxon

    return bool((one.loss != other.loss).any() and wilcoxon(one.loss, other.loss, alternative="less").pvalue < MISFIT)


def _more_right(one: Trial, other: Trial, shared: int) -> bool:
    gained, lost = int((one.right & ~other.right).sum()), int((other.right & ~one.right).sum())
    if gained <= lost:
        return False
    return paired_difference(gained, lost, len(one.right), 1 - 2 * ERROR / max(shared, 1))[0] > 0


def _tried(network: Deployed, spec: Preprocess, items: Sequence[Item], macs: int) -> list[Trial]:
    """All sizes with the usual fit; the best of them and the usual one with the other fit too."""
    other = {"fit": "stretch", "crop": 1.0} if spec.fit == "center-crop" else {"fit": "center-crop", "crop": 1.0}
    specs = [spec.model_copy(update={"height": side, "width": side}) for side in sorted({*SIZES, spec.height})]
    of_each = sum(macs * (one.height * one.width) / (spec.height * spec.width) for one in specs)
    chosen = judged(items, int(min(max(_MACS / max(of_each, 1), LEAST_IMAGES), MOST_IMAGES)))
    found = [trial for one in specs if (trial := _trial(network, one, chosen))]
    best = min(found, key=lambda trial: float(trial.loss.mean())).spec if found else spec
    fits = [one.model_copy(update=other) for one in ([best] if best == spec else [best, spec])]
    return [*found, *(trial for one in fits if (trial := _trial(network, one, chosen)))]


def _trial(network: Deployed, spec: Preprocess, items: Sequence[Item]) -> Trial | None:
    """None where the weights do not allow that size."""
    labels = torch.tensor([item.label for item in items])
    try:
        logits = torch.from_numpy(network.answers(prepare_files([item.path for item in items], spec)))
    except (RuntimeError, AssertionError, ValueError):
        return None
    loss = F.cross_entropy(logits, labels, reduction="none").numpy()
    return Trial(spec, (logits.argmax(1) == labels).numpy(), loss)
