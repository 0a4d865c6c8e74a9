"""ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.artifact import Precision
from edgecnn.errors import UserError
from edgecnn.imaging import Images
from edgecnn.runtimes import Logits, Runtime

_PROVIDERS = ["CPUExecutionProvider"]
_INT8_KERNELS = {"QLinearConv", "QLinearMatMul", "QGemm", "MatMulInteger", "ConvInteger"}
_FLOAT_KERNELS = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "NhwcFusedConv"}


class _Session:
    def __init__(self, path: Path, precision: Precision, threads: int) -> None:
        import onnxruntime

        self._path, self._threads = path, threads
        try:
            self._session = onnxruntime.InferenceSession(str(path), _options(threads), providers=_PROVIDERS)
        except Exception as error:  # the engine's own exception types are not public
            raise UserError(f"{path}: ONNX Runtime cannot open it: {str(error).splitlines()[0]}") from None
        self._input = self._session.get_inputs()[0].name

    def run(self, images: Images) -> Logits:
        logits: Logits = self._session.run(None, {self._input: images})[0]
        return logits

    def executed(self) -> Mapping[str, Any]:
        """Kernels that really ran, from ONNX Runtime's own profile of one image."""
        import onnxruntime

        shape = self._session.get_inputs()[0].shape
        image = np.zeros((1, *shape[1:]), np.uint8)
        with tempfile.TemporaryDirectory() as folder:
            options = _options(self._threads)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = onnxruntime.InferenceSession(str(self._path), options, providers=_PROVIDERS)
            session.run(None, {self._input: image})
            events = json.loads(Path(session.end_profiling()).read_bytes())
        kernels = [event["args"] for event in events if event.get("cat") == "Node" and "op_name" in event["args"]]
        ran = Counter(kernel["op_name"] for kernel in kernels)
        int8 = sum(count for name, count in ran.items() if name in _INT8_KERNELS)
        floating = sum(count for name, count in ran.items() if name in _FLOAT_KERNELS)
        return {
            "providers": sorted({kernel["provider"] for kernel in kernels}),
            "int8_layers": int8,
            "float_layers": floating,
            "quantize_ops": ran["QuantizeLinear"] + ran["DequantizeLinear"],
            "kernels": dict(sorted(ran.items())),
        }

    def close(self) -> None:
        del self._session


def _options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads steal the core from decoding the next image.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


RUNTIME = Runtime(runs=("onnx",), module="onnxruntime", library="onnxruntime", extra=None, open=_Session)
