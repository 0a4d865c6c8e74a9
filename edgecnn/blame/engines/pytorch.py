"""PyTorch: any TorchScript .pt file. It gives no inner tensors."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.blame.engines import Engine, Refused, one_row
from edgecnn.blame.pipeline import Shape
from edgecnn.errors import UserError, first_line, last_line


class _Opened:
    def __init__(self, path: Path, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TorchScript is deprecated as a whole and still deployed
                self._module: Any = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{path}: PyTorch cannot open it as TorchScript ({first_line(error)}): "
                "save it with torch.jit.save, not torch.save"
            ) from None

    @property
    def shape(self) -> Shape:
        """TorchScript does not say what it takes."""
        return (None, None, None, None)

    def run(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        import torch

        try:
            with torch.inference_mode():
                output = self._module(torch.from_numpy(np.ascontiguousarray(values)))
        except RuntimeError as error:
            raise Refused(last_line(error)) from None
        if not isinstance(output, torch.Tensor):
            raise Refused("its output is not one tensor")
        return one_row(output.float().numpy())

    def precision(self) -> str | None:
        import torch

        halves = sum(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in self._module.parameters())
        int8 = str(self._module.inlined_graph).count("quantized::")
        words = [f"{halves} fp16 tensors"] * bool(halves) + [f"{int8} int8 operations"] * bool(int8)
        return ", ".join(words) or None


ENGINE = Engine(
    suffixes=(".pt", ".pth", ".torchscript"),
    library="torch",
    extra="train",
    open=_Opened,
)
