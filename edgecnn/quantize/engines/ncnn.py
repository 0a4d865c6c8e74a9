"""ncnn's int8: our own writer of the public format of int8 weights, since the tool that does it is in no package.

As ncnn2int8 has it: int8 weights with a scale for each output channel, one scale for the input, biases in float; where
the reader of an int8 layer's output is int8 too, the output is in int8 (requantised). Two things are done otherwise:

- depthwise and grouped convolutions stay in float. ncnn's int8 kernels for depthwise ones are slower than its float
  ones (benchmarks/ncnn_int8.py), cost the most accuracy, and round otherwise on x86 than on Arm, where all other int8
  layers answer alike to the last bit. Those for groups of eight channels or more give garbage on x86 (ncnn
  1.0.20261020: a group's output is packed wider than its place in the whole);
- 3×3 convolutions keep 8 bits. ncnn2table cuts their weights to 6 bits, lest ncnn's Winograd kernels overflow; here
  Winograd is switched off for just those layers whose weights are large enough for that.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import UserError
from edgecnn.formats import Source
from edgecnn.formats.ncnn import FILES, MAIN, NOTES, fp32_file
from edgecnn.imaging import Images, Pixels
from edgecnn.modelfiles.ncnn import INT8_TAG, QUANTISABLE, Block, Layer, Network, load, save
from edgecnn.quantize.flat import WeightedLayer, keys_of, replacements
from edgecnn.quantize.ladder import Attempt, Quantizer, TuningSet
from edgecnn.quantize.observe import BINS, Histogram, Observer, Tensors, observed_once
from edgecnn.runtimes import open_file
from edgecnn.runtimes.ncnn import open_net, tensors

_CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")
_LEVELS = 127
_NO_WINOGRAD = 1 << 6
"""A layer's bit of parameter 31: not to use Winograd kernels."""
_WINOGRAD_GAIN = 576
"""F(4×4, 3×3) in integers: results are this many times too large before the last step, in int32 that may wrap."""


def float_file(source: Source) -> Path:
    """The float file that int8 is made from, converted once per network; from its twin's where that is enough."""
    path = source.work / "reweighted.param"
    if not path.exists():
        network = _reweighted(source)
        if network is None:
            return fp32_file(source)
        save(network, path)
    return path


def _reweighted(source: Source) -> Network | None:
    if source.twin is None:
        return None
    network = load(fp32_file(source.twin))
    new = replacements(source.twin.module, source.module, _by_key(network))
    if new is None:
        return None
    weights = list(network.weights)
    for key, one in new.items():
        blocks = weights[int(key)]
        if [block.values.size for block in blocks] != [value.size for value in one.old]:
            return None
        if not all(
            np.array_equal(block.values.ravel(), value.ravel()) for block, value in zip(blocks, one.old, strict=True)
        ):
            return None
        weights[int(key)] = tuple(
            replace(block, values=value.ravel()) for block, value in zip(blocks, one.new, strict=True)
        )
    return Network(network.layers, tuple(weights))


def int8_network(
    network: Network, scales: Mapping[str, float], layers: Collection[int], requantise: bool = True
) -> Network:
    """`network` with these layers, by index, in int8. `scales`: from a blob's values to int8's −127 to 127.

    A layer whose readers are all int8 too gives them int8; without `requantise` every layer gives floats.
    """
    readers = {blob: index for index, layer in enumerate(network.layers) for blob in layer.bottoms}
    written = list(network.layers)
    weights = list(network.weights)
    for index in layers:
        layer = network.layers[index]
        scale = scales[layer.bottoms[0]]
        gives_int8 = requantise and _read_by_int8_alone(network, index, readers, layers)
        weights[index] = _int8_blocks(layer, network.weights[index], scale)
        written[index] = _int8_layer(layer, weights[index][0], gives_int8)
        if gives_int8:
            # All readers have the same scale: they read the same values.
            weights[index] += (_floats([scales[layer.tops[0]]]),)
    return Network(tuple(written), tuple(weights))


def quantisable(network: Network) -> dict[int, NDArray[np.generic]]:
    """Weights of the layers that can be int8, by index."""
    return {
        index: network.weights[index][0].values
        for index, layer in enumerate(network.layers)
        if layer.kind in QUANTISABLE and network.weights[index]
    }


def grouped(network: Network) -> set[int]:
    """Indices of the depthwise and grouped convolutions."""
    return {index for index, layer in enumerate(network.layers) if layer.kind == "ConvolutionDepthWise"}


def kept_in_float(network: Network, layers: tuple[WeightedLayer, ...]) -> set[int]:
    """Indices of the layers that are these layers, by their weights. UserError where one is not in the network."""
    return {int(key) for key in keys_of(layers, _by_key(network), "ncnn")}


def _by_key(network: Network) -> dict[str, NDArray[np.generic]]:
    return {str(index): values for index, values in quantisable(network).items()}


def layer_scales(
    network: Network,
    fp32: Path,
    cache: Path,
    observer_of: Callable[[Histogram], Observer],
    images: Images,
    threads: int,
) -> dict[str, float]:
    """The scale of every blob that a layer which can be int8 reads or writes, from what ncnn's own fp32 graph gives."""
    names = [name for index in quantisable(network) for name in _edges(network.layers[index])]

    def run() -> Callable[[Pixels], Tensors]:
        net, layers = open_net(fp32, "fp32", threads)
        return lambda image: tensors(net, layers, image, names)

    histograms = observed_once(cache, run, images)
    return {name: symmetric_scale(histogram, observer_of(histogram)) for name, histogram in histograms.items()}


def symmetric_scale(histogram: Histogram, observer: Observer) -> float:
    """127 over the largest magnitude that the observer would cover.

    int8 covers as much below zero as above it here, so that the observer is shown the values with both signs: its
    idea of a step is then the one that int8 has.
    """
    largest = max(abs(histogram.low), abs(histogram.high))
    if largest == 0:
        return 1.0
    centres = np.linspace(histogram.low, histogram.high, BINS, endpoint=False)
    centres += (histogram.high - histogram.low) / BINS / 2
    bins = np.minimum((np.abs(centres) / largest * (BINS // 2)).astype(np.int64), BINS // 2 - 1)
    half = np.bincount(bins, weights=histogram.counts, minlength=BINS // 2) / 2
    low, high = observer(Histogram(np.concatenate([half[::-1], half]), -largest, largest))
    return _LEVELS / (max(-low, high) or largest)


@dataclass(frozen=True)
class Speed:
    """Milliseconds for one image, int8 against fp32, by turns in one process on this machine."""

    fp32_ms: tuple[float, ...]
    int8_ms: tuple[float, ...]
    clock: str
    """cpu: of the thread that computes, which other programs do not disturb; wall: where there are several threads."""

    @property
    def ratio(self) -> float:
        """Median int8 over median fp32."""
        return statistics.median(self.int8_ms) / statistics.median(self.fp32_ms)

    @property
    def slower(self) -> bool:
        """Whether int8 takes longer beyond the noise: the 95 % interval of the turns' median ratio lies above 1."""
        ratios = sorted(int8 / fp32 for int8, fp32 in zip(self.int8_ms, self.fp32_ms, strict=True))
        # The interval's lower end, by the binomial distribution's normal approximation.
        return ratios[max(0, int(len(ratios) / 2 - 0.98 * len(ratios) ** 0.5))] > 1


def measure(fp32: Path, int8: Path, image: Pixels, threads: int, turns: int = 40) -> Speed:
    """Time both files, one inference of each in turn, after five that are not counted."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    taken: list[list[float]] = [[], []]
    with open_file(fp32, "ncnn", "fp32", threads) as float_one, open_file(int8, "ncnn", "int8", threads) as int8_one:
        for number in range(turns + 5):
            for session, times in zip((float_one, int8_one), taken, strict=True):
                start = clock()
                session.run(image[None])
                if number >= 5:
                    times.append(1000 * (clock() - start))
    return Speed(tuple(taken[0]), tuple(taken[1]), "cpu" if threads == 1 else "wall")


def not_slower(fp32: Path, int8: Path, image: Pixels, threads: int, machine: str) -> dict[str, Any]:
    """For the record: int8's time over fp32's. UserError where int8 is slower on a target like this machine.

    `machine`: the target's, as `platform.machine()` names it; where it is not this one's, nothing is measured.
    """
    here = platform.machine()
    if machine != here:
        return {"int8_over_fp32": None, "not_measured": f"the target is {machine} and this machine {here}"}
    speed = measure(fp32, int8, image, threads)
    if speed.slower:
        raise UserError(f"ncnn-int8: slower than fp32 on this machine (ratio {speed.ratio:.2f}): left out")
    return {"int8_over_fp32": round(speed.ratio, 3), "clock": speed.clock, "turns": len(speed.int8_ms)}


def _read_by_int8_alone(network: Network, index: int, readers: Mapping[str, int], layers: Collection[int]) -> bool:
    """Whether all that reads a convolution's output is an int8 convolution, directly or behind a Split."""
    layer = network.layers[index]
    if layer.kind not in _CONVOLUTIONS or layer.tops[0] not in readers:
        return False
    next_ones = [readers[layer.tops[0]]]
    split = network.layers[next_ones[0]]
    if split.kind == "Split":
        next_ones = [readers.get(blob, -1) for blob in split.tops]
    return all(number in layers and network.layers[number].kind in _CONVOLUTIONS for number in next_ones)


def _int8_layer(layer: Layer, weight: Block, gives_int8: bool) -> Layer:
    params = dict(layer.params)
    params[8] = (1 if layer.kind == "ConvolutionDepthWise" else 2) + 100 * gives_int8
    if layer.kind == "Convolution" and layer.integer(1) == layer.integer(11, layer.integer(1)) == 3:
        rows = np.abs(weight.values.astype(np.int64)).reshape(layer.integer(0), -1)
        if int(rows.sum(1).max()) * _LEVELS * _WINOGRAD_GAIN >= 2**31:
            params[31] = layer.integer(31) | _NO_WINOGRAD
    return replace(layer, params=params)


def _int8_blocks(layer: Layer, blocks: tuple[Block, ...], scale: float) -> tuple[Block, ...]:
    weight = blocks[0].values.astype(np.float32)
    channels = layer.integer(7, 1) if layer.kind == "ConvolutionDepthWise" else layer.integer(0)
    rows = weight.reshape(channels, -1)
    largest = np.abs(rows).max(1)
    # A channel of zeros: any scale will do but infinity, which some of ncnn's kernels divide by.
    scales = np.where(largest > 0, _LEVELS / np.where(largest > 0, largest, 1), 1).astype(np.float32)
    int8 = np.clip(_rounded(rows * scales[:, None]), -_LEVELS, _LEVELS).astype(np.int8)
    return (Block(int8.ravel(), INT8_TAG), *blocks[1:], _floats(scales), _floats([scale]))


def _rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """To the nearest, halves away from zero, as C's round does."""
    return np.copysign(np.floor(np.abs(values) + np.float32(0.5)), values)


def _floats(values: object) -> Block:
    return Block(np.asarray(values, np.float32).ravel(), None)


def _edges(layer: Layer) -> tuple[str, str]:
    return layer.bottoms[0], layer.tops[0]


def _write(attempt: Attempt, tuning: TuningSet, out: Path) -> tuple[str, ...]:
    fp32 = float_file(attempt.source)
    network = load(fp32)
    layers = quantisable(network).keys() - grouped(network) - kept_in_float(network, attempt.in_float)
    if not layers:
        raise UserError("ncnn-int8: no layer is left to quantise (depthwise and grouped convolutions stay in float)")
    cache = attempt.observed_in.work / "ncnn-histograms.npz"
    observed = float_file(attempt.observed_in)
    scales = layer_scales(network, observed, cache, attempt.observer_of, tuning.calibration, tuning.threads)
    save(int8_network(network, scales, layers), out / MAIN)
    return FILES


QUANTIZER = Quantizer(
    runtime="ncnn",
    write=_write,
    libraries=("torch", "pnnx", "ncnn"),
    extra="export-ncnn",
    always_float=lambda layer: layer.weight.ndim == 4 and layer.weight.shape[1] == 1,
    worth=lambda int8, plain, tuning: not_slower(
        fp32_file(plain), int8, tuning.calibration[0], tuning.threads, tuning.machine
    ),
    notes={
        **NOTES,
        "weights": "int8, per output channel",
        "activations": "int8, symmetric, per tensor",
        "in_float": "depthwise and grouped convolutions",
    },
)
