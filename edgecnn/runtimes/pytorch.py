"""PyTorch running TorchScript on the CPU."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.artifact import Precision
from edgecnn.errors import UserError
from edgecnn.imaging import Images
from edgecnn.runtimes import Logits, Runtime


class _Session:
    def __init__(self, path: Path, precision: Precision, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TorchScript is deprecated as a whole and still deployed
                self._module: Any = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise UserError(f"{path}: PyTorch cannot open it: {str(error).splitlines()[0]}") from None

    def run(self, images: Images) -> Logits:
        import torch

        with torch.inference_mode():
            logits: Logits = self._module(torch.from_numpy(np.require(images, requirements=("C", "W")))).numpy()
        return logits

    def executed(self) -> Mapping[str, Any]:
        """Layers of the frozen graph; TorchScript fp32 runs what it says."""
        nodes: Counter[str] = Counter(node.kind() for node in self._module.inlined_graph.nodes())
        layers = sum(count for kind, count in nodes.items() if "conv" in kind or "linear" in kind or "addmm" in kind)
        return {"providers": ["CPU"], "int8_layers": 0, "float_layers": layers}

    def close(self) -> None:
        del self._module


RUNTIME = Runtime(runs=("torchscript",), module="torch", library="torch", extra="train", open=_Session)
