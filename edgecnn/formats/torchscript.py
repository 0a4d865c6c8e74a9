"""TorchScript: traced and frozen."""

from __future__ import annotations

import warnings
from pathlib import Path

from edgecnn.artifact import Precision
from edgecnn.formats import Converted, Format, Source


def _convert(source: Source, precision: Precision, out: Path) -> Converted:
    import torch

    example = torch.zeros((2, source.height, source.width, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        # torch.jit is deprecated as a whole and stays a format that people deploy.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(source.module, example, check_trace=False)  # type: ignore[no-untyped-call]
        frozen = torch.jit.freeze(traced)
        frozen.save(str(out / "model.pt"))
    return Converted(files=("model.pt",), notes={"exporter": "torch.jit.trace, freeze"})


FORMAT = Format(precisions=("fp32",), libraries=("torch",), extra="train", convert=_convert)
