"""TensorRT: an engine that is built from the ONNX file on the GPU that will run it.

Untried: written to the documented Python API of TensorRT 10 and 11 on a machine without a GPU.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.artifact import Precision
from edgecnn.errors import UserError, first_line
from edgecnn.formats import Converted, Format, Source
from edgecnn.formats.onnx import fp16_file, fp32_file
from edgecnn.modelfiles.onnx_shapes import layers_of, read_nodes

if TYPE_CHECKING:
    from onnx import ModelProto

FILES = ("model.engine", "engine.json")
_WORKSPACE_BYTES = 1 << 30


def _convert(source: Source, precision: Precision, out: Path) -> Converted:
    gpu = _gpu()
    path = fp16_file(source) if precision == "fp16" else fp32_file(source)
    model = _one_image(path)
    import tensorrt

    (out / FILES[0]).write_bytes(_build(model.SerializeToString()))
    about = {"gpu": gpu, "tensorrt": tensorrt.__version__, "layers": _layers(model, path)}
    (out / FILES[1]).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    notes = {"exporter": f"TensorRT {tensorrt.__version__} from ONNX, strongly typed, no TF32", "built_on": gpu["name"]}
    return Converted(files=FILES, notes=notes)


def _gpu() -> dict[str, str]:
    """The GPU that the engine is built on and for. UserError where there is none."""
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            "tensorrt: no NVIDIA GPU that torch can use here: an engine is built on the machine that will run it"
        )
    major, minor = torch.cuda.get_device_capability(0)
    return {"name": torch.cuda.get_device_name(0), "capability": f"{major}.{minor}"}


def _one_image(path: Path) -> ModelProto:
    """The ONNX model for one image at a time, with its pixels converted before anything else is done to them.

    TensorRT takes uint8 as an input that is converted at once, and refuses even to transpose it
    (https://github.com/NVIDIA/TensorRT/issues/3985).
    """
    import onnx

    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    pixels = model.graph.input[0].name
    nodes = list(model.graph.node)
    transpose = next((node for node in nodes if node.op_type == "Transpose" and node.input[0] == pixels), None)
    cast = next((n for n in nodes if transpose and n.op_type == "Cast" and n.input[0] == transpose.output[0]), None)
    if transpose is None or cast is None:
        raise UserError("tensorrt: this network's ONNX file does not begin with the conversion of its pixels")
    between, after = transpose.output[0], cast.output[0]
    cast.input[0], cast.output[0] = pixels, between
    transpose.input[0], transpose.output[0] = between, after
    first, second = nodes.index(transpose), nodes.index(cast)
    nodes[first], nodes[second] = nodes[second], nodes[first]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def _layers(model: ModelProto, path: Path) -> list[list[Any]]:
    """[name, MACs] of each layer: an engine tells what it ran but not how much of it."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    known = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    } | {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    nodes = read_nodes(path)  # swapping the first two changed no layer
    shapes = {
        index: ([known.get(name, ()) for name in node.inputs], [known.get(name, ()) for name in node.outputs])
        for index, node in enumerate(nodes)
    }
    return [[layer.name, layer.macs] for layer in layers_of(nodes, shapes)]


def _build(model: bytes) -> bytes:
    import tensorrt as trt

    said: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                said.append(message)

    log = Log()  # must outlive what is made with it
    try:
        builder = trt.Builder(log)
        # Precisions are those of the file: since 11 there is no other way.
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)
        if not parser.parse(model):
            said.extend(parser.get_error(index).desc() for index in range(parser.num_errors))
            raise UserError(f"tensorrt: cannot read this network's ONNX file: {' '.join(said[-1:])}")
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
        config.clear_flag(trt.BuilderFlag.TF32)  # on by default: fp32 with 10 bits of mantissa
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that the engine tells its precisions
        engine = builder.build_serialized_network(network, config)
    except (TypeError, RuntimeError) as error:  # the Builder of a machine whose driver does not fit
        raise UserError(f"tensorrt: {' '.join(said[-1:]) or first_line(error)}") from None
    if engine is None:
        raise UserError(f"tensorrt: no engine could be built: {' '.join(said[-1:])}")
    return bytes(engine)


FORMAT = Format(
    precisions=("fp32", "fp16"),
    libraries=("tensorrt", "torch", "onnx", "onnxscript", "onnxslim"),
    extra="export-tensorrt",
    convert=_convert,
)
