"""ONNX Runtime: any .onnx file; inner tensors of fp32 graphs and of QDQ graphs as their int8 kernels give them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.blame.engines import Engine, Refused, Tensor, Tensors, as_taken, one_row, repeated
from edgecnn.blame.pipeline import Shape
from edgecnn.errors import MissingExtra, UserError, first_line
from edgecnn.imaging import Images

if TYPE_CHECKING:
    from onnx import ModelProto

_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8", "tensor(int8)": "int8"}
_CLAMPS = ("Relu", "Clip")


class _Opened:
    def __init__(self, path: Path, model: bytes | str, threads: int, optimise: bool = True) -> None:
        self._path = path
        self._session = _session(path, model, threads, optimise)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _TYPES:
            found = ", ".join(f"{one.name} {one.type}" for one in inputs)
            raise UserError(f"{path}: its inputs are {found}: one of float32, float16, uint8 or int8 can be run")
        self._name, self._dtype = inputs[0].name, _TYPES[inputs[0].type]
        self._shape = tuple(size if isinstance(size, int) and size > 0 else None for size in inputs[0].shape)

    @property
    def shape(self) -> Shape:
        return self._shape

    def run(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        values = repeated(as_taken(values, self._dtype), self._shape)
        try:
            return one_row(self._session.run(None, {self._name: values})[0])
        except Refused:
            raise
        except Exception as error:  # the engine's own exception types are not public
            raise Refused(first_line(error)) from None

    def precision(self) -> str | None:
        try:
            import onnx
        except ImportError:
            return None
        graph = onnx.load(self._path, load_external_data=False).graph
        halves = sum(
            one.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16) for one in graph.initializer
        )
        kinds = Counter(node.op_type for node in graph.node)
        int8 = sum(count for kind, count in kinds.items() if kind.startswith("QLinear") or kind.endswith("Integer"))
        int8 += kinds["QuantizeLinear"]
        words = [f"{halves} fp16 tensors"] * bool(halves) + [f"{int8} int8 operations"] * bool(int8)
        return ", ".join(words) or None


def _session(path: Path, model: bytes | str, threads: int, optimise: bool = True) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the engine's own exception types are not public
        raise UserError(f"{path}: ONNX Runtime cannot open it: {first_line(error)}") from None


def _open(path: Path, threads: int) -> _Opened:
    return _Opened(path, str(path), threads)


def _plain(path: Path, threads: int) -> _Opened:
    return _Opened(path, str(path), threads, optimise=False)


def _float_pixels(path: Path, threads: int) -> _Opened:
    """Our graphs begin by casting uint8 to float32: a cast that a float32 input passes unchanged."""
    onnx = _onnx()
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    del model.graph.value_info[:]
    return _Opened(path, model.SerializeToString(), threads)


def _tensors(path: Path, images: Images) -> Tensors:
    onnx = _onnx()
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    kinds, wanted = _wanted(model)
    outputs = {output.name for output in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in wanted.values()
        if name not in outputs
    )
    session = _session(path, model.SerializeToString(), 1)
    fetched = list(dict.fromkeys(wanted.values()))
    entrance = session.get_inputs()[0].name
    runs = [session.run(fetched, {entrance: image[None]}) for image in images]
    values = {name: np.concatenate([run[index] for run in runs]) for index, name in enumerate(fetched)}
    clamps = _clamps(model)
    return {name: Tensor(kinds[name], values[source], clamps.get(name)) for name, source in wanted.items()}


def _wanted(model: ModelProto) -> tuple[dict[str, str], dict[str, str]]:
    """(name to its operation, name to the tensor to fetch for it).

    Of a QDQ graph the dequantised tensors are fetched under the name of what was quantised: fetching that itself would
    keep its layer from running in int8.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    constants = {one.name for one in model.graph.initializer}
    entrance = model.graph.input[0].name
    kinds, wanted = {}, {}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in makers:
            continue
        origin = makers[node.input[0]].input[0]
        if origin not in constants and origin != entrance:
            kinds[origin] = makers[origin].op_type if origin in makers else "input"
            wanted[origin] = node.output[0]
    for output in model.graph.output if wanted else ():
        if output.name not in wanted:
            kinds[output.name], wanted[output.name] = makers[output.name].op_type, output.name
    if wanted:
        return kinds, wanted
    floats = _floats(model)
    for node in model.graph.node:
        for name in node.output:
            if name in floats:
                kinds[name] = node.op_type
                wanted[name] = name
    return kinds, wanted


def _floats(model: ModelProto) -> set[str]:
    import onnx

    return {
        value.name
        for value in (*model.graph.value_info, *model.graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and value.type.tensor_type.shape.dim
    }


def _clamps(model: ModelProto) -> dict[str, str]:
    """Tensor to the output of the clamp that alone reads it."""
    readers = Counter(name for node in model.graph.node for name in node.input)
    clamping = [node for node in model.graph.node if node.op_type in _CLAMPS]
    return {node.input[0]: node.output[0] for node in clamping if readers[node.input[0]] == 1}


def _onnx() -> ModuleType:
    try:
        import onnx
    except ImportError:
        raise MissingExtra("onnx", "train") from None
    return onnx


ENGINE = Engine(
    suffixes=(".onnx",),
    library="onnxruntime",
    extra="all",
    open=_open,
    plain=_plain,
    float_pixels=_float_pixels,
    tensors=_tensors,
)
