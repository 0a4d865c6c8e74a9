"""ncnn: traced by torch.jit, converted by pnnx; the graph takes float pixels of 0 to 255, channels first.

ncnn computes on floats in (channels, height, width) and has no uint8 input: the session hands over the pixels as they
are, as floats. Mean and standard deviation stay inside the graph.
"""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.artifact import Precision
from edgecnn.ending import bound
from edgecnn.errors import UserError, first_line
from edgecnn.formats import Converted, Format, Source
from edgecnn.formats.torchscript import save as save_script
from edgecnn.modelfiles.ncnn import FP16_TAG, FP32_TAG, Block, Layer, Network, load, save

MAIN = "model.param"
FILES = (MAIN, "model.bin")
NOTES = {"exporter": "torch.jit.trace, pnnx"}


def fp32_file(source: Source) -> Path:
    """The fp32 .param file (its .bin beside it), converted once per network and shared by fp16 and int8."""
    path = source.work / "ncnn-fp32.param"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=source.work) as folder:
            network = load(_run_pnnx(source, Path(folder)))
        save(_checked(network, source), path)
    return path


def half(network: Network) -> Network:
    """The same network with its weights in fp16; biases and scales stay in fp32, as the format has them."""
    return Network(network.layers, tuple(tuple(map(_half_block, blocks)) for blocks in network.weights))


def _convert(source: Source, precision: Precision, out: Path) -> Converted:
    network = load(fp32_file(source))
    save(half(network) if precision == "fp16" else network, out / MAIN)
    return Converted(files=FILES, notes=NOTES)


def _run_pnnx(source: Source, folder: Path) -> Path:
    """pnnx is a program that writes eight files beside its input; only ncnn's two are of use."""
    import pnnx

    _trace(source, folder / "net.pt")
    shape = f"inputshape=[1,3,{source.height},{source.width}]f32"
    done = subprocess.run(
        bound([pnnx.EXEC_PATH, "net.pt", shape, "fp16=0"]),
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    param = folder / "net.ncnn.param"
    if done.returncode != 0 or not param.is_file():
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        reason = f": {said[-1]}" if said else ""
        raise UserError(f"ncnn: pnnx cannot convert this network (exit code {done.returncode}){reason}")
    return param


def _trace(source: Source, path: Path) -> None:
    """TorchScript of the network behind an input of floats, channels first.

    The network's own permute and the one before it cancel, which pnnx sees: none is left in the file.
    """
    import torch

    module = source.module
    # Of a graph node by node: its own forward checks that it is given uint8.
    answer = torch.fx.Interpreter(module).run if isinstance(module, torch.fx.GraphModule) else module

    class Pixels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module  # so that its weights are found

        def forward(self, pixels: torch.Tensor) -> Any:
            return answer(pixels.permute(0, 2, 3, 1))

    example = torch.zeros((1, 3, source.height, source.width))
    with warnings.catch_warnings(), torch.no_grad():
        # torch.jit is deprecated as a whole; pnnx reads nothing else.
        warnings.simplefilter("ignore")
        try:
            traced = torch.jit.trace(Pixels(), example, check_trace=False)  # type: ignore[no-untyped-call]
        except Exception as error:  # whatever somebody's network raises
            raise UserError(f"ncnn: torch.jit.trace cannot follow this network: {first_line(error)}") from None
        save_script(traced, path)


def _checked(network: Network, source: Source) -> Network:
    """With the size of its input written down. UserError where ncnn could not run it."""
    import ncnn

    unknown = sorted({layer.kind for layer in network.layers if ncnn.layer_to_index(layer.kind) < 0})
    if unknown:
        raise UserError(f"ncnn has no layer for {', '.join(unknown)}, which this network needs")
    inputs = [layer for layer in network.layers if layer.kind == "Input"]
    ends = {blob for layer in network.layers for blob in layer.tops}
    ends -= {blob for layer in network.layers for blob in layer.bottoms}
    if len(inputs) != 1 or len(ends) != 1:
        raise UserError(f"ncnn: {len(inputs)} inputs and {len(ends)} outputs were converted where one of each is meant")
    first = [layer for layer in network.layers if inputs[0].tops[0] in layer.bottoms]
    if any(layer.kind in ("Permute", "Reshape") for layer in first):
        raise UserError("ncnn: the pixels would be permuted inside the graph: this version of pnnx cannot be relied on")
    size: Mapping[int, int] = {0: source.width, 1: source.height, 2: 3}
    layers: tuple[Layer, ...] = tuple(
        replace(layer, params=size) if layer.kind == "Input" else layer for layer in network.layers
    )
    return Network(layers, network.weights)


def _half_block(block: Block) -> Block:
    if block.tag != FP32_TAG:
        return block
    largest = float(np.abs(block.values).max())
    if largest > float(np.finfo(np.float16).max):
        raise UserError(f"ncnn: fp16: a weight of {largest:.3g} does not fit (at most 65504): use fp32")
    return Block(block.values.astype(np.float16), FP16_TAG)


FORMAT = Format(precisions=("fp32", "fp16"), libraries=("torch", "pnnx", "ncnn"), extra="export-ncnn", convert=_convert)
