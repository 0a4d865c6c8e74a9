"""TorchScript: traced and frozen."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from edgecnn.artifact import Precision
from edgecnn.formats import Converted, Format, Source

if TYPE_CHECKING:
    import torch


def _convert(source: Source, precision: Precision, out: Path) -> Converted:
    import torch

    example = torch.zeros((2, source.height, source.width, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        # torch.jit is deprecated as a whole and stays a format that people deploy.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(source.module, example, check_trace=False)  # type: ignore[no-untyped-call]
        frozen = torch.jit.freeze(traced)
        save(frozen, out / "model.pt")
    return Converted(files=("model.pt",), notes={"exporter": "torch.jit.trace, freeze"})


def save(module: torch.jit.ScriptModule, path: Path, beside: Mapping[str, str] = MappingProxyType({})) -> None:
    """Write a traced module, and texts `beside` it in the same file.

    By way of memory: on a full disk torch's own writer ends the whole process (SIGABRT).
    """
    import torch

    stream = io.BytesIO()
    torch.jit.save(module, stream, _extra_files=dict(beside))
    path.write_bytes(stream.getvalue())


FORMAT = Format(precisions=("fp32",), libraries=("torch",), extra="train", convert=_convert)
