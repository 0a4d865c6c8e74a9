"""ncnn: every blob of our own files. It opens no foreign ones: ncnn's input has no type, layout or batch to go by."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecnn.blame.engines import Engine, Opened, Tensor, Tensors
from edgecnn.errors import UserError
from edgecnn.imaging import Images


def _open(path: Path, threads: int) -> Opened:
    raise UserError(f"{path}: ncnn files cannot be judged as foreign ones: give the .onnx or .pt that it was made from")


def _tensors(path: Path, images: Images) -> Tensors:
    from edgecnn.modelfiles.ncnn import int8_scale_term, load
    from edgecnn.runtimes.ncnn import open_net, tensors

    quantised = any(map(int8_scale_term, load(path).layers))
    net, layers = open_net(path, "int8" if quantised else "fp32", 1)
    kinds = {blob: layer.kind for layer in layers for blob in layer.tops if layer.kind not in ("Input", "Split")}
    found = [tensors(net, layers, image, list(kinds)) for image in images]
    return {name: Tensor(kind, np.stack([one[name] for one in found])) for name, kind in kinds.items()}


ENGINE = Engine(suffixes=(), library="ncnn", extra="ncnn", open=_open, tensors=_tensors)
