"""OpenVINO int8: from our own QDQ, which OpenVINO runs in int8; its own rungs are NNCF's bias corrections."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from functools import partial
from pathlib import Path

from edgecnn.formats.onnx import fp32_file
from edgecnn.formats.openvino import FILES, NOTES
from edgecnn.quantize.engines.onnx import write_qdq
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
        )
    openvino.save_model(quantized, out / FILES[0], compress_to_fp16=False)
    return FILES


QUANTIZER = Quantizer(
    runtime="openvino",
    write=_write,
    libraries=("torch", "onnx", "openvino", "nncf"),
    extra="train",
    notes=NOTES,
    own={
        "NNCF fast bias correction": partial(_by_nncf, fast=True),
        "NNCF accurate bias correction": partial(_by_nncf, fast=False),
    },
)
