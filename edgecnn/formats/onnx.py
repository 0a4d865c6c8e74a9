"""ONNX: exported by torch.export, slimmed, in one file; uint8 pixels in and float32 logits out at every precision."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn import __version__
from edgecnn.artifact import Precision
from edgecnn.errors import UserError, first_line
from edgecnn.formats import Converted, Format, Source

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto
    from torch import Tensor
    from torch.export import ExportedProgram
    from torch.nn import Module

OPSET = 20
NOTES = {"exporter": "torch.onnx (dynamo), onnxslim", "opset": OPSET}

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_SCOPES = "pkg.torch.onnx.name_scopes"
_LARGEST_HALF = 65504.0


def fp32_file(source: Source) -> Path:
    """The fp32 ONNX file, exported once per export and shared by the formats that start from it.

    Its layers are named after the torch modules that they were; classes and preprocessing are in its metadata.
    """
    path = source.work / "fp32.onnx"
    if not path.exists():
        _export(source, path)
    return path


def fp16_file(source: Source) -> Path:
    """The same with weights and arithmetic in fp16, but for the normalisation of the pixels."""
    path = source.work / "fp16.onnx"
    if not path.exists():
        _halve(fp32_file(source), path)
    return path


def _convert(source: Source, precision: Precision, out: Path) -> Converted:
    if precision == "fp32":
        shutil.copyfile(fp32_file(source), out / "model.onnx")
        return Converted(files=("model.onnx",), notes=NOTES)
    shutil.copyfile(fp16_file(source), out / "model.onnx")
    return Converted(files=("model.onnx",), notes={**NOTES, "fp16": "onnxruntime.transformers.float16"})


def _export(source: Source, path: Path) -> None:
    import onnx
    import onnxslim
    import torch

    example = torch.zeros((2, source.height, source.width, 3), dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            _captured(source.module, example),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            external_data=False,
            verbose=False,
        )
        if program is None:
            raise UserError("ONNX: torch.onnx.export returned nothing for this network")
        scopes = _scopes(program.model_proto)
        model = onnxslim.slim(program.model_proto)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset != OPSET:
        raise UserError(
            f"ONNX: opset {opset} was written where {OPSET} was asked for: this exporter cannot be relied on"
        )
    _name_layers(model, scopes)
    _name_batch(model)
    model.producer_name, model.producer_version = "edgecnn", __version__
    onnx.helper.set_model_props(model, dict(source.described))
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _captured(module: Module, example: Tensor) -> ExportedProgram:
    """The network as torch.export sees it, with pooling to one pixel written as the mean that it is.

    For channels-last tensors, which permuted pixels are, PyTorch would decompose that pooling into a dozen operations
    on strides and shapes, which an engine then runs one by one.
    """
    import torch

    try:
        program = torch.export.export(
            module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
        )
    except Exception as error:  # whatever the capture of somebody's network raises
        raise UserError(f"ONNX: torch.export cannot capture this network: {first_line(error)}") from None
    for node in program.graph.nodes:
        if str(node.target) == "aten.adaptive_avg_pool2d.default" and list(node.args[1]) == [1, 1]:
            node.target, node.args = torch.ops.aten.mean.dim, (node.args[0], [-1, -2], True)
    return program


def _scopes(model: ModelProto) -> dict[str, str]:
    """Node to the path of the module that it came from. onnxslim drops the metadata that tells it."""
    found = {}
    for node in model.graph.node:
        for entry in node.metadata_props:
            if entry.key == _SCOPES:
                path = entry.value.strip("[]").replace("'", "").split(", ")
                found[node.name] = path[-2] if len(path) > 1 else ""
    return found


def _name_layers(model: ModelProto, scopes: dict[str, str]) -> None:
    """Call convolutions and matrix products what the network calls them: engines repeat these names.

    A weight's name is better than the scope: a convolution with BatchNorm folded in has the BatchNorm's.
    """
    taken = {node.name for node in model.graph.node}
    for node in model.graph.node:
        if node.op_type in _LAYERS:
            weight = node.input[1]
            name = weight.removesuffix(".weight") if weight.endswith(".weight") else scopes.get(node.name, "")
            name = name.removeprefix("module.")
            count = 1
            while name and (unique := name if count == 1 else f"{name}:{count}") in taken:
                count += 1
            if name:
                node.name = unique
                taken.add(unique)


def _name_batch(model: ModelProto) -> None:
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    symbol = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in values:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == symbol:
                dim.dim_param = "batch"


def _halve(fp32: Path, path: Path) -> None:
    import numpy as np
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = onnx.load(fp32)
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            values = np.abs(onnx.numpy_helper.to_array(weight))
            largest = float(values[np.isfinite(values)].max(initial=0.0))
            if largest > _LARGEST_HALF:
                raise UserError(f"ONNX: fp16 cannot hold {weight.name}: it has {largest:g}, the largest is 65504")
    first_layer = next((place for place, node in enumerate(model.graph.node) if node.op_type in _LAYERS), 0)
    kinds = ("Div", "Sub", "Mul")
    normalisation = [node.name for node in model.graph.node[:first_layer] if node.op_type in kinds]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it rounds weights which are nearly 0
        half = convert_float_to_float16(model, keep_io_types=True, node_block_list=normalisation)
    _straighten_casts(half, normalisation)
    OnnxModel.graph_topological_sort(half.graph)  # what it adds, it appends
    onnx.checker.check_model(half)
    onnx.save(half, path)


def _straighten_casts(model: ModelProto, kept: Sequence[str]) -> None:
    """What goes from one node kept in float32 to the next must not be rounded to fp16 on its way."""
    import onnx

    def target(cast: NodeProto) -> int:
        return int(next(attribute.i for attribute in cast.attribute if attribute.name == "to"))

    casts = {node.output[0]: node for node in model.graph.node if node.op_type == "Cast"}
    floats = {name for node in model.graph.node if node.name in kept for name in node.output}
    same: dict[str, str] = {}
    for name, cast in casts.items():
        before = casts.get(cast.input[0])
        if before and (target(before), target(cast)) == (onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT):
            cast.input[0] = before.input[0]
            if cast.input[0] in floats:
                same[name] = cast.input[0]
    for node in model.graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
    used = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    for cast in casts.values():
        if cast.output[0] not in used:
            model.graph.node.remove(cast)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its progress and its own deprecations on both streams."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


FORMAT = Format(
    precisions=("fp32", "fp16"), libraries=("torch", "onnx", "onnxscript", "onnxslim"), extra="train", convert=_convert
)
