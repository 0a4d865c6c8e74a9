"""Rungs of increasing effort; the first that is good enough on validation images is taken. Test is never seen."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Isa, Judged, JudgedOn
from edgecnn.disk import refuse_full
from edgecnn.documents import sha256_of
from edgecnn.errors import UserError, first_line
from edgecnn.formats import Source
from edgecnn.imaging import Images
from edgecnn.judge import Yardstick, judge, measure
from edgecnn.profiles import QUICK
from edgecnn.progress import Progress
from edgecnn.quantize.flat import WeightedLayer, layers_of
from edgecnn.quantize.grid import Grid, StoredWeight, grid_for, refuse_saturation
from edgecnn.quantize.observe import OBSERVERS, Histogram, Observer, Range, exception_for
from edgecnn.runtimes import open_file

if TYPE_CHECKING:
    from edgecnn.quantize.candidates import Networks

KEPT_IN_FLOAT = (1, 3, 6, 12)
"""So many of the most sensitive layers."""
TRAINED = "trained with rounding"
_LEAST_GAIN = 0.2
"""dB: an equalised network whose simulated logits gain less is not tried."""
Write = Callable[["Attempt", "TuningSet", Path], tuple[str, ...]]
"""(attempt, tuning set, existing empty folder) to the files written there, the one to open first."""


@dataclass(frozen=True)
class TuningSet:
    """What INT8 may be tuned with. No image of the test split is in it."""

    calibration: Images
    """From the train split."""
    validation: Images
    validation_labels: NDArray[np.int64]
    validation_logits: NDArray[np.float32]
    """Eager fp32's."""
    yardstick: Yardstick
    """What rungs are judged by."""
    threads: int
    validation_groups: NDArray[np.int64] | None = None
    """Which of its images show one part."""
    judged_on: JudgedOn = "validation images"
    """What `validation` holds, where there are no validation images."""
    minutes: float = 3.0
    """After which an engine's ladder begins no further rung."""
    quick: bool = False
    """Whether the first rung that can be made is taken, however good it is."""
    training: Images | None = None
    """From the train split too, for the rung that trains; the calibration images where there are no others."""
    machine: str = ""
    """The target's processor architecture, as `platform.machine()` has it."""
    isa: Isa = "any"
    """The target's too: whether its x86 has VNNI for certain."""


@dataclass(frozen=True)
class Attempt:
    """One way to quantise, the same for every engine."""

    name: str
    source: Source
    """The flat network to start from: as trained, equalised, bias-corrected or QAT'd. Its `work` folder is its own, so
    that what is converted from it is converted once, whatever engine or rung asks."""
    observer: str
    """In `edgecnn.quantize.observe.OBSERVERS`: from the values of a tensor to the range that int8 covers."""
    in_float: tuple[WeightedLayer, ...] = ()
    """Layers that stay in float."""
    exceptions: tuple[tuple[Histogram, str], ...] = ()
    """Tensors, known by their values (engines name them otherwise), that another observer is for."""

    start: Source | None = None
    """The network that `source` was corrected or trained from, so that its int8 answers come near the start's float
    ones: its tensors are observed in that."""
    grid: Grid = "paired"
    """Of the weights, where the engine leaves them to us."""

    @property
    def observed_in(self) -> Source:
        """The network whose float tensors are observed."""
        return self.start or self.source

    def observer_of(self, histogram: Histogram) -> Observer:
        """The observer for an engine's tensor."""
        return OBSERVERS[exception_for(histogram, self.exceptions) or self.observer]

    def observed(self, histogram: Histogram) -> Range:
        """The range that int8 covers of an engine's tensor."""
        return self.observer_of(histogram)(histogram)


@dataclass(frozen=True)
class Quantizer:
    """How an engine's int8 file is written. Each file of this folder that is named after a format has a QUANTIZER."""

    runtime: str
    """The engine that judges."""
    write: Write
    libraries: tuple[str, ...]
    """That write it, by the names that pip knows: they must be installed, and their versions are recorded."""
    extra: str
    """The extra of edgecnn that installs them."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """For the record."""
    always_float: Callable[[WeightedLayer], bool] = lambda layer: False
    """Layers that the engine's int8 never has."""
    own: Mapping[str, Write] = field(default_factory=dict)
    """Further rungs of this engine alone, by name: a tool of its own. Tried after the bias correction."""
    in_pairs: Callable[[Path], Iterable[StoredWeight]] | None = None
    """For an engine that adds products in pairs of 16 bits on x86 without VNNI: the int8 weights of a written file."""
    worth: Callable[[Path, Source, TuningSet], Mapping[str, Any]] | None = None
    """(file of the taken rung, network as trained, tuning set) to notes; UserError where INT8 is not worth having."""

    def grid(self, tuning: TuningSet) -> Grid:
        """Of the weights for this engine on the target."""
        return "full" if self.in_pairs is None else grid_for(tuning.isa)


@dataclass(frozen=True)
class Rung:
    """One step of an engine's ladder."""

    name: str
    make: Callable[[Path], tuple[str, ...]]
    """Writes the files into an existing empty folder; the first of those it returns is the one to open."""


def rungs(quantizer: Quantizer, networks: Networks) -> Iterator[Rung]:
    """The ladder of an engine, cheapest first; each network is made when its rung is reached."""
    tuning = networks.tuning
    grid = quantizer.grid(tuning)

    def rung(attempt: Attempt, write: Write = quantizer.write) -> Rung:
        return Rung(attempt.name, partial(_written, quantizer, write, attempt, tuning))

    observer = networks.observer
    several = f"{observer} and {len(networks.exceptions)} by others" if networks.exceptions else observer
    start = networks.plain
    yield rung(networks.attempt(f"per channel, {several}", grid, start))
    equalised = networks.equalised
    if equalised and networks.simulated_sqnr(equalised, observer) >= networks.observers[observer] + _LEAST_GAIN:
        start = equalised
        yield rung(networks.attempt("equalised", grid, start))
    never = {layer.node for layer in layers_of(start.module) if quantizer.always_float(layer)}
    corrected = networks.corrected(start, grid, never)
    yield rung(networks.attempt("rounded by data, bias corrected", grid, corrected, start))
    for name, write in quantizer.own.items():
        yield rung(networks.attempt(name, grid, networks.plain), write)
    ranked = [layer for layer, _ in networks.sensitive(corrected, start, grid) if layer.node not in never]
    for count in KEPT_IN_FLOAT:
        names = ", ".join(layer.name for layer in ranked[:count])
        kept = {layer.node for layer in ranked[:count]}
        begin = networks.corrected(start, grid, never | kept)
        layers = tuple(layer for layer in layers_of(begin.module) if layer.node in kept)
        yield rung(networks.attempt(f"rounded by data, {count} in float ({names})", grid, begin, start, layers))
    yield rung(networks.attempt(TRAINED, grid, networks.trained(corrected, start, grid), start))


def _written(quantizer: Quantizer, write: Write, attempt: Attempt, tuning: TuningSet, out: Path) -> tuple[str, ...]:
    """What a rung wrote. UserError where its weights can saturate on the target."""
    files = write(attempt, tuning, out)
    if quantizer.in_pairs is not None and attempt.grid == "paired":
        refuse_saturation(quantizer.in_pairs(out / files[0]))
    return files


@dataclass(frozen=True)
class Tried:
    """What a rung did to the validation images."""

    rung: str
    loss_points: float
    """Of top-1 against fp32."""
    agreement: float
    """Share of decisions equal to fp32's."""
    expected_agreement: float
    """The same as the noise between the two highest logits and fp32's margins let expect: less a matter of chance."""
    logit_error: float
    """Root mean square, relative to the logit scale."""
    judged: Judged
    largest_class_share: float
    """Share of the images in the most frequent decision: near 1 the model has collapsed."""
    latency_ms: float
    """Median of one image on the machine that exports, which need not be the target."""
    seconds: float
    """To write and judge it."""
    criterion: str
    """What it was judged by, and how that came out: see `climb`."""


def climb(
    rungs: Iterator[Rung], runtime: str, tuning: TuningSet, work: Path, progress: Progress
) -> tuple[Path, tuple[str, ...], dict[str, Any]]:
    """Try rungs in order; return the taken one's folder, its files and the notes for the record.

    Taken is the first that is good: nothing that it costs on these images is beyond a limit (`edgecnn.judge`), and it
    is expected to disagree a quarter as often as the target wants at most (other images will be judged on). Else, when
    the rungs or the time end, the one with the highest expected agreement of those that are not shown to be beyond a
    limit, if there are any. A rung that the engine refuses is passed over; once one is made, so is any that fails.
    """
    started, tried, refused, stopped = time.monotonic(), [], [], None
    made: list[tuple[Path, tuple[str, ...]]] = []
    for index in itertools.count():
        began = time.monotonic()
        folder = work / f"rung-{index}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        rung = None
        try:
            rung = next(rungs, None)
            if rung is None:
                break
            files = rung.make(folder)
            row = _judge(rung.name, folder / files[0], runtime, tuning, began)
        except Exception as error:
            refuse_full(folder)  # no rung is to blame for that
            if not made and (rung is None or not isinstance(error, UserError)):
                raise
            refused.append(f"{rung.name if rung else 'further rungs'}: {first_line(error)}")
            continue
        tried.append(row)
        made.append((folder, files))
        progress(
            f"  {row.rung.partition(' (')[0]}: loss {row.loss_points:+.1f} points, agreement {row.agreement:.1%} "
            f"(expected {row.expected_agreement:.1%}), "
            f"{row.latency_ms:.1f} ms here ({row.seconds:.0f} s)"
        )
        if _good(row, tuning):
            break
        if tuning.quick:
            stopped = f"further rungs: not tried ({QUICK})"
            refused.append(stopped)
            break
        if time.monotonic() - started > 60 * tuning.minutes:
            stopped = f"further rungs: not tried after {tuning.minutes:g} minutes"
            refused.append(stopped)
            break
    if not made:
        raise UserError(f"int8: no rung could be written: {'; '.join(refused)}")
    good = [index for index, row in enumerate(tried) if _good(row, tuning)]
    best = good[0] if good else min(range(len(tried)), key=lambda i: _badness(tried[i]))
    notes = {
        "rung": tried[best].rung,
        "rungs_tried": [asdict(row) | {"judged": row.judged.model_dump(mode="json")} for row in tried],
        "rungs_refused": refused,
        "aim": _aim(tuning),
        **({"quick": True} if tuning.quick else {}),
        "unfinished": _unfinished(len(tried), bool(good), stopped),
        "calibration_images": len(tuning.calibration),
        "calibration_pixels_sha256": sha256_of(tuning.calibration.tobytes()),
        "judged_on": tuning.judged_on,
        "judged_images": len(tuning.validation),
    }
    return *made[best], notes


def _good(row: Tried, tuning: TuningSet) -> bool:
    return _shortfall(row, tuning) is None


def _expected_at_least(tuning: TuningSet) -> float:
    return 1 - (1 - tuning.yardstick.agreement) / 4


def _aim(tuning: TuningSet) -> str:
    return f"expected agreement of {_expected_at_least(tuning):.2%} or more, and no limit passed"


def _unfinished(tried: int, met: bool, stopped: str | None) -> list[str]:
    """What a reader of the bundle must know of a ladder that did not reach its aim; nothing where it did."""
    of = "its only rung is taken" if tried == 1 else f"the best of {tried} rungs is taken"
    return [] if met else [f"the aim of the ladder is not met: {of}", *([stopped] if stopped else [])]


def _shortfall(row: Tried, tuning: TuningSet) -> str | None:
    """Why a rung is not good enough; None where it is."""
    if row.judged.refused or row.judged.doubts:
        return (*row.judged.refused, *row.judged.doubts)[0]
    least = _expected_at_least(tuning)
    return f"expected {row.expected_agreement:.2%} < {least:.2%}" if row.expected_agreement < least else None


def _criterion(row: Tried, tuning: TuningSet) -> str:
    short = _shortfall(row, tuning)
    met = f"met: expected {row.expected_agreement:.2%} ≥ {_expected_at_least(tuning):.2%}"
    return met if short is None else f"not met: {short}"


def _badness(row: Tried) -> tuple[bool, float, float]:
    return bool(row.judged.refused), -row.expected_agreement, row.logit_error


def _judge(rung: str, path: Path, runtime: str, tuning: TuningSet, began: float) -> Tried:
    with open_file(path, runtime, "int8", tuning.threads) as session:
        rows, times = [], []
        for image in tuning.validation:
            started = time.perf_counter()
            rows.append(session.run(image[None]))
            times.append(time.perf_counter() - started)
        logits = np.concatenate(rows)
    reference = tuning.validation_logits
    found = measure(logits, reference, tuning.validation_labels, tuning.validation_groups)
    row = Tried(
        rung=rung,
        loss_points=found.loss_points,
        agreement=found.agreement,
        expected_agreement=_expected_agreement(reference, logits),
        logit_error=min(found.rms_error, 1e9),
        judged=judge(found, tuning.yardstick, "int8"),
        largest_class_share=float(np.bincount(found.decided).max() / found.images),
        latency_ms=1000 * float(np.median(times)),
        seconds=round(time.monotonic() - began, 1),
        criterion="",
    )
    return replace(row, criterion=_criterion(row, tuning))


def _expected_agreement(reference: NDArray[np.float32], logits: NDArray[np.float32]) -> float:
    """Share of the images whose margin between fp32's two highest logits outlasts normal noise of the measured size."""
    rows = np.arange(len(reference))
    first, second = np.argsort(-reference, axis=1)[:, :2].T
    margins = reference[rows, first] - reference[rows, second]
    noise = float(np.sqrt(np.mean((logits[rows, first] - logits[rows, second] - margins) ** 2)))
    if not np.isfinite(noise):
        return 0.0
    normal = NormalDist(0, max(noise, 1e-12))
    return float(np.mean([normal.cdf(float(margin)) for margin in margins]))
