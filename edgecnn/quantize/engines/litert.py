"""LiteRT full-integer int8 by ai-edge-quantizer: integers from the pixels to the logits."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch.fx import GraphModule

from edgecnn.errors import UserError, first_line
from edgecnn.formats import Source
from edgecnn.formats.litert import MAIN, NOTES, channels_last
from edgecnn.formats.litert import write as convert_module
from edgecnn.imaging import Pixels
from edgecnn.metadata import taking
from edgecnn.modelfiles.tflite import (
    Operation,
    describe,
    hushed,
    inputs_and_outputs,
    operations,
    replace_constants,
    save,
    take_uint8,
)
from edgecnn.quantize.flat import WeightedLayer, clone, keys_of, replacements
from edgecnn.quantize.ladder import Attempt, Quantizer, TuningSet
from edgecnn.quantize.observe import Range, Tensors, observed_once

_PIXELS: Range = (0.0, 255.0)
HardSwish = Literal["rewritten", "float", "int8"]
HARD_SWISH: HardSwish = "float"
_BIAS_STEPS = 2**28
"""That a bias may have: what 32 bits hold, less room for the sum of products and for rounded ranges."""
_ROUNDING = 1e-6
"""Of a float32 number, and a little more."""
_MOVES = ("PAD", "RESHAPE", "TRANSPOSE", "MAX_POOL_2D", "SLICE", "STRIDED_SLICE", "SPLIT", "SQUEEZE", "EXPAND_DIMS")
_HARD_SWISHES = {"aten.hardswish.default", "aten.hardswish_.default"}


def float_file(source: Source, hard_swish: HardSwish = HARD_SWISH) -> Path:
    """The float file that int8 is made from, converted once per network: pixels as float32 (1, height, width, 3)."""
    import torch

    path = source.work / f"litert-{hard_swish}.tflite"
    if not path.exists() and not _reweighted(source, hard_swish, path):
        graph = clone(source.module)
        if hard_swish == "rewritten":
            without_hard_swish(graph)
        convert_module(channels_last(graph), torch.zeros((1, source.height, source.width, 3)), path)
    return path


def _reweighted(source: Source, hard_swish: HardSwish, path: Path) -> bool:
    """The twin's float file with these weights, a second's work instead of ten; False where it is not that easy."""
    if source.twin is None:
        return False
    twin = float_file(source.twin, hard_swish)
    layers = {one.outputs[0].name: one for one in operations(twin) if one.weight and one.weight.values is not None}
    stored = {name: one.weight.values for name, one in layers.items() if one.weight and one.weight.values is not None}
    new = replacements(source.twin.module, source.module, stored)
    if new is None:
        return False
    values: dict[str, NDArray[np.float32]] = {}
    for key, one in new.items():
        layer = layers[key]
        bias = layer.inputs[2] if layer.kind != "TRANSPOSE_CONV" and len(layer.inputs) > 2 else None
        if layer.weight is None or bias is None or bias.values is None:
            return False
        ends = [_laid_out(layer.kind, weight) for weight in (one.old[0], one.new[0])]
        # The converter adds the 3 of a hard-sigmoid to the bias before it.
        added = np.asarray(bias.values, np.float32) - one.old[1]
        constant = np.ptp(added) <= _ROUNDING * np.abs(added).max()
        if not constant or not np.array_equal(ends[0], stored[key]):
            return False
        values |= {layer.weight.name: ends[1], bias.name: one.new[1] + added.mean(dtype=np.float32)}
    # A constant of two layers cannot become two.
    if len(values) != 2 * len(new):
        return False
    replace_constants(twin, values, path)
    return True


def _laid_out(kind: str, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """torch's weight as TFLite has it: channels last, depthwise (1, height, width, channels)."""
    if weight.ndim == 2:
        return weight
    return weight.transpose((1, 2, 3, 0) if kind == "DEPTHWISE_CONV_2D" else (0, 2, 3, 1))


def without_hard_swish(graph: GraphModule) -> GraphModule:
    """Write hard-swish as (x / 6) · relu6(x + 3), in place; give the graph back.

    Dividing x is exact in int8: the same steps mean a sixth. The converter recognises other ways to write it and makes
    them HARD_SWISH again, or RELU_0_TO_1, which ai-edge-quantizer leaves in float.
    """
    import torch

    aten = torch.ops.aten
    for node in list(graph.graph.nodes):
        if str(node.target) in _HARD_SWISHES:
            value = node.args[0]
            with graph.graph.inserting_before(node):
                shifted = graph.graph.call_function(aten.add.Tensor, (value, 3.0))
                gate = graph.graph.call_function(aten.hardtanh.default, (shifted, 0.0, 6.0))
                scaled = graph.graph.call_function(aten.mul.Tensor, (value, 1 / 6))
                product = graph.graph.call_function(aten.mul.Tensor, (scaled, gate))
            for made in (shifted, gate, scaled, product):
                made.meta = dict(node.meta)
            node.replace_all_uses_with(product)
            graph.graph.erase_node(node)
    graph.recompile()
    return graph


def write(attempt: Attempt, tuning: TuningSet, out: Path, hard_swish: HardSwish = HARD_SWISH) -> tuple[str, ...]:
    """Write an attempt as a full-integer file. UserError where a layer could not be made int8."""
    path, floating = out / MAIN, float_file(attempt.source, hard_swish)
    stored = operations(floating)
    observed = attempt.observed_in
    histograms = observed_once(
        observed.work / f"litert-{hard_swish}-histograms.npz",
        lambda: _all_tensors(float_file(observed, hard_swish), tuning.threads),
        tuning.calibration,
    )
    ranges = {name: attempt.observed(histogram) for name, histogram in histograms.items()}
    kept = _kept_whole(floating, stored, {name: (one.low, one.high) for name, one in histograms.items()})
    ranges = _moved_along(stored, {**ranges, **kept}, kept.keys())
    in_float = scopes_of(stored, attempt.in_float)
    _quantize(floating, _statistics(stored, ranges), in_float, hard_swish, path)
    _prove(path, stored, in_float)
    if attempt.source.io == "uint8":
        take_uint8(path)
    describe(path, taking(attempt.source.described, attempt.source.io))
    return (MAIN,)


def scopes_of(stored: Sequence[Operation], layers: Sequence[WeightedLayer]) -> list[str]:
    """Names of the tensors that these layers give. UserError where one is not found in the file."""
    weights = {one.outputs[0].name: one.weight.values for one in stored if one.weight and one.weight.values is not None}
    return keys_of(layers, weights, "LiteRT")


def _kept_whole(floating: Path, stored: Sequence[Operation], extremes: Mapping[str, Range]) -> dict[str, Range]:
    """Ranges that no observer may clip: pixels (so that int8 is the pixel minus 128), what the first layer makes of
    them, and the logits, of which the largest is the decision."""
    (pixels,), (logits,) = inputs_and_outputs(floating)
    kept = {pixels.name: _PIXELS, logits.name: extremes[logits.name]}
    first = stored[0]
    if first.kind == "DEPTHWISE_CONV_2D" and first.inputs[0] == pixels and first.weight is not None:
        scale, shift = first.weight.values, first.inputs[2].values if first.inputs[2] else None
        if scale is not None and shift is not None and scale.size == shift.size == 3:
            ends = np.stack([scale.ravel().astype(np.float32) * value + shift.astype(np.float32) for value in _PIXELS])
            kept[first.outputs[0].name] = (float(ends.min()), float(ends.max()))
    return kept


def _moved_along(stored: Sequence[Operation], ranges: Mapping[str, Range], kept: Collection[str]) -> dict[str, Range]:
    """The same range before and after operations that only move values: their kernels copy integers as they are.

    An observer finds another range behind a padding than before it, whose zeros weigh in a percentile. What is kept
    whole is so on both sides.
    """
    found = dict(ranges)
    moves = [(one.inputs[0].name, one.outputs) for one in stored if one.kind in _MOVES and one.inputs[0] is not None]
    for source, outputs in reversed(moves):
        whole = [found[one.name] for one in outputs if one.name in kept]
        if whole and source not in kept:
            found[source] = whole[0]
    for source, outputs in moves:
        found |= {one.name: found[source] for one in outputs if source in found}
    return found


def _statistics(stored: Sequence[Operation], ranges: Mapping[str, Range]) -> dict[str, dict[str, NDArray[np.float32]]]:
    """As ai-edge-quantizer's calibration would give them. Ranges of most constants it finds itself."""
    found = {name: (np.array([low]), np.array([high])) for name, (low, high) in ranges.items()}
    for operation in stored:
        reach = _reach_for_the_bias(operation, ranges)
        if reach is not None and operation.weight is not None:
            found[operation.weight.name] = (-reach, reach)
    return {
        name: {"min": low.astype(np.float32), "max": high.astype(np.float32)} for name, (low, high) in found.items()
    }


def _reach_for_the_bias(layer: Operation, ranges: Mapping[str, Range]) -> NDArray[np.float64] | None:
    """Largest weight to allow for in each channel, where the weights' own would lose the bias; else None.

    The bias is int32 in steps of the activation's times the weights'. In a channel whose weights are all (nearly) zero,
    as training leaves behind, that step is so small that the bias does not fit 32 bits and would be clipped.
    """
    weight, activation = layer.weight, layer.activation
    bias = layer.inputs[2] if layer.kind != "TRANSPOSE_CONV" and len(layer.inputs) > 2 else None
    if weight is None or weight.values is None or bias is None or bias.values is None or activation is None:
        return None
    if activation.name not in ranges:
        return None
    channels = 3 if layer.kind == "DEPTHWISE_CONV_2D" else 0
    others = tuple(axis for axis in range(weight.values.ndim) if axis != channels)
    own = np.abs(weight.values.astype(np.float64)).max(axis=others, keepdims=True)
    low, high = ranges[activation.name]
    step = max(max(high, 0.0) - min(low, 0.0), 1e-9) / 255
    least = 127 * np.abs(bias.values.astype(np.float64)).reshape(own.shape) / (step * _BIAS_STEPS)
    return np.maximum(own, least) if (least > own).any() else None


def _quantize(
    floating: Path, statistics: Mapping[str, Any], in_float: Sequence[str], hard_swish: HardSwish, path: Path
) -> None:
    silent = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent), hushed():
        warnings.simplefilter("ignore")
        from ai_edge_quantizer import qtyping, quantizer, recipe

        work = quantizer.Quantizer(str(floating), recipe.static_wi8_ai8())
        nothing = quantizer.AlgorithmName.NO_QUANTIZE
        if hard_swish == "float":
            work.update_quantization_recipe(".*", qtyping.TFLOperationName.HARD_SWISH, algorithm_key=nothing)
        for name in in_float:
            scope = f"^{re.escape(name)};$"
            work.update_quantization_recipe(scope, qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_key=nothing)
        try:
            made = work.quantize(dict(statistics), enable_progress_bar=False, enable_progress_report=False)
        except Exception as error:  # whatever it raises on somebody's network
            raise UserError(
                f"LiteRT int8: ai-edge-quantizer cannot quantise this network: {first_line(error)}"
            ) from None
    save(bytes(made.quantized_model), path)


def _prove(path: Path, floating: Sequence[Operation], in_float: Sequence[str]) -> None:
    """UserError where the file is not what was asked for: a layer that silently stayed float, or clipped pixels."""
    (pixels,), (logits,) = inputs_and_outputs(path)
    last_in_float = logits.name in in_float
    if (pixels.type, pixels.scale, pixels.zero_point) != ("int8", (1.0,), (-128,)) or (
        logits.type != "int8" and not last_in_float
    ):
        raise UserError(f"LiteRT int8: the file takes {pixels.type} and gives {logits.type} instead of int8")
    layers = [one for one in operations(path) if one.weight is not None]
    wanted = sum(one.weight is not None for one in floating) - len(in_float)
    left = [one.outputs[0].name for one in layers if not _is_int8(one)]
    if len(layers) - len(left) != wanted:
        raise UserError(
            f"LiteRT int8: {len(layers) - len(left)} layers are int8 in the file where {wanted} should be; "
            f"float are {', '.join(left)}"
        )


def _is_int8(layer: Operation) -> bool:
    """Both what it multiplies and what it gives."""
    tensors = (layer.weight, layer.activation, layer.outputs[0])
    return all(one is not None and one.type == "int8" for one in tensors)


def _all_tensors(floating: Path, threads: int) -> Callable[[Pixels], Tensors]:
    """An interpreter that gives every float tensor of the graph."""
    with warnings.catch_warnings(), hushed():
        # That keeping all tensors takes memory is what it warns of.
        warnings.simplefilter("ignore")
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=str(floating), num_threads=threads, experimental_preserve_all_tensors=True)
        interpreter.allocate_tensors()
    wanted = {one.name for operation in operations(floating) for one in operation.outputs if one.type == "float32"}
    source = interpreter.get_input_details()[0]
    indices = {one["name"]: one["index"] for one in interpreter.get_tensor_details() if one["name"] in wanted}

    def run(image: Pixels) -> Tensors:
        interpreter.set_tensor(source["index"], image[None].astype(np.float32))
        interpreter.invoke()
        return {name: _finite(interpreter.get_tensor(index)) for name, index in indices.items()}

    return run


def _finite(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Padding before a maximum is −∞, which is no value that int8 has to hold."""
    finite = np.isfinite(values)
    return values if finite.all() else values[finite]


QUANTIZER = Quantizer(
    runtime="litert",
    write=write,
    libraries=("torch", "litert-torch", "ai-edge-quantizer", "ai-edge-litert"),
    extra="export-litert",
    notes={**NOTES, "quantizer": "ai-edge-quantizer"},
)
