"""OpenVINO int8: from our own QDQ, which OpenVINO runs in int8; its own rungs are NNCF's bias corrections."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import UserError
from edgecnn.formats.onnx import fp32_file
from edgecnn.formats.openvino import FILES, NOTES
from edgecnn.modelfiles.openvino import Operation
from edgecnn.quantize.engines.onnx import write_qdq
from edgecnn.quantize.grid import StoredWeight
from edgecnn.quantize.ladder import Attempt, Quantizer, TuningSet

_FUSED = ("HardSwish", "HardSigmoid")
"""Not rounding what they read gains 2 dB of MobileNetV3's logits and takes no longer."""


def _write(attempt: Attempt, tuning: TuningSet, out: Path) -> tuple[str, ...]:
    import openvino

    qdq = out / "qdq.onnx"
    write_qdq(attempt, tuning, qdq, fused=_FUSED)
    openvino.save_model(openvino.convert_model(qdq), out / FILES[0], compress_to_fp16=False)
    return FILES


def _by_nncf(attempt: Attempt, tuning: TuningSet, out: Path, *, fast: bool) -> tuple[str, ...]:
    # torch, which nncf imports, remarks that there is no CUDA.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    # Its progress bars go to stdout, which belongs to our results.
    with contextlib.redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):
        quantized = nncf.quantize(
            openvino.convert_model(fp32_file(attempt.source)),
            nncf.Dataset([image[None] for image in tuning.calibration]),
            subset_size=len(tuning.calibration),
            fast_bias_correction=fast,
            # Its way to spare pairs: half the range, in every layer.
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.DISABLE if attempt.grid == "full" else nncf.OverflowFix.ENABLE
            ),
        )
    openvino.save_model(quantized, out / FILES[0], compress_to_fp16=False)
    return FILES


_LAYERS = ("Convolution", "GroupConvolution", "MatMul")
_BETWEEN = ("Convert", "Multiply", "Subtract", "Reshape", "Transpose")
"""What may stand between int8 weights and their layer."""


def _stored(path: Path) -> Iterator[StoredWeight]:
    """The int8 weights of an .xml and its .bin. UserError where weights are rounded otherwise than by being int8."""
    import openvino

    for layer in openvino.Core().read_model(path).get_ordered_ops():
        if layer.get_type_name() not in _LAYERS:
            continue
        constant = layer.input_value(1).get_node()
        while constant.get_type_name() in _BETWEEN:
            constant = constant.input_value(0).get_node()
        name = layer.get_friendly_name()
        if constant.get_type_name() == "FakeQuantize" and _is_constant(constant.input_value(0).get_node()):
            raise UserError(f"OpenVINO int8: {name} has weights that are not yet whole numbers")
        if constant.get_type_name() == "Constant" and str(constant.get_element_type().to_dtype()) == "int8":
            yield _as_torch_has_it(layer, name, np.array(constant.data))


def _is_constant(node: Operation) -> bool:
    return bool(node.get_type_name() == "Constant")


def _as_torch_has_it(layer: Operation, name: str, values: NDArray[np.int8]) -> StoredWeight:
    shape = tuple(layer.input_value(1).get_shape())
    if layer.get_type_name() == "GroupConvolution":
        groups, out, *rest = shape
        return StoredWeight(name, values.reshape(groups * out, *rest), groups)
    if layer.get_type_name() == "MatMul" and not layer.get_attributes()["transpose_b"]:
        return StoredWeight(name, np.ascontiguousarray(np.moveaxis(values, -1, 0)))
    return StoredWeight(name, values)


QUANTIZER = Quantizer(
    runtime="openvino",
    write=_write,
    libraries=("torch", "onnx", "openvino", "nncf"),
    extra="train",
    notes=NOTES,
    in_pairs=_stored,
    own={
        "NNCF fast bias correction": partial(_by_nncf, fast=True),
        "NNCF accurate bias correction": partial(_by_nncf, fast=False),
    },
)
