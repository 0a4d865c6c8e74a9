"""OpenVINO on the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn import telemetry
from edgecnn.artifact import Precision
from edgecnn.errors import UserError
from edgecnn.imaging import Images
from edgecnn.runtimes import Logits, Runtime

_LAYERS = {"Convolution", "GroupConvolution", "FullyConnected", "MatMul", "Gemm"}


class _Session:
    def __init__(self, path: Path, precision: Precision, threads: int) -> None:
        telemetry.forbid()
        import openvino

        core = openvino.Core()
        try:
            model = core.read_model(path)
            # One image at a time: a dynamic batch would cost shape inference at every call.
            model.reshape([1, *(dimension.get_length() for dimension in model.input(0).partial_shape[1:])])
            compiled = core.compile_model(
                model,
                "CPU",
                {
                    "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_NUM_THREADS": threads,
                    "NUM_STREAMS": 1,
                    # The plugin's own default is bf16 or fp16 arithmetic where the processor has it, which nobody
                    # asked for. An fp16 file has fp16 weights.
                    "INFERENCE_PRECISION_HINT": "f32",
                },
            )
        except RuntimeError as error:
            raise UserError(f"{path}: OpenVINO cannot open it: {str(error).splitlines()[0]}") from None
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        # One input for all calls: binding a new array costs more than copying the pixels.
        self._input = np.zeros(tuple(compiled.input(0).shape), np.uint8)
        self._request.set_input_tensor(openvino.Tensor(self._input, shared_memory=True))

    def run(self, images: Images) -> Logits:
        logits = np.empty((len(images), self._compiled.output(0).shape[1]), np.float32)
        for image, row in zip(images, logits, strict=True):
            np.copyto(self._input[0], image)
            self._request.infer()
            row[:] = self._request.get_output_tensor(0).data[0]
        return logits

    def executed(self) -> Mapping[str, Any]:
        """Precision of each layer in the compiled graph, from OpenVINO's runtime model."""
        layers: Counter[str] = Counter()
        operations: Counter[str] = Counter()
        for operation in self._compiled.get_runtime_model().get_ordered_ops():
            info = operation.get_rt_info()
            kind = str(info["layerType"].value if hasattr(info["layerType"], "value") else info["layerType"])
            precision = info["runtimePrecision"]
            precision = str(precision.value if hasattr(precision, "value") else precision)
            operations[f"{kind}:{precision}"] += 1
            if kind in _LAYERS:
                layers[precision] += 1
        int8 = layers["i8"] + layers["u8"]
        return {
            "providers": ["CPU"],
            "int8_layers": int8,
            "float_layers": sum(layers.values()) - int8,
            "layers": dict(sorted(layers.items())),
            "precision_hint": str(self._compiled.get_property("INFERENCE_PRECISION_HINT")),
            "operations": dict(sorted(operations.items())),
        }

    def close(self) -> None:
        del self._request, self._compiled


RUNTIME = Runtime(runs=("openvino",), module="openvino", library="openvino", extra="openvino", open=_Session)
